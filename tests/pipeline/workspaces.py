"""Workspaces in which whole runs are tried: the project in a folder of its own, under git and DVC."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
# Tests, and what is known of the example's last run.
NOT_COPIED = ("tests/", "data/", "reports/", "dvc.lock")


@dataclass(frozen=True)
class Finished:
    """A command that ended: its exit status, or minus the signal that ended it, and all it wrote."""

    status: int
    output: str

    @property
    def ran(self) -> list[str]:
        """The stages that DVC ran, in order."""
        return re.findall(r"^Running stage '([^']+)'", self.output, re.MULTILINE)

    @property
    def error(self) -> str:
        """What the first message that reports an error says; there is no traceback."""
        assert "Traceback" not in self.output, self.output
        found = re.search(r"^(?:error|ERROR): (.*(?:\n  .*)*)", self.output, re.MULTILINE)
        assert found, self.output
        return found[1]


@dataclass(frozen=True)
class Workspace:
    """A folder with the project in it."""

    root: Path

    def environment(self) -> dict[str, str]:
        """In which commands find this interpreter and this workspace's code, and no settings of a user."""
        beside = self.root.parent
        return os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root),
            "OMP_NUM_THREADS": "1",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(beside / "dvc-site"),
            "DVC_GLOBAL_CONFIG_DIR": str(beside / "dvc-global"),
            "DVC_SYSTEM_CONFIG_DIR": str(beside / "dvc-system"),
            "GX_ANALYTICS_ENABLED": "false",
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{f"GIT_{role}_NAME": "test" for role in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{role}_EMAIL": "test@example.org" for role in ("AUTHOR", "COMMITTER")},
        }

    def run(self, *command: str) -> Finished:
        """Run a command here to its end, whatever that is."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        return Finished(done.returncode, done.stdout)

    def do(self, *command: str) -> Finished:
        """Run a command that must succeed."""
        done = self.run(*command)
        assert done.status == 0, f"{' '.join(command)}: {done.status}\n{done.output}"
        return done

    def repro(self) -> list[str]:
        """Bring everything up to date; returns the stages that ran."""
        return self.do("dvc", "repro").ran

    def settings(self) -> dict[str, Any]:
        """What params.yaml holds."""
        settings: dict[str, Any] = yaml.safe_load((self.root / "params.yaml").read_text("utf-8"))
        return settings

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Replace params.yaml."""
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        (self.root / "params.yaml").write_text(text, encoding="utf-8")

    def set(self, **sections: dict[str, Any]) -> None:
        """Change settings: ``section={"key": value}``; ``months`` and ``tasks`` are replaced whole."""
        settings = self.settings()
        for section, changes in sections.items():
            whole = section in ("months", "tasks")
            settings[section] = changes if whole else settings[section] | changes
        self.write_settings(settings)

    def stages(self) -> dict[str, dict[str, Any]]:
        """What DVC recorded of every stage."""
        lock = yaml.safe_load((self.root / "dvc.lock").read_text("utf-8"))
        stages: dict[str, dict[str, Any]] = lock["stages"]
        return stages

    def hashes(self) -> dict[str, str]:
        """MD5 of every output, by path, as DVC recorded it."""
        return {out["path"]: out["md5"] for s in self.stages().values() for out in s["outs"]}

    def json(self, path: str) -> Any:
        """The value of a JSON file."""
        return json.loads((self.root / path).read_text("utf-8"))

    def forget(self, *names: str) -> None:
        """Make this workspace forget that the stages ever ran, and what they wrote."""
        stages = self.stages()
        for name in names:
            for out in stages.pop(name)["outs"]:
                path = self.root / out["path"]
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        lock = {"schema": "2.0", "stages": stages}
        (self.root / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")

    def use_cache(self, cache: Path) -> None:
        """Let DVC keep results in ``cache``."""
        self.do("dvc", "cache", "dir", "--local", str(cache))

    def commit(self, message: str) -> None:
        """Commit all that git does not ignore."""
        self.do("git", "add", "--all")
        self.do("git", "commit", "--quiet", "--message", message)

    def land(self, deliveries: Path, months: list[str]) -> None:
        """Bring the months in as a customer would, and let DVC track the landing place."""
        for month in months:
            self.do("lurm", "land", month, "--from", str(deliveries))
        self.do("dvc", "add", "--quiet", "data/landing")

    def copy(self, folder: Path) -> "Workspace":
        """This workspace once more, in a folder of its own, with the same cache.

        DVC's locks stay behind: another test may be writing them.
        """

        def locks(path: str, names: list[str]) -> list[str]:
            return [name for name in names if (Path(path).name, name) == (".dvc", "tmp")]

        shutil.copytree(self.root, folder / "workspace", symlinks=True, ignore=locks)
        return Workspace(folder / "workspace")


def new_workspace(folder: Path) -> Workspace:
    """The files of this project, committed, with an empty cache beside them."""
    workspace = Workspace(folder / "workspace")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    for name in listed.strip("\0").split("\0"):
        if not name.startswith(NOT_COPIED):
            (workspace.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, workspace.root / name)
    workspace.do("git", "init", "--quiet")
    workspace.use_cache(folder / "cache")
    workspace.commit("the project")
    return workspace
