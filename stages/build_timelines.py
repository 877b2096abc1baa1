"""Lay the training users' lives out as sequences of monthly bags, ready to be memory-mapped.

In:  the pinned behaviors of the training months; the interests of the items known by then.
Out: a folder of users.parquet and flat arrays (lurm/timelines.py says how they hang together).
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from lurm.boi import boi_query, check_assigned
from lurm.console import run_stage
from lurm.database import database, one
from lurm.months import month_number
from lurm.params import load_params
from lurm.storage import month_files, row_count
from lurm.timelines import write_timelines

log = logging.getLogger("build_timelines")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("training", "item-interests", "timelines"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")

    files = month_files(args.training / "behaviors", list(params.training.months))
    with database(params.build_boi.memory_limit, files[0]) as connection:
        for path in files:
            query = boi_query(connection, path, args.item_interests)
            month = month_number(path.stem)
            bags = f"SELECT {month}::INTEGER AS month, * FROM ({query})"
            what = "CREATE TABLE bags AS" if path == files[0] else "INSERT INTO bags"
            connection.execute(f"{what} {bags}")
            (n_without,) = one(
                connection,
                f"SELECT COUNT(*) FROM bags WHERE month = {month} AND interest IS NULL",
            )
            check_assigned(connection, n_without, path, args.item_interests)
        rows = connection.sql("SELECT * FROM bags ORDER BY user_id, month, interest")
        written = write_timelines(rows.to_arrow_reader(), args.timelines)
    log.info(
        "%s: %d behaviors in, %d users with %d monthly bags and %d entries out",
        *(args.timelines, sum(map(row_count, files)), *written),
    )


if __name__ == "__main__":
    run_stage(main)
