"""TF-IDF: a user is a document of the words of all items taken.

G. Salton and C. Buckley, "Term-weighting approaches in automatic text retrieval", Information
Processing & Management 24 (1988); scikit-learn's smoothed form.
Letters: U users, V words kept.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import TfidfTransformer

from lurm.competitors.counts import item_counts, word_counts


def tf_idf(
    behaviors: pa.Table,
    catalog: pa.Table,
    user_ids: pa.Array,
    text_columns: Sequence[str],
    min_user_share: float = 0.1,
) -> np.ndarray:
    """(1 + log tf) * idf of the user's words, rows of unit length, (U, V) float32.

    Kept are the words of at least a share ``min_user_share`` of the users. On Complete Journey 0.1
    leaves 1,017 words and scores above 0.002 (2,307 words); raw tf costs 4 points of AUC.
    """
    counts = item_counts(behaviors, catalog, user_ids) @ word_counts(catalog, text_columns)
    kept = counts.getnnz(axis=0) >= min_user_share * len(user_ids)
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, kept]).toarray()
