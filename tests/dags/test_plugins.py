"""What the DAGs stand on: runners, waiting for a delivery, notices, pages."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from lurm.releases.places import Places
from tests.dags.conftest import DAGS

RUN = "manual__2026-11-23T21:36:59.637666+00:00"


# ---- runners -------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["process", "docker", "kubernetes"])
@pytest.mark.parametrize("name", ["lurm_refresh", "lurm_retrain"])
def test_every_step_is_the_same_command_whatever_runs_it(load, runner, name):
    dag = load(name, LURM_RUNNER=runner).dag
    steps = [task for task in dag.tasks if task.task_id != "await_delivery"]
    for task in steps:
        command = list(getattr(task, "command", None) or task.arguments)
        assert command[:2] == ["lurm", "release"]
        assert command[command.index("--run") + 1] == "{{ dag.dag_id }}__{{ run_id }}"
        if command[2] == "run":
            assert task.task_id in command


def test_a_runner_that_is_none_is_named(load):
    with pytest.raises(ValueError, match="expected process, docker or kubernetes, got 'dokcer'"):
        load("lurm_steps", LURM_RUNNER="dokcer")


def test_a_container_sees_the_platform_and_nothing_else(load):
    keys = {"AWS_ACCESS_KEY_ID": "key", "LURM_ERASURE_KEY": "key"}
    steps = load("lurm_steps", LURM_RUNNER="docker", HOME_SECRET="no", **keys)
    task = steps.stage("validate_logs")
    assert task.image == "lurm-logs:dev"
    assert steps.stage("encode_users").image == "lurm-models:dev"
    assert [mount["Target"] for mount in task.mounts] == [
        *("/platform/lurm", "/platform/published.git", "/platform/landing")
    ]
    assert task._private_environment.items() >= keys.items()
    shown = task.environment | {"private": task._private_environment.keys()}
    assert "key" not in shown.values()
    assert "HOME_SECRET" not in str(shown)
    assert task.mount_tmp_dir is False


def test_a_container_also_sees_the_folders_that_are_set_such_as_a_store(load):
    steps = load("lurm_steps", LURM_RUNNER="docker", LURM_MOUNTS="/platform/store:/platform/lurm:")
    assert [mount["Target"] for mount in steps.step("publish", "publish").mounts] == [
        *("/platform/lurm", "/platform/published.git", "/platform/landing", "/platform/store")
    ]


class Engine:
    """An engine that can pull one image, and runs a container that says nothing but its result."""

    def __init__(self, *, has_image: bool) -> None:
        self.there, self.pulled, self.removed = has_image, [], []

    def containers(self, **_):
        return []

    def images(self, name):
        return [name] if self.there else []

    def pull(self, name):
        self.pulled.append(name)
        self.there = True

    def wait(self, name):
        return {"StatusCode": 1}

    def remove_container(self, name):
        self.removed.append(name)

    def inspect_image(self, name):
        assert self.there
        return {"Id": "sha256:0123"}


@pytest.mark.parametrize("has_image", [True, False])
def test_an_image_that_is_not_there_yet_is_pulled_and_its_digest_told(load, monkeypatch, has_image):
    steps = load("lurm_steps", LURM_RUNNER="docker", LURM_IMAGE_LOGS="r/l:1")
    task, engine = steps.stage("validate_logs"), Engine(has_image=has_image)
    monkeypatch.setattr(steps.StepContainer, "cli", engine)
    monkeypatch.setattr(steps.DockerOperator, "execute", lambda *_: '{"stage": "validate_logs"}')
    ti = SimpleNamespace(dag_id="lurm_refresh", run_id=RUN, task_id="validate_logs")
    assert task.execute({"ti": ti}) == {"stage": "validate_logs"}
    assert engine.pulled == ([] if has_image else ["r/l:1"])
    assert task.environment["LURM_IMAGE"] == "r/l:1@sha256:0123"


def test_a_container_that_has_ended_is_removed_when_its_exit_status_is_known(load, monkeypatch):
    steps = load("lurm_steps", LURM_RUNNER="docker")
    task, engine = steps.stage("validate_logs"), Engine(has_image=True)

    def refuse(task, _):
        task.container = {"Id": "c0ffee"}
        raise steps.DockerContainerFailedException("failed", logs=["error: it is refused"])

    monkeypatch.setattr(steps.StepContainer, "cli", engine)
    monkeypatch.setattr(steps.DockerOperator, "execute", refuse)
    ti = SimpleNamespace(dag_id="lurm_refresh", run_id=RUN, task_id="validate_logs")
    with pytest.raises(steps.AirflowFailException, match="it is refused"):
        task.execute({"ti": ti})
    assert engine.removed == ["c0ffee"]


def test_a_pod_is_complete_and_is_found_again_by_a_retry(load, monkeypatch, tmp_path):
    cluster = {"name": "c", "cluster": {"server": "https://localhost:1"}}
    here = {"name": "h", "context": {"cluster": "c", "user": "u"}}
    config = {"clusters": [cluster], "contexts": [here], "users": [{"name": "u", "user": {}}]}
    (tmp_path / "kube.json").write_text(json.dumps(config | {"current-context": "h"}))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kube.json")
    )
    steps = load(
        "lurm_steps",
        LURM_RUNNER="kubernetes",
        LURM_CLAIM="shared",
        LURM_IMAGE_LOGS="r/l:1",
        LURM_SECRET="keys",
    )
    task = steps.stage("validate_logs")
    pod = task.build_pod_request_obj()
    [volume] = [v for v in pod.spec.volumes if v.persistent_volume_claim]
    assert volume.persistent_volume_claim.claim_name == "shared"
    base = next(c for c in pod.spec.containers if c.name == "base")
    assert base.image == "r/l:1"
    assert base.args == task.arguments
    assert not base.command  # the image's entrypoint stays
    assert base.env_from[0].secret_ref.name == "keys"
    assert "/platform/lurm" in [mount.mount_path for mount in base.volume_mounts]
    told = {variable.name: variable.value for variable in base.env}
    assert told["LURM_RESULT_FILE"] == "/airflow/xcom/return.json"
    assert told["LURM_HOME"] == "/platform/lurm"
    assert told["LURM_IMAGE"] == "r/l:1"
    assert [link.name for link in task.operator_extra_links] == ["Report"]
    assert pod.spec.security_context.run_as_non_root is True
    assert task.durable is True


def test_credentials_of_a_connection_are_rendered_when_a_step_runs_and_not_before(load):
    steps = load("lurm_steps", LURM_CONNECTION="store")
    told = steps.environment()
    assert told["AWS_SECRET_ACCESS_KEY"] == "{{ conn.store.password }}"


@pytest.mark.parametrize(
    ("status", "line", "error", "reason"),
    [
        (1, "error: 2017-08 is refused", "AirflowFailException", "^2017-08 is refused$"),
        (75, "error: waits for 2017-08", "AirflowException", "waits for 2017-08 .*75"),
        (70, b"error: the store is gone", "AirflowException", "the store is gone .*70"),
        (-9, "half a line", "AirflowException", "half a line .*-9"),
    ],
)
def test_only_what_is_refused_is_not_tried_again(load, status, line, error, reason):
    steps = load("lurm_steps")
    with pytest.raises(steps.AirflowException, match=reason) as raised:
        steps._ended(status, line)
    assert type(raised.value).__name__ == error


def test_the_last_line_of_a_step_is_its_result(load):
    assert load("lurm_steps")._ended(0, '{"rows_in": 3}') == {"rows_in": 3}


# ---- waiting for a delivery ----------------------------------------------------------------------


def test_a_delivery_that_is_there_is_not_waited_for(load, tmp_path):
    sensor = load("lurm_delivery").DeliverySensor(
        task_id="await_delivery", month="2017-08", landing=str(tmp_path)
    )
    (tmp_path / "behaviors").mkdir()
    (tmp_path / "behaviors/2017-08.parquet").touch()
    assert sensor.execute({}) == f"{tmp_path}/behaviors/2017-08.parquet"


@pytest.mark.parametrize("month", ["", "None", "2017-8", "2017-13", "{{ month }}", "2017-08-01"])
def test_a_run_without_a_month_says_what_it_needs(load, month):
    sensor = load("lurm_delivery").DeliverySensor(task_id="t", month=month, landing="/nowhere")
    with pytest.raises(Exception, match="expected a month such as 2017-08"):
        sensor.execute({})


def test_a_delivery_that_is_not_there_is_waited_for_without_a_worker(load, tmp_path):
    from airflow.sdk.exceptions import TaskDeferred

    module = load("lurm_delivery", LURM_DEADLINE_HOURS="2")
    sensor = module.DeliverySensor(task_id="t", month="2017-08", landing=str(tmp_path))
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})
    assert deferred.value.timeout < timedelta(hours=2)
    where, arguments = deferred.value.trigger.serialize()
    assert where == "lurm_delivery.DeliveryTrigger"

    async def first_event():
        trigger = module.DeliveryTrigger(arguments["path"], every=0.01)
        waiting = asyncio.ensure_future(anext(trigger.run()))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        (tmp_path / "behaviors").mkdir()
        (tmp_path / "behaviors/2017-08.parquet").touch()
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(first_event()).payload == arguments["path"]


def test_a_month_that_never_comes_is_a_clear_failure(load, tmp_path):
    from airflow.sdk.exceptions import AirflowFailException

    module = load("lurm_delivery")
    sensor = module.DeliverySensor(task_id="t", month="2017-08", landing="s3://bucket/logs")
    with pytest.raises(AirflowFailException, match="2017-08 was not delivered to s3://bucket/logs"):
        sensor.resume_execution("__fail__", {"error": "Trigger timeout"}, {})


# ---- notices -------------------------------------------------------------------------------------


def context(task="validate_logs", **more):
    ti = SimpleNamespace(
        dag_id="lurm_refresh", task_id=task, run_id=RUN, xcom_pull=lambda **_: more.get("result")
    )
    run = SimpleNamespace(partition_key=more.get("key"), run_id=RUN)
    return {"ti": ti, "dag_run": run, "params": {"month": "2017-08"}} | more


def test_a_notice_says_what_failed_for_which_month_why_and_what_to_do(load):
    notices = load("lurm_notices")
    message = notices.compose(context(exception=ValueError("12 % of the rows are of 2017-07")))
    assert message.startswith("lurm_refresh 2017-08 validate_logs failed: 12 % of the rows")
    assert "Next: read Report, deliver the month again" in message


def test_every_task_with_advice_of_its_own_exists(load):
    known = {task.task_id for name in DAGS for task in load(name).dag.tasks}
    assert set(load("lurm_notices").NEXT) <= known


def test_a_month_with_warnings_is_told_and_one_without_is_not(load):
    compose = load("lurm_notices").compose
    warned = compose(context(result={"warnings": ["volume is 40 % below the months before"]}))
    assert "warns: volume is 40 % below" in warned
    assert compose(context(result={"warnings": []})) is None


def test_a_notice_reaches_the_notifier_that_is_set(load, monkeypatch, tmp_path):
    (tmp_path / "bulletin.py").write_text(
        "from pathlib import Path\n"
        "class Board:\n"
        "    def __init__(self, place, text): self.place, self.text = place, text\n"
        "    def notify(self, context): Path(self.place).write_text(self.text)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    board = tmp_path / "board.txt"
    options = {"place": str(board), "text": "LURM: {message}"}
    notices = load(
        "lurm_notices",
        LURM_NOTIFIER="bulletin.Board",
        LURM_NOTIFIER_OPTIONS=json.dumps(options),
    )
    notices.notice()(context(exception=ValueError("no space left")))
    assert board.read_text().startswith("LURM: lurm_refresh 2017-08 validate_logs failed: no space")


def test_a_run_that_was_stopped_for_being_late_is_told_and_one_that_failed_is_not(load, caplog):
    notices = load("lurm_notices")
    run = SimpleNamespace(dag_id="lurm_refresh", run_id=RUN)
    notices.overdue()({"dag_run": run, "reason": "task_failure"})
    assert "not ended" not in caplog.text
    notices.overdue()({"dag_run": run, "reason": "timed_out"})
    assert f"lurm_refresh {RUN} has not ended in time" in caplog.text


@pytest.mark.parametrize("name", ["lurm_refresh", "lurm_retrain"])
def test_a_dag_has_a_deadline_that_does_not_keep_its_tasks_from_being_cleared(load, name):
    dag = load(name, LURM_DEADLINE_HOURS="10").dag
    assert dag.dagrun_timeout == timedelta(hours=20)
    assert not dag.deadline
    assert dag.on_failure_callback


# ---- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [RUN, "../../etc", "a/b", "..", "backfill__2017-02-01 ü"])
def test_pages_are_looked_for_where_runs_keep_them_and_nowhere_else(load, run):
    folder = load("lurm_pages").run_folder("lurm_refresh", run)
    assert folder == Places(Path("/platform/lurm"), "", "").run_folder(f"lurm_refresh__{run}")
    assert folder.parent == Path("/platform/lurm/runs")


def test_a_task_links_to_its_page(load, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/")
    link = load("lurm_pages").PageLink()
    key = SimpleNamespace(dag_id="lurm_refresh", run_id=RUN, task_id="report")
    assert link.get_link(None, ti_key=key) == (
        "https://airflow.example.org/lurm/lurm_refresh/manual__2026-11-23T21%3A36%3A59.637666%2B00%3A00/report"
    )


def test_scheduled_runs_begin_on_the_day_that_is_set(load):
    assert load("lurm_refresh", LURM_SINCE="2026-11-23").dag.start_date == datetime(
        2026, 11, 23, tzinfo=UTC
    )
