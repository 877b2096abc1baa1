"""Cluster item vectors into interests and give every item its interest (paper 2.1.2).

In:  items and their vectors (I, H); the pinned training months and catalog, to describe them.
Out: centres (D, H); the sampled items E'; the map of items to interests; a table in which each
     interest can be recognised; JSON figures by items and by behaviors.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lurm.console import run_stage
from lurm.interests.assignment import assign, nearest_of
from lurm.interests.clustering import cluster, sample_items
from lurm.interests.description import count_behaviors, describe, item_texts, spread
from lurm.params import load_params
from lurm.storage import (
    month_files,
    read_array,
    read_parquet,
    write_array,
    write_json,
    write_parquet,
)

log = logging.getLogger("cluster_interests")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("items", "vectors", "training", "centres", "sample"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("item-interests", "interests", "result"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
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

    started = time.perf_counter()
    sample = sample_items(len(items), settings.sample_size, settings.seed)
    found = cluster(
        vectors[sample],
        settings.n_interests,
        settings.method,
        rounds=settings.rounds,
        sparsity=settings.sparsity,
        seed=settings.seed,
    )
    clustered = time.perf_counter()
    log.info("%s: %d steps, the last %s", found.method, len(found.history), found.history[-1])
    item_interests = assign(
        items["item_id"],
        vectors,
        found.centres,
        settings.interests_per_item,
        settings.soft_temperature,
    )
    assigned = time.perf_counter()
    nearest = nearest_of(item_interests)
    n_behaviors, n_users = count_behaviors(
        months, nearest, settings.n_interests, settings.memory_limit
    )
    place = nearest["interest"].to_numpy(), nearest["cosine"].to_numpy()
    result = {
        "method": found.method,
        "n_interests": settings.n_interests,
        "n_items": len(items),
        "n_sampled": len(sample),
        "n_behaviors": int(n_behaviors.sum()),
        "items": spread(*place, np.ones(len(items)), settings.n_interests),
        "behaviors": spread(*place, n_behaviors, settings.n_interests),
    }
    texts = item_texts(catalog, params.embed_items.text_columns)
    write_array(found.centres, args.centres)
    write_parquet(items.take(sample), args.sample)
    write_parquet(item_interests, args.item_interests)
    write_parquet(describe(nearest, texts, n_behaviors, n_users), args.interests)
    write_json(result, args.result)
    log.info(
        "%d items, %d sampled: %d interests by %s in %.1f s, assigned in %.1f s",
        *(len(items), len(sample), settings.n_interests, found.method),
        *(clustered - started, assigned - clustered),
    )
    log.info("by items: %s; by behaviors: %s", result["items"], result["behaviors"])


if __name__ == "__main__":
    run_stage(main)
