"""A year on a real Airflow: history, months that arrive, a bad one, processes that die; a retraining in the
middle, a late correction, a user who is forgotten; and what the reports say of it all.

The tests of this file tell one story, in order.
"""

import json
import os
import re
import signal
import tempfile
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from lurm.storage import read_parquet, write_parquet
from tests.dags.airflows import Airflow, free_port, open_folder
from tests.pipeline.runs import deliver_households, small_project
from tests.pipeline.workspaces import Workspace
from tests.reporting.test_explorer import scripts

pytestmark = pytest.mark.slow
HISTORY = [f"2017-0{n}" for n in range(1, 7)]


@pytest.fixture(scope="module")
def deliveries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The year of three hundred households."""
    return deliver_households(tmp_path_factory.mktemp("deliveries"), "2017-12")


@pytest.fixture(scope="module")
def airflow(deliveries: Path) -> Iterator[Airflow]:
    """An Airflow with history delivered and no release yet."""
    with open_folder() as folder:
        settings = {"LURM_RETRY_SECONDS": "5", "LURM_PARALLEL_RUNS": "2"}
        settings["LURM_ERASURE_KEY"] = "the key under which users are forgotten"
        started = Airflow(small_project(folder / "project"), folder / "var", free_port(), settings)
        told = started.up()
        assert "user viewer" in told
        for month in HISTORY:
            started.deliver(deliveries, month, tell=False)
        yield started
        started.down()


def test_passwords_are_told_once_and_a_second_start_changes_nothing(airflow):
    assert "password" not in airflow.up()


def test_a_refresh_without_a_release_says_what_to_do(airflow):
    airflow.trigger("lurm_refresh", month="2017-01")
    run = airflow.wait_for_run("2017-01", "failed")
    assert "trigger lurm_retrain first" in airflow.log(run, "open")


def test_the_first_release_is_a_retraining(airflow):
    airflow.retrain(through="2017-04")
    assert airflow.names() == {"release/1"}


def test_history_is_loaded_by_a_backfill_two_months_at_a_time(airflow):
    done = airflow.lurm(
        *("do", "backfill", "create", "--dag-id", "lurm_refresh", "--max-active-runs", "2"),
        *("--from-date", "2017-01-01", "--to-date", "2017-06-01", "--run-backwards"),
    )
    assert done.status == 0, done.output
    for month in HISTORY:
        airflow.wait_for_run(month, "success")
    assert airflow.names() == {"release/1", *(f"refresh/{month}/r1" for month in HISTORY)}


def test_a_month_that_arrives_is_refreshed_by_itself_and_its_reports_can_be_looked_at(
    airflow, deliveries
):
    airflow.deliver(deliveries, "2017-07")
    run = airflow.wait_for_run("2017-07", "success")
    assert "refresh/2017-07/r1" in airflow.names()

    path = f"dags/lurm_refresh/dagRuns/{run}/taskInstances/validate_logs"
    told = airflow.client.call("GET", f"{path}/xcomEntries/return_value?deserialize=true")["value"]
    rows_in = sum(told["rows_in"].values())
    assert rows_in > 10_000
    assert told["ran"] == ["validate_logs@2017-07"]

    address = airflow.client.call("GET", f"{path}/links")["extra_links"]["Report"]
    assert address.startswith(f"http://localhost:{airflow.port}/lurm/")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(address, timeout=10)
    request = urllib.request.Request(address, headers=airflow.client.headers)
    with urllib.request.urlopen(request, timeout=10) as page:
        assert "2017-07" in page.read().decode("utf-8")


def test_a_month_that_holds_another_stops_with_a_readable_reason(airflow, deliveries, tmp_path):
    before = airflow.git("rev-parse", "main")
    for name in ("items.parquet", "items/2017-08.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(deliveries / name, tmp_path / name)
    (tmp_path / "behaviors").mkdir()
    os.link(deliveries / "behaviors/2017-07.parquet", tmp_path / "behaviors/2017-08.parquet")
    airflow.deliver(tmp_path, "2017-08")
    run = airflow.wait_for_run("2017-08", "failed")
    log = airflow.log(run, "validate_logs")
    assert "is refused as 2017-08 (it seems to hold 2017-07)" in log
    assert "Next: read Report, deliver the month again" in log
    assert airflow.tasks("lurm_refresh", run)["publish"] == "upstream_failed"
    assert airflow.git("rev-parse", "main") == before


def test_the_month_after_it_goes_on_where_it_can_and_waits(airflow, deliveries):
    airflow.deliver(deliveries, "2017-09")
    airflow.wait("2017-09", lambda: airflow.run_of("2017-09"))
    run = airflow.run_of("2017-09")["dag_run_id"]
    states = lambda: airflow.tasks("lurm_refresh", run)  # noqa: E731
    airflow.wait("waiting", lambda: states()["encode_users"] == "up_for_retry")
    assert states()["build_boi"] == "success"
    assert "waits for 2017-08" in airflow.log(run, "encode_users")


def test_one_clear_resumes_the_corrected_month_and_the_next_goes_on_by_itself(airflow, deliveries):
    airflow.deliver(deliveries, "2017-08", tell=False)
    failed = airflow.run_of("2017-08")["dag_run_id"]
    airflow.client.call(
        "POST",
        "dags/lurm_refresh/clearTaskInstances",
        {
            "dag_run_id": failed,
            "task_ids": ["open"],
            "include_downstream": True,
            "only_failed": False,
            "reset_dag_runs": True,
            "dry_run": False,
        },
    )
    airflow.wait_for_run("2017-08", "success")
    airflow.wait_for_run("2017-09", "success")
    assert {"refresh/2017-08/r1", "refresh/2017-09/r1"} <= airflow.names()


def test_a_scheduler_and_a_task_that_are_killed_leave_no_trace_in_what_is_published(
    airflow, deliveries
):
    airflow.deliver(deliveries, "2017-10")
    airflow.wait("2017-10", lambda: airflow.run_of("2017-10"))
    run = airflow.run_of("2017-10")["dag_run_id"]
    command = f"lurm release run --run lurm_refresh__{run}"

    def process(stage):
        """The process of a task, which may be there for a few seconds only."""
        return airflow.wait(f"{stage} at work", lambda: _pid_of(f"{command} {stage}"), every=0.1)

    os.kill(process("validate_logs"), signal.SIGKILL)
    process("build_boi")
    airflow.kill("scheduler")
    airflow.up()
    airflow.wait_for_run("2017-10", "success")
    assert "refresh/2017-10/r1" in airflow.names()


def test_the_bytes_are_those_of_one_run_of_dvc_over_the_same_months(airflow, deliveries, tmp_path):
    plain = small_project(tmp_path)
    published = yaml.safe_load(airflow.git("show", "main:params.yaml"))
    months = list(published["months"])
    assert months == [*HISTORY, "2017-07", "2017-08", "2017-09", "2017-10"]
    for section in ("training", "evaluation"):
        plain.set(**{section: published[section]})
    plain.land(deliveries, months)
    plain.repro()
    lock = yaml.safe_load(airflow.git("show", "main:dvc.lock"))["stages"]
    through_airflow = {out["path"]: out["md5"] for s in lock.values() for out in s["outs"]}
    assert through_airflow == plain.hashes()


def test_a_consumer_needs_the_address_and_the_name_of_the_month(airflow, tmp_path):
    consumer = Workspace(tmp_path)
    repository = str(airflow.folder / "published.git")
    path = "data/user_vectors/2017-08.parquet"
    consumer.do(
        "dvc", "get", repository, path, "--rev", "refresh/2017-08", "--out", "vectors.parquet"
    )
    assert len(read_parquet(tmp_path / "vectors.parquet")) > 250


# ---- the second half: a retraining, a correction, somebody who is forgotten ------------------------


def get(airflow, path, revision="main"):
    """Where a published file lies, fetched as a consumer does."""
    with tempfile.TemporaryDirectory() as folder:
        consumer, repository = Workspace(Path(folder)), str(airflow.folder / "published.git")
        consumer.do("dvc", "get", repository, path, "--rev", revision, "--out", "got")
        content = (Path(folder) / "got").read_bytes()
    return pq.read_table(pa.BufferReader(content)) if content[:4] == b"PAR1" else content.decode()


def told(airflow, path, revision="main"):
    """A published report."""
    return json.loads(get(airflow, path, revision))


def test_a_retraining_in_the_middle_keeps_the_ids_of_interests_and_the_space_of_vectors(airflow):
    airflow.retrain(through="2017-07")
    assert "release/2" in airflow.names()
    gate = told(airflow, "reports/gate.json")
    assert gate["passed"]
    assert gate["head_loss"]["low"] <= 0.005
    assert {"head_loss_unaligned", "alignment_loss"} <= gate.keys()  # at this size all noise
    lineage = get(airflow, "models/interest_lineage.parquet")
    since = told(airflow, "reports/cluster_interests.json")["since_standing"]
    status = pc.value_counts(lineage["status"]).to_pylist()
    assert {row["values"]: row["counts"] for row in status} == {
        kind: since[kind] for kind in ("kept", "born", "retired") if since[kind]
    }
    assert lineage["interest_id"].to_pylist() == list(range(30 + since["born"]))
    before, after = (
        get(airflow, "data/user_vectors/2017-10.parquet", name)
        for name in ("refresh/2017-10/r1", "release/2")
    )
    for column, changes in {"space_version": False, "model_version": True}.items():
        assert (before[column][0] != after[column][0]) == changes


def test_a_late_correction_runs_again_what_hangs_on_it_under_the_standing_models(
    airflow, deliveries, tmp_path
):
    model = told(airflow, "reports/scores.json")["model_version"]
    for name in ("items.parquet", "items/2017-05.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(deliveries / name, tmp_path / name)
    table = read_parquet(deliveries / "behaviors/2017-05.parquet")
    write_parquet(table.slice(0, len(table) - 500), tmp_path / "behaviors/2017-05.parquet")
    airflow.deliver(tmp_path, "2017-05")
    airflow.wait("the correction", lambda: "refresh/2017-05/r2" in airflow.names())
    # The month's vectors are new, and so are those of every month after it.
    assert {f"refresh/2017-{n:02d}/r2" for n in range(5, 11)} <= airflow.names()
    assert "refresh/2017-04/r2" not in airflow.names()
    assert told(airflow, "reports/scores.json")["model_version"] == model
    assert told(airflow, "reports/months.json")["n_due_for_retraining"] == 1


def test_a_user_is_forgotten_also_where_the_explorer_shows_the_user(airflow, deliveries):
    shown = get(airflow, "data/explored/users.parquet").to_pylist()
    user = shown[0]["user_id"]
    done = airflow.forget(user)
    assert done.status == 0, done.output
    assert get(airflow, "data/explored/users.parquet").to_pylist() == shown[1:]
    page = get(airflow, "reports/explorer.html")
    lives = [life["name"] for life in scripts(page)[:-1]]
    assert lives == [row["name"] for row in shown[1:]]
    assert f">{shown[0]['name']}<" not in page
    for month in ("2017-11", "2017-12"):  # in whose deliveries the user is
        airflow.deliver(deliveries, month)
        airflow.wait_for_run(month, "success")
    assert user in read_parquet(deliveries / "behaviors/2017-11.parquet")["user_id"].to_pylist()
    n_tables = 0
    for path in (airflow.folder / "store").rglob("*"):
        if path.is_file() and path.read_bytes()[:4] == b"PAR1":
            table = pq.read_table(path)
            n_tables += "user_id" in table.column_names
            assert "user_id" not in table.column_names or user not in table["user_id"].to_pylist()
    assert n_tables > 50


def test_the_reports_tell_the_true_story_of_the_year(airflow):
    page = get(airflow, "reports/explorer.html")
    payload, months = scripts(page)[-1], [f"2017-{n:02d}" for n in range(1, 13)]
    assert payload["months"] == months
    settings = yaml.safe_load(airflow.git("show", "main:params.yaml"))
    assert payload["through"] == settings["training"]["through"]
    behaviors = [len(get(airflow, f"data/behaviors/{month}.parquet")) for month in months]
    share = np.frombuffer(b64decode(payload["trend"]), "uint8").reshape(-1, 12) / 255
    share = share * np.frombuffer(b64decode(payload["peak"]), "float32")[:, None]
    np.testing.assert_allclose(share.sum(0), 1, atol=0.02)  # one byte for each number
    counted = np.frombuffer(b64decode(payload["n_behaviors"]), "float32").sum()
    assert counted == sum(behaviors)  # the correction's and without whom was forgotten

    lineage = get(airflow, "models/interest_lineage.parquet").to_pylist()
    standing = [row for row in lineage if row["interest"] is not None]
    standing.sort(key=lambda row: row["interest"])
    ids = np.frombuffer(b64decode(payload["ids"]), "int32").tolist()
    assert ids == [row["interest_id"] for row in standing]
    born = np.frombuffer(b64decode(payload["born"]), "uint8").tolist()
    assert born == [row["status"] == "born" for row in standing]
    since = told(airflow, "reports/cluster_interests.json")["since_standing"]
    sentence = f"{since['kept']} interests were kept, {since['born']} born"
    assert sentence in " ".join(page.split())

    drift = {month: told(airflow, f"reports/drift/{month}.json") for month in months}
    rows = re.findall(r"<tr><td>(2017-\d\d)</td>\s*<td><span[^>]*>(\w+)</span>", page)
    assert rows == [(month, found["level"]) for month, found in drift.items()]
    assert drift["2017-12"]["heads"]  # as of a month whose label months are in
    assert "2017-05" in get(airflow, "reports/report.html")
    certificate = json.loads(airflow.git("show", "forgotten:certificates/1.json"))
    assert certificate["finished"]
    assert {"reports/explorer.html", "data/explored"} <= certificate["removed"].keys()


def _pid_of(command: str) -> int | None:
    """The oldest process whose command line holds these words."""
    processes = psutil.process_iter(["pid", "cmdline"])
    pids = [p.info["pid"] for p in processes if command in " ".join(p.info["cmdline"] or [])]
    return min(pids, default=None)
