"""The paper's heads by themselves: one MLP a task, and its cross-validation.

Letters: U users, d width of a user vector, C classes, K folds x repeats.

The same input and seed give the same bytes for a fixed number of threads; the stage takes one.
"""

from collections.abc import Iterator
from typing import TypedDict, Unpack

import numpy as np

from lurm.heads.choice import predict
from lurm.heads.folds import splits
from lurm.heads.mlp import MlpHead, fit_mlp
from lurm.heads.scores import Scores
from lurm.heads.settings import HeadSettings


class Training(TypedDict, total=False):
    """How a head is trained; the names and defaults of :func:`train_head`."""

    hidden: int
    learning_rate: float
    batch_size: int
    max_epochs: int
    patience: int
    validation_share: float


def train_head(
    x: np.ndarray, y: np.ndarray, n_classes: int, *, seed: int = 0, **training: Unpack[Training]
) -> MlpHead:
    """The paper's head, an MLP, as it was in its best epoch (:func:`lurm.heads.mlp.fit_mlp`).

    x: (U, d) float32; y: (U,) class index.

    Raises:
        ValueError: the vectors are not finite or all equal.
    """
    return fit_mlp(x, y, n_classes, HeadSettings(**training), seed)


def _fold_heads(
    x: np.ndarray,
    y: np.ndarray,
    *,
    folds: int,
    repeats: int,
    seed: int,
    **training: Unpack[Training],
) -> Iterator[tuple[MlpHead, np.ndarray]]:
    """For every repeat and fold the head that its training part gives, and the rows of its test part.

    x: (U, d) float32; y: (U,) class index 0..C-1, every class at least ``folds`` times.

    Raises:
        ValueError: a class has fewer users than there are folds, or the vectors are not usable.
    """
    counts = np.bincount(y)
    if len(counts) < 2 or counts.min() < folds:
        raise ValueError(
            f"{folds} folds need at least two classes with {folds} users each, "
            f"got classes of {', '.join(map(str, counts))} users"
        )
    for number, (train, test) in enumerate(splits(y, folds, repeats, seed)):
        yield train_head(x[train], y[train], len(counts), seed=seed + number, **training), test


def cross_validate(
    x: np.ndarray,
    y: np.ndarray,
    *,
    folds: int = 5,
    repeats: int = 2,
    seed: int = 0,
    **training: Unpack[Training],
) -> Scores:
    """Scores by stratified cross-validation; normalizer and head see the training part only.

    x: (U, d) float32; y: (U,) class index 0..C-1, every class at least ``folds`` times.

    Raises:
        ValueError: a class has fewer users than there are folds, or the vectors are not usable.
    """
    scores = Scores()
    for head, test in _fold_heads(x, y, folds=folds, repeats=repeats, seed=seed, **training):
        scores.add(y[test], test, predict(head, x[test]), head.kind)
    return scores
