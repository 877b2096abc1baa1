"""Every data set is cut into months the same way, by a slow reading of the same rule."""

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lurm.examples.monthly import Landed, land_tables

ITEMS = {"a": "tea", "b": "tea", "c": "", "d": None, "never": "salt"}
ROWS = st.lists(
    st.tuples(
        st.sampled_from("uvw"),
        st.sampled_from(["a", "b", "c", "d", "lost"]),
        st.datetimes(datetime(2020, 2, 27), datetime(2020, 6, 2)).map(
            lambda moment: moment.replace(microsecond=0)
        ),
    ),
    min_size=1,
    max_size=30,
)


def land(folder: Path, rows: list, timezone: str = "UTC", **months: str) -> Landed:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE behaviors (user_id TEXT, item_id TEXT, timestamp TIMESTAMP)"
        )
        connection.executemany("INSERT INTO behaviors VALUES (?, ?, ?)", rows)
        connection.execute("CREATE TABLE items (item_id TEXT, title TEXT)")
        connection.executemany("INSERT INTO items VALUES (?, ?)", list(ITEMS.items()))
        return land_tables(connection, folder, timezone, **months)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, timezone=st.sampled_from(["UTC", "America/New_York", "Asia/Tokyo"]))
def test_rows_and_items_stand_in_the_month_of_the_calendar(
    rows: list, timezone: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("landing")
    landed = land(folder, rows, timezone)

    def month(moment: datetime) -> str:
        return f"{moment.replace(tzinfo=ZoneInfo('UTC')).astimezone(ZoneInfo(timezone)):%Y-%m}"

    expected: dict[str, list] = {name: [] for name in landed.behaviors}
    first: dict[str, str] = {}
    for user, item, moment in sorted(rows, key=lambda row: row[2]):
        expected[month(moment)].append((user, item, moment))
        first.setdefault(item, month(moment))
    opening = min(expected)
    for name, inside in expected.items():
        table = pq.read_table(folder / "behaviors" / f"{name}.parquet").to_pylist()
        found = [(r["user_id"], r["item_id"], r["timestamp"].replace(tzinfo=None)) for r in table]
        assert Counter(found) == Counter(inside)
        assert [row[2] for row in found] == sorted(row[2] for row in found)
        assert landed.behaviors[name] == len(inside)
        new = sorted(item for item in ITEMS if first.get(item, opening) == name)
        path = folder / ("items.parquet" if name == opening else f"items/{name}.parquet")
        assert (pq.read_table(path)["item_id"].to_pylist() if path.exists() else []) == new
    assert landed.users == len({user for user, _, _ in rows})
    assert landed.alike == len(rows) - len(set(rows))
    assert landed.unknown_rows == sum(item == "lost" for _, item, _ in rows)
    assert landed.unknown_items == (landed.unknown_rows > 0)


MAY = [
    ("u", item, datetime(2020, month, 5)) for item, month in zip("abcd", (3, 4, 5, 5), strict=True)
]


def test_texts_are_counted_openly(tmp_path: Path) -> None:
    landed = land(tmp_path, MAY)
    assert (landed.items, landed.shared_text, landed.without_text) == (5, 2, 2)


def test_a_later_start_opens_with_the_catalog_so_far(tmp_path: Path) -> None:
    landed = land(tmp_path, MAY, since="2020-04")
    assert landed.left_out == 1
    assert pq.read_table(tmp_path / "items.parquet")["item_id"].to_pylist() == ["a", "b", "never"]


def test_an_earlier_end_gives_the_same_bytes_for_the_months_before_it(tmp_path: Path) -> None:
    landed = land(tmp_path / "short", MAY, through="2020-04")
    land(tmp_path / "long", MAY)
    assert landed.items == 3
    for path in (tmp_path / "short").rglob("*.parquet"):
        assert (
            path.read_bytes()
            == (tmp_path / "long" / path.relative_to(tmp_path / "short")).read_bytes()
        )


def test_what_happens_later_changes_no_earlier_delivery(tmp_path: Path) -> None:
    land(tmp_path / "one", MAY)
    late = [(user, "b" if item == "d" else item, moment) for user, item, moment in MAY]
    land(tmp_path / "other", [*late, ("w", "lost", datetime(2020, 5, 1) + timedelta(hours=1))])
    for name in ("behaviors/2020-03", "behaviors/2020-04", "items/2020-04"):
        one, other = (tmp_path / side / f"{name}.parquet" for side in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()


def test_a_month_without_behaviors_is_an_empty_file(tmp_path: Path) -> None:
    landed = land(tmp_path, [MAY[0], MAY[2]])
    assert landed.behaviors == {"2020-03": 1, "2020-04": 0, "2020-05": 1}
    assert pq.read_table(tmp_path / "behaviors" / "2020-04.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("rows", "months", "message"),
    [
        ([], {}, "expected behaviors, found none"),
        (MAY, {"since": "2021-01"}, r"expected months within 2020-03\.\.2020-05"),
        (MAY, {"through": "2019-01"}, "change --since or --through"),
    ],
)
def test_nothing_to_land_is_refused(rows: list, months: dict, message: str, tmp_path: Path) -> None:
    if not rows:
        rows = [("u", "a", None)]
    with pytest.raises(ValueError, match=message):
        land(tmp_path / "landing", rows, **months)
    assert not (tmp_path / "landing").exists()
