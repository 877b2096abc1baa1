"""A file without some users' rows: all others stay, whatever the order in which users were forgotten."""

import io
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lurm.erasure import rows
from lurm.erasure.rows import find_rows, leave_out, n_left_out
from lurm.erasure.tombstones import Tombstones
from lurm.storage import file_hash, read_parquet

KEY = b"a key that is long enough to be one"


def forgetting(*users):
    return Tombstones(KEY, frozenset(Tombstones(KEY).hash(user) for user in users))


@pytest.fixture
def delivery(tmp_path):
    """A delivery with columns and metadata of its own, in small row groups."""
    frame = pd.DataFrame(
        {
            "store": ["Zürich", None] * 10,
            "user_id": [n % 5 for n in range(20)],
            "timestamp": [datetime(2020, 1, n + 1, tzinfo=UTC) for n in range(20)],
            "kind": pd.Categorical(["a", "b"] * 10),
        }
    )
    path = tmp_path / "delivery.parquet"
    pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=3, compression="gzip")
    return path


def test_the_rows_of_forgotten_users_are_gone_and_all_others_are_as_they_were(delivery, tmp_path):
    tombstones = forgetting(1, 3, 99)
    found = find_rows(delivery, tombstones)
    assert (found.rows, found.users) == (8, {tombstones.hash(1), tombstones.hash(3)})
    assert find_rows(io.BytesIO(delivery.read_bytes()), tombstones) == found
    leave_out(delivery, tmp_path / "left", tombstones)
    before, after = pd.read_parquet(delivery), pd.read_parquet(tmp_path / "left")
    kept = before[~before["user_id"].isin([1, 3])].reset_index(drop=True)
    pd.testing.assert_frame_equal(after, kept)
    assert pq.read_schema(tmp_path / "left").equals(pq.read_schema(delivery), check_metadata=True)


@pytest.mark.parametrize("size", [1 << 20, 4])
def test_one_after_the_other_or_both_at_once_ends_in_the_same_bytes(
    delivery, tmp_path, monkeypatch, size
):
    monkeypatch.setattr(rows, "ROWS_PER_GROUP", size)
    leave_out(delivery, tmp_path / "both", forgetting(1, 3), counted=True)
    leave_out(delivery, tmp_path / "one", forgetting(3), counted=True)
    leave_out(tmp_path / "one", tmp_path / "one", forgetting(1, 3), counted=True)
    assert file_hash(tmp_path / "both") == file_hash(tmp_path / "one")
    assert n_left_out(tmp_path / "both") == 8
    assert n_left_out(delivery) == 0
    assert pq.ParquetFile(tmp_path / "both").num_row_groups == -(-12 // size)


def test_what_is_no_landed_file_keeps_its_groups_and_its_dictionaries(tmp_path):
    table = pa.table({"user_id": range(20), "kind": ["a"] * 20, "n": [0.5] * 20})
    pq.write_table(table, tmp_path / "all", row_group_size=6, use_dictionary=["kind"])
    leave_out(tmp_path / "all", tmp_path / "left", forgetting(1, 3))
    about = pq.read_metadata(tmp_path / "left")
    assert [about.row_group(n).num_rows for n in range(about.num_row_groups)] == [6, 6, 6]
    columns = [about.row_group(0).column(n) for n in range(3)]
    assert [column.has_dictionary_page for column in columns] == [False, True, False]


def test_a_file_may_be_left_without_rows_and_keeps_its_columns(delivery, tmp_path):
    leave_out(delivery, tmp_path / "left", forgetting(*range(5)))
    assert len(read_parquet(tmp_path / "left")) == 0
    assert read_parquet(tmp_path / "left").schema.names == read_parquet(delivery).schema.names


def test_a_file_that_holds_no_users_has_none_that_are_forgotten(tmp_path):
    pq.write_table(pa.table({"item_id": [1]}), tmp_path / "items")
    assert find_rows(tmp_path / "items", forgetting(1)).rows == 0
