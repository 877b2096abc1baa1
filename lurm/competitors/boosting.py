"""Gradient boosting on counts: what a practitioner would try first, trained for each task.

J. H. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29
(2001); scikit-learn's histogram form.
Letters: n users, F features, C classes.
"""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier


def boost(
    x: np.ndarray, y: np.ndarray, test: np.ndarray, n_classes: int, seed: int = 0
) -> np.ndarray:
    """Class probabilities (n, C) of ``test`` (n, F) by trees grown on ``x`` (., F) and classes ``y``.

    Up to 300 small trees, fewer if a tenth of the users that is held back stops gaining; on the
    validation users this scores above the library's own settings on both example data sets.
    """
    model = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=300, max_leaf_nodes=15, early_stopping=True, random_state=seed
    ).fit(x, y)
    probabilities = np.zeros((len(test), n_classes))
    probabilities[:, model.classes_] = model.predict_proba(test)
    return probabilities
