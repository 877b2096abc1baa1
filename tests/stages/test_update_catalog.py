import json
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from lurm.storage import read_json, read_parquet, write_parquet
from stages.update_catalog import main

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
ITEMS = {"item_id": [3, 1, 2], "name": ["tea", "coffee", "tea"], "size": [None, "1 kg", None]}


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = json.loads(json.dumps(PARAMS))
    params["embed_items"]["text_columns"] = ["name", "size"]
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    write_parquet(pa.table(ITEMS), "items.parquet")


def update(changes, month, previous=None):
    """Run the stage on a delivery (a table's columns, or a file's name); returns the counts."""
    if not isinstance(changes, str):
        write_parquet(pa.table(changes), f"changes-{month}.parquet")
        changes = f"changes-{month}.parquet"
    paths = {"catalog": f"{month}.parquet", "quarantine": f"set-aside-{month}.parquet"}
    paths |= {"changes": changes, "base": "items.parquet", "result": f"{month}.json"}
    if previous:
        paths["previous"] = f"{previous}.parquet"
    main([f"--{name}={path}" for name, path in paths.items()])
    counts = read_json(f"{month}.json")
    sorts = ("new", "changed", "unchanged", "rows_set_aside")
    assert counts["rows_in"] == sum(counts[sort] for sort in sorts)
    assert counts["items"] == len(read_parquet(f"{month}.parquet"))
    return counts


def opened():
    return update("items.parquet", "start")


def content(month):
    return {row.pop("item_id"): row for row in read_parquet(f"{month}.parquet").to_pylist()}


def set_aside(month):
    rows = read_parquet(f"set-aside-{month}.parquet").to_pylist()
    return [(row["row"], row["reason"]) for row in rows]


def test_the_first_delivery_opens_the_catalog_sorted_by_item():
    counts = opened()
    assert read_parquet("start.parquet").to_pydict() == {
        "item_id": [1, 2, 3],
        "name": ["coffee", "tea", "tea"],
        "size": ["1 kg", None, None],
    }
    assert (counts["new"], counts["sharing_text"], counts["without_text"]) == (3, 2, 0)


def test_changes_replace_what_they_name_and_leave_the_rest():
    opened()
    counts = update(
        {"item_id": [2, 4, 1], "name": ["茶", "milk", "coffee"], "size": [None, "1 l", "1 kg"]},
        "2017-02",
        "start",
    )
    assert (counts["new"], counts["changed"], counts["unchanged"]) == (1, 1, 1)
    assert content("2017-02")[2]["name"] == "茶"
    assert content("2017-02")[3]["name"] == "tea"
    assert list(content("2017-02")) == [1, 2, 3, 4]


def test_a_month_without_items_takes_nothing_back():
    opened()
    update({"item_id": [2], "name": ["green tea"], "size": [""]}, "2017-02", "start")
    counts = update("items.parquet", "2017-03", "2017-02")
    assert counts["rows_in"] == 0
    assert Path("2017-03.parquet").read_bytes() == Path("2017-02.parquet").read_bytes()


def test_a_delivery_merged_again_changes_nothing():
    opened()
    change = {"item_id": [2, 9], "name": ["green tea", "x"], "size": ["", "y"]}
    update(change, "2017-02", "start")
    counts = update(change, "2017-03", "2017-02")
    assert (counts["new"], counts["changed"], counts["unchanged"]) == (0, 0, 2)
    assert Path("2017-03.parquet").read_bytes() == Path("2017-02.parquet").read_bytes()


def test_a_month_with_an_empty_delivery_changes_nothing():
    opened()
    write_parquet(read_parquet("items.parquet").slice(0, 0), "none.parquet")
    assert update("none.parquet", "2017-02", "start")["rows_in"] == 0
    assert content("2017-02") == content("start")


def test_a_column_of_the_items_may_be_called_content():
    items = {"item_id": [1, 1], "name": ["old", "new"], "size": [None, None], "content": ["x", "x"]}
    update(items, "start")
    assert set_aside("start") == [(0, "superseded_row")]
    assert content("start") == {1: {"name": "new", "size": None, "content": "x"}}


def test_bad_rows_are_set_aside_with_number_and_reason():
    ids = ["a", None, " ", "b", "a", "a", "a"]
    names = ["old", "x", "x", "y", "new", "old", "new"]
    counts = update({"item_id": ids, "name": names, "size": [None] * 7}, "start")
    assert set_aside("start") == [
        (0, "superseded_row"),
        (1, "item_id_missing"),
        (2, "item_id_missing"),
        (4, "repeated_row"),
        (5, "superseded_row"),
    ]
    assert (counts["item_id_missing"], counts["repeated_row"], counts["superseded_row"]) == (
        2,
        1,
        2,
    )
    assert {key: row["name"] for key, row in content("start").items()} == {"a": "new", "b": "y"}


def test_items_without_text_are_kept_and_counted():
    counts = update(
        {"item_id": [1, 2, 3], "name": ["", None, "z"], "size": [None, " ", ""]}, "start"
    )
    assert (counts["items"], counts["without_text"], counts["sharing_text"]) == (3, 2, 0)


def test_columns_become_text_and_ids_keep_their_kind():
    items = pa.table({"item_id": pa.array([2, 1], pa.int16()), "name": [7, 8], "size": [0.5, None]})
    write_parquet(items, "typed.parquet")
    update("typed.parquet", "start")
    catalog = read_parquet("start.parquet")
    assert catalog.schema.types == [pa.int64(), pa.string(), pa.string()]
    assert catalog["name"].to_pylist() == ["8", "7"]


def test_a_column_that_comes_later_is_left_out():
    opened()
    update({"item_id": [9], "size": ["s"], "name": ["n"], "colour": ["red"]}, "2017-02", "start")
    assert content("2017-02")[9] == {"name": "n", "size": "s"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ["x"], "size": ["y"]}, "column 'item_id' is missing"),
        (
            {"item_id": [1.5], "name": ["x"], "size": ["y"]},
            "should be integer or string, is double",
        ),
        ({"item_id": [1], "name": ["x"]}, "expected columns size, which the catalog has so far"),
        ({"item_id": ["1"], "name": ["x"], "size": ["y"]}, "expected item_id to hold integers"),
        ({"item_id": [1], "name": [["x", "y"]], "size": ["y"]}, "name is list"),
        ({"item_id": [1], "name": ["x"], "Name": ["x"], "size": ["y"]}, "found name twice"),
    ],
)
def test_a_delivery_against_the_contract_is_refused_and_nothing_written(changes, message):
    opened()
    with pytest.raises(ValueError, match=message):
        update(changes, "2017-02", "start")
    assert not list(Path().glob("*2017-02.json")) + list(Path().glob("*.tmp"))
    assert not Path("2017-02.parquet").exists()


def test_a_catalog_that_would_open_empty_is_refused():
    with pytest.raises(ValueError, match="expected items to open the catalog"):
        update({"item_id": pa.array([], pa.int64()), "name": [], "size": []}, "start")
    assert not Path("start.parquet").exists()


def test_a_text_column_of_the_settings_that_is_not_delivered_is_refused():
    with pytest.raises(ValueError, match="size, which params"):
        update({"item_id": [1], "name": ["x"]}, "start")


def test_a_truncated_delivery_is_refused():
    Path("items.parquet").write_bytes(Path("items.parquet").read_bytes()[:-50])
    with pytest.raises(ValueError, match="expected a complete parquet file"):
        opened()
