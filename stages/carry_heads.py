"""How heads of the standing release do on the new vectors, for one task: the gate of a retraining asks.

In:  the standing vectors and the new ones as of the same month; the new SMEN, which knows how its vectors
     were turned; the labels and the bags, as for train_heads.
Out: JSON with the AUC of every fold: `standing`, heads trained and scored on the standing vectors;
     `carried`, the same heads on the new vectors; and if those were turned, `unaligned`, the same heads
     on the vectors as they were before, and `raw`, heads trained anew on those. For a task that cannot be
     trained the reason, `skipped`.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from lurm.alignment import turned_back
from lurm.console import run_stage
from lurm.heads import HeadSettings, carry_heads
from lurm.heads.choice import VECTOR, Inputs
from lurm.heads.inputs import COUNTS, bags_until, frequent_interests, interest_counts
from lurm.params import load_params
from lurm.smen import load_smen
from lurm.storage import read_parquet, read_taken, write_json
from lurm.tasks import UntrainableTaskError, read_source, task_labels
from lurm.vectors import vector_matrix

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Score the heads of one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True)
    for name in ("--labels", "--standing", "--vectors", "--bags", "--smen", "--result"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    settings, task = params.evaluation, params.tasks[args.task]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    standing, new = (
        read_parquet(path, ["user_id"])["user_id"].combine_chunks()
        for path in (args.standing, args.vectors)
    )
    in_both = np.flatnonzero(pc.is_in(standing, new))
    months = None if task.value is None else list(settings.label_months)
    try:
        labels = task_labels(
            standing.take(pa.array(in_both)),
            read_source(args.task, args.labels, months),
            task.column,
            task.value,
            min_class_size=settings.min_class_size,
            folds=settings.folds,
            most_users=settings.most_users,
            seed=settings.seed,
        )
    except UntrainableTaskError as error:
        write_json({"skipped": str(error)}, args.result)
        return
    rows = in_both[labels.rows]
    old_x = vector_matrix(read_taken(args.standing, rows))
    there = pc.index_in(standing.take(pa.array(rows)), new).to_numpy()
    new_x = vector_matrix(read_taken(args.vectors, there))
    smen, _ = load_smen(args.smen)
    others = {"carried": new_x} if new_x.shape == old_x.shape else {}
    if smen.turn is not None and smen.offset is not None:
        others["unaligned"] = turned_back(new_x, smen.turn, smen.offset)
    with_counts = task.inputs == "vector+counts"
    if with_counts:  # the new release's, for either vectors
        bags = bags_until(args.bags, params.months, settings.as_of)
        ids = standing.take(pa.array(rows))
        counts = interest_counts(bags, ids, frequent_interests(bags))

    def inputs(vectors: np.ndarray) -> Inputs:
        return {VECTOR: vectors, COUNTS: counts} if with_counts else vectors

    carry = partial(
        carry_heads,
        y=labels.y,
        kind=settings.head,
        folds=settings.folds,
        repeats=settings.repeats,
        seed=settings.seed,
        settings=HeadSettings.of(settings.model_dump()),
        n_threads=len(os.sched_getaffinity(0)),  # the results are the same for any number
    )
    own, carried = carry(inputs(old_x), {name: inputs(other) for name, other in others.items()})
    scores = {"standing": own, **carried}
    if "unaligned" in others:
        scores["raw"], _ = carry(inputs(others["unaligned"]), {})
    write_json(scores, args.result)
    means = {name: round(100 * sum(values) / len(values), 2) for name, values in scores.items()}
    log.info("%s: AUC in percent %s", args.task, means)


if __name__ == "__main__":
    run_stage(main)
