"""Count a month's behaviors per user and interest: the Bag-of-Interests (paper 2.1.2, eq. 4).

In:  clean behaviors of the month; the interest of every item known in the month.
Out: one row per user and interest with the count, sorted by user, then interest.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from lurm.boi import boi_query
from lurm.console import run_stage
from lurm.database import database, write_query
from lurm.params import load_params
from lurm.storage import replacing

log = logging.getLogger("build_boi")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("behaviors", "item-interests", "boi"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    settings = load_params("params.yaml").build_boi

    with (
        database(settings.memory_limit, args.behaviors) as connection,
        replacing(args.boi) as boi,
    ):
        query, n_behaviors = boi_query(connection, args.behaviors, args.item_interests)
        rows = write_query(connection, query, boi)
    log.info("%s: %d behaviors in, %d rows of user and interest out", args.boi, n_behaviors, rows)


if __name__ == "__main__":
    run_stage(main)
