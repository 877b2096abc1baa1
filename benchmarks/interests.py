"""Interests from item vectors against faiss's flat k-means, and the assignment of new items.

    python -m benchmarks.interests       # 1e4 into 1e3, 1e5 into 1e4, and the paper's 1e6 into 1e5
    python -m benchmarks.interests --device cuda

Vectors (I, 128) lie around twice as many planted clusters as interests, which lie around topics; sizes by
Zipf's law. The rival is ``faiss.Kmeans``, spherical, of 25 rounds on all items, which ends earlier where a
round gains nothing. Above 1e5 items its time is that of the exact searches of 25 rounds alone,
extrapolated from a few items, and its mean cosine is not known without a GPU. New items are assigned by
:func:`lurm.interests.assignment.nearest`, its preparation included; recall is against the exact search.

CPU seconds of one thread; ``ratio`` is the rival's over LURM's. With ``--device cuda`` LURM searches on a
GPU, and the rival's 25 rounds are taken there to the end, :func:`flat_kmeans`; seconds are then those of
the clock.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import threadpoolctl

from benchmarks.logs import whole, zipf
from benchmarks.measure import measure, now, result_path, slope, table
from lurm.console import run_stage
from lurm.distributed import check_device
from lurm.interests.assignment import nearest
from lurm.interests.clustering import cluster
from lurm.interests.description import spread
from lurm.storage import write_json

H, ROUNDS = 128, 25
N_NEW = 200_000  # new items, at most four times as many as clustered
# The rival runs in full up to so many items; above, its search is timed on N_TIMED of them.
FULL_UP_TO, N_TIMED = 100_000, 10_000


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows at unit length, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def item_vectors(n_items: int, n_interests: int) -> np.ndarray:
    """Vectors (I, H) of items and of new ones behind them, in clusters within topics."""
    rng = np.random.default_rng(0)

    def noise(n: int) -> np.ndarray:
        return unit(rng.standard_normal((n, H)).astype(np.float32))

    n_topics, n_clusters = max(2, round(n_interests**0.5)), 2 * n_interests
    topics = noise(n_topics)
    clusters = unit(topics[rng.integers(0, n_topics, n_clusters)] + 0.9 * noise(n_clusters))
    n = n_items + min(N_NEW, 4 * n_items)
    return unit(clusters[zipf(rng.random(n), n_clusters)] + 0.6 * noise(n))


def one_thread() -> None:
    """Everything that this process does from here on, faiss and matrix products."""
    faiss.omp_set_num_threads(1)
    threadpoolctl.threadpool_limits(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def lurm(n_items: int, n_interests: int, device: str) -> Callable[[], Any]:
    """Seconds of clustering and of assignment, the figures of the interests, and recall."""
    one_thread()
    clock = time.process_time if device == "cpu" else time.perf_counter
    vectors = item_vectors(n_items, n_interests)
    items, new = vectors[:n_items], vectors[n_items:]

    def work() -> Any:
        start = clock()
        found = cluster(
            items, n_interests, "auto", rounds=ROUNDS, sparsity=0.01, seed=0, device=device
        )
        clustered = clock() - start
        labels, cosines = (column[:, 0] for column in nearest(items, found.centres, device=device))
        start = clock()
        assigned = nearest(new, found.centres, device=device)[0][:, 0]
        per_second = len(new) / (clock() - start)
        flat = faiss.IndexFlatIP(H)
        flat.add(found.centres)
        true = flat.search(new[:5000], 1)[1][:, 0]
        figures = spread(labels, cosines, np.ones(n_items), n_interests)
        return clustered, found.method, figures, per_second, float(np.mean(true == assigned[:5000]))

    return work


def rival(n_items: int, n_interests: int) -> Callable[[], Any]:
    """Seconds of faiss's k-means, and the mean cosine to the own centre."""
    one_thread()
    items = item_vectors(n_items, n_interests)[:n_items]

    def work() -> Any:
        start = time.process_time()
        kmeans = faiss.Kmeans(
            H,
            n_interests,
            niter=ROUNDS,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=n_items,
        )
        kmeans.train(items)
        seconds = time.process_time() - start
        return seconds, float(kmeans.index.search(items, 1)[0].mean())

    return work


def rival_by_its_search(n_items: int, n_interests: int) -> Callable[[], Any]:
    """Seconds that ``ROUNDS`` exact searches of all items take, from one of a few; no mean cosine."""
    one_thread()
    items = item_vectors(n_interests + N_TIMED, n_interests)

    def work() -> Any:
        index = faiss.IndexFlatIP(H)
        index.add(items[:n_interests])
        start = time.process_time()
        index.search(items[-N_TIMED:], 1)
        return (time.process_time() - start) * n_items / N_TIMED * ROUNDS, None

    return work


def rival_on_gpu(n_items: int, n_interests: int) -> Callable[[], Any]:
    """Seconds, and mean cosine to the own centre, of the rival's rounds on a GPU."""
    items = item_vectors(n_items, n_interests)[:n_items]

    def work() -> Any:
        flat_kmeans(items[:N_TIMED], max(1, n_interests // 100), "cuda")  # wakes it
        start = now("cuda")
        cosine = flat_kmeans(items, n_interests, "cuda")
        return now("cuda") - start, cosine

    return work


def flat_kmeans(items: np.ndarray, n_interests: int, device: str) -> float:
    """The mean cosine of items (I, H) to their centres after ``ROUNDS`` rounds of ``faiss.Kmeans``.

    Its rounds and no library's, since faiss for a GPU is a build of its own: centres start on items drawn
    at random, every item finds its nearest centre exactly, a centre without items becomes the twin of one
    that is drawn by its size, and centres have unit length.
    """
    import torch  # takes seconds, and the other processes do without

    torch.manual_seed(0)
    points = torch.from_numpy(items).to(device)
    centres = points[torch.randperm(len(points))[:n_interests]]
    tilt = 1 + torch.tensor([1, -1], device=device).repeat(H // 2) / 1024  # parts twins

    def nearest_centres() -> tuple[Any, Any]:
        found = [(part @ centres.T).max(dim=1) for part in points.split(8192)]
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])

    for _ in range(ROUNDS):
        _, labels = nearest_centres()
        sizes = torch.bincount(labels, minlength=n_interests)
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        empty = torch.nonzero(sizes == 0)[:, 0]
        if len(empty):
            shares = (sizes - 1).clamp(min=0).double()
            twins = torch.multinomial(shares, len(empty), replacement=True)
            sums[empty], sums[twins] = sums[twins] * tilt, sums[twins] * (2 - tilt)
        centres = torch.nn.functional.normalize(sums)
    return float(nearest_centres()[0].double().mean())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=whole, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--interests", type=whole, nargs="+", default=[10**3, 10**4, 10**5])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it runs")
    parser.add_argument(
        "--result", type=Path, help="default: reports/benchmarks/interests[_cuda].json"
    )
    args = parser.parse_args(argv)
    check_device(args.device)
    sizes = list(zip(args.items, args.interests, strict=True))
    if args.tiny:
        sizes = [(400, 20), (1000, 40)]
    rows: list[dict[str, Any]] = []
    for n_items, n_interests in sizes:
        run = measure(lurm, n_items, n_interests, args.device)
        clustered, method, figures, per_second, recall = run.value
        run_rival = rival if n_items <= FULL_UP_TO else rival_by_its_search
        if args.device == "cuda":
            run_rival = rival_on_gpu
        seconds, cosine = measure(run_rival, n_items, n_interests).value
        rows.append(
            {
                "items": n_items,
                "interests": n_interests,
                "method": method,
                "seconds": clustered,
                "rival_seconds": seconds,
                "ratio": seconds / clustered,
                "cosine": figures["mean_cosine"],
                "rival_cosine": cosine,
                "empty": figures["share_empty"],
                "imbalance": figures["imbalance"],
                "assigned_per_second": per_second,
                "recall": recall,
                "peak_mb": run.peak_mb,
            }
        )
        print(table(rows[-1:]), flush=True)
    slopes = slope([row["items"] for row in rows], [row["seconds"] for row in rows])
    print(f"slope of clustering in the items, into a tenth as many interests: {slopes}")
    name = f"interests{'_cuda' if args.device == 'cuda' else ''}"
    write_json({"rows": rows, "slope": slopes}, result_path(name, parser, args))


if __name__ == "__main__":
    run_stage(main)
