"""Lay the training users' lives out as sequences of monthly bags, ready to be memory-mapped.

In:  the pinned behaviors of the training months; the interests of the items known by then.
Out: a folder of users.parquet and flat arrays (lurm/timelines.py says how they hang together).
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from lurm.boi import boi_query
from lurm.console import run_stage
from lurm.database import database
from lurm.months import month_number
from lurm.params import load_params
from lurm.storage import month_files
from lurm.timelines import build_timelines, save_timelines

log = logging.getLogger("build_timelines")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("training", "item-interests", "timelines"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")

    boi, n_behaviors = {}, 0
    for path in month_files(args.training / "behaviors", list(params.training.months)):
        with database(params.build_boi.memory_limit, path) as connection:
            query, n = boi_query(connection, path, args.item_interests)
            boi[month_number(path.stem)] = connection.sql(query).to_arrow_table()
            n_behaviors += n
    timelines = build_timelines(boi)
    save_timelines(timelines, args.timelines)
    log.info(
        "%s: %d behaviors in, %d users with %d monthly bags and %d entries out",
        args.timelines,
        n_behaviors,
        *(len(part) for part in (timelines.users, timelines.months, timelines.interests)),
    )


if __name__ == "__main__":
    run_stage(main)
