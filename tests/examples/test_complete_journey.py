"""The Complete Journey lands with the figures known of it."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lurm.examples import complete_journey
from lurm.examples.monthly import Landed
from lurm.months import month_bounds
from lurm.tables import LANDED_BEHAVIORS, LANDED_ITEMS, LANDED_USERS, check_columns


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Landed]:
    folder = tmp_path_factory.mktemp("year") / "landing"
    return folder, complete_journey.land(folder)


def test_the_figures_are_those_of_the_data_set(year: tuple[Path, Landed]) -> None:
    landed = year[1]
    assert sum(landed.behaviors.values()) == 1_469_307
    assert list(landed.behaviors) == [f"2017-{month:02d}" for month in range(1, 13)]
    assert (landed.users, landed.items) == (2_469, 92_331)
    assert (landed.unknown_items, landed.unknown_rows) == (17, 4_836)
    assert (landed.alike, landed.shared_text, landed.without_text) == (14, 82_288, 0)


def test_new_years_eve_in_new_york_belongs_to_december(year: tuple[Path, Landed]) -> None:
    december = pq.read_table(year[0] / "behaviors" / "2017-12.parquet")["timestamp"]
    assert pc.max(december).as_py() == datetime(2018, 1, 1, 4, 1, 20, tzinfo=UTC)
    assert pc.max(december).as_py() < month_bounds("2017-12", "America/New_York")[1]


def test_files_keep_the_contract(year: tuple[Path, Landed]) -> None:
    for path in year[0].rglob("*.parquet"):
        part = path.relative_to(year[0]).parts[0]
        contract = {
            "behaviors": LANDED_BEHAVIORS,
            "users.parquet": LANDED_USERS,
        }.get(part, LANDED_ITEMS)
        check_columns(pq.read_schema(path), contract, str(path))


def test_every_item_is_delivered_once_before_or_when_it_is_first_bought(
    year: tuple[Path, Landed],
) -> None:
    known: set[int] = set()
    unknown: set[int] = set()
    for month in year[1].behaviors:
        delivery = "items.parquet" if month == "2017-01" else f"items/{month}.parquet"
        new = pq.read_table(year[0] / delivery)["item_id"].to_pylist()
        assert known.isdisjoint(new)
        known.update(new)
        bought = set(pq.read_table(year[0] / f"behaviors/{month}.parquet")["item_id"].to_pylist())
        unknown |= bought - known
        assert month == "2017-01" or set(new) <= bought
    assert (len(known), len(unknown)) == (92_331, 17)


def test_landing_again_touches_nothing_and_fewer_months_are_the_same_bytes(
    year: tuple[Path, Landed], tmp_path: Path
) -> None:
    assert set(complete_journey.land(year[0]).files.values()) == {"unchanged"}
    complete_journey.land(tmp_path / "short", through="2017-02")
    files = sorted(path.relative_to(tmp_path / "short") for path in tmp_path.rglob("*.parquet"))
    assert [str(file) for file in files] == [
        "behaviors/2017-01.parquet",
        "behaviors/2017-02.parquet",
        "items/2017-02.parquet",
        "items.parquet",
        "users.parquet",
    ]
    for file in files:
        assert (tmp_path / "short" / file).read_bytes() == (year[0] / file).read_bytes()
