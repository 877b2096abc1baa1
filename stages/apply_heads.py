"""Scores of all users of a month with the standing heads (paper 3.2).

In:  user vectors as of the month; the folder of heads, of which those of the tasks in params.yaml count;
     the bags of the months up to then, for heads that take counts too.
Out: one row per user with the model's version and the answer to every task that could be trained
     (lurm/heads/predictions.py).
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from lurm.console import run_stage
from lurm.heads import load_head, predictions
from lurm.heads.inputs import bags_until, interest_counts
from lurm.params import load_params
from lurm.storage import (
    growing_parquet,
    month_files,
    read_rows,
    read_schema,
    read_settings,
    row_count,
    row_groups,
)
from lurm.tables import ID, check_columns

log = logging.getLogger("apply_heads")
ROWS = 65_536  # users in memory at once, at least


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--month", required=True)
    for name in ("vectors", "bags", "heads", "predictions"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    tasks = list(params.tasks)
    torch.set_num_threads(1)  # the bytes depend on the number of threads

    files = month_files(args.heads, tasks, ".safetensors") if tasks else []
    left = sorted({path.stem for path in args.heads.glob("*.safetensors")} - set(tasks))
    if left:
        log.warning("%s: %s not among the tasks any more, not applied", args.heads, ", ".join(left))
    named = {"user_id": ID, "model_version": pa.string()}
    check_columns(read_schema(args.vectors), named, str(args.vectors))
    heads = {}
    for task, file in zip(tasks, files, strict=True):
        if reason := read_settings(file).get("skipped"):
            log.warning("%s has no predictions: %s", task, reason)
        else:
            heads[task] = load_head(file)

    def counts(user_ids: pa.Array, interests: np.ndarray) -> np.ndarray:
        return interest_counts(
            bags_until(args.bags, params.months, args.month), user_ids, interests
        )

    columns = predictions(read_rows(args.vectors, slice(1)), heads, counts).schema
    with growing_parquet(args.predictions, columns) as append:
        for vectors in row_groups(args.vectors, ROWS):
            append(predictions(vectors, heads, counts))
    n_users = row_count(args.predictions)
    log.info("%s: %d users in and out, %d heads", args.predictions, n_users, len(heads))


if __name__ == "__main__":
    run_stage(main)
