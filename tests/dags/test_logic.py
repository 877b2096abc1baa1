"""A DAG run from end to end in one process, with steps that only say what they were asked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dags.conftest import ROOT

# Stands in for the command ``lurm``: notes its words, and refuses the step that REFUSES names.
LURM = """#!/bin/sh
echo "$*" >> "$NOTES"
case "$* " in
*" $REFUSES "*) echo "error: 2017-08 is refused" >&2; exit 1 ;;
esac
echo '{"warnings": []}'
"""
RUN = """
import json, sys
import {dag} as module
run = module.dag.test(run_conf=json.loads(sys.argv[1]))
print(json.dumps({{ti.task_id: ti.state for ti in run.get_task_instances()}}))
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an Airflow with an empty database and a month delivered."""
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "landing/behaviors").mkdir(parents=True)
    (folder / "landing/behaviors/2017-08.parquet").touch()
    (folder / "lurm").write_text(LURM)
    (folder / "lurm").chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LURM_", "AIRFLOW"))}
    environment |= {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "dags/plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "LURM_HOME": str(folder / "home"),
        "LURM_REPOSITORY": str(folder / "published.git"),
        "LURM_LANDING": str(folder / "landing"),
        "LURM_RETRY_SECONDS": "0",
        "NOTES": str(folder / "notes"),
        "REFUSES": "nothing",
        "PATH": f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'dags'}{os.pathsep}{ROOT / 'dags/plugins'}",
    }
    subprocess.run(["airflow", "db", "migrate"], env=environment, check=True, capture_output=True)
    return environment


@pytest.fixture
def run(airflow: dict[str, str]) -> Callable[..., tuple[dict[str, str], list[str]]]:
    """Run a DAG; returns the state of every task, and the words of every step."""

    def run_dag(dag: str, refuses: str = "nothing", **conf: str):
        notes = Path(airflow["NOTES"])
        notes.write_text("")
        done = subprocess.run(
            [sys.executable, "-c", RUN.format(dag=dag), json.dumps(conf)],
            env=airflow | {"REFUSES": refuses}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), notes.read_text().splitlines()

    return run_dag


def test_a_refresh_opens_its_month_runs_every_stage_and_publishes(run):
    states, steps = run("lurm_refresh", month="2017-08")
    assert set(states.values()) == {"success"}
    name = steps[0].split()[3]
    assert name.startswith("lurm_refresh__")
    assert steps[0] == f"release refresh --run {name} --month 2017-08"
    assert steps[-1] == f"release publish --run {name}"
    assert len(steps) == len(states) - 1  # await_delivery is no step


def test_what_hangs_on_a_refused_stage_does_not_run(run):
    states, steps = run("lurm_refresh", refuses="validate_logs", month="2017-08")
    assert states["validate_logs"] == "failed"
    assert states["publish"] == states["build_boi"] == "upstream_failed"
    assert sum("validate_logs" in step for step in steps) == 1  # not tried again
    assert not any("publish" in step for step in steps)


def test_a_retraining_that_does_not_pass_its_gate_is_not_published(run):
    states, steps = run("lurm_retrain", refuses="gate", through="2017-04")
    assert " --first  --through 2017-04" in steps[0]
    assert states["gate"] == "failed"
    assert states["publish"] == "upstream_failed"
    assert not any("publish" in step for step in steps)
