"""Cluster item vectors into interests and give every item its interest (paper 2.1.2).

In:  items and their vectors (I, H); the pinned training months and catalog, to describe them; the
     interests of the standing release, if there is one.
Out: centres (D, H); the sampled items E'; the map of items to interests; a table in which each
     interest can be recognised; the lineage of interests; JSON figures by items and by behaviors.

With a standing release interests go on from where they stood, and its report sets them beside a cold start.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lurm.catalog import item_texts
from lurm.console import run_stage
from lurm.distributed import check_device
from lurm.interests.assignment import assign, nearest_of
from lurm.interests.assignment import nearest as nearest_centres
from lurm.interests.clustering import (
    Clustering,
    cluster,
    cluster_onward,
    fitting_number,
    sample_items,
)
from lurm.interests.description import count_behaviors, describe, spread
from lurm.interests.lineage import (
    changes,
    first_lineage,
    next_lineage,
    places,
    remain,
    shares_of,
    standing_interests,
)
from lurm.params import ClusterInterests, load_params
from lurm.storage import (
    month_files,
    read_array,
    read_json,
    read_parquet,
    row_count,
    write_array,
    write_json,
    write_parquet,
)
from lurm.tables import INTEREST_LINEAGE, check_columns

log = logging.getLogger("cluster_interests")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("items", "vectors", "training", "standing", "centres", "sample"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("item-interests", "interests", "lineage", "result"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args(argv)
    check_device(args.device)
    params = load_params("params.yaml")
    settings = params.cluster_interests
    months = month_files(args.training / "behaviors", list(params.training.months))
    items, vectors = read_parquet(args.items, ["item_id"]), read_array(args.vectors)
    catalog = read_parquet(args.training / "catalog.parquet")
    if not items["item_id"].equals(catalog["item_id"]):
        raise ValueError(
            f"{args.items} and {args.training}/catalog.parquet hold different items; "
            "rerun embed_items"
        )
    if vectors.ndim != 2 or len(vectors) != len(items) or vectors.dtype != np.float32:
        raise ValueError(
            f"{args.vectors}: expected a row of float32 for each of {len(items):,} items, found "
            f"{vectors.dtype} of shape {vectors.shape}; rerun embed_items"
        )

    started = time.perf_counter()
    sample = sample_items(len(items), settings.sample_size, settings.seed)
    old = read_standing(args.standing, items["item_id"])
    if settings.n_interests == "auto":
        n_interests = fitting_number(vectors[sample], sum(map(row_count, months)))
        if old is not None and settings.start == "standing":
            n_interests = int(old.interests.max()) + 1
        settings = settings.with_number(n_interests)
    found, kept, cosines = find_interests(vectors, sample, old, settings, args.device)
    clustered = time.perf_counter()
    log.info("%s: %d steps, the last %s", found.method, len(found.history), found.history[-1])
    item_interests = assign(
        items["item_id"],
        vectors,
        found.centres,
        settings.interests_per_item,
        settings.soft_temperature,
        args.device,
    )
    assigned = time.perf_counter()
    nearest = nearest_of(item_interests)
    n_behaviors, n_users = count_behaviors(months, nearest, settings.number, settings.memory_limit)
    place = nearest["interest"].to_numpy(), nearest["cosine"].to_numpy()
    result: dict[str, Any] = {
        "method": found.method,
        "n_interests": settings.number,
        "n_items": len(items),
        "n_sampled": len(sample),
        "n_behaviors": int(n_behaviors.sum()),
        "items": spread(*place, np.ones(len(items)), settings.number),
        "behaviors": spread(*place, n_behaviors, settings.number),
    }
    through = params.training.through
    shares = shares_of(place[0], n_behaviors, settings.number)
    if old is None:
        lineage = first_lineage(shares, through)
    else:
        before = shares_of(old.interests, n_behaviors, old.interests.max(initial=-1) + 1)
        lineage = next_lineage(old.lineage, kept, cosines, shares, before, through, old.last_id)
        result["since_standing"] = changes(lineage, old.interests, place[0], n_behaviors)
        log.info("since the standing release: %s", result["since_standing"])
    if old is not None and settings.start == "standing":
        result["cold_start"] = cold_start(vectors, sample, n_behaviors, settings, args.device)
        log.info("a cold start: %s", result["cold_start"])
    result["last_interest_id"] = max(lineage["interest_id"].to_pylist())
    texts = item_texts(catalog, params.embed_items.text_columns)
    write_array(found.centres, args.centres)
    write_parquet(items.take(sample), args.sample)
    write_parquet(item_interests, args.item_interests)
    write_parquet(describe(nearest, texts, n_behaviors, n_users), args.interests)
    write_parquet(lineage, args.lineage)
    write_json(result, args.result)
    log.info(
        "%d items, %d sampled: %d interests by %s in %.1f s, assigned in %.1f s",
        *(len(items), len(sample), settings.number, found.method),
        *(clustered - started, assigned - clustered),
    )
    log.info("by items: %s; by behaviors: %s", result["items"], result["behaviors"])


class Standing(NamedTuple):
    """The standing release: its lineage, every item's row there, (I,), or -1; the last id ever given."""

    lineage: pa.Table
    interests: np.ndarray
    last_id: int


def read_standing(folder: Path, item_ids: pa.ChunkedArray) -> Standing | None:
    """What the items' interests were in the standing release; None before there is one."""
    release = folder / "release"
    if not release.exists():
        return None
    nearest = nearest_of(read_parquet(release / "item_interests.parquet"))
    lineage = read_parquet(release / "interest_lineage.parquet")
    check_columns(lineage.schema, INTEREST_LINEAGE, str(release / "interest_lineage.parquet"))
    last_id = read_json(release / "about.json").get("last_interest_id", -1)
    return Standing(lineage, standing_interests(item_ids, nearest), last_id)


def find_interests(
    vectors: np.ndarray,
    sample: np.ndarray,
    old: Standing | None,
    settings: ClusterInterests,
    device: str,
) -> tuple[Clustering, np.ndarray, np.ndarray]:
    """The interests; which rows hold what stood there, (D,) bool; cosines (D,) to where it stood."""
    if old is None or settings.start == "anew":
        nothing = np.zeros(settings.number)
        return start_cold(vectors, sample, settings, device), nothing.astype(bool), nothing
    starts = places(vectors, old.interests, settings.number)
    found, lost = cluster_onward(
        vectors[sample], starts, rounds=settings.rounds, seed=settings.seed, device=device
    )
    return found, *remain(starts, found.centres, lost, settings.min_kept_cosine)


def start_cold(
    vectors: np.ndarray, sample: np.ndarray, settings: ClusterInterests, device: str
) -> Clustering:
    """The interests as if none stood."""
    return cluster(
        vectors[sample],
        settings.number,
        settings.method,
        rounds=settings.rounds,
        sparsity=settings.sparsity,
        seed=settings.seed,
        device=device,
    )


def cold_start(
    vectors: np.ndarray,
    sample: np.ndarray,
    n_behaviors: np.ndarray,
    settings: ClusterInterests,
    device: str,
) -> dict[str, dict[str, float]]:
    """The figures of a cold start, by items and by behaviors."""
    centres = start_cold(vectors, sample, settings, device).centres
    interests, cosines = nearest_centres(vectors, centres, device=device)
    place = interests[:, 0], cosines[:, 0]
    return {
        "items": spread(*place, np.ones(len(vectors)), settings.number),
        "behaviors": spread(*place, n_behaviors, settings.number),
    }


if __name__ == "__main__":
    run_stage(main)
