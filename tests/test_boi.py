"""The Bag-of-Interests in SQL against a loop over behaviors (paper eq. 4)."""

import math
from collections import defaultdict
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lurm.boi import boi_query, check_assigned, counted
from lurm.database import database
from lurm.storage import read_parquet, write_parquet
from lurm.tables import BOI, TIMESTAMP, check_columns

WHEN = datetime(2017, 5, 1, tzinfo=UTC)
# Three items of one interest each, one that two interests share, and the id after them unassigned.
SHARES = {0: {2: 1.0}, 1: {0: 1.0}, 2: {2: 1.0}, 3: {0: 0.3, 1: 0.7}}


def write_inputs(folder, rows, names=None, shares=SHARES):
    """Behaviors ``(user, item)`` and the interests of items, ids as ``names`` says."""
    names = names or (lambda item: item)
    users, items = zip(*rows, strict=True) if rows else ((), ())
    behaviors = {
        "user_id": pa.array(users, None if rows else pa.int64()),
        "item_id": pa.array(map(names, items), pa.array([names(0)]).type),
        "timestamp": pa.array([WHEN] * len(rows), TIMESTAMP),
    }
    write_parquet(pa.table(behaviors), folder / "behaviors.parquet")
    entries = [(item, j, share) for item, of in shares.items() for j, share in of.items()]
    columns = {
        "item_id": pa.array([names(item) for item, _, _ in entries]),
        "interest": pa.array([j for _, j, _ in entries], pa.int32()),
        "weight": pa.array([share for _, _, share in entries], pa.float32()),
        "cosine": pa.array([1.0] * len(entries), pa.float32()),
    }
    write_parquet(pa.table(columns), folder / "item_interests.parquet")


def bags(folder):
    """The table that the query gives, checked."""
    files = folder / "behaviors.parquet", folder / "item_interests.parquet"
    with database("1GB", files[0]) as connection:
        found = connection.sql(boi_query(connection, *files)).to_arrow_table()
        check_assigned(connection, counted(connection.from_arrow(found)), *files)
        return found


def slow_bags(rows):
    counts = defaultdict(float)
    for user, item in rows:
        for interest, share in SHARES[item].items():
            counts[user, interest] += share
    return dict(sorted(counts.items()))


some = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@some
@given(st.lists(st.tuples(st.sampled_from(["b", "Ä", "a", "B"]), st.integers(0, 3)), min_size=1))
def test_counts_are_those_of_a_loop_over_behaviors_sorted_by_user_then_interest(tmp_path, rows):
    write_inputs(tmp_path, rows, names="item {}".format)
    table = bags(tmp_path)
    check_columns(table.schema, BOI, "bags")
    keys = list(zip(table["user_id"].to_pylist(), table["interest"].to_pylist(), strict=True))
    expected = slow_bags(rows)
    assert keys == list(expected)
    np.testing.assert_allclose(table["count"], list(expected.values()), atol=1e-5)
    assert sum(table["count"].to_pylist()) == pytest.approx(len(rows), abs=1e-4)


def test_the_order_of_behaviors_does_not_change_a_bit_of_shared_counts(tmp_path):
    shares = {item: {0: 1 / (item + 3), 1: 1 - 1 / (item + 3)} for item in range(50)}
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, 3, 5000), rng.integers(0, 50, 5000)], axis=1)
    tables = []
    for order in (np.arange(5000), rng.permutation(5000)):
        write_inputs(tmp_path, rows[order].tolist(), shares=shares)
        tables.append(bags(tmp_path))
    assert tables[0].equals(tables[1])


def test_shared_counts_are_sums_of_whole_millionths_and_so_exact(tmp_path):
    shares = {item: {0: 1 / (item + 3), 1: 1 - 1 / (item + 3)} for item in range(50)}
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, 3, 5000), rng.integers(0, 50, 5000)], axis=1).tolist()
    write_inputs(tmp_path, rows, shares=shares)
    millionths = defaultdict(int)
    for user, item in rows:
        for interest, share in shares[item].items():
            millionths[user, interest] += round(float(np.float32(share)) * 1e6)
    files = tmp_path / "behaviors.parquet", tmp_path / "item_interests.parquet"
    with database("1GB", files[0]) as connection:
        before_rounding = boi_query(connection, *files).replace("AS FLOAT", "AS DOUBLE")
        found = connection.sql(before_rounding).fetchall()
    assert found == [(*key, total / 1e6) for key, total in sorted(millionths.items())]


@pytest.mark.parametrize("shares", [SHARES, {0: {1: 1.0}, 2: {1: 1.0}}], ids=["soft", "hard"])
@pytest.mark.parametrize("times", [0, 0.5, 0.999, 1.001, 2])
def test_bags_that_were_lost_or_doubled_are_refused(tmp_path, times, shares):
    write_inputs(tmp_path, [(user, 2 * (user % 2)) for user in range(1000)], shares=shares)
    files = tmp_path / "behaviors.parquet", tmp_path / "item_interests.parquet"
    with (
        database("1GB", files[0]) as connection,
        pytest.raises(OSError, match=r"add up to its 1,000 behaviors.*lost or doubled"),
    ):
        check_assigned(connection, 1000 * times, *files)


def test_one_user_with_a_million_behaviors_is_counted_to_the_last(tmp_path):
    write_inputs(tmp_path, [(7, 0)])
    rows = pa.table(
        {
            "user_id": np.full(1_000_001, 7),
            "item_id": np.arange(1_000_001) % 3,
            "timestamp": pa.array(np.full(1_000_001, np.datetime64("2017-05-01", "us"))).cast(
                TIMESTAMP
            ),
        }
    )
    write_parquet(rows, tmp_path / "behaviors.parquet")
    table = bags(tmp_path)
    assert table.to_pydict() == {
        "user_id": [7, 7],
        "interest": [0, 2],
        "count": [333_334.0, 666_667.0],
    }


def test_a_month_without_behaviors_has_no_bags(tmp_path):
    write_inputs(tmp_path, [])
    table = bags(tmp_path)
    assert len(table) == 0
    check_columns(table.schema, BOI, "bags")


def test_behaviors_of_items_without_an_interest_are_refused_with_their_number(tmp_path):
    write_inputs(tmp_path, [(1, 0), (1, 4), (2, 4), (2, 5)])
    with pytest.raises(ValueError, match=r"2 items with 3 behaviors have no interest"):
        bags(tmp_path)


def test_a_behavior_lost_among_shared_items_is_found_too(tmp_path):
    write_inputs(tmp_path, [(1, 3)] * 999 + [(1, 4)])
    with pytest.raises(ValueError, match=r"1 items with 1 behaviors have no interest"):
        bags(tmp_path)


@pytest.mark.parametrize(
    "shares",
    [
        {0: {1: 0.5}},
        {0: {1: 1.0, 2: 0.1}},
        {0: {1: 1.5, 2: -0.5}},
        {0: {1: 1.0, 2: 0.0}},
        {0: {1: 1.0, 2: 4e-7}},
        {0: {-1: 1.0}},
        {0: {1: 0.5}, 1: {1: 1.5}},
        {0: {1: math.nan}},
        {0: {1: math.inf}},
    ],
)
def test_an_item_that_is_not_whole_among_the_interests_is_refused(tmp_path, shares):
    write_inputs(tmp_path, [(1, 0), (2, 1)], shares={1: {1: 1.0}} | shares)
    with pytest.raises(
        ValueError, match=r"item_interests\.parquet: expected weights .* found \d items .* 0 among"
    ):
        bags(tmp_path)


def test_the_least_weight_there_may_be_counts(tmp_path):
    write_inputs(tmp_path, [(1, 0)], shares={0: {1: 1 - 1e-6, 2: 1e-6}})
    assert bags(tmp_path)["count"].to_pylist() == pytest.approx([1 - 1e-6, 1e-6])


def test_items_that_are_strings_here_and_numbers_there_are_refused(tmp_path):
    write_inputs(tmp_path, [(1, 0), (1, 2)], names="0{}".format)
    behaviors = read_parquet(tmp_path / "behaviors.parquet")
    write_inputs(tmp_path, [(1, 0), (1, 2)])
    write_parquet(behaviors, tmp_path / "behaviors.parquet")
    with pytest.raises(ValueError, match=r"behaviors\.parquet: expected item_id to hold integers"):
        bags(tmp_path)


def test_an_item_that_is_there_twice_does_not_hide_one_that_is_missing(tmp_path):
    write_inputs(tmp_path, [(1, 0), (2, 1)], shares={0: {1: 1.0}})
    once = read_parquet(tmp_path / "item_interests.parquet")
    write_parquet(pa.concat_tables([once, once]), tmp_path / "item_interests.parquet")
    with pytest.raises(ValueError, match="found 1 items with others"):
        bags(tmp_path)


@pytest.mark.parametrize("file", ["behaviors", "item_interests"])
def test_rows_without_an_item_are_refused_by_the_name_of_their_file(tmp_path, file):
    write_inputs(tmp_path, [(1, 0), (1, 2)])
    refuses_a_gap(tmp_path, file, "item_id")


@pytest.mark.parametrize("column", ["interest", "weight"])
def test_a_map_with_gaps_is_refused(tmp_path, column):
    write_inputs(tmp_path, [(1, 0), (1, 2)])
    refuses_a_gap(tmp_path, "item_interests", column)


def refuses_a_gap(folder, file, column):
    table = read_parquet(folder / f"{file}.parquet")
    values = pa.array([None, *table[column].to_pylist()[1:]], table[column].type)
    at = table.column_names.index(column)
    write_parquet(table.set_column(at, column, values), folder / f"{file}.parquet")
    with pytest.raises(
        ValueError, match=rf"{file}\.parquet: expected {column} in every row, found 1"
    ):
        bags(folder)
