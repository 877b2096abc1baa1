from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from lurm.storage import file_hash, read_parquet, write_parquet
from lurm.tables import TIMESTAMP
from stages.collect_labels import main

PARAMS = Path(__file__).parents[2] / "params.yaml"
VALUES = ["COFFEE", "BEERS/ALES", "CANDY - PACKAGED", "FROZEN PIZZA", "DOG FOODS"]


@pytest.fixture
def month(tmp_path, monkeypatch):
    """A working folder with the project's own settings, a catalog, and one month of behaviors."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS.read_text(encoding="utf-8"), encoding="utf-8")
    values = [*VALUES, "HAIR CARE PRODUCTS", "TEA"]
    write_parquet(pa.table({"item_id": range(7), "product_category": values}), "catalog.parquet")
    when = pa.array([datetime(2017, 11, 5, tzinfo=UTC)] * 4, TIMESTAMP)
    behaviors = pa.table({"user_id": [2, 1, 1, 3], "item_id": [0, 0, 0, 6], "timestamp": when})
    write_parquet(behaviors, "behaviors.parquet")


ARGS = ["--behaviors=behaviors.parquet", "--catalog=catalog.parquet", "--labels=labels.parquet"]


@pytest.mark.usefixtures("month")
def test_each_user_has_each_category_once():
    main(ARGS)
    assert read_parquet("labels.parquet").to_pylist() == [
        {"user_id": 1, "column": "product_category", "value": "COFFEE"},
        {"user_id": 2, "column": "product_category", "value": "COFFEE"},
    ]


@pytest.mark.usefixtures("month")
def test_the_labels_name_the_behaviors_they_were_made_from():
    main(ARGS)
    source = read_parquet("labels.parquet").schema.metadata
    assert source[b"behaviors_sha256"].decode() == file_hash("behaviors.parquet")


@pytest.mark.usefixtures("month")
def test_the_same_month_gives_the_same_bytes():
    main(ARGS)
    first = Path("labels.parquet").read_bytes()
    main(ARGS)
    assert Path("labels.parquet").read_bytes() == first


@pytest.mark.usefixtures("month")
def test_a_category_that_the_catalog_does_not_know_yet_gives_a_warning_and_no_labels(caplog):
    write_parquet(pa.table({"item_id": [0], "product_category": ["COFFEES"]}), "catalog.parquet")
    main(ARGS)
    assert read_parquet("labels.parquet").num_rows == 0
    assert "no labels: no item of the catalog has product_category 'COFFEE'; did you mean" in (
        caplog.text
    )


@pytest.mark.usefixtures("month")
def test_a_column_that_the_catalog_does_not_have_leaves_no_file():
    write_parquet(pa.table({"item_id": [0], "aisle": ["COFFEE"]}), "catalog.parquet")
    with pytest.raises(ValueError, match="the catalog has no column 'product_category'; it has"):
        main(ARGS)
    assert not Path("labels.parquet").exists()


@pytest.mark.usefixtures("month")
def test_behaviors_without_users_are_refused():
    write_parquet(pa.table({"item_id": [1]}), "behaviors.parquet")
    with pytest.raises(ValueError, match=r"behaviors.parquet: column 'user_id' is missing"):
        main(ARGS)
