"""The scorecard with power: every category that enough users choose is a task.

    python -m benchmarks.wide                  every method of vectors, every kind of head
    python -m benchmarks.wide --quick          on drawn tasks and users, in minutes
    python -m benchmarks.wide --only lurm category_counts --data-sets ta_feng

A task asks whether a user will have a behavior with a category in the label months. All values of the
category column that a share of the users between MIN_SHARE and MAX_SHARE choose are tasks; attributes are
scored beside them. Every method has its best head: logistic, sparse, boosting or their blend, chosen inside
the training part of each fold (:mod:`lurm.heads`). Differences have an interval over users and tasks.

In:  the workspaces of finished runs (`make repro`, `make ta-feng`).
Out: reports/wide[_quick]/<data set>/<method>.json and .npy, one for each method, kept until what it
     depends on changes, so that a run goes on where it stopped; reports/wide[_quick].json, all figures.
"""

import argparse
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.data_sets import DataSet, open_data_set
from benchmarks.methods import METHODS, Vectors
from lurm.competitors.category_counts import category_counts
from lurm.competitors.svd import item_svd, truncated_svd
from lurm.competitors.windows import with_windows
from lurm.console import run_stage
from lurm.heads import HeadSettings, out_of_fold
from lurm.metrics import auc_influence
from lurm.scorecard import Difference, two_way_difference
from lurm.storage import file_hash, read_array, read_json, write_array, write_json
from lurm.tasks import TaskLabels

log = logging.getLogger("wide")
DATA_SETS = {"complete_journey": Path(), "ta_feng": Path("runs/ta_feng")}
MIN_SHARE, MAX_SHARE = 0.05, 0.95
CONFIDENCE = 0.95
KINDS = ("logistic", "sparse", "boosting", "blend")
FOLDS = 5
# Of the quick form: tasks drawn, users drawn, and what has boosted heads too.
QUICK_TASKS, QUICK_USERS = 24, 8_000
QUICK_BOOSTED = ("lurm", "category_counts", "category_windows")
SEED = 0


def _counts(data_set: DataSet, behaviors: pa.Table) -> np.ndarray:
    return category_counts(behaviors, data_set.catalog, data_set.user_ids, data_set.category_column)


def _windows(data_set: DataSet, _: Path) -> np.ndarray:
    return with_windows(partial(_counts, data_set), data_set.behaviors, data_set.user_ids)


def _category_svd(data_set: DataSet, _: Path) -> np.ndarray:
    return truncated_svd(_counts(data_set, data_set.behaviors), 64)


def _item_svd(width: int) -> Vectors:
    return lambda data_set, _: item_svd(
        data_set.behaviors, data_set.catalog, data_set.user_ids, width
    )


# Methods beside those of benchmarks/methods.py: title and vectors.
MORE: dict[str, tuple[str, Vectors]] = {
    "category_windows": ("category counts, windows, volume", _windows),
    "category_svd_64": ("SVD of category counts, 64", _category_svd),
    "item_svd_64": ("SVD of idf items, 64", _item_svd(64)),
    "item_svd_256": ("SVD of idf items, 256", _item_svd(256)),
}
QUICK = ("lurm", "category_counts", *MORE, "tf_idf", "als")


def methods() -> dict[str, tuple[str, Vectors]]:
    """Title and vectors of every method that makes vectors without labels."""
    known = {
        name: (method.title, method.vectors)
        for name, method in METHODS.items()
        if method.vectors is not None
    }
    return known | MORE


def tasks_of(data_set: DataSet, quick: bool) -> dict[str, dict[str, TaskLabels]]:
    """The tasks of each kind, ``wide`` and ``attribute``; fewer tasks and users in the quick form."""
    wide = data_set.wide_tasks(MIN_SHARE, MAX_SHARE)
    attributes = data_set.attribute_tasks()
    if not quick:
        return {"wide": wide, "attribute": attributes}
    rng = np.random.default_rng(SEED)
    drawn = np.sort(rng.permutation(len(wide))[:QUICK_TASKS])
    names = list(wide)
    users = np.sort(rng.permutation(len(data_set.user_ids))[:QUICK_USERS])
    kept = {names[n]: wide[names[n]] for n in drawn}
    return {
        "wide": {name: of_users(task, users) for name, task in kept.items()},
        "attribute": {name: of_users(task, users) for name, task in attributes.items()},
    }


def of_users(task: TaskLabels, users: np.ndarray) -> TaskLabels:
    """The task for those of its users that are among ``users`` (row numbers)."""
    kept = np.isin(task.rows, users)
    return TaskLabels(task.rows[kept], task.y[kept], task.classes)


def score(
    x: np.ndarray, tasks: Mapping[str, Mapping[str, TaskLabels]], kinds: Sequence[str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """AUC of every task by kind of head, and each user's influence on the best head's AUC by task.

    ``best`` is the blend, whose parts and weights are chosen inside the training part.
    """
    bases = tuple(kind for kind in kinds if kind != "blend")
    settings = HeadSettings(candidates=bases)
    record: dict[str, Any] = {}
    influence: dict[str, np.ndarray] = {}
    for group, of_group in tasks.items():
        scores = out_of_fold(
            np.ascontiguousarray(x, dtype=np.float32),
            of_group,
            kinds=kinds,
            folds=FOLDS,
            repeats=1,
            seed=SEED,
            settings=settings,
            n_threads=2,
        )
        record[group] = {
            task: {kind: scores[kind][task].mean_auc for kind in kinds} for task in of_group
        }
        for task, labels in of_group.items():
            of_users_ = np.zeros(len(x), dtype=np.float32)
            best = scores[kinds[-1]][task]
            for rows, probabilities in zip(best.test_rows, best.probabilities, strict=True):
                y = labels.y[rows]
                part = auc_influence(y, probabilities)
                of_users_[labels.rows[rows]] = part * (len(x) / len(labels.y))
            influence[f"{group}/{task}"] = of_users_
    return record, influence


def key_of(data_set: DataSet, name: str, about: Mapping[str, Any]) -> str:
    """A hash of what a record depends on, so that it is made again when that changes."""
    settings = data_set.params.model_dump(mode="json")
    parts: dict[str, Any] = {"data": data_set.fingerprint(), "name": name, **about}
    if name.startswith("lurm") or name == "boi":
        parts["model"] = file_hash(data_set.root / "models/smen.safetensors")
        parts["settings"] = [settings["cluster_interests"], settings["pretrain_smen"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def means(record: Mapping[str, Any], group: str) -> dict[str, float]:
    """Mean AUC over the group's tasks by kind of head."""
    tasks = record["tasks"][group].values()
    kinds: Mapping[str, float] = next(iter(tasks), {})
    return {kind: float(np.mean([task[kind] for task in tasks])) for kind in kinds}


def lead(
    own: Mapping[str, Any], other: Mapping[str, Any], influences: tuple[np.ndarray, ...], group: str
) -> Difference | None:
    """How far the best head of one method is ahead of the other's, over a group's tasks."""
    names = list(own["tasks"][group])
    if not names:
        return None
    best_own, best_other = own["kinds"][-1], other["kinds"][-1]
    gaps = np.array(
        [own["tasks"][group][t][best_own] - other["tasks"][group][t][best_other] for t in names]
    )
    columns = [own["columns"].index(f"{group}/{name}") for name in names]
    moved = (influences[0][columns] - influences[1][columns]).mean(axis=0)
    return two_way_difference(gaps, moved, CONFIDENCE)


def main(argv: Sequence[str] | None = None) -> None:
    """Score what is missing, then write and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="drawn tasks and users, in minutes")
    parser.add_argument("--only", nargs="+", choices=methods(), metavar="METHOD")
    parser.add_argument("--data-sets", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    args = parser.parse_args(argv)
    logging.getLogger("gensim").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    title = "wide_quick" if args.quick else "wide"
    card: dict[str, Any] = {}
    for name in args.data_sets:
        data_set = open_data_set(name, DATA_SETS[name])
        tasks = tasks_of(data_set, args.quick)
        folder = args.reports / title / name
        records, influences = {}, {}
        for method, (method_title, vectors) in methods().items():
            if method not in (args.only or (QUICK if args.quick else methods())):
                continue
            boosted = not args.quick or method in QUICK_BOOSTED
            kinds: list[str] = [k for k in KINDS if boosted or k != "boosting"]
            about = {"kinds": kinds, "tasks": [args.quick, QUICK_TASKS, QUICK_USERS, SEED]}
            key, path = key_of(data_set, method, about), folder / f"{method}.json"
            record = read_json(path) if path.exists() else {"key": None}
            if record["key"] != key or not path.with_suffix(".npy").exists():
                started = time.perf_counter()
                with tempfile.TemporaryDirectory() as scratch:
                    x = vectors(data_set, Path(scratch))
                of_tasks, influence = score(x, tasks, kinds)
                write_array(np.stack(list(influence.values())), path.with_suffix(".npy"))
                record = {
                    "key": key,
                    "title": method_title,
                    "width": x.shape[1],
                    "kinds": kinds,
                    "seconds": time.perf_counter() - started,
                    "tasks": of_tasks,
                    "columns": list(influence),
                }
                write_json(record, path)
                log.info("%s, %s: %s", name, method_title, means(record, "wide"))
            records[method] = record
            influences[method] = read_array(path.with_suffix(".npy"))
        card[name] = summary(records, influences, tasks)
        print_table(name, card[name])
    write_json(card, args.reports / f"{title}.json")


def summary(
    records: Mapping[str, Any],
    influences: Mapping[str, np.ndarray],
    tasks: Mapping[str, Mapping[str, TaskLabels]],
) -> dict[str, Any]:
    """Numbers of tasks, and one row for each method with LURM's lead over it.

    Raises:
        ValueError: LURM itself is not scored.
    """
    if "lurm" not in records:
        raise ValueError("expected a record of lurm to compare with, got none; score it first")
    rows = {}
    for name, record in records.items():
        leads = {
            group: lead(records["lurm"], record, (influences["lurm"], influences[name]), group)
            for group in tasks
            if name != "lurm"
        }
        rows[name] = {
            "title": record["title"],
            "width": record["width"],
            "seconds": record["seconds"],
            **{group: means(record, group) for group in tasks},
            "leads": {group: gap.to_json() for group, gap in leads.items() if gap is not None},
        }
    return {"n_tasks": {group: len(of_group) for group, of_group in tasks.items()}, "methods": rows}


def print_table(name: str, of_data_set: Mapping[str, Any]) -> None:
    """One line for each method, AUC in percent; the last kind of head is the best one."""
    n_tasks = of_data_set["n_tasks"]
    print(f"\n{name}: {n_tasks['wide']} wide tasks, {n_tasks['attribute']} attributes")
    heads = "".join(f"{kind:>10}" for kind in KINDS)
    print(f"{'wide AUC by head':34}{heads}{'LURM leads by':>24}{'attributes':>12}{'leads by':>24}")
    rows = of_data_set["methods"].values()
    for row in sorted(rows, key=lambda row: -row["wide"]["blend"]):
        wide = "".join(
            f"{100 * row['wide'][kind]:10.2f}" if kind in row["wide"] else f"{'':>10}"
            for kind in KINDS
        )
        attribute = row["attribute"].get("blend")
        gaps = {g: str(Difference(**gap)) for g, gap in row["leads"].items()}
        print(
            f"{row['title']:34}{wide}{gaps.get('wide', ''):>24}"
            f"{'' if attribute is None else format(100 * attribute, '.2f'):>12}"
            f"{gaps.get('attribute', ''):>24}"
        )


if __name__ == "__main__":
    run_stage(main)
