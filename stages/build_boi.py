"""Count a month's behaviors per user and interest: the Bag-of-Interests (paper 2.1.2, eq. 4).

In:  clean behaviors of the month; the interest of every item known in the month.
Out: one row per user and interest with the count, sorted by user, then interest.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from lurm.boi import boi_query, check_assigned, counted
from lurm.boi_on_spark import write_boi_parts
from lurm.console import run_stage
from lurm.database import database, literal, write_sorted
from lurm.params import BuildBoi, load_params
from lurm.spark import spark
from lurm.storage import replacing, row_count, scratch

log = logging.getLogger("build_boi")


@contextmanager
def bags(
    connection: duckdb.DuckDBPyConnection, args: argparse.Namespace, settings: BuildBoi
) -> Iterator[str]:
    """The query for the month's bags on the engine of the settings.

    Spark leaves sorted parts beside the output, where its workers reach; this process then writes them as
    one file. So both engines write the same bytes.
    """
    if settings.engine == "duckdb":
        yield boi_query(connection, args.behaviors, args.item_interests)
        return
    with scratch(args.boi.parent, f".spark-{args.boi.stem}-") as folder:
        with spark("build_boi", settings.spark_master, settings.memory_limit) as session:
            parts = write_boi_parts(session, args.behaviors, args.item_interests, folder / "parts")
        files = ", ".join(literal(part) for part in parts)
        # Spark knows no unsigned ids, and makes others of them.
        kind = connection.sql(f"FROM {literal(args.behaviors)}").select("user_id").types[0]
        yield (
            f"SELECT * REPLACE (CAST(user_id AS {kind}) AS user_id) FROM read_parquet([{files}]) "
            "ORDER BY user_id, interest"
        )


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
        bags(connection, args, settings) as query,
    ):
        rows = write_sorted(connection, query, boi)
        n_counted = counted(connection.read_parquet(str(boi)))
        check_assigned(connection, n_counted, args.behaviors, args.item_interests)
    log.info(
        "%s: %d behaviors in, %d rows of user and interest out",
        *(args.boi, row_count(args.behaviors), rows),
    )


if __name__ == "__main__":
    run_stage(main)
