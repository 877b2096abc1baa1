"""What DuckDB writes: the same bytes however the rows came."""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lurm import database
from lurm.storage import file_hash

N = 300_000  # rows of a few of DuckDB's batches


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pa.table({"n": rng.integers(0, 10**9, N), "x": rng.random(N)})


def sources(table, folder):
    """The table as one file and as two of small groups, in SQL."""
    pq.write_table(table, folder / "whole.parquet")
    for number, start in enumerate((0, 127_763)):
        part = table.slice(start, 127_763 if start == 0 else None)
        pq.write_table(part, folder / f"part{number}.parquet", row_group_size=9_999)
    return f"FROM '{folder}/whole.parquet'", f"FROM '{folder}/part*.parquet'"


def written(path, query, threads=1):
    with database.database("1GB", path) as connection:
        connection.execute(f"SET threads = {threads}")
        assert database.write_query(connection, query, path) == N
    return file_hash(path)


def test_bytes_hang_neither_on_the_threads_nor_on_the_files_that_rows_came_from(table, tmp_path):
    whole, parts = sources(table, tmp_path)
    first = written(tmp_path / "a", f"{whole} ORDER BY n, x")
    assert written(tmp_path / "b", f"{whole} ORDER BY n, x", threads=2) == first
    assert written(tmp_path / "c", f"{parts} ORDER BY n, x", threads=4) == first
    assert written(tmp_path / "d", whole) == written(tmp_path / "e", parts, threads=2)
    assert pq.read_table(tmp_path / "a").equals(
        table.sort_by([("n", "ascending"), ("x", "ascending")])
    )


def test_groups_of_rows_have_the_size_asked_for(table, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "ROWS_PER_GROUP", 70_000)
    pq.write_table(table, tmp_path / "whole.parquet")
    written(tmp_path / "a", f"FROM '{tmp_path}/whole.parquet'")
    about = pq.read_metadata(tmp_path / "a")
    sizes = [about.row_group(n).num_rows for n in range(about.num_row_groups)]
    assert sizes == [70_000] * 4 + [20_000]


SORTED = "SELECT n, x, CASE WHEN n % 2 = 0 THEN x END AS half FROM ({}) ORDER BY n, x"


def sorted_rows(path, source, threads=1):
    with database.database("1GB", path) as connection:
        connection.execute(f"SET threads = {threads}")
        assert database.write_sorted(connection, SORTED.format(source), path) == N
    return file_hash(path)


def test_sorted_rows_are_written_on_all_cores_in_the_same_bytes(table, tmp_path):
    whole, parts = sources(table, tmp_path)
    first = sorted_rows(tmp_path / "a", whole)
    assert sorted_rows(tmp_path / "b", whole, threads=2) == first
    assert sorted_rows(tmp_path / "c", parts, threads=4) == first
    about = pq.read_metadata(tmp_path / "a")
    sizes = [about.row_group(n).num_rows for n in range(about.num_row_groups)]
    assert sizes == [122_880, 122_880, N - 2 * 122_880]
    found = pq.read_table(tmp_path / "a")
    assert found.drop(["half"]).equals(table.sort_by([("n", "ascending"), ("x", "ascending")]))
    assert found["half"].null_count == sum(n % 2 for n in table["n"].to_pylist())


def test_columns_may_always_be_null_so_that_files_of_other_rows_join(table, tmp_path):
    pq.write_table(table, tmp_path / "whole.parquet")
    sorted_rows(tmp_path / "a", f"FROM '{tmp_path}/whole.parquet'")
    assert all(field.nullable for field in pq.read_schema(tmp_path / "a"))
    with database.database("1GB", tmp_path / "b") as connection:
        source = f"FROM '{tmp_path}/whole.parquet' LIMIT 0"
        assert database.write_sorted(connection, SORTED.format(source), tmp_path / "b") == 0
    assert pq.read_schema(tmp_path / "b").equals(pq.read_schema(tmp_path / "a"))


@pytest.mark.parametrize(
    "query", ["SELECT {} ORDER BY n", "SELECT range AS key, {} GROUP BY range ORDER BY range"]
)
def test_a_value_that_does_not_fit_is_an_error_of_sorted_rows_too_and_no_null(query, tmp_path):
    query = query.format("CAST(sum(range) * 100 AS TINYINT) AS n FROM range(3)")
    with (
        pytest.raises(ValueError, match=r"out of range"),
        database.database("1GB", tmp_path / "a") as connection,
    ):
        database.write_sorted(connection, query, tmp_path / "a")


def test_a_thread_is_taken_for_so_much_memory_and_one_at_least(tmp_path):
    for limit in ("50MB", "130MB"):
        with database.database(limit, tmp_path / "a") as connection:
            assert database.one(connection, "SELECT current_setting('threads')") == (1,)


@pytest.mark.parametrize(
    ("told", "advice"),
    [
        ("failed to offload data block\n\nPossible solutions: ...", "TMPDIR"),
        ("failed to pin block\n\nPossible solutions: ...", "raise the memory_limit"),
    ],
)
def test_too_little_memory_and_too_little_disk_are_told_apart_in_one_line(told, advice, tmp_path):
    with pytest.raises(OSError, match=rf"^[^\n]*{advice}[^\n]*$"), database.naming(tmp_path / "a"):
        raise duckdb.OutOfMemoryException(told)
