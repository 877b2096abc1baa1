"""Lay the interests and the anchors out as maps, for the explorer.

In:  the interests' centres, the encoder, the training timelines.
Out: a table of interests: place on the map, nearest interests, shares of the anchors (eq. 6); a table of
     what the anchors put out for some bags, placed by t-SNE (paper, Fig. 5).
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from lurm.anchor_map import anchor_map, anchor_outputs
from lurm.console import run_stage
from lurm.interests.places import interest_map, neighbors
from lurm.params import load_params
from lurm.smen import load_smen
from lurm.storage import read_array, write_parquet
from lurm.timelines import ShardedTimelines

log = logging.getLogger("map_interests")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("centres", "smen", "timelines", "interest-map", "anchor-map"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # the last digits depend on the number of threads
    threadpool_limits(1)
    settings = load_params("params.yaml").explorer
    centres = read_array(args.centres)
    smen, _ = load_smen(args.smen)

    near, cosines = neighbors(centres, settings.neighbors)
    places = interest_map(centres, settings.seed)
    with torch.inference_mode():
        shares = smen.multi_anchor.shares(smen.multi_anchor.interests).numpy()
    interests = pa.table(
        {
            "interest": pa.array(range(len(centres)), pa.int32()),
            "x": places[:, 0],
            "y": places[:, 1],
            "neighbors": pa.array(list(near), pa.list_(pa.int32())),
            "cosines": pa.array(list(cosines), pa.list_(pa.float32())),
            "anchor_shares": pa.array(list(shares), pa.list_(pa.float32())),
        }
    )
    write_parquet(interests, args.interest_map)

    outputs = anchor_outputs(smen, ShardedTimelines(args.timelines), settings.bags, settings.seed)
    places = anchor_map(outputs, settings.seed)
    anchors = pa.table(
        {
            "anchor": pa.array(np.tile(np.arange(places.shape[1]), len(places)), pa.int32()),
            "x": places[..., 0].ravel(),
            "y": places[..., 1].ravel(),
        }
    )
    write_parquet(anchors, args.anchor_map)
    log.info(
        "%s: %d interests; %s: %d bags seen by %d anchors",
        *(args.interest_map, len(interests), args.anchor_map, *places.shape[:2]),
    )


if __name__ == "__main__":
    run_stage(main)
