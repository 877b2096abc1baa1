"""How far a vector can be trusted: the agreement of vectors from two halves of the same users' records.

Every behavior of a training user falls by chance into one of two halves, both halves are encoded, and the
two vectors are compared. Users with few behaviors all lie close together, so closeness says nothing; what
counts is whether the halves agree in what sets a user apart from *others with about as many behaviors*: the
correlation between the halves over such users, as the mean over the numbers of a vector. That is the
reliability of half a record, of n behaviors, and taken as the confidence in any vector that rests on n.

Between the measured points it runs straight over log(1 + n). It is 0 where there are no behaviors, never
falls as they grow, and beyond the last point, which nobody reached with half a record, it stays.

Letters: U users, E entries of all bags, d numbers of a vector, G groups of users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lurm.pretraining import CHUNK, encode_timelines
from lurm.smen import Smen
from lurm.timelines import ShardedTimelines, Timelines
from lurm.views import split

MOST_GROUPS = 16


@dataclass(frozen=True)
class Confidence:
    """The measured points: ascending numbers of behaviors (G,), and a confidence for each, in 0..1."""

    n_behaviors: Sequence[float]
    confidence: Sequence[float]

    def of(self, n_behaviors: NDArray[np.number]) -> NDArray[np.float32]:
        """Confidence in vectors that rest on so many behaviors each, (U,) float32.

        >>> Confidence([9.0, 99.0], [0.5, 0.8]).of(np.array([0, 9, 99, 10**6])).tolist() == [
        ...     0.0, 0.5, np.float32(0.8), np.float32(0.8)]
        True
        """
        n = np.log1p([0.0, *self.n_behaviors])
        return np.interp(np.log1p(n_behaviors), n, [0.0, *self.confidence]).astype(np.float32)

    @classmethod
    def from_json(cls, measured: Mapping[str, Any]) -> "Confidence":
        """The points of :func:`measure_confidence`."""
        points = measured["points"]
        return cls([p["n_behaviors"] for p in points], [p["confidence"] for p in points])


def measure_confidence(
    smen: Smen,
    timelines: Timelines | ShardedTimelines,
    *,
    month: int,
    max_users: int,
    min_group: int,
    seed: int,
) -> dict[str, Any]:
    """The points of the confidence, as a JSON object.

    Args:
        smen: the encoder.
        timelines: histories of the training users.
        month: number of the last training month.
        max_users: users whose records are split at most, drawn by chance.
        min_group: users compared with each other at least; with fewer there is nothing to measure, and
            the confidence is 0 throughout.
        seed: of the draw and of the halves.

    Returns:
        ``users``, and ``points``, each a group of users with ``users``, ``n_behaviors`` of half a record (a
        mean over logarithms), ``agreement`` as measured and ``confidence``, its non-decreasing fit.
    """
    from sklearn.isotonic import IsotonicRegression  # slow, and who asks for confidence needs none

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(timelines))[:max_users])
    halves = []
    for part in np.split(chosen, range(CHUNK, len(chosen), CHUNK)):
        one, other = split(timelines.take(part), 0.5, rng)
        both = (np.diff(one.first_bag) > 0) & (np.diff(other.first_bag) > 0)
        halves.append(
            [
                (encode_timelines(smen, half, month)[both], _totals(half)[both])
                for half in (one, other)
            ]
        )
    (x, n_x), (y, n_y) = (
        tuple(np.concatenate([pair[side][what] for pair in halves]) for what in (0, 1))
        for side in (0, 1)
    )
    groups = agreement(x, y, (n_x + n_y) / 2, min_group)
    if not groups:
        return {"users": len(x), "points": []}
    n, r, sizes = (np.array(column) for column in zip(*groups, strict=True))
    fit = IsotonicRegression(y_min=0, y_max=1).fit(np.log1p(n), r, sample_weight=sizes)
    rising = fit.predict(np.log1p(n))
    return {
        "users": len(x),
        "points": [
            {
                "users": int(size),
                "n_behaviors": round(float(number), 3),
                "agreement": round(float(measured), 4),
                "confidence": round(float(fitted), 4),
            }
            for number, measured, size, fitted in zip(n, r, sizes, rising, strict=True)
        ],
    }


def agreement(
    x: NDArray[np.float32], y: NDArray[np.float32], n: NDArray[np.float64], min_group: int
) -> list[tuple[float, float, int]]:
    """For every group of users with about as many behaviors: their number, the correlation, the users.

    x, y: (U, d) vectors of either half; n: (U,) behaviors of half a record. The correlation over the
    group's users is taken for every number of the vector, and its mean over those that differ at all.
    """
    n_groups = min(len(n) // min_group, MOST_GROUPS)
    found = []
    for rows in np.array_split(np.argsort(n, kind="stable"), n_groups) if n_groups else []:
        a, b = (half[rows].astype(np.float64) for half in (x, y))
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        spread = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
        if (spread > 0).any():
            r = float(((a * b).sum(axis=0)[spread > 0] / spread[spread > 0]).mean())
            found.append((float(np.expm1(np.log1p(n[rows]).mean())), r, len(rows)))
    return found


def _totals(timelines: Timelines) -> NDArray[np.float64]:
    sums = np.concatenate([[0.0], np.cumsum(timelines.counts, dtype=np.float64)])
    return np.diff(sums[timelines.first_entry[timelines.first_bag]])
