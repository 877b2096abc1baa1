from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from lurm.interests.assignment import nearest
from lurm.storage import read_array, read_json, read_parquet, write_array, write_json, write_parquet
from lurm.tables import INTEREST_LINEAGE, ITEM_INTERESTS, TIMESTAMP, check_columns
from stages.cluster_interests import main

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
OUTS = {
    "--centres": "models/interest_centres.npy",
    "--sample": "models/interest_sample.parquet",
    "--item-interests": "models/item_interests.parquet",
    "--interests": "models/interests.parquet",
    "--lineage": "models/interest_lineage.parquet",
    "--result": "reports/cluster_interests.json",
}
ARGS = ["--items=items.parquet", "--vectors=vectors.npy", "--training=training"]
ARGS += ["--standing=standing"]
ARGS += [f"{name}={path}" for name, path in OUTS.items()]
WORDS = ["COFFEE", "TEA", "DOG FOOD", "SOAP"]


def write_params(**changes):
    params = deepcopy(PARAMS)
    params["cluster_interests"] |= {"n_interests": 4, "method": "auto"} | changes
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """200 items of four kinds, each kind around a direction of its own."""
    monkeypatch.chdir(tmp_path)
    write_params()
    kinds = np.arange(200) % 4
    vectors = np.eye(4, 8)[kinds] + np.random.default_rng(0).normal(0, 0.05, (200, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = pa.table({"item_id": np.arange(200)})
    write_array(vectors.astype(np.float32), "vectors.npy")
    write_parquet(items, "items.parquet")
    catalog = items
    for column in PARAMS["embed_items"]["text_columns"]:
        text = [WORDS[kind] if column == "product_category" else None for kind in kinds]
        catalog = catalog.append_column(column, pa.array(text, pa.string()))
    write_parquet(catalog, "training/catalog.parquet")
    when = pa.array([datetime(2017, 1, 1, tzinfo=UTC)] * 50, TIMESTAMP)
    behaviors = {"user_id": np.arange(50) // 5, "item_id": np.arange(50), "timestamp": when}
    for month in PARAMS["training"]["months"]:
        write_parquet(pa.table(behaviors), f"training/behaviors/{month}.parquet")


def test_every_kind_of_item_becomes_an_interest_that_can_be_read():
    main(ARGS)
    table = read_parquet("models/interests.parquet")
    assert sorted(" ".join(words) for words in table["top_words"].to_pylist()) == sorted(
        ["coffee", "tea", "dog food", "soap"]
    )
    assert table["n_items"].to_pylist() == [50] * 4
    mapped = read_parquet("models/item_interests.parquet")
    check_columns(mapped.schema, ITEM_INTERESTS, "map")
    assert mapped["item_id"].to_pylist() == list(range(200))
    result = read_json("reports/cluster_interests.json")
    assert result["n_behaviors"] == 500
    assert result["items"]["imbalance"] == 1
    assert result["method"] == "hdsc"
    assert read_array("models/interest_centres.npy").shape == (4, 8)


def test_the_same_input_gives_the_same_bytes():
    main(ARGS)
    first = [Path(path).read_bytes() for path in OUTS.values()]
    main(ARGS)
    assert [Path(path).read_bytes() for path in OUTS.values()] == first


def test_the_sample_is_kept_and_every_item_is_assigned_all_the_same():
    write_params(sample_size=40, interests_per_item=2)
    main(ARGS)
    assert len(read_parquet("models/interest_sample.parquet")) == 40
    mapped = read_parquet("models/item_interests.parquet")
    assert len(mapped) == 400
    assert read_parquet("models/interests.parquet")["n_items"].to_pylist() == [50] * 4


def test_a_later_month_in_the_folder_changes_nothing():
    main(ARGS)
    first = [Path(path).read_bytes() for path in OUTS.values()]
    Path("training/behaviors/2018-01.parquet").write_bytes(b"from the future")
    main(ARGS)
    assert [Path(path).read_bytes() for path in OUTS.values()] == first


def test_a_missing_month_is_named_and_nothing_is_written():
    Path("training/behaviors/2017-03.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"2017-03\.parquet"):
        main(ARGS)
    assert not Path("models").exists()


def test_items_of_another_run_are_refused():
    write_parquet(pa.table({"item_id": np.arange(1, 201)}), "items.parquet")
    with pytest.raises(ValueError, match="different items; rerun embed_items"):
        main(ARGS)


@pytest.mark.parametrize("damage", [lambda v: v[:-1], lambda v: v.ravel(), lambda v: v.astype(int)])
def test_vectors_that_are_not_one_of_float32_for_each_item_are_refused(damage):
    write_array(damage(np.load("vectors.npy")), "vectors.npy")
    with pytest.raises(ValueError, match=r"expected a row of float32 for each of"):
        main(ARGS)


def test_more_interests_than_distinct_vectors_writes_nothing():
    write_params(n_interests=500)
    with pytest.raises(ValueError, match="200 distinct vectors"):
        main(ARGS)
    assert not Path("models").exists()


# ---- with a standing release ---------------------------------------------------------------------


def stand(last_id=-1):
    """Let what the stage has made be the standing release; ``last_id``: the highest of any release."""
    write_json({"last_interest_id": last_id}, "standing/release/about.json")
    for name in ("item_interests", "interest_lineage"):
        Path(f"models/{name}.parquet").rename(f"standing/release/{name}.parquet")


def test_a_first_release_bears_all_its_interests_and_is_not_compared():
    main(ARGS)
    lineage = read_parquet("models/interest_lineage.parquet")
    check_columns(lineage.schema, INTEREST_LINEAGE, "lineage")
    assert lineage["interest_id"].to_pylist() == lineage["interest"].to_pylist() == [0, 1, 2, 3]
    assert set(lineage["status"].to_pylist()) == {"born"}
    assert set(lineage["since"].to_pylist()) == {PARAMS["training"]["through"]}
    assert {"since_standing", "cold_start"}.isdisjoint(read_json("reports/cluster_interests.json"))


def test_a_retraining_in_another_space_keeps_every_interest_in_its_row():
    main(ARGS)
    before = read_parquet("models/item_interests.parquet")["interest"].to_pylist()
    stand()
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(8, 8)))
    write_array((read_array("vectors.npy") @ turn).astype(np.float32), "vectors.npy")
    write_params(seed=7)
    main(ARGS)
    assert read_parquet("models/item_interests.parquet")["interest"].to_pylist() == before
    lineage = read_parquet("models/interest_lineage.parquet")
    assert lineage["interest_id"].to_pylist() == lineage["interest"].to_pylist() == [0, 1, 2, 3]
    assert set(lineage["status"].to_pylist()) == {"kept"}
    result = read_json("reports/cluster_interests.json")
    told = result["since_standing"]
    assert (told["kept"], told["born"], told["retired"]) == (4, 0, 0)
    assert told["behaviors_kept"] == told["items_kept"] == 1
    assert told["centre_cosine"]["least"] == pytest.approx(1, abs=1e-5)
    assert result["method"] == "onward"
    assert result["behaviors"]["mean_cosine"] == pytest.approx(
        result["cold_start"]["behaviors"]["mean_cosine"], rel=0.01
    )


def test_a_kind_that_is_gone_is_retired_and_its_row_goes_to_a_new_id():
    main(ARGS)
    old = read_parquet("models/item_interests.parquet")
    of_kind = [old["interest"][kind].as_py() for kind in range(4)]
    stand()
    vectors = read_array("vectors.npy").copy()
    kinds = np.arange(200) % 4
    # As if no item of the fourth kind had been there.
    kept = old.filter(pa.array(kinds != 3))
    write_parquet(kept, "standing/release/item_interests.parquet")
    main(ARGS)
    lineage = {row["interest_id"]: row for row in read_parquet(OUTS["--lineage"]).to_pylist()}
    gone = of_kind[3]
    assert lineage[gone]["status"] == "retired"
    assert lineage[gone]["until"] == PARAMS["training"]["through"]
    assert lineage[gone]["interest"] is None
    assert lineage[4]["status"] == "born"
    assert lineage[4]["interest"] == gone
    assert {row["status"] for n, row in lineage.items() if n not in (gone, 4)} == {"kept"}
    told = read_json("reports/cluster_interests.json")["since_standing"]
    assert (told["kept"], told["born"], told["retired"]) == (3, 1, 1)
    assert told["behaviors_kept"] == pytest.approx(
        0.76
    )  # 12 of 50 behaviors are of the fourth kind
    interests, _ = nearest(vectors, read_array("models/interest_centres.npy"))
    assert set(interests[kinds == 3, 0]) == {gone}


@pytest.mark.parametrize(("last_id", "first"), [(-1, 4), (3, 4), (9, 10)])
def test_a_start_anew_takes_ids_that_none_had_nor_a_release_that_was_taken_back(last_id, first):
    main(ARGS)
    assert read_json("reports/cluster_interests.json")["last_interest_id"] == 3
    stand(last_id)
    write_params(start="anew")
    main(ARGS)
    lineage = read_parquet("models/interest_lineage.parquet").to_pylist()
    assert [row["status"] for row in lineage] == ["retired"] * 4 + ["born"] * 4
    assert [row["interest_id"] for row in lineage] == [*range(4), *range(first, first + 4)]
    assert read_json("reports/cluster_interests.json")["since_standing"]["behaviors_kept"] == 0


def test_more_interests_than_stood_keep_those_that_stood():
    main(ARGS)
    stand()
    write_params(n_interests=6)
    main(ARGS)
    told = read_json("reports/cluster_interests.json")["since_standing"]
    assert told["born"] >= 2
    rows = [
        row for row in read_parquet(OUTS["--lineage"]).to_pylist() if row["status"] != "retired"
    ]
    assert sorted(row["interest"] for row in rows) == list(range(6))


def test_a_standing_map_with_ids_of_another_type_is_refused():
    main(ARGS)
    stand()
    path = "standing/release/item_interests.parquet"
    old = read_parquet(path)
    write_parquet(old.set_column(0, "item_id", old["item_id"].cast(pa.string())), path)
    with pytest.raises(ValueError, match="int64 in the catalog but string in the standing map"):
        main(ARGS)
