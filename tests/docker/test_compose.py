"""``docker/compose.yaml`` for real: all of it healthy, a task run in a stage's container, roles kept."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
from s3fs import S3FileSystem

from tests.docker.composition import Composition, build_stand_ins, compose_is_there
from tests.docker.engine import Engine
from tests.docker.images import ROOT, build_flags

pytestmark = pytest.mark.slow

LONG_RUNNING = {"postgres", "store", "api-server", "scheduler", "dag-processor", "triggerer"}
ONCE = {"init", "bucket", "found"}


def wait(what: str, holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(2)


@pytest.fixture(scope="module")
def composition(
    engine: Engine, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Composition]:
    """The services, started; removed with their volumes afterwards."""
    if not compose_is_there(engine):
        pytest.skip("compose is not installed")
    if not engine.host.startswith("unix://"):
        pytest.skip("the engine has no socket here that a container could be given")
    with build_flags(engine) as flags:
        build_stand_ins(engine, flags)
    uid = 4242 if os.geteuid() == 0 else os.geteuid()
    composition = Composition(engine, tmp_path_factory.mktemp("composition"), uid)
    shutil.copytree(ROOT / "dags", composition.dags, dirs_exist_ok=True)
    shutil.copy(Path(__file__).with_name("try_it_dag.py"), composition.dags)
    try:
        composition.compose("up", "--detach")
        yield composition
    finally:
        composition.compose("down", "--volumes", "--timeout", "20")


def test_every_service_becomes_healthy(composition: Composition) -> None:
    def healthy() -> bool:
        there = composition.containers()
        assert all(there[name]["ExitCode"] == 0 for name in ONCE)
        return all(there[name]["Health"]["Status"] == "healthy" for name in LONG_RUNNING)

    wait("all services healthy", healthy, 300)
    assert composition.containers().keys() == LONG_RUNNING | ONCE


def test_a_task_runs_in_a_container_of_a_stage_image(composition: Composition) -> None:
    token = composition.login("operator")

    def parsed() -> bool:
        return composition.ask("/api/v2/dags", token)["total_entries"] == 4

    wait("the DAG is there", parsed, 120)
    composition.ask("/api/v2/dags/try_it", token, {"is_paused": False}, "PATCH")
    started = composition.ask("/api/v2/dags/try_it/dagRuns", token, {"logical_date": None})
    path = f"/api/v2/dags/try_it/dagRuns/{started['dag_run_id']}"

    def over() -> bool:
        return composition.ask(path, token)["state"] in ("success", "failed")

    wait("the run is over", over, 300)
    log = composition.ask(f"{path}/taskInstances/answer/logs/1?full_content=true", token)
    assert composition.ask(path, token)["state"] == "success", log
    assert "General-purpose user vectors" in str(log)
    assert "buckets ['lurm']" in str(log)
    assert composition.settings["STORE_SECRET_KEY"] not in str(log)
    assert (composition.home / "answer").read_text() == "hello"


def test_a_refresh_begins_in_containers_and_says_that_it_needs_a_release(
    composition: Composition,
) -> None:
    store = S3FileSystem(
        key=composition.settings["STORE_ACCESS_KEY"],
        secret=composition.settings["STORE_SECRET_KEY"],
        endpoint_url=f"http://127.0.0.1:{composition.ports['store:7070']}",
    )
    store.pipe("lurm/landing/behaviors/2017-08.parquet", b"a delivery")
    token = composition.login("operator")
    composition.ask("/api/v2/dags/lurm_refresh", token, {"is_paused": False}, "PATCH")
    asked = {"logical_date": None, "conf": {"month": "2017-08"}}
    started = composition.ask("/api/v2/dags/lurm_refresh/dagRuns", token, asked)
    path = f"/api/v2/dags/lurm_refresh/dagRuns/{started['dag_run_id']}"
    wait("the run is over", lambda: composition.ask(path, token)["state"] == "failed", 300)
    log = composition.ask(f"{path}/taskInstances/open/logs/1?full_content=true", token)
    assert "trigger lurm_retrain first" in str(log)
    assert (composition.home / "published.git").exists()


def test_who_may_look_may_not_trigger(composition: Composition) -> None:
    token = composition.login("viewer")
    assert composition.ask("/api/v2/dags", token)["total_entries"] == 4
    with pytest.raises(HTTPError, match="403"):
        composition.ask("/api/v2/dags/try_it/dagRuns", token, {"logical_date": None})


def test_nobody_gets_in_without_a_password(composition: Composition) -> None:
    with pytest.raises(HTTPError, match="401"):
        composition.ask("/api/v2/dags")


def test_only_the_scheduler_has_the_engine_s_socket(composition: Composition) -> None:
    names = composition.compose("ps", "--quiet").split()
    holders = [
        name
        for name in names
        if "docker.sock"
        in composition.engine.docker("inspect", "--format", "{{.Mounts}}", name).stdout
    ]
    (holder,) = holders
    label = '{{index .Config.Labels "com.docker.compose.service"}}'
    assert (
        composition.engine.docker("inspect", "--format", label, holder).stdout.strip()
        == "scheduler"
    )
