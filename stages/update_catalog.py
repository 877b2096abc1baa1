"""Bring the catalog up to a month (README, "Your own logs").

In: the catalog of the month before, and the month's delivery of new and changed items.
Out: the catalog as known in the month, the rows set aside, the counts as JSON.

Without ``--previous`` the delivery opens the catalog. A month that brought no items names the base
delivery, ``--base``, in its place: that is in the catalog since the opening, and merging it again
would take back what came later.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from lurm.catalog import REASONS, catalog_columns, merge_changes
from lurm.console import run_stage
from lurm.database import database
from lurm.params import load_params
from lurm.storage import read_schema, replacing, write_json

log = logging.getLogger("update_catalog")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--previous", type=Path)
    parser.add_argument("--changes", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--catalog", type=Path, required=True)
    parser.add_argument("--quarantine", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    text_columns = params.embed_items.text_columns

    standing = args.previous is not None and args.changes == args.base
    delivery = None if standing else args.changes

    previous_schema = read_schema(args.previous) if args.previous else None
    arrived_schema = read_schema(args.changes)
    where = str(args.changes)
    columns = catalog_columns(arrived_schema, previous_schema, text_columns, where)
    with (
        database(params.update_catalog.memory_limit, args.changes) as connection,
        replacing(args.catalog) as catalog,
        replacing(args.quarantine) as quarantine,
    ):
        counts = merge_changes(
            connection, delivery, args.previous, columns, text_columns, catalog, quarantine
        )
        if not counts["items"]:
            raise ValueError(
                f"{where}: expected items to open the catalog with, found none; deliver them"
            )
    write_json(counts, args.result)

    left_out = [c for c in arrived_schema.names if c not in columns and c != "item_id"]
    if left_out:
        log.warning("%s: %s left out, the catalog opened without", where, ", ".join(left_out))
    for reason, meaning in REASONS.items():
        if counts[reason]:
            log.warning("%s: %d rows set aside: %s", where, counts[reason], meaning)
    log.info(
        "%s: %d rows in, %d new, %d changed, %d unchanged, %d set aside; %d items",
        args.catalog,
        *(counts[k] for k in ("rows_in", "new", "changed", "unchanged", "rows_set_aside", "items")),
    )


if __name__ == "__main__":
    run_stage(main)
