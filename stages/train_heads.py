"""Head of one task on frozen user vectors: scores by cross-validation, then the head (paper 3.2).

In:  user vectors as of the cut-off; the folder of label months (category task) or the users file
     (attribute task).
Out: the head trained on all users of the task, its scores as JSON, its mean ROC curves as CSV.
"""

import argparse
import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import torch

from lurm.console import run_stage
from lurm.heads import Training, cross_validate, roc_curves, save_head, train_head, vector_matrix
from lurm.params import load_params
from lurm.storage import month_files, read_parquet, write_json, write_text
from lurm.tables import LABELS, LANDED_USERS, check_columns
from lurm.tasks import task_labels

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Score and train the head of one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True)
    for name in ("--labels", "--vectors", "--head", "--result", "--roc"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    settings = params.evaluation
    if args.task not in params.tasks:
        raise ValueError(f"--task: expected one of {', '.join(params.tasks)}, got {args.task!r}")
    task = params.tasks[args.task]
    torch.set_num_threads(1)  # small products: a second thread costs more than it brings
    torch.use_deterministic_algorithms(True)

    vectors = read_parquet(args.vectors)
    if task.value is None:
        if args.labels.is_dir():
            raise ValueError(
                f"tasks.{args.task}: {args.labels} is a folder of label months, so a value is "
                "expected beside the column; for an attribute, name the users file"
            )
        source = read_parquet(args.labels)
        check_columns(source.schema, LANDED_USERS, str(args.labels))
    else:
        paths = month_files(args.labels, list(settings.label_months))
        source = pa.concat_tables([read_parquet(path) for path in paths])
        check_columns(source.schema, LABELS, str(args.labels))
    labels = task_labels(
        vectors["user_id"],
        source,
        task.column,
        task.value,
        min_class_size=settings.min_class_size,
        folds=settings.folds,
    )
    log.info("%s: %d of %d users, %s", args.task, len(labels.y), len(vectors), labels.counts)
    x = vector_matrix(vectors)[labels.rows]
    how = cast(Training, settings.model_dump(include=set(Training.__annotations__)))
    scores = cross_validate(
        x, labels.y, folds=settings.folds, repeats=settings.repeats, seed=settings.seed, **how
    )
    head = train_head(x, labels.y, len(labels.classes), seed=settings.seed, **how)

    curves = io.StringIO()
    rows = csv.writer(curves, lineterminator="\n")
    rows.writerow(["fpr", "tpr", "class"])
    grid = np.linspace(0, 1, 101)
    for name, tpr in roc_curves(labels.y, scores, labels.classes, grid).items():
        rows.writerows((f"{f:.2f}", f"{t:.5f}", name) for f, t in zip(grid, tpr, strict=True))
    save_head(
        head,
        args.head,
        {
            "task": args.task,
            "column": task.column,
            "value": task.value,
            "classes": labels.classes,
            "model_version": vectors["model_version"][0].as_py(),
            "as_of": settings.as_of,
        },
    )
    write_text(curves.getvalue(), args.roc)
    write_json(
        {
            "task": args.task,
            "n_users": len(labels.y),
            "classes": [{"class": name, "n_users": n} for name, n in labels.counts.items()],
            "auc": scores.mean_auc,
            "auc_se": scores.auc_se,
            "acc": scores.mean_accuracy,
            "folds": [
                {"auc": auc, "acc": acc}
                for auc, acc in zip(scores.auc, scores.accuracy, strict=True)
            ],
        },
        args.result,
    )
    log.info(
        "%s: AUC %.1f (standard error %.1f), ACC %.1f",
        args.task,
        100 * scores.mean_auc,
        100 * scores.auc_se,
        100 * scores.mean_accuracy,
    )


if __name__ == "__main__":
    run_stage(main)
