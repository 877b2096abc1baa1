"""Truncated SVD: the leading directions of counts, of categories or of items that few users take.

S. Deerwester and others, "Indexing by latent semantic analysis", JASIS 41 (1990); scikit-learn's form.
Letters: U users, K columns of counts, d width.
"""

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from lurm.competitors.counts import item_counts


def truncated_svd(counts: np.ndarray | csr_matrix, width: int, seed: int = 0) -> np.ndarray:
    """The users in the leading directions of their counts (U, K), (U, d) float32; d is below K."""
    width = min(width, counts.shape[1] - 1, counts.shape[0] - 1)
    return TruncatedSVD(width, random_state=seed).fit_transform(counts).astype(np.float32)


def item_svd(
    behaviors: pa.Table, catalog: pa.Table, user_ids: pa.Array, width: int, seed: int = 0
) -> np.ndarray:
    """Truncated SVD of (1 + log count) * idf of items, rows of unit length, (U, d) float32."""
    counts = item_counts(behaviors, catalog, user_ids)
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    return truncated_svd(weighted, width, seed)
