"""Files: written whole or not at all, read with a message that helps, never pickled.

Every writer writes to a temporary name in the same folder, flushes it to disk and renames it, so a
full disk or a killed process leaves the old file or none. Same content gives the same bytes.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from glob import escape
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

# What the system says when a disk, a quota or the largest allowed file is full.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    What writers of ``path`` that were killed left behind is cleared away.

    Raises:
        OSError: the disk is full, among other reasons; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{escape(path.name)}.????????.tmp"):
        with suppress(OSError), _left_behind(left, os.O_RDWR | os.O_NOFOLLOW):
            left.unlink()
    held = None
    while held is None:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        held = _hold(name, os.O_RDWR)
    temporary = Path(name)
    try:
        with _room_for(path):
            yield temporary
        put(temporary, path)
    finally:
        os.close(held)
        temporary.unlink(missing_ok=True)


def put(file: Path, path: Path) -> None:
    """Flush ``file`` to the disk and rename it to ``path``, which is on the same one, for all to read.

    Raises:
        OSError: the disk is full, among other reasons; ``path`` is what it was.
    """
    with _room_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb+") as whole:
            os.fsync(whole.fileno())
        file.chmod(0o644)
        file.replace(path)


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """Name the file in the error, and what to do, where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            reason = os.strerror(error.errno)
            raise OSError(f"{path}: not finished: {reason}; make room and run again") from error
        raise


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder in ``parent`` that is gone after the block; such folders of processes that were killed, too.

    Its name begins as ``prefix`` says and ends in .tmp, which DVC ignores.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{escape(prefix)}????????.tmp"):
        with suppress(OSError), _left_behind(left, os.O_DIRECTORY | os.O_NOFOLLOW):
            shutil.rmtree(left)
    held = None
    while held is None:
        with tempfile.TemporaryDirectory(".tmp", prefix, parent) as name:
            held = _hold(name, os.O_DIRECTORY)
            if held is not None:
                try:
                    yield Path(name)
                finally:
                    os.close(held)


@contextmanager
def _left_behind(path: Path, flags: int) -> Iterator[None]:
    """Holds the lock of a file or folder; an OSError if its maker does, or if it is another user's."""
    handle = os.open(path, flags)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _hold(made: str, flags: int) -> int | None:
    """A handle that locks what was just made; none if another one cleared it away before it was locked."""
    try:
        handle = os.open(made, flags)
    except FileNotFoundError:
        return None
    with suppress(OSError):  # some file systems have no such locks: there nothing is cleared away
        fcntl.flock(handle, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.stat(made), os.fstat(handle)):
            return handle
    os.close(handle)
    return None


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """The block fills ``folder`` anew; after an error it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def shard_folder(folder: Path, number: int) -> Path:
    """Where the shard of that number lies in ``folder``."""
    return folder / f"{number:05}"


def write_parquet(table: pa.Table, path: Path | str) -> None:
    """Write ``table`` as zstd parquet."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


@contextmanager
def _expecting(kind: str, path: Path | str, *damage: type[Exception]) -> Iterator[None]:
    """Name the file in the error when it is absent, or when reading it shows ``damage``."""
    try:
        yield
    except damage as error:
        raise ValueError(
            f"{path}: expected a complete {kind} file, got {error}; deliver or rebuild it"
        ) from error
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: expected a {kind} file, found none; deliver it or run what writes it"
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise
        # Arrow tells of damage within pages so, and of no file.
        raise ValueError(
            f"{path}: expected a complete {kind} file, got {error}; deliver or rebuild it"
        ) from error


def read_schema(path: Path | str) -> pa.Schema:
    """The columns and types of the parquet file; raises as :func:`read_parquet` does."""
    with _expecting("parquet", path, pa.ArrowInvalid):
        return pq.read_schema(path)


def read_parquet(path: Path | str, columns: list[str] | None = None) -> pa.Table:
    """The parquet file as an Arrow table.

    Raises:
        ValueError: the file is truncated or not parquet.
        FileNotFoundError: there is no such file.
    """
    with _expecting("parquet", path, pa.ArrowInvalid):
        return pq.ParquetFile(path).read(columns=columns)


def read_rows(path: Path | str, rows: slice, columns: list[str] | None = None) -> pa.Table:
    """Those rows of the parquet file, of which only the groups that hold some are read.

    Raises as :func:`read_parquet` does.
    """
    return reader(path, columns)(rows)


def reader(path: Path | str, columns: list[str] | None = None) -> Callable[[slice], pa.Table]:
    """A function that gives rows of the parquet file, and keeps the last two groups that held some.

    So rows that are asked for in order are read once. Raises as :func:`read_parquet` does.
    """
    with _expecting("parquet", path, pa.ArrowInvalid):
        file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    edges = [0, *accumulate(sizes)]
    none = file.schema_arrow.empty_table().select(columns or file.schema_arrow.names)

    @lru_cache(maxsize=2)
    def group(number: int) -> pa.Table:
        with _expecting("parquet", path, pa.ArrowInvalid):
            return file.read_row_group(number, columns)

    def read(rows: slice) -> pa.Table:
        first, last, _ = rows.indices(edges[-1])
        held = [
            group(n)[max(first - start, 0) : last - start]
            for n, (start, stop) in enumerate(pairwise(edges))
            if start < last and first < stop
        ]
        return pa.concat_tables([none, *held])

    return read


def row_groups(path: Path | str, at_least: int = 1) -> Iterator[pa.Table]:
    """The parquet file by its groups of rows, so many together that they have ``at_least`` rows.

    Raises as :func:`read_parquet` does.
    """
    with _expecting("parquet", path, pa.ArrowInvalid):
        file = pq.ParquetFile(path)
        first, n_rows = 0, 0
        for group in range(file.num_row_groups):
            n_rows += file.metadata.row_group(group).num_rows
            if n_rows and (n_rows >= at_least or group == file.num_row_groups - 1):
                yield file.read_row_groups(range(first, group + 1))
                first, n_rows = group + 1, 0


def read_taken(path: Path | str, rows: np.ndarray) -> pa.Table:
    """The rows (n,) of the parquet file in the order asked for, in memory that follows them and a group.

    Raises as :func:`read_parquet` does.
    """
    ascending = np.sort(rows)
    parts, first = [], 0
    for table in row_groups(path):
        here = slice(*np.searchsorted(ascending, [first, first + len(table)]))
        parts.append(table.take(ascending[here] - first))
        first += len(table)
    if not parts:
        return read_parquet(path)
    return pa.concat_tables(parts).take(np.searchsorted(ascending, rows))


def read_runs(path: Path | str, column: str) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Runs of equal values in a column: the value of each, and the rows where they begin and end.

    The rows (runs + 1,) are int64. A long run may come as several. Memory follows the runs.
    Raises as :func:`read_parquet` does.
    """
    with _expecting("parquet", path, pa.ArrowInvalid):
        file = pq.ParquetFile(path)
        values, edges, n_rows = [], [np.zeros(1, dtype=np.int64)], 0
        for batch in file.iter_batches(columns=[column]):
            runs = pc.run_end_encode(batch.column(0), run_end_type=pa.int64())
            values.append(runs.values)
            edges.append(runs.run_ends.to_numpy() + n_rows)
            n_rows += len(batch)
    kind = file.schema_arrow.field(column).type
    return pa.chunked_array(values, kind), np.concatenate(edges)


def row_count(path: Path | str) -> int:
    """Rows of the parquet file, from its footer; raises as :func:`read_parquet` does."""
    with _expecting("parquet", path, pa.ArrowInvalid):
        return int(pq.read_metadata(path).num_rows)


def null_count(path: Path | str, column: str) -> int:
    """Rows of the parquet file without a value in the flat ``column``, from its footer where it tells.

    Raises as :func:`read_parquet` does.
    """
    with _expecting("parquet", path, pa.ArrowInvalid):
        about = pq.read_metadata(path)
    at = about.schema.names.index(column)
    told = [about.row_group(n).column(at).statistics for n in range(about.num_row_groups)]
    if all(statistics is not None and statistics.has_null_count for statistics in told):
        return sum(statistics.null_count for statistics in told)
    return int(read_parquet(path, [column])[column].null_count)


def write_json(value: Any, path: Path | str) -> None:
    """Write ``value`` as indented JSON with sorted keys; NaN is refused."""
    with replacing(path) as temporary:
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """The value of a JSON file; raises as :func:`read_parquet` does."""
    with _expecting("JSON", path, ValueError):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def write_text(text: str, path: Path | str) -> None:
    """Write ``text`` as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(columns: Mapping[str, Any], path: Path | str) -> None:
    """Write named columns of equal length as CSV with a header."""
    with replacing(path) as temporary:
        csv.write_csv(pa.table({name: list(values) for name, values in columns.items()}), temporary)


def write_array(array: np.ndarray, path: Path | str) -> None:
    """Write one array as ``.npy``, ready to be memory-mapped."""
    array = np.ascontiguousarray(array)
    with replacing(path) as temporary, temporary.open("wb") as file:
        # As np.save, which on a full disk tells two numbers and no reason.
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


@contextmanager
def growing_array(
    path: Path | str, dtype: type[np.generic]
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends rows to a ``.npy``; the bytes are those of :func:`write_array` of all.

    Rows of no axis or more, but all alike; without any there is an empty array of one axis.
    """
    shape: tuple[int, ...] = (0,)
    with replacing(path) as temporary, temporary.open("wb") as file:

        def header() -> None:  # numpy leaves room for more rows
            file.seek(0)
            about = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
            np.lib.format.write_array_header_1_0(file, about | {"shape": shape})

        def append(rows: np.ndarray) -> None:
            nonlocal shape
            if not file.tell():
                shape = (0, *rows.shape[1:])
                header()
            file.write(np.ascontiguousarray(rows, dtype).data)
            shape = (shape[0] + len(rows), *shape[1:])

        yield append
        header()


@contextmanager
def growing_parquet(path: Path | str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends tables of the schema to a parquet file, each in groups of rows of its own.

    Only text has dictionaries: those of ids and of numbers that hardly repeat take time and room.
    """
    text = [field.name for field in schema if pa.types.is_string(field.type)]
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=text) as writer,
    ):
        yield writer.write_table


def map_arrow(path: Path | str) -> pa.Table:
    """The Arrow file, memory-mapped; raises as :func:`read_parquet` does."""
    with _expecting("memory-mapped Arrow", path, pa.ArrowInvalid):
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def read_array(path: Path | str) -> np.ndarray:
    """The ``.npy`` file, memory-mapped read-only; raises as :func:`read_parquet` does."""
    with _expecting("npy", path, ValueError, EOFError):
        return np.load(path, mmap_mode="r", allow_pickle=False)


def write_tensors(
    tensors: Mapping[str, Any], path: Path | str, settings: Mapping[str, Any] | None = None
) -> None:
    """Write named torch tensors as safetensors, with JSON ``settings`` in the header, in their order."""
    from safetensors.torch import save  # torch takes seconds to import, and most stages need none

    header = {"settings": json.dumps(settings or {})}  # not sorted: SMEN's scales have an order
    with replacing(path) as temporary:
        temporary.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}, header))


def read_tensors(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The named torch tensors and JSON settings of a safetensors file; raises as :func:`read_parquet`."""
    from safetensors import SafetensorError, safe_open

    with (
        _expecting("safetensors", path, SafetensorError),
        safe_open(str(path), framework="pt") as file,
    ):
        settings = json.loads((file.metadata() or {}).get("settings", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, settings  # noqa: SIM118


def read_settings(path: Path | str) -> dict[str, Any]:
    """The JSON settings in the header of a safetensors file; raises as :func:`read_parquet` does."""
    from safetensors import SafetensorError, safe_open

    with (
        _expecting("safetensors", path, SafetensorError),
        safe_open(str(path), framework="np") as file,  # no torch for a header
    ):
        settings: dict[str, Any] = json.loads((file.metadata() or {}).get("settings", "{}"))
        return settings


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def month_files(folder: Path | str, months: list[str], suffix: str = ".parquet") -> list[Path]:
    """The file of every listed month, in the order given; other files in the folder are not read.

    Raises:
        FileNotFoundError: a listed month has no file; the message names all that are missing.
    """
    paths = [Path(folder) / f"{month}{suffix}" for month in months]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: expected one file for each of {months[0]}..{months[-1]}, missing "
            f"{', '.join(missing)}; run the stage that writes them, or take the month out of params.yaml"
        )
    return paths
