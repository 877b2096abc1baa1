"""Interests: the centres of clusters of item vectors (paper 2.1.2).

Three methods behind one interface, :func:`cluster`. All of them take steps of one kind: assign
points to their nearest centre, move each centre to the direction of its points' mean, and give
centres without points a new place.

- ``hdsc``: one step for each of a few exponentially growing, disjoint batches, so that every point
  is visited once; each mean is soft-thresholded. HDSC is Yi, Zhang, Wang, Jin, Jain, *A Single-Pass
  Algorithm for Efficiently Recovering Sparse Cluster Centers of High-dimensional Data*, ICML 2014,
  https://proceedings.mlr.press/v32/yib14.html.
- ``kmeans``: spherical k-means, rounds of steps over all points; the check on the others.
- ``two_level_kmeans``: spherical k-means inside each of about sqrt(D) coarse cells, as
  ``faiss.contrib.clustering.two_level_clustering``, whose rounds are about sqrt(D) / 2 times
  cheaper; then a few flat rounds.

A retraining goes on from interests that stand already, :func:`cluster_onward`, so that they stay what
they are (:mod:`lurm.interests.lineage`).

Items that share a text share a vector. Points are therefore the *distinct* vectors, each weighing
as many items as it stands for: no two centres start on one point, and none is starved by a copy.

I items sampled, n points (distinct vectors), D interests, H hidden size.
"""

import logging
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import AgglomerativeClustering

from lurm.console import progress
from lurm.interests.assignment import nearest

log = logging.getLogger(__name__)

METHODS = ("auto", "hdsc", "kmeans", "two_level_kmeans")
# HDSC's first batch holds at least this many points per centre, else most centres stay empty.
FIRST_BATCH = 8
# Points whose pairwise distances may be held (256 MB), and the fewest of them for one centre.
HIERARCHICAL_LIMIT, MIN_PER_LEAF = 8_000, 4
# Rounds over all centres after two-level k-means.
FLAT_ROUNDS = 2
# Rounds from standing interests: on the example the later ones raise the mean cosine by less than 0.0001.
ONWARD_ROUNDS = 5
# Points per coarse cell that place it; all points are then assigned.
COARSE_POINTS = 1024
# Below this many points per centre `auto` takes two-level k-means: HDSC would have a single batch.
ENOUGH_FOR_HDSC = FIRST_BATCH * 3


# Of `n_interests: auto`. The paper has 1e5 interests; the others were tried on the example: 4,000 interests
# of 300 behaviors score above 1,000, and 10,000 no higher.
FEW_ITEMS, BEHAVIORS_EACH, MOST_INTERESTS = 5_000, 300, 100_000


@dataclass(frozen=True)
class Clustering:
    """Centres (D, H) float32 unit rows, their method, and the figures of every step over all of them."""

    centres: np.ndarray
    method: str
    history: list[dict[str, float]]


def fitting_number(vectors: np.ndarray, n_behaviors: int) -> int:
    """A number of interests that fits the catalog and the behaviors: ``n_interests: auto``.

    One for each distinct vector where there are at most FEW_ITEMS of them. Else as many as leave each
    interest BEHAVIORS_EACH behaviors on average, rounded to two digits so that a few more behaviors change
    nothing, within MOST_INTERESTS and the number of distinct vectors.

    >>> fitting_number(np.eye(3, dtype=np.float32), 10)
    3

    Args:
        vectors: (I, H) float32 unit rows.
        n_behaviors: behaviors to learn from.
    """
    n_distinct = len(np.unique(vectors, axis=0))
    if n_distinct <= FEW_ITEMS:
        return n_distinct
    wanted = float(f"{n_behaviors / BEHAVIORS_EACH:.1e}")
    return int(min(max(wanted, FEW_ITEMS / 5), MOST_INTERESTS, n_distinct))


def cluster(
    vectors: np.ndarray,
    n_interests: int,
    method: str,
    *,
    rounds: int,
    sparsity: float,
    seed: int,
    device: str = "cpu",
) -> Clustering:
    """Centres of ``n_interests`` clusters of the item vectors.

    The same arguments give the same bytes, whatever the number of threads.

    Args:
        vectors: (I, H) float32 unit rows, the sample E'.
        n_interests: D, at most the number of distinct rows.
        method: one of ``METHODS``; ``auto`` is HDSC where the sample has ``ENOUGH_FOR_HDSC``
            distinct points per interest, two-level k-means where it has fewer.
        rounds: of k-means, at most.
        sparsity: lambda_1, HDSC's first soft threshold; a unit vector's coordinates are near
            1 / sqrt(H).
        seed: of the shuffle and of every draw.
        device: where nearest centres are looked for (:func:`lurm.interests.assignment.nearest`).

    Raises:
        ValueError: an unknown method, vectors with NaN, or fewer distinct vectors than interests.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    points, weights = _points(vectors, n_interests)
    per_interest = len(points) / n_interests
    if method == "auto":
        method = "hdsc" if per_interest >= ENOUGH_FOR_HDSC else "two_level_kmeans"
        log.info(
            "method auto: %s, since %s distinct vectors make %.1f per interest (hdsc wants %d)",
            *(method, f"{len(points):,}", per_interest, ENOUGH_FOR_HDSC),
        )
    rng = np.random.default_rng(seed)
    if method == "hdsc":
        return hdsc(points, weights, n_interests, rounds, sparsity, rng, device)
    find = kmeans if method == "kmeans" else two_level_kmeans
    return find(points, weights, n_interests, rounds, rng, device)


def cluster_onward(
    vectors: np.ndarray, starts: np.ndarray, *, rounds: int, seed: int, device: str = "cpu"
) -> tuple[Clustering, np.ndarray]:
    """Centres found from where interests stand, and which of them lost their place, (D,) bool.

    Spherical k-means that begins at ``starts``: every centre keeps its row. One without points, such as
    a row of zeros, loses its place: it moves onto a point far from that point's centre (:func:`step`). The
    same arguments give the same bytes.

    Args:
        vectors: (I, H) float32 unit rows, the sample E'.
        starts: (D, H) float32 unit rows, or zeros where no interest stands.
        rounds: at most, of which ``ONWARD_ROUNDS`` are enough; it ends when no point changes its centre.
        seed: of the draws.
        device: as for :func:`cluster`.

    Raises:
        ValueError: vectors with NaN, or fewer distinct vectors than interests.
    """
    points, weights = _points(vectors, len(starts))
    rng = np.random.default_rng(seed)
    centres, before, history = starts, np.empty(0), []
    lost = np.zeros(len(starts), dtype=bool)
    for _ in range(min(rounds, ONWARD_ROUNDS)):
        centres, labels, figures = step(points, weights, centres, 0.0, rng, device)
        lost |= np.bincount(labels, minlength=len(starts)) == 0
        history.append(figures)
        if np.array_equal(before, labels):
            break
        before = labels
    return Clustering(centres, "onward", history), lost


def _points(vectors: np.ndarray, n_interests: int) -> tuple[np.ndarray, np.ndarray]:
    """:func:`distinct_points`, enough for the interests."""
    points, weights = distinct_points(vectors)
    if not np.isfinite(points).all():
        raise ValueError("item vectors hold NaN or infinity; rerun embed_items with a lower rate")
    if len(points) < n_interests:
        raise ValueError(
            f"{n_interests:,} interests were asked of {len(vectors):,} items with only "
            f"{len(points):,} distinct vectors; lower cluster_interests.n_interests to at most "
            "that, raise sample_size, or name more embed_items.text_columns to tell items apart"
        )
    return points, weights


def sample_items(n_items: int, sample_size: int, seed: int) -> np.ndarray:
    """Sorted row numbers of E', drawn uniformly without replacement; all rows if they are fewer."""
    if n_items <= sample_size:
        return np.arange(n_items)
    return np.sort(np.random.default_rng(seed).choice(n_items, sample_size, replace=False))


def distinct_points(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows (n, H) and how many rows each stands for (n,) float32, in a fixed order."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32) + np.float32(0)  # makes -0.0 into 0.0
    as_bytes = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, counts = np.unique(as_bytes, return_index=True, return_counts=True)
    return rows[first], counts.astype(np.float32)


def soft_threshold(values: np.ndarray, threshold: float) -> np.ndarray:
    """sign(v) * max(|v| - threshold, 0), coordinate by coordinate.

    >>> soft_threshold(np.array([0.5, -0.3, 0.1]), 0.2).round(3).tolist()
    [0.3, -0.1, 0.0]
    """
    return np.sign(values) * np.maximum(np.abs(values) - threshold, 0)


def batch_bounds(n_points: int, n_interests: int) -> np.ndarray:
    """Where HDSC's batches begin and end: as many as fit, each twice as long as the one before.

    The first holds at least ``FIRST_BATCH * n_interests`` points; the last takes what is left over.

    >>> batch_bounds(n_points=1000, n_interests=10).tolist()
    [0, 142, 426, 1000]
    """
    n_batches = max(1, int(np.log2(n_points / (FIRST_BATCH * n_interests) + 1)))
    first = n_points // (2**n_batches - 1)
    return np.array([first * (2**t - 1) for t in range(n_batches)] + [n_points])


def step(
    points: np.ndarray,
    weights: np.ndarray,
    centres: np.ndarray,
    threshold: float,
    rng: np.random.Generator,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """One step: assign the points, move every centre to its points' mean.

    Returns the new centres (D, H), the points' labels (n,) before the move, and the step's figures.

    Departure: HDSC leaves the means as they come, and says nothing of centres without points. Here
    means are scaled back to unit length, so that the largest inner product is the nearest centre,
    and a centre without points, or whose mean the threshold wiped out, moves onto a point drawn
    with probability proportional to weight times (1 - cosine). Literally as written, 11-21 % of the
    interests end up empty.

    Raises:
        ValueError: the threshold wipes out every mean.
    """
    labels, cosines = (column[:, 0] for column in nearest(points, centres, 1, device))
    n_interests, n_points = len(centres), len(points)
    sums, sizes = _sums(points, weights, labels, n_interests)
    means = soft_threshold(sums / np.maximum(sizes, 1)[:, None], threshold)
    moved, lengths = _directions(means)
    if not lengths.any():
        raise ValueError(
            f"the soft threshold {threshold:g} leaves no coordinate of any centre; "
            "lower cluster_interests.sparsity"
        )
    lost = np.flatnonzero(lengths == 0)
    if len(lost):
        moved[lost] = points[_draw(weights * np.maximum(1 - cosines, 1e-7), len(lost), rng)]
    figures = {
        "points": n_points,
        "mean_cosine": round(float(np.average(cosines, weights=weights)), 6),
        "reseeded": len(lost),
    }
    return moved, labels, figures


def _draw(masses: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """``size`` distinct row numbers, drawn in proportion to the masses (exponential races)."""
    return np.argsort(rng.exponential(size=len(masses)) / masses, kind="stable")[:size]


def _directions(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows at unit length (D, H) float32, zero rows as they are; and their lengths (D,)."""
    lengths = np.linalg.norm(means, axis=1)
    return (means / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32), lengths


def _sums(
    points: np.ndarray, weights: np.ndarray, labels: np.ndarray, n_interests: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums (D, H) of the points of every label, and their weights (D,)."""
    shape = (n_interests, len(points))
    members = csr_array((weights, (labels, np.arange(len(points)))), shape=shape)
    return members @ points, members.sum(axis=1)


def kmeans(
    points: np.ndarray,
    weights: np.ndarray,
    n_interests: int,
    rounds: int,
    rng: np.random.Generator,
    device: str = "cpu",
) -> Clustering:
    """Spherical k-means from a random start; ends early when no point changes its centre."""
    centres = points[rng.choice(len(points), n_interests, replace=False)]
    before, history = np.empty(0), []
    for _ in range(rounds):
        centres, labels, figures = step(points, weights, centres, 0.0, rng, device)
        history.append(figures)
        if np.array_equal(before, labels):
            break
        before = labels
    return Clustering(centres, "kmeans", history)


def two_level_kmeans(
    points: np.ndarray,
    weights: np.ndarray,
    n_interests: int,
    rounds: int,
    rng: np.random.Generator,
    device: str = "cpu",
) -> Clustering:
    """Spherical k-means inside coarse cells, whose centres are in proportion to their points.

    ``FLAT_ROUNDS`` rounds over all centres follow, since a point near the border of its cell may
    belong to a centre of the next. On planted clusters they raise the mean cosine from 0.49 to 0.54.
    """
    n_cells = max(1, round(n_interests**0.5))
    sample = np.arange(len(points))
    if len(points) > n_cells * COARSE_POINTS:  # cells need no more to find their place
        sample = np.sort(rng.choice(len(points), n_cells * COARSE_POINTS, replace=False))
    coarse = kmeans(points[sample], weights[sample], n_cells, rounds, rng, device)
    labels = nearest(points, coarse.centres, 1, device)[0][:, 0]
    ends = np.cumsum(np.bincount(labels, minlength=len(coarse.centres)))
    cells = np.split(np.argsort(labels, kind="stable"), ends[:-1])
    shares = np.diff(ends * n_interests // len(points), prepend=0)  # at most the cell's points
    work = [(cell, share) for cell, share in zip(cells, shares, strict=True) if share]
    centres = np.concatenate(
        [
            kmeans(points[cell], weights[cell], share, rounds, rng, device).centres
            for cell, share in progress(work, "two_level_kmeans: cell")
        ]
    )
    history = []
    for _ in range(FLAT_ROUNDS):
        centres, _, figures = step(points, weights, centres, 0.0, rng, device)
        history.append(figures)
    return Clustering(centres, "two_level_kmeans", history)


def hdsc(
    points: np.ndarray,
    weights: np.ndarray,
    n_interests: int,
    rounds: int,
    sparsity: float,
    rng: np.random.Generator,
    device: str = "cpu",
) -> Clustering:
    """HDSC: one pass over shuffled batches.

    The means of batch t are thresholded by lambda_t / 2, where lambda_1 = ``sparsity`` and
    lambda_{t+1} = lambda_t / sqrt 2, since each batch is twice as long as the one before.

    The first centres come from a hierarchical clustering (Ward's) of part of the first batch.

    Departure: that is quadratic in its points. Where ``HIERARCHICAL_LIMIT`` of them are too few for
    D, as at 1e5, two-level k-means on the first batch takes its place.
    """
    shuffled = rng.permutation(len(points))
    bounds = batch_bounds(len(points), n_interests)
    batches = [shuffled[start:end] for start, end in pairwise(bounds)]
    first = batches[0][:HIERARCHICAL_LIMIT]
    if len(first) >= n_interests * MIN_PER_LEAF:
        labels = AgglomerativeClustering(n_interests, linkage="ward").fit_predict(points[first])
        centres, _ = _directions(_sums(points[first], weights[first], labels, n_interests)[0])
    else:
        first = batches[0]
        parts = points[first], weights[first]
        centres = two_level_kmeans(*parts, n_interests, rounds, rng, device).centres
    history = []
    for t, batch in enumerate(batches):
        threshold = sparsity * 2 ** (-t / 2) / 2
        centres, _, figures = step(points[batch], weights[batch], centres, threshold, rng, device)
        history.append(figures)
    return Clustering(centres, "hdsc", history)
