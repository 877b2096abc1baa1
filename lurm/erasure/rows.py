"""Parquet files without the rows of forgotten users, in a stream; all other rows and columns stay.

The bytes depend on the rows that stay only: leaving out two users at once or one after the other is the
same, and so is what a month delivered again becomes at the door and what erasure had left of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lurm.database import ROWS_PER_GROUP
from lurm.erasure.tombstones import Tombstones
from lurm.storage import read_schema, replacing

_COUNT = b"lurm_forgotten"  # in the metadata of a landed file: rows that were left out of it


@dataclass(frozen=True)
class Found:
    """Rows of forgotten users, and the users' hashes."""

    rows: int = 0
    users: frozenset[str] = frozenset()


def find_rows(source: Path | BinaryIO, tombstones: Tombstones) -> Found:
    """What a parquet file holds of forgotten users; nothing if it has no column ``user_id``."""
    rows, users = 0, frozenset[str]()
    with pq.ParquetFile(source) as file:
        if "user_id" in file.schema_arrow.names:
            for batch in file.iter_batches(ROWS_PER_GROUP, columns=["user_id"]):
                mask, hashes = tombstones.find(pa.chunked_array([batch.column(0)]))
                rows += int(mask.sum())
                users |= hashes
    return Found(rows, users)


def leave_out(
    source: Path,
    target: Path,
    tombstones: Tombstones,
    *,
    counted: bool = False,
    metadata: dict[bytes, bytes] | None = None,
) -> None:
    """Write ``source`` without the rows of forgotten users to ``target``, which may be the same.

    A landed file has the layout that every landed file has, others keep theirs: the rows of a group, and
    which columns have dictionaries.

    Args:
        source: parquet file with a column ``user_id``.
        target: file to write.
        tombstones: who is forgotten.
        counted: the file's metadata tells how many rows were ever left out; see :func:`n_left_out`.
        metadata: entries of the file's metadata that take the place of those there.
    """
    changed = dict(metadata or {})
    if counted:
        changed[_COUNT] = str(n_left_out(source) + find_rows(source, tombstones).rows).encode()
    with pq.ParquetFile(source) as file, replacing(target) as temporary:
        schema = file.schema_arrow
        schema = schema.with_metadata({**(schema.metadata or {}), **changed})
        size, dictionaries = (ROWS_PER_GROUP, True) if counted else _layout(file.metadata)
        with pq.ParquetWriter(
            temporary, schema, compression="zstd", use_dictionary=dictionaries
        ) as writer:
            for group in _in_groups(_kept(file, tombstones), schema, size):
                writer.write_table(group, row_group_size=size)


def n_left_out(path: Path) -> int:
    """How many rows of forgotten users were left out of a landed file."""
    return int((read_schema(path).metadata or {}).get(_COUNT, b"0"))


def _layout(about: pq.FileMetaData) -> tuple[int, list[str]]:
    """The most rows of a group, and the columns with dictionaries."""
    groups = [about.row_group(n) for n in range(about.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(about.num_columns)]
    size = max((group.num_rows for group in groups), default=0)
    return size or ROWS_PER_GROUP, sorted(
        {c.path_in_schema for c in columns if c.has_dictionary_page}
    )


def _kept(file: pq.ParquetFile, tombstones: Tombstones) -> Iterator[pa.Table]:
    for batch in file.iter_batches(ROWS_PER_GROUP):
        table = pa.Table.from_batches([batch])
        forgotten, _ = tombstones.find(table["user_id"])
        yield table.filter(pa.array(~forgotten))


def _in_groups(tables: Iterator[pa.Table], schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    """The rows of the tables in groups of ``size``, wherever the tables end."""
    rest = schema.empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table.cast(schema)])
        while len(rest) >= size:
            yield rest.slice(0, size)
            rest = rest.slice(size)
    if len(rest):
        yield rest.combine_chunks()
