"""What becomes of a step: its exit status, and the reason that a person reads."""

import pytest

from lurm.releases.places import Places
from lurm.releases.plans import Refresh, Retrain
from lurm.releases.steps import StepError, step, warnings
from lurm.releases.workspaces import CommandError, Workspace
from lurm.storage import read_json, write_json

REFUSED = """\
Running stage 'validate_logs@{month}':
> python stages/validate_logs.py --month {month}
error: data/landing/behaviors/{month}.parquet: 97.1% of the rows lie outside {month}
  (at most 5.0% are allowed)
ERROR: failed to reproduce 'validate_logs@{month}': failed to run: python, exited with 1
"""
FULL = """\
Running stage 'build_boi@2017-04':
error: data/boi/2017-04.parquet: not finished: No space left on device; make room and run again
ERROR: failed to reproduce 'build_boi@2017-04': failed to run: python stages/build_boi.py, exited with 70
"""
KILLED = """\
Running stage 'build_boi@2017-04':
ERROR: failed to reproduce 'build_boi@2017-04': failed to run: python, exited with -9
"""
PUSH = """\
error: failed to push some refs to '/platform/published.git'
"""
REPRO, LAND = ("dvc", "repro"), ("lurm", "land", "2017-04")


@pytest.fixture
def places(tmp_path):
    """A platform with a run for 2017-04 whose workspace is there."""
    places = Places(tmp_path, "", "")
    ready = places.run_folder("a-run") / "workspace/.git/lurm-ready"
    ready.parent.mkdir(parents=True)
    ready.touch()
    write_json({"kind": "refresh", "month": "2017-04"}, places.run_folder("a-run") / "plan.json")
    return places


@pytest.fixture
def ended(places):
    """How a step ends whose work raises an error: status and reason, as raised and written down."""

    def run(error):
        def work(_):
            raise error

        with pytest.raises(StepError) as raised:
            step(places, "a-run", "a-step", work)
        record = read_json(places.run_folder("a-run") / "steps/a-step.json")
        assert record == {
            "status": raised.value.status, "reason": str(raised.value), "page": None
        }  # fmt: skip
        return record["status"], record["reason"]

    return run


def test_a_month_that_its_stage_refuses_is_refused_with_all_lines_of_the_reason(ended):
    status, reason = ended(CommandError(REPRO, 255, REFUSED.format(month="2017-04")))
    assert status == "refused"
    assert reason.startswith("data/landing/behaviors/2017-04.parquet: 97.1%")
    assert reason.endswith("(at most 5.0% are allowed)")


def test_a_step_waits_for_an_earlier_month_that_is_refused(ended):
    status, reason = ended(CommandError(REPRO, 255, REFUSED.format(month="2017-03")))
    assert status == "waits"
    assert reason.startswith("waits for 2017-03, whose validate_logs@2017-03 says: data/landing")


def test_a_step_that_waited_lands_what_is_delivered_by_then(ended, places):
    mark = places.run_folder("a-run") / "based-on"
    mark.write_text("a commit")
    ended(CommandError(REPRO, 255, FULL))
    assert mark.exists()
    ended(CommandError(REPRO, 255, REFUSED.format(month="2017-03")))
    assert not mark.exists()


def test_a_later_month_that_is_refused_is_no_reason_to_wait(ended):
    assert ended(CommandError(REPRO, 255, REFUSED.format(month="2017-05")))[0] == "refused"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CommandError(REPRO, 255, FULL), "No space left on device; make room and run again"),
        (CommandError(REPRO, 255, KILLED), "exited with -9"),
        (CommandError(LAND, 70, "error: s3://b: cannot be reached: no route"), "cannot be reached"),
        (CommandError(("git", "push"), 1, PUSH), "failed to push some refs"),
        (CommandError(("git", "fetch"), -9, ""), "git fetch ended with status -9: no output"),
        (CommandError(("dvc", "push"), 255, "ERROR: failed to push data"), "failed to push data"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_the_machine_could_not_do_failed_and_may_be_tried_again(ended, error, reason):
    status, told = ended(error)
    assert status == "failed"
    assert reason in told


@pytest.mark.parametrize(
    "error",
    [
        ValueError("2017-04: expected a release"),
        CommandError(LAND, 1, "error: 2017-04: expected behaviors/2017-04.parquet, found none"),
    ],
)
def test_what_somebody_must_change_is_refused(ended, error):
    status, reason = ended(error)
    assert status == "refused"
    assert reason.startswith("2017-04: expected")


def test_a_step_that_ends_well_says_what_it_did_and_by_which_image(places, monkeypatch):
    monkeypatch.setenv("LURM_IMAGE", "lurm-models@sha256:1")
    assert step(places, "a-run", "a-step", lambda _: {"rows": 3}) == {"rows": 3}
    record = read_json(places.run_folder("a-run") / "steps/a-step.json")
    assert record == {
        "status": "done", "page": None, "result": {"rows": 3}, "image": "lurm-models@sha256:1"
    }  # fmt: skip


def test_a_step_that_is_repeated_forgets_how_it_ended_before(places):
    record = places.run_folder("a-run") / "steps/a-step.json"
    step(places, "a-run", "a-step", lambda _: {})
    assert record.exists()
    step(places, "a-run", "a-step", lambda _: {"is there": record.exists()})
    assert read_json(record)["result"] == {"is there": False}


def test_a_disk_without_room_for_the_record_is_a_failure_all_the_same(places, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lurm.releases.steps.write_json", full)
    with pytest.raises(StepError, match="No space left") as raised:
        step(places, "a-run", "a-step", lambda _: {})
    assert raised.value.status == "failed"
    assert "No space left" in caplog.text


def test_a_repository_that_is_out_of_reach_is_a_failure(tmp_path):
    places = Places(tmp_path / "home", str(tmp_path / "nowhere.git"), "")
    with pytest.raises(StepError, match=r"nowhere\.git' does not exist") as raised:
        step(places, "a-run", "a-step", lambda _: {})
    assert raised.value.status == "failed"


def test_the_commands_of_a_step_inherit_its_locks(places):
    def work(workspace: Workspace):
        held = workspace.do("ls", "-l", "/proc/self/fd", at=workspace.folder)
        return {"locks": [line.split()[-1] for line in held.splitlines() if "lock" in line]}

    folder = places.run_folder("a-run")
    found = step(places, "a-run", "a-step", work)["locks"]
    # The run's lock twice: once as standard input, which the processes of DVC's stages inherit too.
    assert set(found) == {str(places.home / "cache.lock"), str(folder / "lock")}


def test_a_refresh_tells_of_the_drift_of_its_own_month(places):
    workspace = Workspace(places, "a-run")
    told = ["2017-04: the change of volume is 1"]
    write_json({"told": told}, workspace.root / "reports/drift/2017-04.json")
    assert warnings(workspace, "watch_drift", Refresh(month="2017-04")) == told
    retrain = Retrain(first="2017-01", last="2017-04", through="2017-03", label_months=("2017-04",))
    assert warnings(workspace, "watch_drift", retrain) == []
