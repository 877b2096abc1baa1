"""What an interest consists of: the share of its behaviors whose items have each value of a catalog column.

Bags count interests alone. With these shares the counts of a column's values, or of the words of the items'
texts, are known from them as expectations, without another pass over behaviors.

Letters: I items, D interests, C values.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from lurm.database import database, naming
from lurm.item_embedding import item_words

WORDS = "words"  # the source that stands for the words of the items' texts
MOST_WORDS = 2_000
MOST_VALUES = 20_000  # of a column; more would only cost memory, 600 bytes each
MEMORY = "1GB"  # of DuckDB, for the number of behaviors of each item
UNSEEN = (
    1e-3  # behaviors that an item without any counts as, so that its interest has a composition
)


def compositions(
    columns: Sequence[str],
    catalog: pa.Table,
    item_interests: pa.Table,
    item_counts: pa.Table,
    *,
    text_columns: Sequence[str],
    n_interests: int,
) -> dict[str, sparse.csr_matrix]:
    """For each of ``columns`` the composition of the interests, (D, C) float32.

    A row sums to 1, or less where items have no value (null or blank). For :data:`WORDS` it is the mean
    number of times that a word is in the items' texts.

    Args:
        columns: catalog columns, or :data:`WORDS`.
        catalog: the catalog, by ``item_id``.
        item_interests: :data:`lurm.tables.ITEM_INTERESTS`.
        item_counts: ``item_id`` and ``n``, behaviors of each item; items without any may be absent.
        text_columns: the columns that hold the items' words.
        n_interests: D.

    Raises:
        ValueError: the catalog has no such column, or no item has a value there.
    """
    weights = _interest_weights(catalog["item_id"], item_interests, item_counts, n_interests)
    behaviors = _behaviors(catalog["item_id"], item_counts)
    out = {}
    for column in columns:
        if column == WORDS:
            values = _word_counts(item_words(catalog, text_columns), behaviors)
        elif column in catalog.column_names:
            values = _value_matrix(catalog[column], behaviors)
        else:
            raise ValueError(
                f"pretrain_smen.columns: expected columns of the catalog or {WORDS!r}, got {column!r}; "
                f"the catalog has {', '.join(catalog.column_names)}"
            )
        if not values.shape[1]:
            raise ValueError(
                f"pretrain_smen.columns: expected values in {column!r}, the catalog has none there; "
                "leave that column out"
            )
        out[column] = sparse.csr_matrix(weights @ values, dtype=np.float32)
        out[column].sort_indices()
    return out


def count_items(files: Sequence[Path]) -> pa.Table:
    """Behaviors of each item in the files: columns ``item_id`` and ``n`` (int64), sorted by item."""
    with database(MEMORY, files[0]) as connection, naming(files[0].parent):
        rows = connection.sql(
            "SELECT item_id, COUNT(*) AS n FROM read_parquet($files) GROUP BY item_id ORDER BY item_id",
            params={"files": [str(path) for path in files]},
        )
        return rows.to_arrow_table()


def _interest_weights(
    item_ids: pa.ChunkedArray, item_interests: pa.Table, item_counts: pa.Table, n_interests: int
) -> sparse.csr_matrix:
    """The share of each item in the behaviors of each interest, (D, I) float64; rows sum to 1."""
    ids = item_interests["item_id"].combine_chunks()
    item = pc.index_in(ids, value_set=item_ids.combine_chunks().cast(ids.type))
    at = pc.index_in(ids, value_set=item_counts["item_id"].combine_chunks().cast(ids.type))
    known = pc.is_valid(item).to_numpy(zero_copy_only=False)
    numbers = np.append(item_counts["n"].to_numpy(), 0.0)
    counts = numbers[pc.fill_null(at, len(numbers) - 1).to_numpy()] + UNSEEN
    weights = counts * item_interests["weight"].to_numpy().astype(np.float64)
    rows = item_interests["interest"].to_numpy()[known]
    columns = pc.fill_null(item, 0).to_numpy()[known]
    table = sparse.csr_matrix((weights[known], (rows, columns)), shape=(n_interests, len(item_ids)))
    totals = np.asarray(table.sum(axis=1)).ravel()
    return sparse.csr_matrix(sparse.diags(1 / np.where(totals > 0, totals, 1)) @ table)


def _behaviors(item_ids: pa.ChunkedArray, item_counts: pa.Table) -> NDArray[np.float64]:
    """Behaviors of each item of the catalog, (I,); 0 where none were counted."""
    counted = item_counts["item_id"].combine_chunks().cast(item_ids.type)
    at = pc.index_in(item_ids.combine_chunks(), value_set=counted)
    numbers = np.append(item_counts["n"].to_numpy(), 0.0)
    return numbers[pc.fill_null(at, len(numbers) - 1).to_numpy()]


def _value_matrix(column: pa.ChunkedArray, behaviors: NDArray[np.float64]) -> sparse.csr_matrix:
    """One row per item, (I, C), a 1 at the value that it has; values in their order.

    Of very many values those of most behaviors are kept.
    """
    text = pc.utf8_trim_whitespace(column.combine_chunks().cast(pa.string()))
    text = pc.if_else(pc.equal(text, ""), None, text)
    values = pc.drop_null(pc.unique(text)).sort()
    if len(values) > MOST_VALUES:
        at = pc.index_in(text, value_set=values)
        known = pc.is_valid(at).to_numpy(zero_copy_only=False)
        total = np.bincount(pc.drop_null(at).to_numpy(), behaviors[known], len(values))
        values = values.take(pa.array(np.sort(np.argsort(-total, kind="stable")[:MOST_VALUES])))
    at = pc.index_in(text, value_set=values)
    known = np.flatnonzero(pc.is_valid(at).to_numpy(zero_copy_only=False))
    columns = pc.drop_null(at).to_numpy()
    return sparse.csr_matrix(
        (np.ones(len(known)), (known, columns)), shape=(len(text), len(values))
    )


def _word_counts(
    words: Sequence[Sequence[str]], behaviors: NDArray[np.float64]
) -> sparse.csr_matrix:
    """How often each word is in each item's text, (I, C), for the words of most behaviors."""
    total: Counter[str] = Counter()
    n_items: Counter[str] = Counter()
    for text, n in zip(words, behaviors.tolist(), strict=True):
        for word in set(text):
            total[word] += n
            n_items[word] += 1
    most = sorted((w for w in total if n_items[w] > 1), key=lambda w: (-total[w], w))[:MOST_WORDS]
    number = {word: column for column, word in enumerate(most)}
    pairs = [(row, number[w]) for row, text in enumerate(words) for w in text if w in number]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    table = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(words), len(most)))
    table.sum_duplicates()
    return table
