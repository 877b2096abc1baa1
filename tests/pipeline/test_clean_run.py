"""A run, a run again, one more month, a corrected month, and what is wrong in the settings or missing."""

import json

import numpy as np
import pytest

from lurm.storage import read_parquet, write_parquet

pytestmark = pytest.mark.slow

MONTHS = ["2017-01", "2017-02", "2017-03"]
APPLIED = {f"apply_heads@{month}" for month in MONTHS}
TRAINING = {
    "pin_catalog",
    "pin_training@2017-01",
    "pin_training@2017-02",
    "embed_items",
    "cluster_interests",
    "build_timelines",
    "pretrain_smen",
    "collect_labels@2017-03",
    "open_drift",
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
        "apply_heads@2017-04",
        "index_users@2017-04",
        "watch_drift@2017-04",
        "compare_months",
        "report",
        "cards",
        "explore",
    }
    after = workspace.hashes()
    months = {"reports/months.json", "reports/months.csv"}
    pages = {"reports/report.html", "reports/data_card.md", "reports/model_card.md"}
    pages |= {"reports/explorer.html", "data/explored/users.parquet"}
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
        *(
            f"{stage}@{month}"
            for stage in ("encode_users", "index_users", "watch_drift")
            for month in MONTHS
        ),
        *APPLIED,
        "report",
        "cards",
        "explore",
    }
    pinned = workspace.hashes()
    moved = changed(before, pinned)
    assert {"data/behaviors/2017-01.parquet", "data/boi/2017-01.parquet"} <= moved
    assert {f"data/states/{month}" for month in MONTHS} <= moved
    assert {f"data/user_vectors/{month}.parquet" for month in MONTHS} <= moved
    assert {f"data/predictions/{month}.parquet" for month in MONTHS} <= moved
    frozen = ("models/", "data/training/", "data/timelines", "data/item_interests", "data/catalog")
    frozen += ("data/labels/", "data/encoded/")
    assert [path for path in moved if path.startswith(frozen)] == []
    assert workspace.json("reports/months.json")["due_for_retraining"] == ["2017-01"]

    workspace.set(training={"release": 2})
    retraining = workspace.do("dvc", "repro", "pretrain_smen", "compare_months")
    assert set(retraining.ran) == {*TRAINING, "compare_months"}
    retrained = changed(pinned, workspace.hashes())
    assert retrained >= {
        "data/training/behaviors/2017-01.parquet",
        "data/timelines",
        "models/item_encoder.safetensors",
        "models/anchor_shares.npy",
        "models/interest_centres.npy",
        "models/item_interests.parquet",
        "models/smen.safetensors",
    }
    assert "data/training/behaviors/2017-02.parquet" not in retrained
    assert workspace.json("reports/months.json")["due_for_retraining"] == []
    again = set(workspace.repro())
    assert again >= {
        "train_heads@coffee",
        "train_heads@age",
        *APPLIED,
        "report",
        "cards",
        "explore",
    }
    assert again.isdisjoint(TRAINING)
    assert workspace.json("reports/scores.json")["model_version"].startswith("2017-02-r2-")


def test_what_another_workspace_pinned_under_the_same_notes_is_not_taken_from_a_shared_cache(
    complete_journey, workspace, deliveries, tmp_path
):
    corrected = tmp_path / "corrected"
    for month in ("2017-01", "2017-03"):
        table = read_parquet(deliveries / f"behaviors/{month}.parquet")
        write_parquet(table.slice(len(table) // 20), corrected / f"behaviors/{month}.parquet")
        workspace.do("lurm", "land", month, "--from", str(corrected))
    pinning = ["pin_training@2017-01", "collect_labels@2017-03", "train_heads@age"]
    workspace.forget(*pinning)
    vectors = [f"encode_users@{month}" for month in ("2017-01", "2017-02")]
    behaviors = [f"validate_logs@{month}" for month in ("2017-01", "2017-03")]
    for stage in [*behaviors, "build_boi@2017-01", *vectors, *pinning]:
        assert workspace.do("dvc", "repro", "--single-item", stage).ran == [stage]
    ours, theirs = workspace.hashes(), complete_journey.hashes()
    assert ours["data/accepted/2017-01.json"] == theirs["data/accepted/2017-01.json"]
    assert ours["data/encoded/2017-02.json"] == theirs["data/encoded/2017-02.json"]
    pinned = "data/training/behaviors/2017-01.parquet"
    assert ours[pinned] == ours["data/behaviors/2017-01.parquet"] != theirs[pinned]
    for read in ("data/labels/2017-03.parquet", "models/heads/age.safetensors"):
        assert ours[read] != theirs[read]


def test_a_changed_file_in_the_landing_place_is_noticed(workspace):
    path = workspace.root / "data/landing/users.parquet"
    users = read_parquet(path)
    write_parquet(users.slice(50), path)
    ran = workspace.repro()
    assert ran[0] == "train_heads@age"
    watched = {f"watch_drift@{month}" for month in MONTHS}
    assert set(ran) == {"train_heads@age", *APPLIED, *watched, "report", "cards", "explore"}
    assert "up to date" in workspace.do("dvc", "status").output


def test_another_engine_or_more_memory_runs_no_month_again(workspace):
    before = workspace.hashes()
    more = {"memory_limit": "2GB"}
    workspace.set(build_boi=more, update_catalog=more, encode_users={"spark_master": "local[4]"})
    assert set(workspace.repro()) == {"report", "cards"}
    after = workspace.hashes()
    told = {"reports/report.html", "reports/data_card.md", "reports/model_card.md"}
    assert changed(before, after) <= told


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
    before, right = workspace.hashes(), (workspace.root / "params.yaml").read_bytes()
    workspace.set(**{section: settings})
    done = workspace.run("dvc", "repro")
    assert done.status != 0
    assert done.ran == [stage]
    assert message in done.error
    (workspace.root / "params.yaml").write_bytes(right)
    assert workspace.repro() == []
    assert workspace.hashes() == before


def test_a_misspelt_section_stops_the_run(workspace):
    settings = workspace.settings()
    settings["pretrain_smenn"] = settings.pop("pretrain_smen")
    workspace.write_settings(settings)
    done = workspace.run("dvc", "repro")
    assert done.status != 0
    assert "pretrain_smen" in done.error
