"""A real Airflow in a folder of its own, with a small project, and ways to ask and to disturb it."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lurm.local_airflow import Client
from tests.pipeline.workspaces import Finished, Workspace

PATIENCE = 1800  # seconds for a run to end on a busy machine


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder for an Airflow, which PostgreSQL's own user can get to.

    It is none of pytest's: every pytest that starts shuts the folder that holds them to other users.
    """
    with tempfile.TemporaryDirectory(prefix="lurm-airflow-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@dataclass(frozen=True)
class Airflow:
    """One that runs, or can be started, in ``folder``."""

    project: Workspace
    folder: Path
    port: int
    settings: dict[str, str]

    def lurm(self, action: str, *words: str) -> Finished:
        """Call ``lurm airflow <action>`` in the project."""
        environment = self.project.environment() | self.settings
        for name in (
            "GIT_AUTHOR_NAME",
            "GIT_COMMITTER_NAME",
        ):  # steps have an identity of their own
            environment.pop(name)
        where = ["--folder", str(self.folder), *(["--port", str(self.port)] * (action != "down"))]
        command = ["lurm", "airflow", action, *where, *words]
        log = self.folder.with_name(f"{action}.log")
        with log.open("wb") as out:  # not a pipe, which the processes that stay would hold open
            done = subprocess.run(
                ["env", *command],  # looks `lurm` up in the PATH of that environment
                cwd=self.project.root, env=environment, stdout=out, stderr=out, check=False,
            )  # fmt: skip
        return Finished(done.returncode, log.read_text("utf-8"))

    def up(self) -> str:
        """Start what is not running; returns what is told."""
        done = self.lurm("up")
        assert done.status == 0, done.output
        return done.output

    def down(self) -> None:
        """Stop it."""
        assert self.lurm("down").status == 0

    def forget(self, user: str | int) -> Finished:
        """Call ``lurm forget`` beside the Airflow, as the one who keeps it does."""
        places = {"HOME": "lurm", "REPOSITORY": "published.git", "LANDING": "landing"}
        environment = self.project.environment() | self.settings
        environment |= {f"LURM_{name}": str(self.folder / at) for name, at in places.items()}
        done = subprocess.run(
            ["env", "lurm", "forget", str(user)],
            cwd=self.project.root, env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout)

    @property
    def client(self) -> Client:
        """The REST interface, as admin."""
        return Client(self.folder, self.port)

    def deliver(self, deliveries: Path, month: str, *, tell: bool = True) -> None:
        """Deliver a month; ``tell`` also sends the event that starts its refresh."""
        silently = [] if tell else ["--silently"]
        done = self.lurm("deliver", month, "--from", str(deliveries), *silently)
        assert done.status == 0, done.output

    def trigger(self, dag: str, **conf: str) -> str:
        """Start a run by hand; returns its name."""
        body = {"logical_date": None, "conf": conf}
        return str(self.client.call("POST", f"dags/{dag}/dagRuns", body)["dag_run_id"])

    def retrain(self, **conf: str) -> None:
        """Trigger a retraining that must end well, and wait for it."""
        run = self.trigger("lurm_retrain", **conf)

        def ended() -> bool:
            state = next(r["state"] for r in self.runs("lurm_retrain") if r["dag_run_id"] == run)
            assert state != "failed", self.tasks("lurm_retrain", run)
            return bool(state == "success")

        self.wait("a retraining", ended)

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """All runs of a DAG."""
        runs: list[dict[str, Any]] = self.client.call("GET", f"dags/{dag}/dagRuns?limit=100")[
            "dag_runs"
        ]
        return runs

    def run_of(self, month: str) -> dict[str, Any] | None:
        """The newest refresh of a month."""
        named = [
            run
            for run in self.runs("lurm_refresh")
            if month in (run["partition_key"], run["conf"].get("month"))
        ]
        return max(named, key=lambda run: run["queued_at"] or "", default=None)

    def tasks(self, dag: str, run: str) -> dict[str, str]:
        """State of every task of a run."""
        path = f"dags/{dag}/dagRuns/{run}/taskInstances?limit=100"
        listed = self.client.call("GET", path)["task_instances"]
        return {task["task_id"]: task["state"] for task in listed}

    def log(self, run: str, task: str, attempt: int = 1) -> str:
        """What the log of a refresh's task says."""
        path = (
            f"dags/lurm_refresh/dagRuns/{run}/taskInstances/{task}/logs/{attempt}?full_content=true"
        )
        return str(self.client.call("GET", path))

    def wait(self, what: str, condition: Callable[[], Any], every: float = 1) -> Any:
        """The first true value of the condition, asked ``every`` so many seconds.

        Fails with ``what`` if it takes too long.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(every)
        states = {
            (dag, run["dag_run_id"]): self.tasks(dag, run["dag_run_id"])
            for dag in ("lurm_refresh", "lurm_retrain")
            for run in self.runs(dag)
            if run["state"] not in ("success", "queued")
        }
        raise AssertionError(f"{what} did not happen in {PATIENCE} s: {states}")

    def wait_for_run(self, month: str, state: str) -> str:
        """Wait until the newest refresh of the month is in that state; returns the run's name."""

        def there() -> str | None:
            run = self.run_of(month)
            assert not run or run["state"] != "failed" or state == "failed", self.tasks(
                "lurm_refresh", run["dag_run_id"]
            )
            return str(run["dag_run_id"]) if run and run["state"] == state else None

        return str(self.wait(f"refresh of {month} {state}", there))

    def kill(self, name: str) -> None:
        """Kill one of Airflow's processes, as a machine that fails does."""
        pid = int((self.folder / f"airflow/pids/{name}").read_text("utf-8"))
        os.kill(pid, signal.SIGKILL)

    def git(self, *words: str) -> str:
        """What git says in the published repository."""
        done = subprocess.run(
            ["git", "-C", str(self.folder / "published.git"), *words],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def names(self) -> set[str]:
        """All published tags."""
        return set(self.git("tag").split())
