"""The runs that tests start from, and a way to run one stage by itself.

A run is never changed: a test that changes anything works on a copy.
"""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.pipeline.runs import RUNS
from tests.pipeline.workspaces import Finished, Workspace


@pytest.fixture(scope="session")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The folder of every run that the chosen tests ask for, made side by side.

    Under pytest-xdist the first worker makes them and the others wait.
    """
    place = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        place = place.parent
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    folders = {name: place / name for name in RUNS if name in asked}
    with (place / "runs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = place / "runs.made"
        if not made.exists():
            for folder in folders.values():
                shutil.rmtree(folder, ignore_errors=True)
            with ThreadPoolExecutor(len(folders)) as pool:
                list(pool.map(lambda name: RUNS[name](folders[name]), folders))
            made.touch()
    return folders


@pytest.fixture(scope="session")
def complete_journey(runs: dict[str, Path]) -> Workspace:
    """Three months of the Complete Journey, trained through the second; see ``runs.py``."""
    return Workspace(runs["complete_journey"] / "workspace")


@pytest.fixture(scope="session")
def ta_feng(runs: dict[str, Path]) -> Workspace:
    """Three months of Ta-Feng, trained through the second."""
    return Workspace(runs["ta_feng"] / "workspace")


@pytest.fixture(scope="session")
def false_future(runs: dict[str, Path]) -> Workspace:
    """The same, with nothing true in the third month."""
    return Workspace(runs["false_future"] / "workspace")


@pytest.fixture(scope="session")
def small_shop(runs: dict[str, Path]) -> Workspace:
    """Three months of a shop that is made up of all that is unusual."""
    return Workspace(runs["small_shop"] / "workspace")


@pytest.fixture(scope="session")
def attributes(runs: dict[str, Path]) -> Workspace:
    """Three months of that shop, all trained on, with tasks of attributes only."""
    return Workspace(runs["attributes"] / "workspace")


@pytest.fixture
def workspace(complete_journey: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the run on the Complete Journey, with its cache."""
    return complete_journey.copy(tmp_path)


@pytest.fixture
def deliveries(complete_journey: Workspace) -> Path:
    """Where the months of the Complete Journey came from; a fourth one waits there."""
    return complete_journey.root.parent / "deliveries"


@pytest.fixture(scope="session")
def stage_server() -> Iterator[subprocess.Popen[str]]:
    """See ``stage_server.py``."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("stage_server.py"))],
        env=os.environ | {"OMP_NUM_THREADS": "1", "GX_ANALYTICS_ENABLED": "false"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield server


@pytest.fixture
def run_stage(stage_server: subprocess.Popen[str], tmp_path: Path) -> Callable[..., Finished]:
    """Run one stage of a workspace by itself, with the command that DVC recorded.

    Takes the workspace, the stage's name, a folder in the workspace for the outputs, and what
    ``stage_server.py`` asks for beyond them.
    """

    def run(
        workspace: Workspace,
        stage: str,
        *,
        outputs_in: str = ".",
        kill_at: int = 0,
        limit: int = 0,
        fatal: bool = False,
    ) -> Finished:
        recorded = workspace.stages()[stage]
        outputs = {out["path"] for out in recorded["outs"]}
        command = shlex.split(recorded["cmd"])[1:]
        log = tmp_path / "stage.log"
        request = {
            "root": str(workspace.root),
            "command": [f"{outputs_in}/{word}" if word in outputs else word for word in command],
            "log": str(log),
            "kill_at": kill_at,
            "limit": limit,
            "fatal": fatal,
        }
        assert stage_server.stdin is not None
        assert stage_server.stdout is not None
        print(json.dumps(request), file=stage_server.stdin, flush=True)
        status = int(stage_server.stdout.readline())
        return Finished(status, log.read_text("utf-8"))

    return run
