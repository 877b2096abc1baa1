"""A month's published vectors in the hands of a consumer (:func:`lurm.tables.user_vectors_schema`).

Letters: U users, d numbers of a vector.
"""

import pyarrow as pa
import pyarrow.compute as pc


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
