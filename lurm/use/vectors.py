"""A month's published vectors in the hands of a consumer (:func:`lurm.tables.user_vectors_schema`).

Letters: U users, d numbers of a vector.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lurm.storage import read_parquet
from lurm.vectors import vector_space

VERSIONS = ("model_version", "space_version")  # older files have the first only


def read_vectors(path: Path | str, ids: Sequence[int] | Sequence[str]) -> pa.Table:
    """The vectors of the users asked for, in that order; who has none gets the fallback.

    The fallback is the mean vector of all users in the file: what is known of somebody of whom nothing is
    known. Its ``n_behaviors`` and ``confidence`` are 0 and its months are null, by which it can be told.

    path: a month's file of `tables.user_vectors_schema`; ids: (n,), of the type that the file has.

    Raises:
        ValueError: ids of another type than the file's; no vectors, or vectors of several spaces.
        FileNotFoundError: there is no such file.
    """
    vectors = read_parquet(path)
    kind = vectors.schema.field("user_id").type
    asked = pa.array(ids) if len(ids) else pa.array([], kind)
    if pa.types.is_integer(asked.type) != pa.types.is_integer(kind):
        raise ValueError(
            f"{path}: expected user ids of type {kind} as in the file, got {asked.type}; "
            "ask with ids as they were delivered"
        )
    vector_space(vectors)
    asked = asked.cast(kind)
    rows = rows_of(asked, vectors)
    nobody = {
        "vector": _mean_vector(vectors),
        "n_behaviors": 0,
        "confidence": 0.0,
        **{name: vectors[name][0].as_py() for name in VERSIONS if name in vectors.column_names},
    }
    fallback = pa.Table.from_pylist([nobody], schema=vectors.schema)  # all else is null
    found = pa.concat_tables([vectors, fallback]).take(pc.fill_null(rows, len(vectors)))
    return found.set_column(0, "user_id", asked)


def _mean_vector(vectors: pa.Table) -> list[float]:
    width = vectors.schema.field("vector").type.list_size
    numbers = vectors["vector"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    mean: list[float] = numbers.mean(axis=0, dtype=np.float64).tolist()
    return mean


def plain_table(vectors: pa.Table) -> pa.Table:
    """The vectors with one float32 column per number, ``v00``, ``v01``, ..., in place of the list.

    All other columns stay, in their order and before the numbers, so that the table fits a spreadsheet, a
    CSV file, or a tool that knows no lists.

    >>> vector = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    >>> plain_table(pa.table({"user_id": [7], "vector": vector, "n_behaviors": [3]})).to_pylist()
    [{'user_id': 7, 'n_behaviors': 3, 'v0': 1.0, 'v1': 2.0}]
    """
    width = vectors.schema.field("vector").type.list_size
    numbers = vectors["vector"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    table = vectors.drop_columns("vector")
    for column in range(width):
        name = f"v{column:0{len(str(width - 1))}d}"
        table = table.append_column(name, pa.array(numbers[:, column]))
    return table


def like_ids(ids: list[str], vectors: pa.Table, where: str) -> pa.Array:
    """The ids, given as text, in the type of the table's ``user_id``.

    Raises:
        ValueError: the table's ids are integers, and one of these is none.
    """
    kind = vectors.schema.field("user_id").type
    try:
        return pa.array(ids, pa.string()).cast(kind)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{where}: expected user ids of type {kind} as in the vectors, got others: {error}"
        ) from None


def rows_of(ids: pa.Array, vectors: pa.Table) -> pa.Array:
    """Row of each id in the table, (n,) int32, null where a user has no vector."""
    known = vectors["user_id"].combine_chunks()
    return pc.index_in(ids.cast(known.type), value_set=known)
