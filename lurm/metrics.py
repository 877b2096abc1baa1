"""Scores of a head: AUC, accuracy, their standard error, and mean ROC curves.

Plain numpy, since the import of a larger library takes longer than a whole task.

Letters: n users scored, C classes, G points of the common grid.
"""

from collections.abc import Sequence

import numpy as np


def binary_auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Chance that a positive user scores above a negative one; ties count one half.

    The Mann-Whitney statistic on average ranks. positive: (n,) bool; score: (n,) float.

    >>> binary_auc(np.array([True, False, True]), np.array([0.9, 0.5, 0.5]))
    0.75

    Raises:
        ValueError: positives or negatives are absent.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        raise ValueError(
            f"AUC needs both classes, got {n_positive} positive, {n_negative} negative"
        )
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    wins = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * n_negative))


def auc(y: np.ndarray, probabilities: np.ndarray) -> float:
    """AUC of the second class when there are two, else the unweighted mean of one-vs-rest AUCs.

    Classes of which ``y`` holds no user are left out of the mean. y: (n,) class index;
    probabilities: (n, C).

    Raises:
        ValueError: ``y`` holds a single class.
    """
    if probabilities.shape[1] == 2:
        return binary_auc(y == 1, probabilities[:, 1])
    return float(np.mean([binary_auc(y == c, probabilities[:, c]) for c in np.unique(y)]))


def accuracy(y: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of users whose most probable class is their own. y: (n,); probabilities: (n, C)."""
    return float(np.mean(probabilities.argmax(axis=1) == y))


def standard_error(scores: Sequence[float]) -> float:
    """Standard error of the mean of the scores, taken as independent; 0 for a single score.

    Departure: folds share training users, so this is a lower bound (Bengio and Grandvalet, "No
    unbiased estimator of the variance of K-fold cross-validation", JMLR 5, 2004).
    """
    return float(np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else 0.0


def paired_interval(
    differences: Sequence[float], test_share: float, confidence: float
) -> tuple[float, float, float]:
    """Mean of paired differences over the folds of a repeated cross-validation, and its interval.

    The variance is corrected for the users that training parts share: (1/J + rho / (1 - rho)) s^2 for J
    folds and the share rho of users in a fold (Nadeau and Bengio, "Inference for the generalization
    error", Machine Learning 52, 2003). Returns mean, lower and upper end.

    >>> mean, low, high = paired_interval([0.01, 0.03] * 5, 0.2, 0.95)
    >>> round(mean, 4), round(low, 4), round(high, 4)
    (0.02, 0.0059, 0.0341)

    Raises:
        ValueError: there are fewer than two differences.
    """
    from scipy.stats import t  # slow to import, and most that score need no interval

    if len(differences) < 2:
        raise ValueError(f"an interval needs two folds or more, got {len(differences)}")
    n, mean = len(differences), float(np.mean(differences))
    variance = float(np.var(differences, ddof=1)) * (1 / n + test_share / (1 - test_share))
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * variance**0.5
    return mean, mean - half, mean + half


def auc_influence(y: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """What each user adds to the deviation of :func:`auc` from its expectation, (n,) float64, of sum 0.

    The sum of squares estimates the variance of the AUC, and sums of squares of differences that of a
    paired difference (E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, "Comparing the areas under two
    or more correlated receiver operating characteristic curves", Biometrics 44, 1988).
    y: (n,) class index; probabilities: (n, C).
    """
    if probabilities.shape[1] == 2:
        return _binary_influence(y == 1, probabilities[:, 1])
    parts = [_binary_influence(y == c, probabilities[:, c]) for c in np.unique(y)]
    return np.asarray(np.mean(parts, axis=0))


def _binary_influence(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    mean = binary_auc(positive, score)
    result = np.empty(len(score))
    for group, sign in ((positive, 1), (~positive, -1)):
        others = np.sort(score[~group])
        below = np.searchsorted(others, score[group], "left")
        not_above = np.searchsorted(others, score[group], "right")
        share = (below + not_above) / (2 * len(others))
        result[group] = ((share if sign == 1 else 1 - share) - mean) / group.sum()
    return result


def two_way_interval(
    differences: np.ndarray, influence: np.ndarray, confidence: float
) -> tuple[float, float, float]:
    """Mean of differences over tasks, and its interval over users and tasks, both drawn by chance.

    The variance is that of clusters in two ways: over users, plus over tasks, less what both count
    (A. C. Cameron, J. B. Gelbach and D. L. Miller, "Robust inference with multiway clustering", Journal of
    Business & Economic Statistics 29, 2011), but never below either of the two. Degrees of freedom by
    Satterthwaite.
    Departure: vectors and heads are taken as given, so that the chance of their training is left out.

    Args:
        differences: (T,) of two methods, one for each task.
        influence: (T, U) difference of :func:`auc_influence`, 0 where a user has no part in a task.
        confidence: of the interval, such as 0.95.

    Returns:
        Mean, lower and upper end.

    Raises:
        ValueError: there is no task.
    """
    from scipy.stats import t  # slow to import, and most that score need no interval

    n_tasks, n_users = influence.shape
    if not n_tasks:
        raise ValueError("an interval needs one task or more, got none")
    mean = float(np.mean(differences))
    users = float(np.square(influence.mean(axis=0)).sum())
    tasks = float(np.var(differences, ddof=1)) / n_tasks if n_tasks > 1 else 0.0
    both = float(np.square(influence).sum()) / n_tasks**2
    variance = max(users + tasks - both, users, tasks)
    spread = users**2 / max(n_users - 1, 1) + tasks**2 / max(n_tasks - 1, 1)
    freedom = max(variance**2 / spread, 1) if spread else n_users
    half = float(t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    return mean, mean - half, mean + half


def roc_curve(positive: np.ndarray, score: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """True positive rate at each false positive rate of the grid, (G,) float64.

    Users of equal score enter together, so that ties are crossed on the diagonal.
    positive: (n,) bool; score: (n,) float; grid: (G,) in [0, 1], ascending.

    Raises:
        ValueError: positives or negatives are absent.
    """
    if positive.all() or not positive.any():
        raise ValueError("a ROC curve needs both classes")
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    tpr = np.append(0.0, np.cumsum(positive[order])[last_of_tie] / positive.sum())
    fpr = np.append(0.0, np.cumsum(~positive[order])[last_of_tie] / (~positive).sum())
    curve = np.interp(grid, fpr, tpr)
    curve[0] = 0.0
    return curve


def brier_score(y: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared error of the probabilities: of the second class when there are two, else their sum.

    The scale that scikit-learn's ``brier_score_loss`` takes, too. y: (n,) class index;
    probabilities: (n, C).
    """
    n_classes = probabilities.shape[1]
    squares = (probabilities - np.eye(n_classes)[y]) ** 2
    return float((squares[:, 1] if n_classes == 2 else squares.sum(axis=1)).mean())


def calibration_error(y: np.ndarray, probabilities: np.ndarray, n_bins: int = 10) -> float:
    """Expected calibration error: mean distance between what was predicted and what share it was.

    Users are sorted by the predicted probability of a class and cut into bins of equal size; with two
    classes for the second, with more for each, of which the mean is taken ("class-wise": M. Kull and
    others, "Beyond temperature scaling", NeurIPS 2019). By chance alone a bin of m users is off by about
    ``sqrt(p (1 - p) / m)``. y: (n,) class index; probabilities: (n, C).
    """
    n_classes = probabilities.shape[1]
    errors = []
    for c in [1] if n_classes == 2 else range(n_classes):
        order = np.argsort(probabilities[:, c], kind="stable")
        gaps = [
            len(part) * abs(probabilities[part, c].mean() - (y[part] == c).mean())
            for part in np.array_split(order, min(n_bins, len(order)))
        ]
        errors.append(sum(gaps) / len(order))
    return float(np.mean(errors))
