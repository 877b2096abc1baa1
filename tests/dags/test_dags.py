"""The calendar: what runs when, in which order, and that it stays a calendar."""

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.dags.conftest import DAGS, PLUGINS, ROOT

FORBIDDEN = {"torch", "pandas", "dvc", "lurm", "numpy", "pyarrow"}
TRAINING_ONLY = {
    *("open_catalog", "pin_training", "pin_catalog", "embed_items", "cluster_interests"),
    *("build_timelines", "pretrain_smen", "collect_labels", "train_heads", "open_drift"),
    *("measure_confidence", "map_interests"),
}
# Small stages that a retraining runs on the way to those that need them, without a task of their own.
ON_THE_WAY = {
    *("open_catalog", "pin_training", "pin_catalog", "build_timelines", "collect_labels"),
    *("open_drift", "measure_confidence"),
}


def stage_graph() -> dict[str, set[str]]:
    """Every stage of dvc.yaml and the stages whose outputs it reads."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    described = {name: stage.get("do", stage) for name, stage in stages.items()}

    def paths(entries: list) -> list[str]:
        names = [next(iter(e)) if isinstance(e, dict) else e for e in entries]
        known_parts = [name.split("${")[0] for name in names]
        return [part for part in known_parts if part]

    writes = {
        name: [p for kind in ("outs", "metrics", "plots") for p in paths(stage.get(kind, []))]
        for name, stage in described.items()
    }
    reads = {name: paths(stage["deps"]) for name, stage in described.items()}
    return {
        name: {
            other
            for other in described
            if other != name
            and any(w.startswith(r) or r.startswith(w) for w in writes[other] for r in reads[name])
        }
        for name in described
    }


def ancestors(task) -> set[str]:
    """All tasks that end before this one begins."""
    return {other.task_id for other in task.get_flat_relatives(upstream=True)}


@pytest.mark.parametrize("name", DAGS)
def test_a_dag_file_is_short_and_only_a_calendar(name):
    text = (ROOT / f"dags/{name}.py").read_text("utf-8")
    assert len(text.splitlines()) <= 80
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert FORBIDDEN.isdisjoint(n.partition(".")[0] for n in names)


@pytest.mark.parametrize("name", PLUGINS)
def test_what_the_dags_stand_on_does_not_know_the_method_either(name):
    text = (ROOT / f"dags/plugins/{name}.py").read_text("utf-8")
    imported = re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)
    assert FORBIDDEN.isdisjoint(imported)


@pytest.mark.parametrize("name", DAGS)
def test_a_dag_explains_itself_is_tagged_and_retries(load, name):
    dag = load(name).dag
    assert dag.doc_md.startswith("### ")
    assert dag.tags == {"lurm"}
    assert dag.catchup is False
    for task in dag.tasks:
        assert task.retries >= 2 or task.task_id == "await_delivery"
        assert task.on_failure_callback


@pytest.mark.parametrize("name", ["lurm_refresh", "lurm_retrain"])
def test_tasks_follow_each_other_as_the_stages_of_dvc_do(load, name):
    dag, graph = load(name).dag, stage_graph()
    for task in dag.tasks:
        for needed in graph.get(task.task_id, set()):
            if dag.has_task(needed):
                assert needed in ancestors(task), f"{task.task_id} must come after {needed}"


def test_the_graph_of_dvc_that_tasks_are_held_against_is_not_empty():
    graph = stage_graph()
    assert graph["build_boi"] == {"validate_logs", "assign_items"}
    assert graph["encode_users"] == {"build_boi", "pretrain_smen", "measure_confidence"}
    assert "update_catalog" in graph["validate_logs"]


def test_the_refresh_runs_every_stage_but_those_that_train(load):
    tasks = {task.task_id for task in load("lurm_refresh").dag.tasks}
    assert tasks & set(stage_graph()) == set(stage_graph()) - TRAINING_ONLY


def test_the_retraining_runs_every_stage(load):
    tasks = {task.task_id for task in load("lurm_retrain").dag.tasks}
    assert tasks & set(stage_graph()) == set(stage_graph()) - ON_THE_WAY


@pytest.mark.parametrize("name", ["lurm_refresh", "lurm_retrain"])
def test_a_run_opens_first_and_publishes_last(load, name):
    dag = load(name).dag
    stages = {task.task_id for task in dag.tasks} & set(stage_graph())
    assert stages <= ancestors(dag.get_task("publish"))
    assert all("open" in ancestors(dag.get_task(stage)) for stage in stages)


@pytest.mark.parametrize(
    ("since", "month"),
    [
        (datetime(2017, 12, 31, 23, 59, 59, tzinfo=UTC), "2017-12"),
        (datetime(2018, 1, 1, tzinfo=UTC), "2017-12"),
        (datetime(2018, 1, 1, 0, 0, 1, tzinfo=UTC), "2018-01"),
        (datetime(2020, 3, 1, tzinfo=UTC), "2020-02"),
    ],
)
def test_a_scheduled_run_is_for_the_month_before_also_at_the_turn_of_the_year(load, since, month):
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction

    dag = DagSerialization.from_dict(DagSerialization.to_dict(load("lurm_refresh").dag))
    run = dag.timetable.next_dagrun_info_v2(
        last_dagrun_info=None,
        restriction=TimeRestriction(earliest=since, latest=None, catchup=True),
    )
    assert run.partition_key == month


@pytest.mark.parametrize("runner", ["process", "docker", "kubernetes"])
@pytest.mark.parametrize("name", DAGS)
def test_a_dag_can_be_stored_and_read_back(load, name, runner):
    from airflow.serialization.serialized_objects import DagSerialization

    dag = load(name, LURM_RUNNER=runner).dag
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert {t.task_id for t in stored.tasks} == {t.task_id for t in dag.tasks}


def test_every_file_of_the_dags_folder_is_known_here():
    assert {p.stem for p in Path(ROOT / "dags").glob("*.py")} == set(DAGS)
    assert {p.stem for p in Path(ROOT / "dags/plugins").glob("*.py")} == set(PLUGINS)
