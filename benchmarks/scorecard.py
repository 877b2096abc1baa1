"""LURM against its rivals on wide tasks and attributes: ``make scorecard``.

    python -m benchmarks.scorecard            everything; resumes where it stopped
    python -m benchmarks.scorecard --quick    what is done in minutes
    python -m benchmarks.scorecard --only tf_idf lurm --data-sets complete_journey
    python -m benchmarks.scorecard --users reported      without the users by whom settings were chosen

Every category that between two shares of the users choose in the label months is a task
(:func:`benchmarks.data_sets.wide_tasks`). Each method has its best head: logistic regression, a sparse
one, the paper's MLP, boosted trees or their blend, chosen inside the training part; the figures of all are
kept. The quick form trains logistic and sparse heads and their blend, for LURM and for category counts
boosted heads too, and draws 24 wide tasks and 3,000 users of a data set that has more.

In:  the workspaces of finished runs (`make repro`, `make ta-feng`).
Out: reports/scorecard/<data set>/<method>.json and .npy (what each user adds to an AUC), kept until what
     they depend on changes; reports/scorecard.json with all figures, paired differences and verdicts;
     the same as the page reports/scorecard.html and as a table here. On other users all names end in
     these users, such as reports/scorecard_validation.json; in the quick form, in `_quick`.
"""

import argparse
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from benchmarks.anchors import anchors_of
from benchmarks.claims import anchors_apart, kinds, verdicts
from benchmarks.data_sets import DataSet, Users, among, open_data_set
from benchmarks.methods import ABLATIONS, METHODS, Method, possible
from lurm.console import run_stage
from lurm.heads import BASE_KINDS, HeadSettings, Scores, out_of_fold, splits
from lurm.metrics import auc_influence
from lurm.reporting.scorecard_page import scorecard_page
from lurm.scorecard import Difference, summary
from lurm.storage import file_hash, read_array, read_json, write_array, write_json, write_text
from lurm.tasks import TaskLabels

log = logging.getLogger("scorecard")
DATA_SETS = {"complete_journey": Path(), "ta_feng": Path("runs/ta_feng")}
CONFIDENCE = 0.95
ALL = METHODS | ABLATIONS
HEADS = (*BASE_KINDS, "blend", "auto")
QUICK_HEADS = ("logistic", "sparse", "blend", "auto")
QUICK_TREES = ("logistic", "sparse", "boosting", "blend", "auto")
QUICK_USERS = 3000  # of a data set
QUICK_TASKS = 24  # wide tasks
REPEATS = 1  # of the cross-validation: users and tasks are what intervals are over
SUPERVISED_TASKS = (
    12  # wide tasks that a method trained by task is scored on, beside the attributes
)


def run_method(
    data_set: DataSet,
    name: str,
    tasks: Mapping[str, TaskLabels],
    scratch: Path,
    heads: Sequence[str] = HEADS,
    n_threads: int = 1,
) -> dict[str, Any]:
    """The record of one method (:mod:`lurm.scorecard`), ``influence`` included.

    ``seconds`` are those of training and encoding; ``seconds_scoring`` those of the heads, or of
    training by task. The best head is ``auto``, or the only kind there is.
    """
    method, settings = ALL[name], data_set.params.evaluation
    started = time.perf_counter()
    x = method.vectors(data_set, scratch) if method.vectors else None
    fold = method.by_task(data_set, scratch) if method.by_task else None
    made = time.perf_counter()
    width: int | None = None
    if x is not None:
        blocks = {
            part: np.ascontiguousarray(block, dtype=np.float32)
            for part, block in (x.items() if isinstance(x, Mapping) else [("vector", x)])
        }
        width = sum(block.shape[1] for block in blocks.values())
        scored = out_of_fold(
            blocks,
            tasks,
            kinds=heads,
            folds=settings.folds,
            repeats=REPEATS,
            seed=settings.seed,
            settings=head_settings(data_set, heads),
            n_threads=n_threads,
        )
    elif fold is not None:
        tasks = some_tasks(data_set, tasks, SUPERVISED_TASKS)
        scored = {
            "by task": {
                task: score_by_task(fold, labels, settings.folds, settings.seed)
                for task, labels in tasks.items()
            }
        }
    best = scored["auto"] if "auto" in scored else scored[next(iter(scored))]
    log.info(
        "%s, %s: mean AUC %.1f",
        data_set.name,
        name,
        100 * np.mean([scores.mean_auc for scores in best.values()]),
    )
    return {
        "method": name,
        "title": method.title,
        "family": method.family,
        "width": width,
        "seconds": None if method.from_run else made - started,
        "seconds_scoring": time.perf_counter() - made,
        "budget": dict(method.budget),
        "tasks": {
            task: {
                "auc": scores.auc,
                "acc": scores.accuracy,
                "kinds": {kind: scored[kind][task].mean_auc for kind in scored},
                "chosen": scores.chosen,
            }
            for task, scores in best.items()
        },
        "influence": {
            task: influence(scores, tasks[task], len(data_set.user_ids))
            for task, scores in best.items()
        },
    }


def head_settings(data_set: DataSet, heads: Sequence[str]) -> HeadSettings:
    """Settings of the heads: those of the data set, without calibration, which changes no AUC."""
    settings = HeadSettings.of(data_set.params.evaluation.model_dump())
    candidates = tuple(kind for kind in settings.candidates if kind in heads)
    return replace(settings, calibrate=False, candidates=candidates or settings.candidates)


def some_tasks(
    data_set: DataSet, tasks: Mapping[str, TaskLabels], n_wide: int
) -> dict[str, TaskLabels]:
    """The attributes, and at most so many wide tasks, drawn by chance, the same ones each time."""
    by_kind = kinds(data_set, tasks)
    wide = by_kind.get("wide", [])
    drawn = np.random.default_rng(0).permutation(len(wide))[:n_wide]
    kept = {wide[number] for number in drawn} | set(by_kind.get("attribute", []))
    return {name: labels for name, labels in tasks.items() if name in kept}


def score_by_task(fold: Any, labels: TaskLabels, folds: int, seed: int) -> Scores:
    """Scores of a method that is trained anew in every fold, on the same folds as the heads."""
    scores = Scores()
    rows, y = labels.rows, labels.y
    for train, test in splits(y, folds, REPEATS, seed):
        probabilities = fold(rows[train], y[train], rows[test], len(labels.classes))
        scores.add(y[test], test, probabilities, "by task")
    return scores


def influence(scores: Scores, labels: TaskLabels, n_users: int) -> np.ndarray:
    """What each user adds to the task's mean AUC over folds, (U,) float32; 0 without a part in it."""
    result = np.zeros(n_users, dtype=np.float32)
    for rows, probabilities in zip(scores.test_rows, scores.probabilities, strict=True):
        added = auc_influence(labels.y[rows], probabilities) / len(scores.auc)
        np.add.at(result, labels.rows[rows], added)
    return result


def drawn_users(tasks: Mapping[str, TaskLabels], n_users: int, most: int) -> dict[str, TaskLabels]:
    """The tasks among at most so many users, the same ones in every task, drawn by chance."""
    if n_users <= most:
        return dict(tasks)
    wanted = np.zeros(n_users, dtype=bool)
    wanted[np.random.default_rng(0).permutation(n_users)[:most]] = True
    return {name: among(labels, wanted, 10) for name, labels in tasks.items()}


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """The record as JSON, its influence beside it as .npy, (T, U) float32, in alphabetical order."""
    added = record["influence"]
    write_array(np.array([added[task] for task in sorted(added)]), path.with_suffix(".npy"))
    write_json({name: value for name, value in record.items() if name != "influence"}, path)


def read_record(path: Path) -> dict[str, Any]:
    """A record as :func:`write_record` wrote it; without a key if there is none."""
    if not path.exists() or not path.with_suffix(".npy").exists():
        return {"key": None}
    record: dict[str, Any] = read_json(path)
    record["influence"] = dict(
        zip(sorted(record["tasks"]), read_array(path.with_suffix(".npy")), strict=True)
    )
    return record


def key_of(
    data_set: DataSet, name: str, method: Method, heads: Sequence[str], scored: Sequence[Any]
) -> str:
    """A hash of what the record of a method depends on, so that it is made again when that changes."""
    settings = data_set.params.model_dump(mode="json")
    about: dict[str, Any] = {
        "data": data_set.fingerprint(),
        "evaluation": settings["evaluation"],
        "tasks": settings["tasks"],
        "scored": list(scored),
        "heads": list(heads),
        "method": [name, dict(method.budget)],
    }
    if method.family in ("LURM", "ablation"):
        model = data_set.root / "models/smen.safetensors"
        about["lurm"] = [settings["cluster_interests"], settings["pretrain_smen"], file_hash(model)]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def print_table(name: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One line for each method and kind of tasks, in percent, the best first."""
    for group in next(iter(rows.values()))["heads"]:
        scored = [row for row in rows.values() if row["heads"][group]]
        columns = "".join(f"{kind:>10}" for kind in HEADS[:-1])
        print(f"\n{name + ', ' + group:44}{'best':>8}{columns}{'LURM leads by':>24}{'seconds':>9}")
        for row in sorted(scored, key=lambda row: -row["heads"][group]["best"]):
            means, lead = row["heads"][group], row["leads"][group]
            figures = "".join(
                f"{100 * means[kind]:>10.2f}" if kind in means else f"{'':>10}"
                for kind in HEADS[:-1]
            )
            print(
                f"{row['title'][:43]:44}{100 * means['best']:>8.2f}{figures}"
                f"{'' if lead is None else str(Difference(**lead)):>24}"
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
    parser.add_argument("--users", choices=get_args(Users), default="all")
    parser.add_argument("--min-share", type=float, default=0.05, help="of users, of a wide task")
    parser.add_argument("--max-share", type=float, default=0.95, help="of users, of a wide task")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    args = parser.parse_args(argv)
    logging.getLogger("gensim").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    title = "scorecard" if args.users == "all" else f"scorecard_{args.users}"
    title += "_quick" if args.quick else ""
    card: dict[str, Any] = {}
    for name in args.data_sets:
        data_set = open_data_set(name, DATA_SETS[name])
        tasks = data_set.tasks(args.users, args.min_share, args.max_share)
        n_users = len(data_set.user_ids)
        if args.quick:
            tasks = some_tasks(data_set, tasks, QUICK_TASKS)
            tasks = drawn_users(tasks, n_users, QUICK_USERS)
        scored = [
            args.users,
            args.min_share,
            args.max_share,
            args.quick and [QUICK_USERS, QUICK_TASKS],
        ]
        records = {}
        for method_name, method in ALL.items():
            path = args.reports / title / name / f"{method_name}.json"
            heads = (QUICK_TREES if method.trees else QUICK_HEADS) if args.quick else HEADS
            key = key_of(data_set, method_name, method, heads, scored)
            known = read_record(path)
            wanted = method_name in (args.only or ALL) and (method.quick or not args.quick)
            if known["key"] != key and wanted and not possible(method_name, data_set):
                log.info("%s: %s is left out, there is too little of it", name, method.title)
                continue
            if known["key"] != key and wanted:
                with tempfile.TemporaryDirectory() as scratch:
                    known = run_method(
                        data_set, method_name, tasks, Path(scratch), heads, args.threads
                    )
                known["key"] = key
                write_record(known, path)
            if known["key"] == key:
                records[method_name] = known
        if "lurm" not in records:
            raise ValueError(f"{name}: LURM itself is not scored yet; run without --only first")
        by_kind = kinds(data_set, tasks)
        rows = summary(records, "lurm", CONFIDENCE, by_kind)
        for method_name, row in rows.items():
            row |= {"title": ALL[method_name].title, "family": ALL[method_name].family}
        anchors = anchors_of(data_set, args.reports / title / name / "anchors.json")
        card[name] = {
            "n_users": {task: len(labels.y) for task, labels in tasks.items()},
            "kinds": by_kind,
            "methods": rows,
            "claims": [
                *verdicts(records, data_set, CONFIDENCE, by_kind),
                anchors_apart(*(found["separation"] for found in anchors.values())),
            ],
            "anchors": anchors,
        }
        print_table(name, card[name]["methods"])
        for claim in card[name]["claims"]:
            print(f"({claim['claim']}) {claim['what']}: {claim['verdict']}, {claim['figure']}")
    write_json(card, args.reports / f"{title}.json")
    page = args.reports / f"{title}.html"
    write_text(scorecard_page(card, args.users, CONFIDENCE, quick=args.quick), page)
    print(f"\nPage: {page}")


if __name__ == "__main__":
    run_stage(main)
