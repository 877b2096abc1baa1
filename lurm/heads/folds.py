"""Stratified folds of the users of a task, and what of them is trained on and tested when.

Letters: U users, K folds, R repeats.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

_LEAST_OF_CLASS = 100  # users of every class by whom a head is chosen, where there are so many


def deal(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Row numbers in random order within their class, classes one after the other, (U,).

    Taking every k-th of them is a stratified sample: class shares differ by one user at most.
    """
    order = rng.permutation(len(y))
    return order[np.argsort(y[order], kind="stable")]


def validation_users(n_users: int, share: float) -> np.ndarray:
    """Which of the users that :func:`deal` puts in order are held back, (U,) bool: one at least."""
    return np.diff(np.ceil(np.arange(n_users + 1) * share)) > 0


def stratified_folds(y: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of every user, (U,) int64; fold sizes, overall and per class, differ by one at most."""
    fold = np.empty(len(y), dtype=np.int64)
    fold[deal(y, rng)] = np.arange(len(y)) % folds
    return fold


def splits(
    y: np.ndarray, folds: int, repeats: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers of the training and of the test part, for every repeat and fold."""
    for repeat in range(repeats):
        fold = stratified_folds(y, folds, np.random.default_rng([seed, repeat]))
        for k in range(folds):
            yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


@dataclass(frozen=True)
class Job:
    """One head to train, and the users it is asked about after that."""

    train: np.ndarray  # (m,) row numbers of x
    y: np.ndarray  # (m,) class index of these
    n_classes: int
    test: np.ndarray  # (t,) row numbers of x
    seed: int


@dataclass(frozen=True)
class Nested:
    """A nested cross-validation: the training part of every outer fold is split once more.

    The inner folds of an outer fold are the other outer folds, so that one head, trained without two
    folds, serves both of them: K (K - 1) / 2 inner heads a repeat in place of K (K - 1). With two folds
    each training part is split by itself.
    """

    y: np.ndarray  # (U,) class index
    outer: list[tuple[np.ndarray, np.ndarray]]  # K R pairs of training and test rows, as `splits`
    inner: list[tuple[np.ndarray, np.ndarray]]  # pairs of training and test rows, each once
    uses: list[list[tuple[int, np.ndarray]]]  # by outer: numbers of inner, and which rows they test


def nested_splits(
    y: np.ndarray, folds: int, repeats: int, seed: int, most: int | None = None
) -> Nested:
    """The outer splits of :func:`splits`, and inner ones that stay inside of their training parts.

    Of many more than ``most`` users about so many take part in the inner ones.

    >>> nested = nested_splits(np.arange(50) % 2, folds=5, repeats=1, seed=0)
    >>> len(nested.outer), len(nested.inner), [len(use) for use in nested.uses]
    (5, 10, [4, 4, 4, 4, 4])
    """
    outer = list(splits(y, folds, repeats, seed))
    inner: list[tuple[np.ndarray, np.ndarray]] = []
    uses: list[list[tuple[int, np.ndarray]]] = [[] for _ in outer]
    for first in range(0, len(outer), folds):
        parts = [test for _, test in outer[first : first + folds]]
        if folds == 2:
            for k, (train, _) in enumerate(outer[first : first + 2]):
                for a, b in splits(y[train], 3, 1, seed + first + k + 1):
                    uses[first + k].append((len(inner), train[b]))
                    inner.append((train[a], train[b]))
            continue
        for j in range(folds):
            for k in range(j + 1, folds):
                without = [parts[i] for i in range(folds) if i not in (j, k)]
                uses[first + j].append((len(inner), parts[k]))
                uses[first + k].append((len(inner), parts[j]))
                tested = np.concatenate([parts[j], parts[k]])
                inner.append((np.sort(np.concatenate(without)), np.sort(tested)))
    return _thinned(Nested(y, outer, inner, uses), most, seed)


def inner_splits(y: np.ndarray, folds: int, seed: int, most: int | None = None) -> Nested:
    """Inner splits alone, of all users; ``most`` as for :func:`nested_splits`."""
    inner = list(splits(y, folds, 1, seed))
    uses = [(n, test) for n, (_, test) in enumerate(inner)]
    return _thinned(Nested(y, [], inner, [uses]), most, seed)


def _thinned(nested: Nested, most: int | None, seed: int) -> Nested:
    """The same with about ``most`` users in the inner splits, a hundred of the smallest class at least."""
    y = nested.y
    step = min(len(y) // (most or len(y)), int(np.bincount(y).min()) // _LEAST_OF_CLASS)
    if step <= 1:
        return nested
    kept = np.zeros(len(y), dtype=bool)
    kept[deal(y, np.random.default_rng([seed, len(y)]))[::step]] = True
    return replace(
        nested,
        inner=[(train[kept[train]], test[kept[test]]) for train, test in nested.inner],
        uses=[[(n, rows[kept[rows]]) for n, rows in use] for use in nested.uses],
    )
