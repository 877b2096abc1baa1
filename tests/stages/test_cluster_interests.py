from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from lurm.storage import read_array, read_json, read_parquet, write_array, write_parquet
from lurm.tables import ITEM_INTERESTS, TIMESTAMP, check_columns
from stages.cluster_interests import main

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
OUTS = {
    "--centres": "models/interest_centres.npy",
    "--sample": "models/interest_sample.parquet",
    "--item-interests": "models/item_interests.parquet",
    "--interests": "models/interests.parquet",
    "--result": "reports/cluster_interests.json",
}
ARGS = ["--items=items.parquet", "--vectors=vectors.npy", "--training=training"]
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


def test_more_interests_than_distinct_vectors_writes_nothing():
    write_params(n_interests=500)
    with pytest.raises(ValueError, match="200 distinct vectors"):
        main(ARGS)
    assert not Path("models").exists()
