"""Every step of a retraining and a refresh as a container, started by a real Airflow."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.dags.airflows import Airflow, free_port, open_folder
from tests.docker.engine import Engine
from tests.pipeline.runs import deliver_households, small_project

pytestmark = pytest.mark.slow
MONTHS = ["2017-01", "2017-02", "2017-03", "2017-04"]


@pytest.fixture(scope="module")
def deliveries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four months of three hundred households."""
    return deliver_households(tmp_path_factory.mktemp("deliveries"), MONTHS[-1])


@pytest.fixture(scope="module")
def airflow(
    engine: Engine,
    images: dict[str, str],
    deliveries: Path,
) -> Iterator[Airflow]:
    """An Airflow whose runner is Docker, with a first release made by it."""
    with open_folder() as folder:
        settings = {
            "LURM_RUNNER": "docker",
            "DOCKER_HOST": engine.host,
            "LURM_IMAGE_LOGS": images["logs"],
            "LURM_IMAGE_MODELS": images["models"],
            "LURM_RETRY_SECONDS": "5",
        }
        started = Airflow(small_project(folder / "project"), folder / "var", free_port(), settings)
        started.up()
        for month in MONTHS[:3]:
            started.deliver(deliveries, month, tell=False)
        started.retrain(through="2017-02")
        yield started
        started.down()


def test_a_refresh_goes_through_although_a_container_and_a_task_are_killed(
    airflow, engine, deliveries
):
    airflow.deliver(deliveries, "2017-04")
    airflow.wait("2017-04", lambda: airflow.run_of("2017-04"))
    run = airflow.run_of("2017-04")["dag_run_id"]

    def containers(task: str) -> list[str]:
        label = f"label=lurm.step=lurm_refresh.{run}.{task}"
        return engine.docker("ps", "--quiet", "--filter", label).stdout.split()

    [victim] = airflow.wait("a validation", lambda: containers("validate_logs"))
    engine.docker("kill", victim)

    airflow.wait("bags", lambda: containers("build_boi"))
    os.kill(_process_of_task(airflow), signal.SIGKILL)
    beside = []

    def ended() -> bool:
        beside.append(_at_work(engine, containers("build_boi")))
        return airflow.tasks("lurm_refresh", run)["build_boi"] == "success"

    airflow.wait("bags, again", ended)
    assert max(map(len, beside)) <= 1, beside
    airflow.wait_for_run("2017-04", "success")


def test_the_release_names_the_images_that_made_it(airflow, engine, images):
    told = yaml.safe_load(airflow.git("show", "refresh/2017-04/r1:reports/release.json"))
    digest = engine.docker("image", "inspect", "--format={{.Id}}", images["logs"]).stdout.strip()
    assert told["runner"] == "docker"
    assert told["images"]["validate_logs"] == f"{images['logs']}@{digest}"
    assert set(told["images"]) >= {"open", "encode_users", "report"}


def test_what_is_published_is_in_the_store(airflow):
    lock = yaml.safe_load(airflow.git("show", "refresh/2017-04/r1:dvc.lock"))["stages"]
    vectors = [
        out["md5"]
        for stage in lock.values()
        for out in stage["outs"]
        if out["path"].startswith("data/user_vectors/")
    ]
    assert len(vectors) == len(MONTHS)
    for md5 in vectors:
        assert (airflow.folder / "store/files/md5" / md5[:2] / md5[2:]).exists()


def test_the_bytes_are_those_of_plain_processes(airflow, deliveries, tmp_path):
    plain = small_project(tmp_path)
    plain.land(deliveries, MONTHS)
    plain.repro()
    lock = yaml.safe_load(airflow.git("show", "main:dvc.lock"))["stages"]
    assert {out["path"]: out["md5"] for s in lock.values() for out in s["outs"]} == plain.hashes()


def _process_of_task(airflow: Airflow) -> int:
    """The process in which this Airflow runs its only running task."""
    scheduler = int((airflow.folder / "airflow/pids/scheduler").read_text("utf-8"))
    return max(
        child.pid
        for child in psutil.Process(scheduler).children(recursive=True)
        if re.match("airflow worker -- [0-9a-f]", " ".join(_command(child)))
    )


def _command(process: psutil.Process) -> list[str]:
    """Its command line; none if it has just ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # and ZombieProcess, which is one
        return []


def _at_work(engine: Engine, containers: list[str]) -> list[str]:
    """Those of the containers in which DVC runs, and not only waits for the lock."""
    return [
        name for name in containers if "dvc repro" in engine.docker("top", name, check=False).stdout
    ]
