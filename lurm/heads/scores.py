"""How well a head does on users that it was not trained on.

Letters: n users, C classes, K folds x repeats, G points of a ROC curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lurm.metrics import (
    accuracy,
    auc,
    brier_score,
    calibration_error,
    roc_curve,
    standard_error,
)


@dataclass(frozen=True)
class Scores:
    """Results of a cross-validation: one score per fold and repeat, and who was scored how."""

    auc: list[float] = field(default_factory=list)  # K
    accuracy: list[float] = field(default_factory=list)  # K
    test_rows: list[np.ndarray] = field(default_factory=list)  # K times (n,) row numbers
    probabilities: list[np.ndarray] = field(default_factory=list)  # K times (n, C), out of fold
    chosen: list[str] = field(default_factory=list)  # K, what the head is made of

    def add(self, y: np.ndarray, rows: np.ndarray, probabilities: np.ndarray, chosen: str) -> None:
        """One more fold. y: (n,) class index of its test users, whose rows these are."""
        self.auc.append(auc(y, probabilities))
        self.accuracy.append(accuracy(y, probabilities))
        self.test_rows.append(rows)
        self.probabilities.append(probabilities)
        self.chosen.append(chosen)

    @property
    def mean_auc(self) -> float:
        """AUC, mean over folds and repeats."""
        return float(np.mean(self.auc))

    @property
    def auc_se(self) -> float:
        """Standard error of :attr:`mean_auc`."""
        return standard_error(self.auc)

    @property
    def mean_accuracy(self) -> float:
        """Accuracy, mean over folds and repeats."""
        return float(np.mean(self.accuracy))

    def repeats(self, n_users: int) -> list[np.ndarray]:
        """Out-of-fold probabilities of all users, (n_users, C) for every repeat."""
        result, filled = [], n_users
        for rows, probabilities in zip(self.test_rows, self.probabilities, strict=True):
            if filled == n_users:
                result.append(np.zeros((n_users, probabilities.shape[1]), dtype=np.float32))
                filled = 0
            result[-1][rows] = probabilities
            filled += len(rows)
        return result

    def brier(self, y: np.ndarray) -> float:
        """Brier score, mean over repeats. y: (n,) class index of all users."""
        return float(np.mean([brier_score(y, p) for p in self.repeats(len(y))]))

    def calibration_error(self, y: np.ndarray) -> float:
        """Expected calibration error over all users, mean over repeats. y: (n,) class index."""
        return float(np.mean([calibration_error(y, p) for p in self.repeats(len(y))]))

    def record(self, y: np.ndarray | None = None) -> dict[str, Any]:
        """The figures as a JSON object: means, standard error, and every fold by itself.

        With ``y`` (n,), the classes of all users, Brier score and calibration error, too.
        """
        folds = zip(self.auc, self.accuracy, strict=True)
        record: dict[str, Any] = {
            "auc": self.mean_auc,
            "auc_se": self.auc_se,
            "acc": self.mean_accuracy,
        }
        if y is not None:
            record |= {"brier": self.brier(y), "calibration_error": self.calibration_error(y)}
        return record | {"folds": [{"auc": auc, "acc": acc} for auc, acc in folds]}


def roc_curves(
    y: np.ndarray, scores: Scores, classes: Sequence[str], grid: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean out-of-fold true positive rate of every class against the rest, (G,) per class.

    With two classes only the second has a curve. grid: (G,) false positive rates from 0 to 1.
    """
    parts = list(zip(scores.test_rows, scores.probabilities, strict=True))
    return {
        name: np.mean([roc_curve(y[test] == c, p[:, c], grid) for test, p in parts], axis=0)
        for c, name in enumerate(classes)
        if len(classes) > 2 or c == 1
    }


def roc_table(y: np.ndarray, scores: Scores, classes: Sequence[str]) -> dict[str, list[Any]]:
    """:func:`roc_curves` on a grid of hundredths: columns ``fpr``, ``tpr`` and ``class``."""
    grid = np.linspace(0, 1, 101)
    curves = roc_curves(y, scores, classes, grid)
    return {
        "fpr": grid.round(2).tolist() * len(curves),
        "tpr": np.concatenate(list(curves.values())).round(5).tolist(),
        "class": np.repeat(list(curves), len(grid)).tolist(),
    }
