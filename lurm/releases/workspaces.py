"""A run's workspace: a clone of the published branch with the run's months landed in it.

    <home>/runs/<run>/workspace    the clone
    <home>/runs/<run>/based-on     the published commit it stands on, once the months are landed
    <home>/runs/<run>/steps        what became of every step, as JSON

A workspace can be brought up to the published branch at any time: it is reset to it, the months are
landed again, and what the run had done comes back from DVC's run cache. So a step can be repeated
after any fault, and runs of several months can go on side by side.
"""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lurm.console import MACHINE
from lurm.releases.locks import locked
from lurm.releases.places import Places
from lurm.storage import read_json, write_text

BRANCH = "main"
FORGOTTEN = (
    "forgotten"  # the branch of tombstones and certificates (lurm.erasure), once there are any
)
TOMBSTONES = "tombstones.json"
RELEASE_MODEL = "models/smen.safetensors"

log = logging.getLogger(__name__)


class CommandError(OSError):
    """A command in a workspace ended with a status other than 0."""

    def __init__(self, words: Sequence[str], status: int, output: str) -> None:
        self.words, self.status, self.output = words, status, output
        super().__init__(f"{' '.join(words)} ended with status {status}: {self.reason()}")

    def reason(self) -> str:
        """What the first line that reports an error says, or else the last line."""
        found = re.search(r"^(?:error|ERROR|fatal): (.*(?:\n  .*)*)", self.output, re.MULTILINE)
        lines = self.output.strip().splitlines() or ["no output"]
        return found[1] if found else lines[-1]

    @property
    def stated(self) -> bool:
        """Whether a stage said itself what is wrong, so that trying again would change nothing."""
        machine = self.status == MACHINE or f"exited with {MACHINE}\n" in self.output
        said = re.search(r"^error: ", self.output, re.MULTILINE)
        return bool(said) and self.words[0] != "git" and not machine

    @property
    def stage(self) -> str | None:
        """The DVC stage that failed, such as ``validate_logs@2017-08``."""
        found = re.search(r"failed to reproduce '([^']+)'", self.output)
        return found[1] if found else None


@dataclass(frozen=True)
class Workspace:
    """One run's clone; ``keeps`` are the descriptors of locks that its commands inherit."""

    places: Places
    run: str
    keeps: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        """What belongs to the run."""
        return self.places.run_folder(self.run)

    @property
    def root(self) -> Path:
        """The clone."""
        return self.folder / "workspace"

    def environment(self) -> dict[str, str]:
        """In which git, DVC and the stages run: the workspace's own code, no questions asked."""
        who = {"NAME": "lurm", "EMAIL": "lurm@localhost"}
        identity = {
            f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()
        }
        return {
            **identity,
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(self.root),
            "PYTHONUNBUFFERED": "1",
            "DVC_NO_ANALYTICS": "1",
            "GX_ANALYTICS_ENABLED": "false",
            "GIT_TERMINAL_PROMPT": "0",
        }

    def do(self, *words: str, at: Path | None = None) -> str:
        """Run a command that must succeed; its output is shown on standard error and returned.

        The first lock, an empty file, is its standard input too: DVC hands that one down to the
        stages, and closes all others.

        Raises:
            CommandError: it did not succeed.
        """
        log.info("$ %s", " ".join(words))
        lines = []
        with subprocess.Popen(
            words,
            cwd=at or self.root,
            env=self.environment(),
            stdin=self.keeps[0] if self.keeps else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=self.keeps,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                sys.stderr.write(line)
                lines.append(line)
        if process.returncode:
            raise CommandError(words, process.returncode, "".join(lines))
        return "".join(lines)

    def ask(self, *words: str) -> str:
        """What a git command answers, without showing it; empty if it has no answer."""
        done = subprocess.run(
            ["git", *words], cwd=self.root, env=self.environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.stdout.strip()

    def params(self) -> dict[str, Any]:
        """The settings as they lie in the workspace."""
        settings: dict[str, Any] = yaml.safe_load((self.root / "params.yaml").read_text("utf-8"))
        return settings

    def stages(self, revision: str | None = None) -> dict[str, Any]:
        """What ``dvc.lock`` records of every stage, here or at a git revision; empty if there is none."""
        if revision is None:
            path = self.root / "dvc.lock"
            text = path.read_text("utf-8") if path.exists() else ""
        else:
            text = self.ask("show", f"{revision}:dvc.lock")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return (yaml.load(text, loader) or {}).get("stages", {})

    def outputs(self, revision: str | None = None) -> dict[str, str]:
        """Hash of every output, by its path."""
        stages = self.stages(revision).values()
        return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}

    def has_done(self, step: str) -> bool:
        """Whether the run's step ended well."""
        record = self.folder / "steps" / f"{step}.json"
        return record.exists() and read_json(record)["status"] == "done"

    def published(self) -> str:
        """The published commit as last fetched."""
        return self.ask("rev-parse", f"origin/{BRANCH}")


@contextmanager
def opened(places: Places, run: str) -> Iterator[Workspace]:
    """The run's workspace, cloned if there is none yet, locked against other steps of the run."""
    folder = places.run_folder(run)
    with (
        locked(places.home / "cache.lock", shared=True) as cache,
        locked(folder / "lock") as own,
    ):
        workspace = Workspace(places, run, (own, cache))
        if not (workspace.root / ".git/lurm-ready").exists():
            _clone(workspace)
        # Left by processes that are gone: who holds the lock above is the only one here.
        for left in (".dvc/tmp/rwlock", ".dvc/tmp/rwlock.lock", ".dvc/tmp/lock", ".git/index.lock"):
            (workspace.root / left).unlink(missing_ok=True)
        yield workspace


def _clone(workspace: Workspace) -> None:
    if workspace.root.exists():  # a clone that was interrupted
        workspace.do("rm", "-rf", str(workspace.root), at=workspace.folder)
    repository, cache = workspace.places.repository, workspace.places.cache
    workspace.do(
        "git", "clone", "--quiet", "--branch", BRANCH, repository, str(workspace.root),
        at=workspace.folder,
    )  # fmt: skip
    cache.mkdir(parents=True, exist_ok=True)
    workspace.do("dvc", "config", "--local", "cache.dir", str(cache))
    workspace.do("dvc", "config", "--local", "cache.type", "reflink,hardlink,copy")
    (workspace.root / ".git/lurm-ready").touch()


def bring_up_to_date(workspace: Workspace, prepare: Callable[[Workspace], None]) -> None:
    """Let the workspace stand on the published branch, with what ``prepare`` lands and sets on top.

    Does nothing if it stands there already.

    Raises:
        CommandError: a month cannot be landed, or the store or the repository cannot be reached.
    """
    workspace.do("git", "fetch", "--quiet", "--tags", "--force", "origin")
    mark = workspace.folder / "based-on"
    if mark.exists() and mark.read_text("utf-8") == workspace.published():
        return
    mark.unlink(missing_ok=True)
    workspace.do("git", "reset", "--quiet", "--hard", f"origin/{BRANCH}")
    workspace.do("git", "clean", "-d", "--force", "--quiet")  # what a killed step left half-written
    if workspace.stages():
        workspace.do("dvc", "pull", "--force")
    prepare(workspace)
    write_text(workspace.published(), mark)


def land(workspace: Workspace, months: Sequence[str], *, users: bool) -> None:
    """Bring the months in as they lie in the landing place; ``users``: the users file too.

    Rows of forgotten users stay outside.

    Raises:
        CommandError: a month cannot be landed.
    """
    options = [] if users else ["--keep-users"]
    if text := tombstones_text(workspace):
        write_text(text, workspace.folder / TOMBSTONES)
        options += ["--tombstones", str(workspace.folder / TOMBSTONES)]
    for month in months:
        workspace.do("lurm", "land", month, "--from", workspace.places.landing, *options)
    workspace.do("dvc", "add", "data/landing")


def tombstones_text(workspace: Workspace) -> str:
    """The published tombstones as last fetched; empty if nobody was forgotten.

    Raises:
        ValueError: the branch that should hold them does not.
    """
    if not workspace.ask("rev-parse", "--verify", "--quiet", f"origin/{FORGOTTEN}"):
        return ""
    text = workspace.ask("show", f"origin/{FORGOTTEN}:{TOMBSTONES}")
    if not text:
        raise ValueError(
            f"{workspace.places.repository}: expected {TOMBSTONES} on branch {FORGOTTEN}, found none; "
            "put the branch back to what `lurm forget` last pushed"
        )
    return text
