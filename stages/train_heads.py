"""Head of one task on frozen user vectors: scores by cross-validation, then the head (paper 3.2).

In:  user vectors as of the cut-off; the folder of label months (category task) or the users file
     (attribute task); the bags of the months up to the cut-off, for a task that takes counts too.
Out: the head trained on all users of the task, its scores as JSON, its mean ROC curves as CSV. A task that
     cannot be trained has its reason in place of all three.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lurm.console import run_stage
from lurm.heads import HeadSettings, fit, out_of_fold, parts_of, roc_table, save_head
from lurm.heads.choice import VECTOR, Inputs
from lurm.heads.inputs import COUNTS, bags_until, frequent_interests, interest_counts
from lurm.params import load_params
from lurm.storage import (
    read_parquet,
    read_taken,
    write_csv,
    write_json,
    write_tensors,
)
from lurm.tasks import UntrainableTaskError, read_source, task_labels
from lurm.vectors import vector_matrix, vector_space

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Score and train the head of one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True)
    for name in ("--labels", "--vectors", "--bags", "--head", "--result", "--roc"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    settings = params.evaluation
    if args.task not in params.tasks:
        raise ValueError(f"--task: expected one of {', '.join(params.tasks)}, got {args.task!r}")
    task = params.tasks[args.task]
    torch.set_num_threads(1)  # of each thread that trains
    torch.use_deterministic_algorithms(True)

    user_ids = read_parquet(args.vectors, ["user_id"])["user_id"]
    months = None if task.value is None else list(settings.label_months)
    about: dict[str, Any] = {
        "task": args.task,
        "column": task.column,
        "value": task.value,
        "as_of": settings.as_of,
        "inputs": task.inputs,
    }
    try:
        labels = task_labels(
            user_ids,
            read_source(args.task, args.labels, months),
            task.column,
            task.value,
            min_class_size=settings.min_class_size,
            folds=settings.folds,
            most_users=settings.most_users,
            seed=settings.seed,
        )
    except UntrainableTaskError as error:
        log.warning("%s is skipped: %s", args.task, error)
        write_tensors({}, args.head, {**about, "skipped": str(error)})
        write_csv({"fpr": [], "tpr": [], "class": []}, args.roc)
        write_json({"task": args.task, "skipped": str(error)}, args.result)
        return
    log.info("%s: %d of %d users, %s", args.task, len(labels.y), len(user_ids), labels.counts)
    vectors = read_taken(args.vectors, labels.rows)
    x: Inputs = vector_matrix(vectors)
    if task.inputs == "vector+counts":
        bags = bags_until(args.bags, params.months, settings.as_of)
        interests = frequent_interests(bags)
        ids = vectors["user_id"].combine_chunks()
        x = {VECTOR: vector_matrix(vectors), COUNTS: interest_counts(bags, ids, interests)}
        about["interests"] = interests.tolist()
    threads = len(os.sched_getaffinity(0))  # the results are the same for any number
    how = HeadSettings.of(settings.model_dump())
    own = replace(labels, rows=np.arange(len(labels.y)))
    scores = out_of_fold(
        x,
        {args.task: own},
        kinds=[settings.head],
        folds=settings.folds,
        repeats=settings.repeats,
        seed=settings.seed,
        settings=how,
        n_threads=threads,
    )[settings.head][args.task]
    head = fit(
        x,
        labels.y,
        len(labels.classes),
        how,
        kind=settings.head,
        folds=settings.folds,
        seed=settings.seed,
        n_threads=threads,
    )
    about |= {
        "classes": labels.classes,
        "model_version": vectors["model_version"][0].as_py(),
        "space_version": vector_space(vectors),
    }
    classes = [{"class": name, "n_users": n} for name, n in labels.counts.items()]
    result = {
        "task": args.task,
        "n_users": len(labels.y),
        "classes": classes,
        "head": parts_of(head),
        **scores.record(labels.y),
    }
    save_head(head, args.head, about)
    write_csv(roc_table(labels.y, scores, labels.classes), args.roc)
    write_json(result, args.result)
    percent = [100 * figure for figure in (scores.mean_auc, scores.auc_se, scores.mean_accuracy)]
    log.info("%s: AUC %.1f (standard error %.1f), ACC %.1f", args.task, *percent)


if __name__ == "__main__":
    run_stage(main)
