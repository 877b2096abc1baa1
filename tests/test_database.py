"""What DuckDB writes: the same bytes however the rows came."""

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


def written(path, query, threads=1):
    with database.database("1GB", path) as connection:
        connection.execute(f"SET threads = {threads}")
        assert database.write_query(connection, query, path) == N
    return file_hash(path)


def test_bytes_hang_neither_on_the_threads_nor_on_the_files_that_rows_came_from(table, tmp_path):
    pq.write_table(table, tmp_path / "whole.parquet")
    for number, start in enumerate((0, 127_763)):
        part = table.slice(start, 127_763 if start == 0 else None)
        pq.write_table(part, tmp_path / f"part{number}.parquet", row_group_size=9_999)
    whole, parts = f"FROM '{tmp_path}/whole.parquet'", f"FROM '{tmp_path}/part*.parquet'"
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
