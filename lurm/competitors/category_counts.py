"""The simplest user vector: how much of each category a user took.

Letters: U users, K values of the category column.
"""

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from lurm.competitors.counts import item_counts


def category_counts(
    behaviors: pa.Table, catalog: pa.Table, user_ids: pa.Array, column: str
) -> np.ndarray:
    """log(1 + behaviors of the user with items of the category), (U, K) float32.

    Categories stand in the order of their first item in the catalog. Nothing is learned.

    Raises:
        KeyError: the catalog has no such column.
    """
    category = catalog[column].combine_chunks().dictionary_encode()
    known = np.flatnonzero(np.asarray(category.is_valid()))
    membership = csr_matrix(
        (np.ones(len(known), np.float32), (known, category.indices.drop_null().to_numpy())),
        shape=(len(catalog), len(category.dictionary)),
    )
    return np.log1p((item_counts(behaviors, catalog, user_ids) @ membership).toarray())
