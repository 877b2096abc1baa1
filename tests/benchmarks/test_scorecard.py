"""A scorecard on a planted shop: half of the users buy coffee, and go on to do so."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
import yaml

from benchmarks import scorecard
from benchmarks.data_sets import among, open_data_set, wide_tasks
from benchmarks.methods import CHANGES, METHODS, possible
from benchmarks.variants import Variant, bags_of, changed, last_bags, vectors_of
from lurm.heads import Scores
from lurm.params import load_params
from lurm.smen import Smen, SmenSettings
from lurm.storage import read_json, write_array, write_parquet, write_tensors
from lurm.tables import TIMESTAMP
from lurm.tasks import TaskLabels
from lurm.timelines import build_timelines, finish, save_shard
from tests import reference

PARAMS = Path(__file__).parents[2] / "params.yaml"
N_USERS, N_ITEMS = 120, 20
MONTHS = ("2017-01", "2017-02")


def write_month(folder, month, users, items):
    when = pa.array([datetime(2017, int(month[5:]), 1, tzinfo=UTC)] * len(users), TIMESTAMP)
    write_parquet(
        pa.table({"user_id": users, "timestamp": when, "item_id": items}),
        f"{folder}/{month}.parquet",
    )


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The workspace of a finished run; its published vectors tell who buys coffee, loudly."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    settings = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    settings["training"].update(months=list(MONTHS), through=MONTHS[-1])
    settings["evaluation"].update(folds=2, repeats=2, max_epochs=15, learning_rate=0.02)
    settings["evaluation"]["penalties"] = [0.001, 0.1]
    settings["evaluation"]["boosting"]["trees"] = 20
    settings["tasks"] = {name: settings["tasks"][name] for name in ("coffee", "age")}
    settings["cluster_interests"].update(n_interests=4)
    settings["pretrain_smen"].update(n_anchors=2, width=4, published_width=5)
    settings["pretrain_smen"].update(epochs=2, batch_size=32)
    Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(N_USERS), 5)
    for month in MONTHS:
        write_month(
            "data/training/behaviors", month, users, 2 * rng.integers(0, 10, 600) + users % 2
        )
    kinds = ["COFFEE", "TEA"] * 10
    texts = dict.fromkeys(("product_type", "department", "brand", "package_size"), kinds)
    catalog = {"item_id": range(N_ITEMS), "product_category": kinds, **texts}
    write_parquet(pa.table(catalog), "data/training/catalog.parquet")
    write_parquet(pa.table({"item_id": range(N_ITEMS)}), "models/items.parquet")
    vectors = rng.standard_normal((N_ITEMS, 8)).astype(np.float32)
    vectors[:, 0] += np.where(np.arange(N_ITEMS) % 2, 5, -5)
    write_array(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "models/item_vectors.npy")
    write_array(vectors[:4], "models/interest_centres.npy")
    write_encoder()
    lives = {u: {24204: {u % 4: 1.0}, 24205: {(u + 1) % 4: 2.0}} for u in range(N_USERS)}
    shard = save_shard(build_timelines(reference.boi_tables(lives)), Path("data/timelines/00000"))
    finish(Path("data/timelines"), [shard])
    coffee = np.arange(0, N_USERS, 2)
    for month in ("2017-11", "2017-12"):
        write_month("data/behaviors", month, coffee, coffee % N_ITEMS)
        write_parquet(pa.table(catalog), f"data/catalog/{month}.parquet")
    for month in ("2017-11", "2017-12"):
        columns = {"column": ["product_category"] * len(coffee), "value": ["COFFEE"] * len(coffee)}
        write_parquet(pa.table({"user_id": coffee, **columns}), f"data/labels/{month}.parquet")
    ages = rng.choice(["young", "old"], N_USERS)
    write_parquet(pa.table({"user_id": range(N_USERS), "age": ages}), "data/landing/users.parquet")
    write_published(range(N_USERS))
    monkeypatch.setattr(scorecard, "DATA_SETS", {"shop": Path()})
    return open_data_set("shop", Path())


def write_encoder(seed=0):
    torch.manual_seed(seed)
    settings = SmenSettings(4, 2, 4, {"month": 1, "year": 12})
    about = {"model_version": "v", **settings.to_json()}
    write_tensors(Smen(settings).state_dict(), "models/smen.safetensors", about)


def write_published(users):
    order = np.random.default_rng(1).permutation(list(users))
    taste = np.where(order % 2, -1.0, 1.0)
    told = np.column_stack([taste, np.zeros((len(order), 299))]) + np.random.default_rng(
        2
    ).standard_normal((len(order), 300))
    write_parquet(
        pa.table(
            {
                "user_id": order,
                "vector": pa.array(told.tolist(), pa.list_(pa.float32(), 300)),
                "model_version": ["v"] * len(order),
            }
        ),
        "data/user_vectors/2017-10.parquet",
    )


def run(*args):
    scorecard.main([*args, "--data-sets", "shop", "--threads", "1"])
    return read_json("reports/scorecard.json")["shop"]


COFFEE = "product_category=COFFEE"


@pytest.mark.usefixtures("shop")
def test_main_scores_vectors_and_methods_by_task_with_every_head(capsys):
    card = run("--only", "lurm", "lurm_counts", "category_counts", "text_cnn", "boi", "month_only")
    assert card["n_users"] == {COFFEE: N_USERS, "age": N_USERS}
    assert card["kinds"] == {"wide": [COFFEE], "attribute": ["age"]}
    methods = card["methods"]
    assert {name: row["width"] for name, row in methods.items()} == {
        "lurm": 300,
        "lurm_counts": 300 + 4 * 2 + 4 * 2,
        "category_counts": 2,
        "text_cnn": None,
        "boi": 4,
        "month_only": 5,
    }
    assert methods["category_counts"]["heads"]["wide"]["best"] == 1
    assert set(methods["category_counts"]["heads"]["wide"]) == {*scorecard.HEADS, "best"}
    assert set(methods["text_cnn"]["heads"]["wide"]) == {"by task", "best"}
    lead = methods["category_counts"]["leads"]["wide"]
    assert lead["low"] < lead["mean"] < 0
    assert {claim["claim"] for claim in card["claims"]} >= {"a", "c", "d"}
    printed = capsys.readouterr().out
    assert "category counts" in printed
    assert "(a) wide tasks: LURM beats the best rival" in printed


@pytest.mark.usefixtures("shop")
def test_main_quick_trains_boosted_heads_for_lurm_and_category_counts_alone():
    names = ["lurm", "category_counts", "boi"]
    scorecard.main(["--quick", "--only", *names, "--data-sets", "shop", "--threads", "1"])
    methods = read_json("reports/scorecard_quick.json")["shop"]["methods"]
    assert set(methods["boi"]["heads"]["wide"]) == {"logistic", "sparse", "blend", "auto", "best"}
    for name in ("lurm", "category_counts"):
        assert "boosting" in methods[name]["heads"]["wide"]


def test_wide_tasks_are_the_values_between_two_shares_of_the_users():
    users = pa.array([3, 1, 2, 4])
    later = pa.table(
        {
            "user_id": [1, 2, 3, 4, 1, 3, 4, 9],
            "value": ["all", "all", "all", "all", "half", "half", "one", "half"],
        }
    )
    tasks = wide_tasks(users, later, "kind", 0.3, 0.9)
    assert list(tasks) == ["kind=half"]
    assert tasks["kind=half"].y.tolist() == [1, 1, 0, 0]
    with pytest.raises(ValueError, match="no value of kind"):
        wide_tasks(users, later, "kind", 0.6, 0.9)
    with pytest.raises(ValueError, match="0 < least < largest < 1"):
        wide_tasks(users, later, "kind", 0.9, 0.3)


def test_influence_is_that_of_the_folds_and_zero_for_users_outside_the_task():
    labels = TaskLabels(np.array([1, 2, 3, 5]), np.array([0, 1, 0, 1]), ("no", "yes"))
    scores = Scores()
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    for rows in (np.array([0, 1]), np.array([2, 3])):
        scores.add(labels.y[rows], rows, p, "logistic")
    result = scorecard.influence(scores, labels, 6)
    assert result.tolist() == [0] * 6  # both folds are ordered perfectly, so that no user deviates


@pytest.mark.usefixtures("shop")
def test_a_second_run_scores_nothing_again_until_what_a_method_depends_on_changes(monkeypatch):
    first = run("--only", "lurm", "tf_idf")
    made = []
    whole = scorecard.run_method
    monkeypatch.setattr(
        scorecard,
        "run_method",
        lambda data_set, name, *rest: made.append(name) or whole(data_set, name, *rest),
    )
    assert run("--only", "lurm", "tf_idf") == first
    assert made == []
    write_encoder(seed=1)
    run("--only", "lurm", "tf_idf")
    assert made == ["lurm"]
    write_month("data/training/behaviors", "2017-02", [3] * 50, [1] * 50)
    run("--only", "lurm", "tf_idf")
    assert made == ["lurm", "lurm", "tf_idf"]


@pytest.mark.usefixtures("shop")
def test_months_after_the_cut_off_change_no_score():
    before = run("--only", "lurm", "tf_idf")["methods"]["tf_idf"]
    write_month("data/training/behaviors", "2017-03", [0] * 1000, [1] * 1000)
    after = run("--only", "lurm", "tf_idf")["methods"]["tf_idf"]
    assert after == before


def test_users_without_a_vector_are_refused(shop):
    write_published([3])
    with pytest.raises(ValueError, match=r"2017-10\.parquet: 119 of 120 users"):
        _ = shop.published


def test_without_lurm_there_is_nothing_to_compare_with(shop):
    with pytest.raises(ValueError, match="LURM itself is not scored yet"):
        run("--only", "tf_idf")


def test_validation_and_reported_users_share_nobody(shop):
    one, other = shop.tasks("reported"), shop.tasks("validation")
    for task in one:
        assert not np.intersect1d(one[task].rows, other[task].rows).size
        assert len(one[task].rows) + len(other[task].rows) == N_USERS
        assert len(shop.tasks("all")[task].rows) == N_USERS


@pytest.mark.usefixtures("shop")
def test_other_users_have_records_and_a_card_of_their_own():
    run("--only", "lurm")
    scorecard.main(["--only", "lurm", "--data-sets", "shop", "--users", "reported"])
    counts = read_json("reports/scorecard_reported.json")["shop"]["n_users"]
    assert counts[COFFEE] == counts["age"] < N_USERS
    assert read_json("reports/scorecard.json")["shop"]["n_users"][COFFEE] == N_USERS


def test_a_class_that_is_too_small_among_the_users_is_left_out():
    task = TaskLabels(np.arange(8), np.array([0, 0, 0, 1, 2, 2, 2, 1]), ("a", "b", "c"))
    found = among(task, np.array([True] * 7 + [False]), smallest=2)
    assert (found.rows.tolist(), found.y.tolist()) == ([0, 1, 2, 4, 5, 6], [0, 0, 0, 1, 1, 1])
    assert found.classes == ("a", "c")


def test_the_bag_of_a_life_is_the_log_of_its_summed_counts(shop, tmp_path):
    x = bags_of(shop, Variant({}), tmp_path)
    assert x.shape == (N_USERS, 4)
    counts = np.expm1(x).sum(axis=1)
    np.testing.assert_allclose(counts, 10, rtol=1e-5)
    last = np.expm1(bags_of(shop, Variant({}, last_months=1), tmp_path)).sum(axis=1)
    np.testing.assert_allclose(last, 5, rtol=1e-5)


def test_history_is_cut_before_its_end_and_may_leave_nothing():
    lives = {"a": {10: {0: 1.0}, 11: {0: 1.0}, 12: {1: 1.0}}, "b": {10: {1: 2.0}}}
    timelines = build_timelines(reference.boi_tables(lives))
    first, last = last_bags(timelines, 2)
    assert (last - first).tolist() == [2, 0]
    assert timelines.months[first[0] : last[0]].tolist() == [11, 12]


def test_a_variant_has_its_own_settings_and_the_users_in_order(shop, tmp_path):
    wide = vectors_of(shop, Variant({"pretrain_smen.n_anchors": 3}), tmp_path)
    assert wide.shape == (N_USERS, 5)
    assert np.isfinite(wide).all()
    recent = vectors_of(shop, Variant({}, last_months=1), tmp_path)
    assert not np.allclose(recent, vectors_of(shop, Variant({}), tmp_path))
    assert changed(shop.params, {"pretrain_smen.n_anchors": 3}).pretrain_smen.n_anchors == 3
    with pytest.raises(ValueError, match="no such setting"):
        changed(shop.params, {"pretrain_smen.anchors": 3})


def test_the_changes_of_every_ablation_are_allowed():
    params = load_params(PARAMS)
    for _, changes in CHANGES.values():
        changed(params, changes)


def test_what_a_data_set_is_too_small_for_is_left_out(shop):
    assert possible("lurm", shop)
    assert possible("history_1", shop)
    assert not possible("history_2", shop)  # which is all there is
    assert not possible("interests_100", shop)  # of 20 items


def test_every_method_makes_vectors_or_is_trained_by_task():
    assert all((m.vectors is None) != (m.by_task is None) for m in METHODS.values())


def test_both_examples_have_one_configuration_of_the_method():
    theirs = [
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (PARAMS, PARAMS.parent / "examples/ta_feng/params.yaml")
    ]
    for settings in theirs:
        del settings["embed_items"]["text_columns"]  # what the data set has
        del settings["pretrain_smen"]["columns"]
    for section in ("embed_items", "cluster_interests", "build_boi", "pretrain_smen"):
        assert theirs[0][section] == theirs[1][section]


def test_users_stand_in_the_order_of_their_ids(shop):
    assert shop.user_ids.equals(pc.array_sort_indices(shop.user_ids).cast(pa.int64()))
