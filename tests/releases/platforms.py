"""Platforms in which releases are tried: everything that one has, in a folder of its own.

    deliveries     six months of three hundred households of the Complete Journey, ready to be delivered
    landing        what has been delivered
    published.git  what is published
    store          DVC's files
    home           the runs, their cache and their locks

Tests work on copies.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.pipeline.runs import deliver_households, small_project
from tests.pipeline.workspaces import ROOT, Workspace

MONTHS = ["2017-01", "2017-02", "2017-03", "2017-04", "2017-05", "2017-06"]
FIRST, LATER = MONTHS[:3], MONTHS[3:]  # the first release learns from two and takes labels of one
DONE, REFUSED, FAILED, WAITS = 0, 1, 70, 75

# The steps of a run in the order of dags/lurm_refresh.py and dags/lurm_retrain.py.
REFRESH = (
    *("open", "update_catalog", "validate_logs", "assign_items", "build_boi", "encode_users"),
    *(
        "apply_heads",
        "index_users",
        "watch_drift",
        "compare_months",
        "report",
        "cards",
        "explore",
        "publish",
    ),
)
RETRAIN = (
    *("open", "update_catalog", "validate_logs", "embed_items", "cluster_interests"),
    *("assign_items", "build_boi", "pretrain_smen", "map_interests", "encode_users", "train_heads"),
    *("apply_heads", "index_users", "watch_drift", "compare_months", "report", "cards", "explore"),
    *("gate", "publish"),
)
SHORT = ("open", "publish")  # publishing brings up to date what no step before it did


@dataclass(frozen=True)
class Ended:
    """A step that ended: exit status, or minus the signal that ended it, and what it wrote."""

    status: int
    result: Any
    log: str

    @property
    def reason(self) -> str:
        """What the last line of the log says."""
        assert "Traceback" not in self.log, self.log
        return self.log.rpartition("\nerror: ")[2].strip()


@dataclass(frozen=True)
class Platform:
    """One platform; ``extra`` goes into the environment of all its commands."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Path:
        places = {"repository": "published.git"}
        if name in ("deliveries", "landing", "store", "home", "repository"):
            return self.folder / places.get(name, name)
        raise AttributeError(name)

    def environment(self) -> dict[str, str]:
        """Where a step finds the platform and this project's code, and no settings of a user."""
        clean = Workspace(self.folder / "any").environment()
        places = {
            "PYTHONPATH": str(ROOT),
            "LURM_HOME": str(self.home),
            "LURM_REPOSITORY": str(self.repository),
            "LURM_LANDING": str(self.landing),
        }
        return clean | places | self.extra

    # ---- running -------------------------------------------------------------------------------

    @contextmanager
    def started(self, *words: str, group: str = "release") -> Iterator[subprocess.Popen[str]]:
        """``lurm release ...`` in a process group of its own, which is gone when the block ends."""
        with subprocess.Popen(
            ["lurm", *filter(None, [group]), *words],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                kill_tree(process)

    def release(self, *words: str) -> Ended:
        """Run ``lurm release ...`` to its end, whatever that is."""
        return self._ended(*words)

    def forget(self, *users: int | str) -> Ended:
        """Run ``lurm forget ...`` to its end, whatever that is."""
        return self._ended("forget", *map(str, users), group="")

    def _ended(self, *words: str, group: str = "release") -> Ended:
        with self.started(*words, group=group) as process:
            out, log = process.communicate()
        lines = out.strip().splitlines()
        return Ended(process.returncode, json.loads(lines[-1]) if lines else None, log)

    def step(self, run: str, name: str, *opening: str) -> Ended:
        """One step of a run; ``opening``: how its first step is called."""
        if name == "open":
            return self.release(opening[0], "--run", run, *opening[1:])
        words = [name] if name in ("gate", "publish") else ["run", name]
        return self.release(words[0], "--run", run, *words[1:])

    def run_month(
        self, month: str, *, run: str | None = None, steps: Sequence[str] = REFRESH
    ) -> dict[str, Ended]:
        """Run the steps of a refresh until one does not end well; returns what became of each."""
        return self._run(run or f"refresh-{month}", steps, "refresh", "--month", month)

    def run_retraining(
        self, *options: str, run: str = "retrain", steps: Sequence[str] = RETRAIN
    ) -> dict[str, Ended]:
        """Run the steps of a retraining until one does not end well."""
        return self._run(run, steps, "retrain", *options)

    def _run(self, run: str, steps: Sequence[str], *opening: str) -> dict[str, Ended]:
        ended = {}
        for name in steps:
            ended[name] = self.step(run, name, *opening)
            if ended[name].status != DONE:
                break
        return ended

    # ---- delivering ----------------------------------------------------------------------------

    def deliver(self, *months: str) -> None:
        """Put the months into the landing place, behaviors last."""
        for month in months:
            for kind in ("items", "behaviors"):
                source = self.deliveries / kind / f"{month}.parquet"
                if source.exists():
                    put(source, self.landing / kind / source.name)

    # ---- what is published ---------------------------------------------------------------------

    def git(self, *words: str) -> str:
        """What a git command answers in the published repository."""
        return subprocess.run(
            ["git", *words], cwd=self.repository, env=self.environment(), check=True, text=True,
            capture_output=True,
        ).stdout.strip()  # fmt: skip

    def names(self) -> dict[str, str]:
        """The commit of every branch and tag."""
        refs = self.git("for-each-ref", "--format=%(refname) %(objectname)", "refs").splitlines()
        return {
            name.removeprefix("refs/").removeprefix("heads/").removeprefix("tags/"): commit
            for name, commit in (line.split() for line in refs)
        }

    def at(self, revision: str, path: str) -> Any:
        """The YAML or JSON of a published file."""
        return yaml.load(self.git("show", f"{revision}:{path}"), yaml.CSafeLoader)

    def hashes(self, revision: str = "main") -> dict[str, str]:
        """Hash of every published output, by its path."""
        stages = self.at(revision, "dvc.lock")["stages"].values()
        return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}

    def change(self, message: str, *, at: Path, **texts: dict[str, str]) -> None:
        """Commit to the published branch, as a person would: in ``file``, one text for another."""
        shutil.rmtree(at, ignore_errors=True)
        person = Workspace(at)
        at.mkdir(parents=True)
        person.do("git", "clone", "--quiet", str(self.repository), ".")
        for name, changes in texts.items():
            path = at / {"params": "params.yaml", "config": ".dvc/config"}.get(name, name)
            text = path.read_text("utf-8")
            for old, new in changes.items():
                assert old in text, f"{old} is not in {path}"
                text = text.replace(old, new)
            path.write_text(text, encoding="utf-8")
        person.commit(message)
        person.do("git", "push", "--quiet", "origin", "main")

    def steps(self, run: str) -> dict[str, Any]:
        """What every step of the run has written down."""
        records = (self.home / "runs" / run / "steps").glob("*.json")
        return {path.stem: json.loads(path.read_text("utf-8")) for path in records}

    def repro_plainly(self, folder: Path) -> None:
        """Land all months in a copy of the project this platform was founded on, and ``dvc repro``."""
        shutil.copytree(self.folder / "project", folder / "project")
        project = Workspace(folder / "project/workspace")
        project.use_cache(folder / "project/cache")
        project.land(self.deliveries, MONTHS)
        project.repro()

    def copy(self, folder: Path) -> "Platform":
        """This platform once more, without its runs; its files go to a store of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        new = Platform(folder)
        for part in ("store", "home/cache"):  # files in them never change
            shutil.copytree(self.folder / part, folder / part, copy_function=os.link)
        for part in ("published.git", "landing"):
            shutil.copytree(self.folder / part, folder / part)
        (folder / "deliveries").symlink_to(self.deliveries)
        new.change(
            "files go elsewhere", at=folder / "person", config={str(self.store): str(new.store)}
        )
        return new


def put(source: Path, target: Path) -> None:
    """Copy a file in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def kill_tree(process: subprocess.Popen[str]) -> None:
    """Kill -9 all processes of the group, if there are any left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def get(platform: Platform, path: str, revision: str, folder: Path) -> bytes:
    """A published file as a consumer gets it, who has the git address and reaches the store only."""
    folder.mkdir(parents=True, exist_ok=True)
    consumer = Workspace(folder)
    consumer.do(
        "dvc", "get", "--quiet", "--force", str(platform.repository), path, "--rev", revision,
        "--out", "got",
    )  # fmt: skip
    return (folder / "got").read_bytes()


def vectors(month: str) -> str:
    """The path of a month's user vectors."""
    return f"data/user_vectors/{month}.parquet"


# ---- founding ------------------------------------------------------------------------------------


def found(folder: Path) -> None:
    """Found a platform, with the first months delivered and nothing published."""
    folder.mkdir(parents=True, exist_ok=True)
    deliver_households(folder, MONTHS[-1])
    platform = Platform(folder)
    project = small_project(folder / "project")
    done = platform.release("found", "--project", str(project.root), "--store", str(platform.store))
    assert done.status == DONE, done.log
    for place in (platform.home / "cache", platform.store):
        place.mkdir(parents=True)
    for name in ("items.parquet", "users.parquet"):
        put(platform.deliveries / name, platform.landing / name)
    platform.deliver(*FIRST)


def bootstrap(platform: Platform) -> None:
    """Publish the first release, step after step."""
    check(platform.run_retraining())


def refresh_in_order(platform: Platform) -> None:
    """Publish what follows: the first month step after step, the others in short."""
    platform.deliver(*LATER)
    check(platform.run_month(LATER[0]))
    for month in LATER[1:]:
        check(platform.run_month(month, steps=SHORT))


def check(ended: dict[str, Ended]) -> None:
    """Return if every step ended well."""
    for name, step in ended.items():
        assert step.status == DONE, f"{name}\n{step.log}"
