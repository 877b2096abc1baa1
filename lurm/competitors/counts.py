"""Sparse counts that the rivals start from.

Letters: U users, I items of the catalog, V words.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from lurm.item_embedding import item_words


def item_counts(behaviors: pa.Table, catalog: pa.Table, user_ids: pa.Array) -> csr_matrix:
    """How often each user took each item, (U, I) float32.

    Behaviors of other users or with items that the catalog lacks are left out.
    """
    users = pc.index_in(behaviors["user_id"], value_set=user_ids)
    items = pc.index_in(behaviors["item_id"], value_set=catalog["item_id"].combine_chunks())
    known = pa.table({"user": users, "item": items}).drop_null()
    ones = np.ones(len(known), dtype=np.float32)
    shape = (len(user_ids), len(catalog))
    return csr_matrix((ones, (known["user"].to_numpy(), known["item"].to_numpy())), shape=shape)


def word_counts(catalog: pa.Table, text_columns: Sequence[str]) -> csr_matrix:
    """How often each item's text holds each word, (I, V) float32; words in alphabetical order."""
    items = item_words(catalog, text_columns)
    column = {word: v for v, word in enumerate(sorted({word for item in items for word in item}))}
    columns = [column[word] for item in items for word in item]
    starts = np.cumsum([0, *map(len, items)])
    ones = np.ones(len(columns), dtype=np.float32)
    return csr_matrix((ones, columns, starts), shape=(len(items), len(column)))
