"""Counts of categories, items or words, with recency windows and volume, and their truncated SVD.

The strongest simple inputs: what a practitioner would build first for boosted trees or a linear model.

S. Deerwester and others, "Indexing by latent semantic analysis", JASIS 41 (1990), for the SVD of
idf-normalised counts; scikit-learn's randomized form.
Letters: U users, I items, F features, d width.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix, diags_array
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

from lurm.competitors.counts import item_counts

DAY = 86_400_000_000  # microseconds
MONTH = 365.25 / 12  # days


def last_months(behaviors: pa.Table, months: int) -> pa.Table:
    """The behaviors of the last ``months`` (of 30.4 days) before the last behavior of all."""
    time = behaviors["timestamp"].cast(pa.int64())
    if not len(time):
        return behaviors
    return behaviors.filter(pc.greater(time, pc.max(time).as_py() - int(months * MONTH * DAY)))


def membership(catalog: pa.Table, column: str) -> csr_matrix:
    """Which item has which value of a catalog column, (I, K) float32 zeros and ones.

    Values are in the order of their first item; an item without a value has a row of zeros.
    """
    values = catalog[column].combine_chunks().dictionary_encode()
    known = np.flatnonzero(np.asarray(values.is_valid()))
    entries = (known, values.indices.drop_null().to_numpy())
    return csr_matrix(
        (np.ones(len(known), np.float32), entries), shape=(len(catalog), len(values.dictionary))
    )


def volume(behaviors: pa.Table, user_ids: pa.Array) -> np.ndarray:
    """log(1 + behaviors) and log(1 + days with a behavior) of each user, (U, 2) float32."""
    user = pc.index_in(behaviors["user_id"], value_set=user_ids)
    table = pa.table(
        {"user": user, "day": pc.divide(behaviors["timestamp"].cast(pa.int64()), DAY)}
    ).drop_null()
    n_behaviors = np.bincount(table["user"].to_numpy(), minlength=len(user_ids))
    days = table.group_by(["user", "day"]).aggregate([])
    n_days = np.bincount(days["user"].to_numpy(), minlength=len(user_ids))
    return np.log1p(np.stack([n_behaviors, n_days], axis=1)).astype(np.float32)


def history_counts(
    behaviors: pa.Table,
    catalog: pa.Table,
    user_ids: pa.Array,
    features: csr_matrix,
    windows: Sequence[int] = (),
    min_user_share: float = 0.0,
) -> np.ndarray:
    """log(1 + count) of each feature over the history, and over each window, with volume, (U, F') float32.

    Args:
        features: (I, F) the features of each item, such as :func:`membership` or words.
        windows: lengths in months, up to the last behavior of all. Without windows there is no volume.
        min_user_share: features that fewer users have are left out; in windows the same ones.
    """
    counts = item_counts(behaviors, catalog, user_ids) @ features
    kept = np.flatnonzero(counts.getnnz(axis=0) >= max(min_user_share * len(user_ids), 1))
    blocks = [np.log1p(counts[:, kept].toarray())]
    for months in windows:
        recent = last_months(behaviors, months)
        window = item_counts(recent, catalog, user_ids) @ features[:, kept]
        blocks += [np.log1p(window.toarray()), volume(recent, user_ids)]
    if windows:
        blocks.append(volume(behaviors, user_ids))
    return np.concatenate(blocks, axis=1).astype(np.float32)


def idf_normalised(counts: csr_matrix) -> csr_matrix:
    """log(1 + count) * idf, rows of unit length; idf is log((1 + U) / (1 + users with it)) + 1."""
    weights = np.log((1 + counts.shape[0]) / (1 + counts.getnnz(axis=0))) + 1
    scaled = csr_matrix(counts, copy=True)
    scaled.data = np.log1p(scaled.data)
    return normalize(csr_matrix(scaled @ diags_array(weights)))


def svd_of_counts(counts: csr_matrix, width: int, idf: bool, seed: int = 0) -> np.ndarray:
    """Users in the leading directions of the log counts, idf-normalised if wanted, (U, d) float32.

    d is ``width``, or less where there are fewer features or users.
    """
    if not idf:
        counts = csr_matrix(counts, copy=True)
        counts.data = np.log1p(counts.data)
    x = idf_normalised(counts) if idf else counts
    model = TruncatedSVD(min(width, min(x.shape) - 1), n_iter=7, random_state=seed)
    return model.fit_transform(x).astype(np.float32)
