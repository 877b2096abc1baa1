"""Published user vectors as they are read: one matrix, of one space.

Letters: U users, d width of a user vector.
"""

import numpy as np
import pyarrow as pa


def vector_space(vectors: pa.Table) -> str:
    """The space in which the vectors lie, by its version; see :func:`vector_matrix` for what is refused.

    Vectors from before there were spaces lie in that of their model.
    """
    of_model = "space_version" not in vectors.column_names
    if not len(vectors):
        raise ValueError("user vectors: expected users, found a table without rows")
    spaces = vectors["model_version" if of_model else "space_version"].unique().to_pylist()
    if len(spaces) != 1:
        raise ValueError(
            f"user vectors: expected rows of one space, found {len(spaces)} "
            f"({', '.join(map(str, spaces))}), whose numbers mean different things; "
            "take all users from releases of one space_version"
        )
    return str(spaces[0])


def vector_matrix(vectors: pa.Table) -> np.ndarray:
    """The user vectors as one matrix, (U, d) float32. vectors: `tables.user_vectors_schema`.

    They may come from several models that share a space.

    Raises:
        ValueError: the table is no table of user vectors, is empty, or holds vectors of several spaces or
            numbers that are not finite.
    """
    kind = vectors.schema.field("vector").type if "vector" in vectors.column_names else None
    if (
        kind is None
        or not pa.types.is_fixed_size_list(kind)
        or "model_version" not in vectors.column_names
    ):
        raise ValueError(
            "user vectors: expected columns vector (list of fixed size) and model_version, "
            f"found {', '.join(f'{field.name} {field.type}' for field in vectors.schema)}"
        )
    vector_space(vectors)
    values = vectors["vector"].combine_chunks().flatten().to_numpy().astype(np.float32, copy=False)
    if len(values) != len(vectors) * kind.list_size:
        raise ValueError("user vectors: some users have no vector; leave them out of the table")
    if not np.isfinite(values).all():
        raise ValueError(
            "user vectors: expected finite numbers, found others; rerun encode_users for the month"
        )
    return values.reshape(-1, kind.list_size)
