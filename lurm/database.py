"""DuckDB over parquet files: in little memory, spilling to disk, with errors in plain words."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ByteSize, TypeAdapter

from lurm.storage import scratch
from lurm.tables import TIMESTAMP

# Rows of a row group, which are held in memory while a file is written.
ROWS_PER_GROUP = 1 << 20
# The same where DuckDB writes, each group on a core of its own.
ROWS_PER_CORE = 122_880
# What DuckDB asks for at least for each thread (duckdb.org/docs/stable/guides/performance/environment);
# with more threads than that it exceeds its limit, and stalls.
MEMORY_PER_THREAD = 125_000_000
_BYTES = TypeAdapter(ByteSize)
_UNFIT = (duckdb.InvalidInputException, duckdb.ConversionException)
_TAKEN = ("row", "reason", "file_row_number")


@contextmanager
def database(memory_limit: str, reading: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in UTC that keeps to ``memory_limit`` and spills to a folder of its own.

    The limit, such as 800MB or 4GB, also says how many of the cores are used (MEMORY_PER_THREAD). The
    folder lies where TMPDIR says. ``reading`` is the file that came from outside, which errors name.

    Raises:
        OSError: a file cannot be read or written, a full disk among the reasons.
        ValueError: a file holds what its type cannot (damaged pages, numbers beyond 64 bits).
    """
    with (
        scratch(Path(tempfile.gettempdir()), "lurm-spill-") as spill,
        duckdb.connect(
            config={"memory_limit": memory_limit, "temp_directory": str(spill)}
        ) as connection,
    ):
        connection.execute("SET TimeZone = 'UTC'")
        (cores,) = one(connection, "SELECT current_setting('threads')")
        connection.execute(f"SET threads = {min(cores, n_threads(memory_limit))}")
        with naming(reading):
            yield connection


def n_threads(memory_limit: str) -> int:
    """How many threads DuckDB has memory for.

    >>> n_threads("1GB"), n_threads("800MB"), n_threads("50MB")
    (8, 6, 1)

    Raises:
        ValueError: what is no number of bytes.
    """
    return max(1, _BYTES.validate_python(memory_limit) // MEMORY_PER_THREAD)


@contextmanager
def naming(reading: Path) -> Iterator[None]:
    """Errors of DuckDB name the file ``reading``; raises as :func:`database` does."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        told = str(error).splitlines()[0]
        advice = "raise the memory_limit that the stage has in params.yaml"
        if "offload" in told or "max_temp_directory_size" in str(error):
            advice = f"make room in {tempfile.gettempdir()}, or name another folder by TMPDIR"
        raise OSError(f"{reading}: {told}; {advice}") from error
    except duckdb.IOException as error:
        raise OSError(f"{reading}: {error}") from error
    except duckdb.Error as error:
        # Some damage is reported as a plain Error; its other kinds would be faults of ours.
        if type(error) is duckdb.Error or isinstance(error, _UNFIT):
            raise ValueError(f"{reading}: {error}; deliver the file again") from error
        raise


def check_names(schema: pa.Schema, where: str) -> None:
    """Return if every column has a name of its own and none that the quarantine or DuckDB needs.

    Raises:
        ValueError: a name is taken, or there twice; DuckDB does not tell capitals apart.
    """
    folded = [column.lower() for column in schema.names]
    taken = sorted({c for c in folded if c in _TAKEN or folded.count(c) > 1})
    if taken:
        raise ValueError(
            f"{where}: expected every column to have a name of its own, found {', '.join(taken)} "
            f"twice (capitals do not count) or among {', '.join(_TAKEN)}, needed here; rename it"
        )


def name(column: str) -> str:
    """``column`` as an SQL identifier.

    >>> name('a"b')
    '"a""b"'
    """
    return '"' + column.replace('"', '""') + '"'


def literal(text: Path | str) -> str:
    """``text`` as an SQL string.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + str(text).replace("'", "''") + "'"


def blank(text: str) -> str:
    """SQL that holds where the SQL expression ``text`` shows nothing: white space of any script.

    >>> with duckdb.connect() as connection:
    ...     one(connection, f"SELECT {blank(literal(chr(0x3000)))}, {blank(literal('茶'))}")
    (True, False)
    """
    return rf"regexp_full_match({text}, '[\s\p{{Z}}\p{{C}}]*')"


def one(
    connection: duckdb.DuckDBPyConnection, query: str, values: dict[str, object] | None = None
) -> tuple[Any, ...]:
    """The only row that ``query`` finds."""
    (row,) = connection.execute(query, values).fetchall()
    return tuple(row)


def write_query(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> int:
    """Stream the rows of ``query`` into the parquet file ``path``; returns how many.

    Arrow writes, since DuckDB marks a column as nullable or not by the data it happens to hold. Groups of
    rows are cut here: where DuckDB ends a batch depends on its threads, and on where the rows came from.
    """
    reader = connection.sql(query).to_arrow_reader(ROWS_PER_GROUP)
    schema = pa.schema(
        [
            field.with_type(TIMESTAMP) if pa.types.is_timestamp(field.type) else field
            for field in reader.schema
        ]
    )
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(reader, ROWS_PER_GROUP):
            # In one chunk, since the pages of a file follow the chunks, too.
            writer.write_table(group.cast(schema).combine_chunks(), row_group_size=ROWS_PER_GROUP)
            rows += group.num_rows
    return rows


def write_sorted(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> int:
    """Write the rows of ``query``, which sorts them, into the parquet file ``path``; returns how many.

    DuckDB writes, on all cores. The bytes follow the rows alone: sorted rows are cut in groups of one size,
    and TRY keeps DuckDB from marking a column by nulls that its source is known not to hold.

    Raises:
        OSError: the file cannot be written, with the system's number of why.

    For tables of our own: integers beyond 64 bits become floats. TRY would turn an error into a null if the
    optimizer moved a cast above the sort, which it does not (tests/test_database.py).
    """
    options = (
        f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROWS_PER_CORE}, USE_TMP_FILE false"
    )
    copy = f"COPY (SELECT TRY(COLUMNS(*)) FROM ({query})) TO {literal(path)} ({options})"
    try:
        return int(one(connection, copy)[0])
    except duckdb.IOException as error:
        system = re.search(r'"errno": ?"(\d+)"', str(error))
        if system is None:
            raise
        raise OSError(int(system[1]), f"{path}: {error}") from error


def _groups(reader: pa.RecordBatchReader, size: int) -> Iterator[pa.Table]:
    """The reader's rows in tables of ``size`` rows, and one of those that are left."""
    held: list[pa.RecordBatch] = []
    n_held = 0
    for batch in reader:
        while n_held + len(batch) >= size:
            taken = size - n_held
            yield pa.Table.from_batches([*held, batch.slice(0, taken)], reader.schema)
            batch, held, n_held = batch.slice(taken), [], 0
        held.append(batch)
        n_held += len(batch)
    if n_held:
        yield pa.Table.from_batches(held, reader.schema)
