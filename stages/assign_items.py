"""The map of items to interests as known in a month (paper 2.1.2).

In:  the month's catalog; the standing map, centres and item encoder of the release in use.
Out: the map for the items of that catalog; JSON with the number of new items and how near they lie.

An item that was there at training keeps its standing interest, even if its text changed since: only
a new release moves it. An item that came later gets the interest of its nearest standing centre, so
a new catalog never changes a model.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from lurm.console import run_stage
from lurm.interests.assignment import assign, merge_maps, nearest_of, split_catalog
from lurm.params import load_params
from lurm.storage import (
    read_array,
    read_json,
    read_parquet,
    read_tensors,
    write_json,
    write_parquet,
)
from lurm.tables import CATALOG, ITEM_INTERESTS, check_columns

log = logging.getLogger("assign_items")


def embed(items: pa.Table, encoder: Path, vocabulary: Path) -> np.ndarray:
    """Unit vectors (I, H) of the items by the standing encoder."""
    from lurm.item_embedding import ItemEncoder, Vocabulary, embed_catalog  # torch takes seconds

    tensors, _ = read_tensors(encoder)
    words = Vocabulary.from_json(read_json(vocabulary))
    return embed_catalog(ItemEncoder.from_tensors(tensors), words, items)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("catalog", "standing", "centres", "encoder", "vocabulary"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("item-interests", "result"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    settings = load_params("params.yaml").cluster_interests

    catalog, standing = read_parquet(args.catalog), read_parquet(args.standing)
    check_columns(catalog.schema, CATALOG, str(args.catalog))
    check_columns(standing.schema, ITEM_INTERESTS, str(args.standing))
    kept, new = split_catalog(catalog, standing)
    fresh = standing.slice(0, 0)
    if len(new):
        fresh = assign(
            new["item_id"],
            embed(new, args.encoder, args.vocabulary),
            read_array(args.centres),
            settings.interests_per_item,
            settings.soft_temperature,
        )
    write_parquet(merge_maps(kept, fresh), args.item_interests)
    result = {
        "items": len(catalog),
        "new_items": len(new),
        "mean_cosine_known": mean_cosine(kept),
        "mean_cosine_new": mean_cosine(fresh),
    }
    write_json(result, args.result)
    log.info("%s: %s", args.catalog, result)


def mean_cosine(item_interests: pa.Table) -> float | None:
    """Mean cosine of the items to their nearest centre; None without items."""
    cosines = nearest_of(item_interests)["cosine"].to_numpy().astype(np.float64)
    return round(float(cosines.mean()), 6) if len(cosines) else None


if __name__ == "__main__":
    run_stage(main)
