"""LURM against its rivals, on the users that no setting was chosen by: ``make scorecard``.

    python -m benchmarks.scorecard            everything; resumes where it stopped
    python -m benchmarks.scorecard --quick    what is done in minutes
    python -m benchmarks.scorecard --only tf_idf lurm --data-sets complete_journey
    python -m benchmarks.scorecard --users validation    on the users for choosing settings

In:  the workspaces of finished runs (`make repro`, `make ta-feng`).
Out: reports/scorecard/<data set>/<method>.json, one for each method, kept until what it depends on
     changes; reports/scorecard.json with all figures, paired differences and verdicts; the same as
     the page reports/scorecard.html and as a table here. On other users than the reported ones all
     names end in these users, such as reports/scorecard_validation.json.
"""

import argparse
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch

from benchmarks.anchors import anchors_of
from benchmarks.claims import anchors_apart, kinds, verdicts
from benchmarks.data_sets import DataSet, Users, open_data_set
from benchmarks.methods import ABLATIONS, METHODS, Method, possible
from lurm.console import run_stage
from lurm.heads import Training, cross_validate, splits
from lurm.metrics import accuracy, auc
from lurm.params import Evaluation
from lurm.reporting.scorecard_page import scorecard_page
from lurm.scorecard import Difference, summary
from lurm.storage import file_hash, read_json, write_json, write_text
from lurm.tasks import TaskLabels

log = logging.getLogger("scorecard")
DATA_SETS = {"complete_journey": Path(), "ta_feng": Path("runs/ta_feng")}
CONFIDENCE = 0.95
ALL = METHODS | ABLATIONS


def run_method(
    data_set: DataSet, name: str, tasks: Mapping[str, TaskLabels], scratch: Path
) -> dict[str, Any]:
    """The record of one method (:mod:`lurm.scorecard`).

    ``seconds`` are those of training and encoding; ``seconds_scoring`` those of the heads, or of
    training by task.
    """
    method, settings = ALL[name], data_set.params.evaluation
    started = time.perf_counter()
    x = method.vectors(data_set, scratch) if method.vectors else None
    fold = method.by_task(data_set, scratch) if method.by_task else None
    made = time.perf_counter()
    repeats = min(settings.repeats, method.repeats or settings.repeats)
    scores = {}
    for task, labels in tasks.items():
        if x is not None:
            scores[task] = score_vectors(x, labels, settings)
        elif fold is not None:
            scores[task] = score_by_task(fold, labels, settings, repeats)
        log.info("%s, %s, %s: AUC %.1f", *_where(data_set, name, task, scores[task]))
    return {
        "method": name,
        "title": method.title,
        "family": method.family,
        "width": None if x is None else x.shape[1],
        "seconds": None if method.from_run else made - started,
        "seconds_scoring": time.perf_counter() - made,
        "budget": dict(method.budget),
        "tasks": scores,
    }


def _where(
    data_set: DataSet, name: str, task: str, scores: Mapping[str, list[float]]
) -> tuple[str, str, str, float]:
    return data_set.name, name, task, 100 * float(np.mean(scores["auc"]))


def score_vectors(
    x: np.ndarray, labels: TaskLabels, settings: Evaluation
) -> dict[str, list[float]]:
    """AUC and ACC of every fold by the heads of `evaluation`."""
    training = cast(Training, settings.model_dump(include=set(Training.__annotations__)))
    found = cross_validate(
        np.ascontiguousarray(x[labels.rows], dtype=np.float32),
        labels.y,
        folds=settings.folds,
        repeats=settings.repeats,
        seed=settings.seed,
        **training,
    )
    return {"auc": found.auc, "acc": found.accuracy}


def score_by_task(
    fold: Any, labels: TaskLabels, settings: Evaluation, repeats: int
) -> dict[str, list[float]]:
    """AUC and ACC of a method that is trained anew in every fold, on the same folds as the heads."""
    scores: dict[str, list[float]] = {"auc": [], "acc": []}
    for train, test in splits(labels.y, settings.folds, repeats, settings.seed):
        rows, y = labels.rows, labels.y
        found = fold(rows[train], y[train], rows[test], len(labels.classes))
        scores["auc"].append(auc(y[test], found))
        scores["acc"].append(accuracy(y[test], found))
    return scores


def key_of(data_set: DataSet, name: str, method: Method) -> str:
    """A hash of what the record of a method depends on, so that it is made again when that changes."""
    settings = data_set.params.model_dump(mode="json")
    about: dict[str, Any] = {
        "data": data_set.fingerprint(),
        "evaluation": settings["evaluation"],
        "tasks": settings["tasks"],
        "method": [name, method.repeats, dict(method.budget)],
    }
    if method.family in ("LURM", "ablation") or name == "interest_boosting":
        model = data_set.root / "models/smen.safetensors"
        about["lurm"] = [settings["cluster_interests"], settings["pretrain_smen"], file_hash(model)]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def print_table(name: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One line for each method, in percent."""
    head = f"{'AUC':>11}{'ACC':>7}{'LURM leads by':>24}{'width':>8}{'seconds':>9}"
    print(f"\n{name:30}{head}")
    for row in sorted(rows.values(), key=lambda row: -row["auc"]):
        score = f"{100 * row['auc']:.1f} ± {100 * row['auc_se']:.1f}"
        lead = "" if row["lead"] is None else str(Difference(**row["lead"]))
        width = "by task" if row["width"] is None else f"{row['width']:,}"
        print(
            f"{row['title']:30}{score:>11}{100 * row['acc']:7.1f}{lead:>24}{width:>8}"
            f"{'the run' if row['seconds'] is None else format(row['seconds'], '.0f'):>9}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write and print the scorecard."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the methods that take seconds")
    parser.add_argument("--only", nargs="+", choices=ALL, metavar="METHOD")
    parser.add_argument("--data-sets", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--users", choices=get_args(Users), default="reported")
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    args = parser.parse_args(argv)
    logging.getLogger("gensim").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    title = "scorecard" if args.users == "reported" else f"scorecard_{args.users}"
    card: dict[str, Any] = {}
    for name in args.data_sets:
        data_set = open_data_set(name, DATA_SETS[name])
        tasks = data_set.tasks(args.users)
        records = {}
        for method_name, method in ALL.items():
            path = args.reports / title / name / f"{method_name}.json"
            key = key_of(data_set, method_name, method)
            known = read_json(path) if path.exists() else {"key": None}
            wanted = method_name in (args.only or ALL) and (method.quick or not args.quick)
            if known["key"] != key and wanted and not possible(method_name, data_set):
                log.info("%s: %s is left out, there is too little of it", name, method.title)
                continue
            if known["key"] != key and wanted:
                with tempfile.TemporaryDirectory() as scratch:
                    known = run_method(data_set, method_name, tasks, Path(scratch))
                known["key"] = key
                write_json(known, path)
            if known["key"] == key:
                records[method_name] = known
        if "lurm" not in records:
            raise ValueError(f"{name}: LURM itself is not scored yet; run without --only first")
        folds = data_set.params.evaluation.folds
        rows = summary(records, "lurm", folds, CONFIDENCE)
        for method_name, row in rows.items():
            row |= {"title": ALL[method_name].title, "family": ALL[method_name].family}
        anchors = anchors_of(data_set, args.reports / title / name / "anchors.json")
        card[name] = {
            "n_users": {task: len(labels.y) for task, labels in tasks.items()},
            "kinds": kinds(data_set),
            "methods": rows,
            "claims": [
                *verdicts(records, data_set, folds, CONFIDENCE),
                anchors_apart(*(found["separation"] for found in anchors.values())),
            ],
            "anchors": anchors,
        }
        print_table(name, card[name]["methods"])
        for claim in card[name]["claims"]:
            print(f"({claim['claim']}) {claim['what']}: {claim['verdict']}, {claim['figure']}")
    write_json(card, args.reports / f"{title}.json")
    page = args.reports / f"{title}.html"
    write_text(scorecard_page(card, args.users, CONFIDENCE), page)
    print(f"\nPage: {page}")


if __name__ == "__main__":
    run_stage(main)
