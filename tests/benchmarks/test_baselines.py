from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from benchmarks.baselines import full_bag, main
from lurm.storage import read_json, write_parquet

PARAMS = Path(__file__).parents[2] / "params.yaml"
N_USERS = 60


def write_month(folder, month, users, items):
    when = [datetime(2017, 1, 1, tzinfo=UTC)] * len(users)
    table = pa.table({"user_id": users, "item_id": items, "timestamp": when})
    write_parquet(table, f"{folder}/{month}.parquet")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two training months in which half of the users buy coffee, and go on to do so."""
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    settings["training"].update(months=["2017-01", "2017-02"], through="2017-02")
    settings["evaluation"].update(folds=2, repeats=1, max_epochs=20, learning_rate=0.02)
    settings["tasks"] = {name: settings["tasks"][name] for name in ("coffee", "age")}
    settings["tasks"]["age"]["labels"] = "users.parquet"
    Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(N_USERS), 5)
    for month in ("2017-01", "2017-02"):
        items = 2 * rng.integers(0, 10, len(users)) + users % 2
        write_month("data/training/behaviors", month, users, items)
    kinds = ["COFFEE", "TEA"] * 10
    texts = dict.fromkeys(("product_type", "department", "brand", "package_size"), kinds)
    catalog = {"item_id": range(20), "product_category": kinds, **texts}
    write_parquet(pa.table(catalog), "data/training/catalog.parquet")
    coffee = np.arange(0, N_USERS, 2)
    for month in ("2017-11", "2017-12"):
        columns = {"column": ["product_category"] * len(coffee), "value": ["COFFEE"] * len(coffee)}
        write_parquet(pa.table({"user_id": coffee, **columns}), f"data/labels/{month}.parquet")
    ages = rng.choice(["young", "old"], N_USERS)
    write_parquet(pa.table({"user_id": range(N_USERS), "age": ages}), "data/landing/users.parquet")


def scores(*args):
    main([*args, "--result", "result.json"])
    result = read_json("result.json")
    for rival in result.values():
        assert rival.pop("seconds") >= 0
    return result


@pytest.mark.usefixtures("data")
def test_rivals_bags_and_given_vectors_are_scored_alike(capsys):
    rng = np.random.default_rng(0)
    order = rng.permutation(N_USERS + 1)  # one user more than there are in training
    noise = pa.array(rng.standard_normal((N_USERS + 1, 3)).tolist(), pa.list_(pa.float32(), 3))
    version = ["v"] * (N_USERS + 1)
    write_parquet(
        pa.table({"user_id": order, "vector": noise, "model_version": version}), "noise.parquet"
    )
    for month in ("2017-01", "2017-02"):
        bag = {"user_id": range(N_USERS), "interest": [u % 2 for u in range(N_USERS)]}
        counts = pa.array([2.0] * N_USERS, pa.float32())
        write_parquet(pa.table({**bag, "count": counts}), f"boi/{month}.parquet")
    result = scores("--only", "tf_idf", "--boi", "boi", "--vectors", "noise=noise.parquet")
    assert {name: r["width"] for name, r in result.items()} == {"tf_idf": 2, "boi": 2, "noise": 3}
    assert all(r["n_users"] == N_USERS for r in result.values())
    assert result["boi"]["tasks"]["coffee"]["auc"] == 1
    assert result["noise"]["tasks"]["coffee"]["auc"] < 0.8
    printed = capsys.readouterr().out
    for name, r in result.items():
        assert r["auc"] == pytest.approx(np.mean([task["auc"] for task in r["tasks"].values()]))
        assert f"{name:16}{100 * r['auc']:6.1f}" in printed


@pytest.mark.usefixtures("data")
def test_months_after_the_cut_off_change_no_score():
    before = scores("--only", "category_counts", "tf_idf")
    write_month("data/training/behaviors", "2017-03", [0] * 1000, [1] * 1000)
    assert scores("--only", "category_counts", "tf_idf") == before


@pytest.mark.usefixtures("data")
def test_vectors_that_lack_users_are_refused():
    lone = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    write_parquet(
        pa.table({"user_id": [3], "vector": lone, "model_version": ["v"]}), "lone.parquet"
    )
    with pytest.raises(ValueError, match=r"lone\.parquet: 59 of 60 users"):
        main(["--only", "--vectors", "lone=lone.parquet"])


@pytest.mark.parametrize(
    ("args", "message"),
    [(["--only", "bert"], "expected some of category_counts"), (["--vectors", "x"], "NAME=PATH")],
)
@pytest.mark.usefixtures("data")
def test_arguments_that_name_nothing_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        main(args)


def test_a_bag_over_months_is_the_log_of_summed_counts():
    boi = pa.table(
        {
            "user_id": [5, 5, 4],
            "interest": pa.array([1, 1, 0], pa.int32()),
            "count": pa.array([2, 3, 1], pa.float32()),
        }
    )
    expected = [[np.log(2), 0], [0, np.log(6)]]
    np.testing.assert_allclose(full_bag(boi, pa.array([4, 5])), expected, rtol=1e-6)
