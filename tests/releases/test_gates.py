"""The gate: as arithmetic on made-up scores, and before a platform's release."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

from lurm.releases import gates
from lurm.releases.gates import gate, has_passed
from lurm.releases.plans import RELEASE_MODEL
from lurm.storage import read_json, read_parquet, write_json
from tests.pipeline.workspaces import ROOT
from tests.releases.platforms import DONE, REFUSED, SHORT, check, vectors
from tests.releases.test_corrections import correct

STANDING = {"coffee": [0.70, 0.72], "age": [0.60, 0.58]}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A retraining that ended: with scores of its own and of the standing models, and empty interests."""

    def make(new, *, standing=STANDING, empty=0.0, cold=None, **carried):
        settings = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
        settings["tasks"] = {task: settings["tasks"][task] for task in STANDING}
        settings["evaluation"] |= {"folds": 2, "repeats": 1}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        interests = {
            "items": {"mean_cosine": 0.93},
            "behaviors": {"share_empty": empty, "mean_cosine": 0.94},
        }
        if cold:
            interests["cold_start"] = {by: {"mean_cosine": cold} for by in ("items", "behaviors")}
        write_json(interests, tmp_path / "reports/cluster_interests.json")
        for task, scores in new.items():
            folds = {"folds": [{"auc": auc} for auc in scores]}
            write_json(folds, tmp_path / f"reports/heads/{task}.json")
        told = {
            task: {"standing": scores, **{name: them[task] for name, them in carried.items()}}
            for task, scores in (standing or {}).items()
        }
        monkeypatch.setattr(gates, "standing_scores", lambda *_: told)
        published = {RELEASE_MODEL: "a"} if standing else {}
        return SimpleNamespace(
            root=tmp_path,
            folder=tmp_path,
            published=lambda: "1234abc",
            outputs=lambda _: published,
        )

    return make


def shifted(by):
    return {task: [auc + by for auc in scores] for task, scores in STANDING.items()}


def test_models_that_are_as_good_pass(workspace):
    there = workspace(STANDING)
    found = gate(there)
    assert found["auc_difference"]["mean"] == 0
    assert found["tasks"]["age"] == {"new": pytest.approx(0.59), "standing": pytest.approx(0.59)}
    assert read_json(there.root / "reports/gate.json") == {**found, "passed": True, "faults": []}
    assert has_passed(there)


def test_models_that_are_plainly_worse_do_not_pass(workspace):
    there = workspace(shifted(-0.02))
    with pytest.raises(ValueError, match="standing release stays") as refused:
        gate(there)
    assert "mean AUC over 2 tasks falls by 2.0 points" in str(refused.value)
    assert "95% interval -2.0 to -2.0" in str(refused.value)
    assert read_json(there.root / "reports/gate.json")["faults"]
    assert not has_passed(there)


def test_a_loss_within_the_limit_passes(workspace):
    assert gate(workspace(shifted(-0.004)))["auc_difference"]["high"] < 0


def test_a_loss_that_may_be_chance_passes(workspace):
    found = gate(workspace({"coffee": [0.80, 0.54], "age": [0.60, 0.58]}))["auc_difference"]
    assert found["mean"] == pytest.approx(-0.02)
    assert found["low"] < 0 < found["high"]


def test_one_task_may_lose_what_another_wins(workspace):
    there = workspace({"coffee": [0.65, 0.67], "age": [0.65, 0.63]})
    assert gate(there)["auc_difference"]["mean"] == pytest.approx(0)


def test_too_many_empty_interests_do_not_pass(workspace):
    with pytest.raises(ValueError, match=r"6\.0% of the interests hold no behavior, at most 5\.0%"):
        gate(workspace(STANDING, empty=0.06))


def test_all_faults_are_told_at_once(workspace):
    with pytest.raises(ValueError, match=r"interests hold no behavior.*; the mean AUC"):
        gate(workspace(shifted(-0.02), empty=0.06))


def test_heads_that_go_on_serving_pass(workspace):
    there = workspace(
        STANDING, carried=shifted(-0.004), unaligned=shifted(-0.2), raw=shifted(0.001)
    )
    found = gate(there)
    assert found["head_loss"]["mean"] == pytest.approx(0.004)
    assert found["head_loss_unaligned"]["mean"] == pytest.approx(0.201)
    assert found["alignment_loss"]["mean"] == pytest.approx(0.001)
    assert found["tasks"]["age"]["carried"] == pytest.approx(0.586)


def test_heads_that_plainly_lose_do_not_pass(workspace):
    there = workspace(STANDING, carried=shifted(-0.02), unaligned=shifted(-0.2), raw=STANDING)
    with pytest.raises(ValueError, match="heads of the standing release lose") as refused:
        gate(there)
    assert "by 2.0 points (95% interval 2.0 to 2.0), at most 0.5" in str(refused.value)
    assert "set pretrain_smen.space to new" in str(refused.value)
    assert not has_passed(there)


def test_a_loss_of_heads_that_may_be_chance_passes(workspace):
    carried = {"coffee": [0.60, 0.80], "age": [0.60, 0.58]}
    found = gate(workspace(STANDING, carried=carried, unaligned=carried, raw=STANDING))
    assert found["head_loss"]["mean"] == pytest.approx(0.005)
    assert found["head_loss"]["low"] < 0


def test_in_a_new_space_what_heads_would_lose_is_told_and_allowed(workspace):
    found = gate(workspace(STANDING, carried=shifted(-0.2)))
    assert found["head_loss"]["mean"] == pytest.approx(0.2)
    assert "head_loss_unaligned" not in found


def test_interests_that_hold_their_items_less_closely_than_a_cold_start_do_not_pass(workspace):
    assert gate(workspace(STANDING, cold=0.935))["cosine_loss"] == pytest.approx(0.005, abs=1e-3)
    with pytest.raises(ValueError, match=r"2\.1% below that of a cold start, at most 1\.0%.*anew"):
        gate(workspace(STANDING, cold=0.95))


def test_gate_leaves_out_tasks_that_could_not_be_trained(workspace):
    there = workspace(STANDING)
    skipped = {"task": "age", "skipped": "a class of 2 users"}
    write_json(skipped, there.root / "reports/heads/age.json")
    assert set(gate(there)["tasks"]) == {"coffee"}


def test_gate_compares_nothing_if_no_task_could_be_trained(workspace):
    there = workspace(STANDING)
    for task in STANDING:
        write_json({"task": task, "skipped": "?"}, there.root / f"reports/heads/{task}.json")
    assert gate(there)["tasks"] == {}


def test_a_first_release_is_compared_with_nothing(workspace):
    assert gate(workspace(STANDING, standing=None)) == {"empty_interests": 0.0}


def test_what_passed_against_one_release_has_not_passed_against_the_next(workspace):
    there = workspace(STANDING)
    gate(there)
    there.published = lambda: "5678def"
    assert not has_passed(there)


# ---- before a release ----------------------------------------------------------------------------

# The report stands at the end of all other stages.
TO_GATE = ("open", "report", "gate")


@pytest.mark.slow
def test_a_retraining_that_fails_its_gate_leaves_the_standing_release(platform, tmp_path):
    platform.change(
        "more interests than anybody buys",
        at=tmp_path / "person",
        params={
            "n_interests: 30": "n_interests: 3000",
            "max_empty_interests: 0.05": "max_empty_interests: 0.0",
        },
    )
    before = platform.names()
    ended = platform.run_retraining("--through", "2017-02", run="worse", steps=TO_GATE)
    assert ended["gate"].status == REFUSED
    assert "the standing release stays: " in ended["gate"].reason
    assert "of the interests hold no behavior, at most 0.0% are allowed" in ended["gate"].reason
    assert platform.steps("worse")["gate"]["reason"] == ended["gate"].reason
    # Nor does publishing by hand get past the gate.
    again = platform.step("worse", "publish")
    assert again.status == REFUSED
    assert "the standing release stays: " in again.reason
    # Comparing once more does not write through the link that the first comparison left.
    objects = [path for path in (platform.home / "cache/files").rglob("*") if path.is_file()]
    assert [path for path in objects if not path.stat().st_size] == []
    assert platform.names() == before


@pytest.mark.slow
def test_a_retraining_that_passes_is_the_next_release_and_moves_no_name_of_a_month(later):
    later.deliver(*("2017-04", "2017-05", "2017-06"))
    before, models = later.names(), later.hashes()[RELEASE_MODEL]
    ended = later.run_retraining("--through", "2017-03", run="better", steps=(*TO_GATE, "publish"))
    assert [step.status for step in ended.values()] == [DONE] * 4, list(ended.values())[-1].log
    assert ended["publish"].result["published"] == ["release/2"]
    assert set(ended["gate"].result["tasks"]) == {"coffee", "age"}

    after = later.names()
    assert {name for name in after if after[name] != before.get(name)} == {"main", "release/2"}
    training = later.at("main", "params.yaml")["training"]
    assert training["release"] == 2
    assert training["months"] == ["2017-01", "2017-02", "2017-03"]
    assert later.at("main", "reports/gate.json")["passed"]
    assert later.hashes()[RELEASE_MODEL] != models
    first, second = (later.at(name, "reports/release.json") for name in ("refresh/2017-06", "main"))
    assert second["model_version"] != first["model_version"] == first["space_version"]
    assert second["space_version"] == first["space_version"]
    assert second["compatible_with"] == [first["model_version"]]
    told = later.at("main", "reports/gate.json")
    assert {"head_loss", "head_loss_unaligned", "alignment_loss"} <= told.keys()
    assert told["cosine_loss"] < 0.01
    for month in ("2017-04", "2017-05", "2017-06"):  # all months follow the new models
        assert later.hashes()[vectors(month)] != later.hashes(f"refresh/{month}")[vectors(month)]


@pytest.mark.slow
def test_a_month_can_be_corrected_after_a_retraining_that_moved_its_labels(later):
    later.deliver(*("2017-04", "2017-05", "2017-06"))
    check(later.run_retraining("--through", "2017-03", run="moved", steps=SHORT))
    model = later.hashes()[RELEASE_MODEL]
    assert later.at("main", "params.yaml")["evaluation"]["label_months"] == ["2017-04"]
    labels = {name for name in later.at("main", "dvc.lock")["stages"] if "collect_labels" in name}
    assert labels == {"collect_labels@2017-04"}  # no stage that the settings no longer name
    correct(later, "2017-04")
    refreshed = later.run_month("2017-04", run="corrected", steps=SHORT)
    check(refreshed)
    assert "refresh/2017-04/r2" in refreshed["publish"].result["published"]
    assert later.hashes()[RELEASE_MODEL] == model
    # A user who is forgotten then leaves the models as up to date as they were.
    later = replace(
        later,
        extra=later.extra
        | {"LURM_ERASURE_KEY": "a key of more than 32 characters, for the users who are forgotten"},
    )
    user = read_parquet(later.deliveries / "behaviors/2017-04.parquet")["user_id"][0].as_py()
    assert later.forget(user).status == DONE
    check(later.run_month("2017-05", run="after", steps=SHORT))
