"""Lay the training users' lives out as sequences of monthly bags, ready to be memory-mapped.

In:  the pinned behaviors of the training months; the interests of the items known by then.
Out: shards of users, each users.parquet and flat arrays (lurm/timelines.py says how they hang together).
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from lurm.boi import boi_query, check_assigned, counted
from lurm.console import run_stage
from lurm.database import database, naming, one
from lurm.months import month_number
from lurm.params import load_params
from lurm.storage import filling, month_files, read_schema, row_count
from lurm.tables import check_same_ids
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
            month = month_number(path.stem)
            with naming(path):
                bags = boi_query(connection, path, args.item_interests)
                check_same_ids(read_schema(path), read_schema(files[0]), "user_id", str(path))
                what = "CREATE TABLE bags AS" if path == files[0] else "INSERT INTO bags"
                connection.execute(f"{what} SELECT {month}::INTEGER AS month, * FROM ({bags})")
                n_counted = counted(connection.sql(f"FROM bags WHERE month = {month}"))
                check_assigned(connection, n_counted, path, args.item_interests)
        if not one(connection, "SELECT COUNT(*) FROM bags")[0]:
            raise ValueError(
                f"{args.training}: expected behaviors to train on, found none in "
                f"{files[0].stem}..{files[-1].stem}; choose other training.months"
            )
        rows = connection.sql("SELECT * FROM bags ORDER BY user_id, month, interest")
        with filling(args.timelines):
            written = write_timelines(rows.to_arrow_reader(), args.timelines)
    log.info(
        "%s: %d behaviors in, %d users with %d monthly bags and %d entries out",
        *(args.timelines, sum(map(row_count, files)), *written),
    )


if __name__ == "__main__":
    run_stage(main)
