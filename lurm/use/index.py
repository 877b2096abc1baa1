"""A month's users as a faiss index: nearest neighbors by the cosine from the mean of all users.

The index takes vectors as they are published: taking the mean away and scaling to unit length are its
first two steps, so that inner products are the cosines of :func:`lurm.use.lookalike.from_the_mean`. The
rows of an answer are those of the month's table of vectors.

Up to a size the search is exact. Above, it looks into some of sqrt(U) cells (an inverted file), as many
as it takes until the recall asked for is measured on a sample of users.

Letters: U users, d numbers of a vector, k neighbors.
"""

import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lurm.storage import replacing
from lurm.use.lookalike import from_the_mean

NEIGHBORS = 10
TIE = 1e-6  # cosines closer than this are of equally near neighbors
CHUNK = 256  # queries compared with everybody at once, fewer where there are very many users
COSINES = 1 << 26  # of queries with everybody that are in memory at once


def build_index(
    x: NDArray[np.float32], *, exact_up_to: int, min_recall: float, n_queries: int, seed: int
) -> tuple[faiss.Index, dict[str, Any]]:
    """The index of the vectors (U, d), and what was measured of it.

    The same vectors give the same bytes with one thread of faiss.

    Args:
        x: one row per user.
        exact_up_to: users up to which every search compares all.
        min_recall: recall@10 for which cells are looked into, above that.
        n_queries: users drawn to measure the recall.
        seed: of the draw.

    Returns:
        The index, and ``kind`` (exact | inverted_file), ``users``, ``width``, ``cells`` and ``probes`` (of
        the inverted file), ``queries`` and ``recall_at_10`` against comparing all.
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    width = x.shape[1]
    exact = len(x) <= exact_up_to
    n_cells = 0 if exact else max(round(len(x) ** 0.5), 1)
    core: Any = faiss.IndexFlatIP(width)
    if not exact:
        core = faiss.IndexIVFFlat(core, width, n_cells, faiss.METRIC_INNER_PRODUCT)
        core.cp.spherical = True
    index = faiss.IndexPreTransform(core)
    for step in (faiss.NormalizationTransform(width, 2.0), faiss.CenteringTransform(width)):
        index.prepend_transform(step)
    index.train(x)
    index.add(x)

    rows = np.random.default_rng(seed).permutation(len(x))[:n_queries]
    due = true_neighbors(x, rows)
    probes = min(1, n_cells)
    found = recall(index, x, rows, due)
    while not exact and found < min_recall and probes < n_cells:
        probes = min(2 * probes, n_cells)
        faiss.extract_index_ivf(index).nprobe = probes
        found = recall(index, x, rows, due)
    return index, {
        "kind": "exact" if exact else "inverted_file",
        "users": len(x),
        "width": width,
        "cells": n_cells,
        "probes": probes,
        "queries": len(rows),
        "recall_at_10": round(found, 6),
    }


def true_neighbors(x: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cosine of the k-th nearest neighbor of each of the ``rows`` (n,) among all, itself included, (n,)."""
    unit = from_the_mean(x)
    k, step = min(NEIGHBORS, len(x)), min(CHUNK, max(1, COSINES // max(1, len(x))))
    kth = []
    for start in range(0, len(rows), step):
        cosines = unit[rows[start : start + step]] @ unit.T
        cosines.partition(len(x) - k, axis=1)
        kth.append(cosines[:, -k].copy())
    return np.concatenate(kth)


def recall(
    index: faiss.Index,
    x: NDArray[np.float32],
    rows: NDArray[np.int64],
    due: NDArray[np.float32],
) -> float:
    """Share of the k nearest that the index finds for the users in ``rows``; equally near ones count.

    x: (U, d); ``due`` is what :func:`true_neighbors` says of the rows.
    """
    k = min(NEIGHBORS, len(x))
    cosines, _ = index.search(np.ascontiguousarray(x[rows], dtype=np.float32), k)
    return float(np.mean(cosines >= due[:, None] - TIE))


def measure(
    index: faiss.Index, x: NDArray[np.float32], n_queries: int, seed: int
) -> dict[str, Any]:
    """Recall@10 of the index and milliseconds for a query, one at a time, beside comparing all.

    Raises:
        ValueError: the index is not one of these vectors.
    """
    if (index.ntotal, index.d) != x.shape:
        raise ValueError(
            f"expected an index of {x.shape[0]:,} vectors of width {x.shape[1]}, found one of "
            f"{index.ntotal:,} of width {index.d}; run `dvc repro index_users` for the month"
        )
    rows = np.random.default_rng(seed).permutation(len(x))[:n_queries]
    own = from_the_mean(x)[rows[:100]]
    whole: Any = faiss.downcast_index(index)
    core: Any = faiss.downcast_index(whole.index)
    if hasattr(core, "make_direct_map"):
        core.make_direct_map()
    if not np.allclose([core.reconstruct(int(row)) for row in rows[:100]], own, atol=1e-3):
        raise ValueError(
            "expected an index of these vectors, found one of others: of another month, model or space; "
            "name the index of the vectors' own month"
        )
    queries = np.ascontiguousarray(x[rows], dtype=np.float32)
    unit, k = from_the_mean(x), min(NEIGHBORS, len(x))

    def milliseconds(search: Any) -> float:
        started = time.perf_counter()
        for row in range(len(rows)):
            search(row)
        return round(1e3 * (time.perf_counter() - started) / len(rows), 4)

    return {
        "users": len(x),
        "queries": len(rows),
        "recall_at_10": round(recall(index, x, rows, true_neighbors(x, rows)), 6),
        "milliseconds": milliseconds(lambda row: index.search(queries[row : row + 1], k)),
        "milliseconds_comparing_all": milliseconds(
            lambda row: np.argpartition(unit @ unit[rows[row]], -k)[-k:]
        ),
    }


def write_index(index: faiss.Index, path: Path) -> None:
    """Write the index as faiss does, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(faiss.serialize_index(index).data)  # says why, if the disk is full


def read_index(path: Path) -> faiss.Index:
    """The index that :func:`write_index` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is not a whole index.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a faiss index, found none; run index_users")
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise ValueError(
            f"{path}: expected a whole faiss index, got {error}; run index_users again"
        ) from error
