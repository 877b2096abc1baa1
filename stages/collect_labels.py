"""Labels of one month: which users had a behavior with an item of which category (paper 3.1).

In:  clean behaviors of the label month, and the catalog as known in that month.
Out: distinct (user_id, column, value) for the categories that the tasks of params.yaml ask for. The
     file's metadata names the behaviors it was made from by their hash, so that a later correction shows.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from lurm.console import run_stage
from lurm.params import load_params
from lurm.storage import file_hash, read_parquet, write_parquet
from lurm.tables import BEHAVIORS, CATALOG, check_columns
from lurm.tasks import collect_labels, unknown_categories

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Collect the labels of one month."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--behaviors", type=Path, required=True)
    parser.add_argument("--catalog", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    args = parser.parse_args(argv)
    tasks = load_params("params.yaml").tasks

    behaviors, catalog = read_parquet(args.behaviors), read_parquet(args.catalog)
    check_columns(behaviors.schema, BEHAVIORS, str(args.behaviors))
    check_columns(catalog.schema, CATALOG, str(args.catalog))
    categories = {(task.column, task.value) for task in tasks.values() if task.value is not None}
    labels = collect_labels(behaviors, catalog, categories)
    for unknown in unknown_categories(catalog, categories):
        log.warning("%s: no labels: %s", args.labels, unknown)
    source = {"behaviors_sha256": file_hash(args.behaviors)}
    write_parquet(labels.replace_schema_metadata(source), args.labels)
    log.info(
        "%s: %d behaviors in, %d labels of %d categories out",
        args.labels,
        len(behaviors),
        len(labels),
        len(categories),
    )


if __name__ == "__main__":
    run_stage(main)
