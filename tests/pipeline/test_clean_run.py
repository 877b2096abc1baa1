"""A run, a run again, one more month, a corrected month, and what is wrong in the settings or missing."""

import json

import numpy as np
import pytest

from lurm.storage import read_parquet, write_parquet

pytestmark = pytest.mark.slow

TRAINING = {
    "pin_catalog",
    "pin_training@2017-01",
    "pin_training@2017-02",
    "embed_items",
    "cluster_interests",
    "build_timelines",
    "pretrain_smen",
}


def changed(before, after):
    """The outputs whose bytes differ."""
    return {path for path in before | after if before.get(path) != after.get(path)}


def test_a_second_run_does_nothing_and_says_so(complete_journey):
    again = complete_journey.do("dvc", "repro")
    assert again.ran == []
    assert "Data and pipelines are up to date." in again.output
    assert "Data and pipelines are up to date." in complete_journey.do("dvc", "status").output


def test_every_stage_of_the_pipeline_ran_for_every_month_and_task(complete_journey):
    listed = complete_journey.do("dvc", "stage", "list", "--all", "--name-only").output.split()
    assert set(listed) == {*complete_journey.stages(), "data/landing.dvc"}
    assert {"validate_logs@2017-03", "encode_users@2017-03", "train_heads@age"} <= set(listed)


def test_metrics_and_plots_can_be_shown(complete_journey, tmp_path):
    shown = json.loads(complete_journey.do("dvc", "metrics", "show", "--json").output)
    metrics = shown[""]["data"]
    assert 0 < metrics["reports/heads/coffee.json"]["data"]["auc"] < 1
    assert metrics["reports/scores.json"]["data"]["model_version"].startswith("2017-02-r1-")
    named = complete_journey.do(
        "dvc", "metrics", "show", "--json", "reports/validation/2017-02.json"
    ).output
    validation = json.loads(named)[""]["data"]["reports/validation/2017-02.json"]["data"]
    assert validation["rows_in"] == validation["rows_clean"] + validation["rows_set_aside"]
    complete_journey.do("dvc", "plots", "show", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text("utf-8")
    for plot in ("Item embedding loss", "SMEN loss", "ROC coffee", "Behaviors per month"):
        assert plot in page


def test_a_new_month_runs_its_own_stages_and_no_training(workspace, deliveries):
    before = workspace.hashes()
    landed = workspace.do("lurm", "land", "2017-04", "--from", str(deliveries))
    assert "month 2017-04 added" in landed.output
    assert set(workspace.repro()) == {
        "update_catalog@2017-04",
        "validate_logs@2017-04",
        "assign_items@2017-04",
        "build_boi@2017-04",
        "encode_users@2017-04",
        "compare_months",
        "report",
    }
    after = workspace.hashes()
    months = {"reports/months.json", "reports/months.csv"}
    pages = {"reports/report.html"}
    assert {path for path in changed(before, after) if "2017-04" not in path} <= months | pages
    assert workspace.json("reports/months.json")["months"] == 4
    assert workspace.repro() == []


def test_a_corrected_month_runs_under_the_pinned_models_until_a_new_release(
    workspace, deliveries, tmp_path
):
    before = workspace.hashes()
    corrected = tmp_path / "corrected"
    table = read_parquet(deliveries / "behaviors/2017-01.parquet")
    kept = np.delete(np.arange(len(table)), [5, 50, 500])
    kept[100:120] = kept[120:140]  # twenty rows now say the same as twenty others
    rows = table.take(kept)
    write_parquet(rows, corrected / "behaviors/2017-01.parquet")
    landed = workspace.do("lurm", "land", "2017-01", "--from", str(corrected))
    assert "behaviors/2017-01.parquet: replaced" in landed.output

    assert set(workspace.repro()) == {
        "validate_logs@2017-01",
        "compare_months",
        "build_boi@2017-01",
        *(f"encode_users@{month}" for month in ("2017-01", "2017-02", "2017-03")),
        *("train_heads@coffee", "train_heads@age", "report"),
    }
    pinned = workspace.hashes()
    moved = changed(before, pinned)
    assert {"data/behaviors/2017-01.parquet", "data/boi/2017-01.parquet"} <= moved
    assert {f"data/states/{m}" for m in ("2017-01", "2017-02", "2017-03")} <= moved
    assert {f"data/user_vectors/{m}.parquet" for m in ("2017-01", "2017-02", "2017-03")} <= moved
    frozen = ("models/", "data/training/", "data/timelines", "data/item_interests", "data/catalog")
    assert [p for p in moved if p.startswith(frozen) and "/heads/" not in p] == []
    assert workspace.json("reports/months.json")["due_for_retraining"] == ["2017-01"]

    workspace.set(training={"release": 2})
    assert set(workspace.repro()) >= TRAINING
    retrained = changed(pinned, workspace.hashes())
    assert {p for p in before if p.startswith("models/")} <= retrained | {
        # a few rows fewer change neither the catalog nor, with it, the words and the items
        *("models/vocabulary.json", "models/items.parquet", "models/interest_sample.parquet")
    }
    assert "data/training/behaviors/2017-01.parquet" in retrained
    assert "data/training/behaviors/2017-02.parquet" not in retrained
    assert workspace.json("reports/months.json")["due_for_retraining"] == []


# ---- a missing month -----------------------------------------------------------------------------


def test_a_month_missing_among_the_settings_is_named(workspace):
    months = workspace.settings()["months"]
    del months["2017-02"]
    workspace.set(months=months)
    done = workspace.run("dvc", "repro")
    assert done.status != 0
    assert "2017-02" in done.error


def test_a_month_missing_in_the_landing_place_is_named(workspace):
    (workspace.root / "data/landing/behaviors/2017-02.parquet").unlink()
    done = workspace.run("dvc", "repro")
    assert done.status != 0
    assert "data/landing/behaviors/2017-02.parquet" in done.error


def test_a_month_that_skips_one_is_not_landed(workspace, deliveries):
    done = workspace.run("lurm", "land", "2017-05", "--from", str(deliveries))
    assert done.status == 1
    assert "2017-04" in done.error


def test_a_month_missing_among_the_pinned_ones_is_named_by_every_stage_that_trains(
    workspace, run_stage
):
    (workspace.root / "data/training/behaviors/2017-01.parquet").unlink()
    for stage in ("embed_items", "cluster_interests", "build_timelines", "compare_months"):
        done = run_stage(workspace, stage)
        assert done.status == 1
        assert "2017-01.parquet" in done.error


def test_a_pinned_month_that_was_lost_comes_back_by_itself(workspace):
    (workspace.root / "data/training/behaviors/2017-01.parquet").unlink()
    before = workspace.hashes()
    workspace.repro()
    assert workspace.hashes() == before
    assert (workspace.root / "data/training/behaviors/2017-01.parquet").exists()


# ---- wrong settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "settings", "stage", "message"),
    [
        ("embed_items", {"stepz": 5}, "embed_items", "embed_items.stepz: no such setting"),
        ("evaluation", {"validation_share": 1.5}, "train_heads@coffee", "validation_share"),
        ("training", {"relase": 2}, "report", "training.relase: no such setting"),
    ],
    ids=["misspelt", "out of range", "misspelt where few look"],
)
def test_a_wrong_setting_stops_the_run_at_once_and_setting_it_right_is_enough(
    workspace, section, settings, stage, message
):
    before, right = workspace.hashes(), workspace.settings()[section]
    workspace.set(**{section: settings})
    done = workspace.run("dvc", "repro")
    assert done.status != 0
    assert done.ran == [stage]
    assert message in done.error
    whole = workspace.settings()
    whole[section] = right
    workspace.write_settings(whole)
    assert workspace.repro() == []
    assert workspace.hashes() == before


def test_a_misspelt_section_stops_the_run(workspace):
    settings = workspace.settings()
    settings["pretrain_smenn"] = settings.pop("pretrain_smen")
    workspace.write_settings(settings)
    done = workspace.run("dvc", "repro")
    assert done.status != 0
    assert "pretrain_smen" in done.error
