"""Scores of LURM's rivals, and of any user vectors, on the tasks of params.yaml.

    python benchmarks/baselines.py
    python benchmarks/baselines.py --vectors LURM=data/user_vectors/2017-10.parquet --boi data/boi

In:  the pipeline's own files: data/training, data/labels, data/landing/users.parquet.
Out: a table on the terminal and reports/baselines.json.
Every vector is made from the training months alone and scored under the same protocol
(`evaluation` in params.yaml) on the same users: all who had a behavior in the training months.
Needs the extra `competitors`.
"""

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy.sparse import csr_matrix

from lurm.competitors.als import als
from lurm.competitors.category_counts import category_counts
from lurm.competitors.doc2vec import doc2vec
from lurm.competitors.tf_idf import tf_idf
from lurm.console import run_stage
from lurm.heads import Training, cross_validate, vector_matrix
from lurm.params import Evaluation, Params, load_params
from lurm.storage import month_files, read_parquet, write_json
from lurm.tasks import TaskLabels, task_labels

log = logging.getLogger(__name__)


def read_months(folder: Path, months: Sequence[str]) -> pa.Table:
    """The tables of the listed months, one after the other."""
    return pa.concat_tables([read_parquet(path) for path in month_files(folder, list(months))])


def rows_of(user_ids: pa.Array, vectors: pa.Table, where: str) -> np.ndarray:
    """The vectors of the users asked for, (U, d).

    Raises:
        ValueError: a user has none, so that scores would not compare.
    """
    found = pc.index_in(user_ids, value_set=vectors["user_id"].combine_chunks())
    if found.null_count:
        raise ValueError(
            f"{where}: {found.null_count} of {len(user_ids)} users with behaviors in the training "
            "months have no vector; encode them as of the end of these months"
        )
    return vector_matrix(vectors)[found.to_numpy()]


def full_bag(boi: pa.Table, user_ids: pa.Array) -> np.ndarray:
    """log(1 + count) per interest over all months (paper eq. 4), (U, D) float32."""
    users = pc.index_in(boi["user_id"], value_set=user_ids).to_numpy()
    interests = boi["interest"].to_numpy()
    shape = (len(user_ids), interests.max() + 1)
    return np.log1p(csr_matrix((boi["count"].to_numpy(), (users, interests)), shape).toarray())


def read_tasks(params: Params, data: Path, user_ids: pa.Array) -> dict[str, TaskLabels]:
    """Users and classes of every task."""
    labels = read_months(data / "labels", params.evaluation.label_months)
    users = read_parquet(data / "landing" / "users.parquet")
    return {
        name: task_labels(
            user_ids,
            users if task.value is None else labels,
            task.column,
            task.value,
            min_class_size=params.evaluation.min_class_size,
            folds=params.evaluation.folds,
        )
        for name, task in params.tasks.items()
    }


def score(x: np.ndarray, tasks: dict[str, TaskLabels], settings: Evaluation) -> dict:
    """AUC of every task, their mean, and standard errors (tasks taken as independent)."""
    training = cast(Training, settings.model_dump(include=set(Training.__annotations__)))
    scores = {
        name: cross_validate(
            x[task.rows],
            task.y,
            folds=settings.folds,
            repeats=settings.repeats,
            seed=settings.seed,
            **training,
        )
        for name, task in tasks.items()
    }
    return {
        "auc": float(np.mean([s.mean_auc for s in scores.values()])),
        "auc_se": float(np.linalg.norm([s.auc_se for s in scores.values()]) / len(scores)),
        "tasks": {
            name: {"auc": s.mean_auc, "auc_se": s.auc_se, "acc": s.mean_accuracy}
            for name, s in scores.items()
        },
    }


def print_table(results: dict[str, dict]) -> None:
    """One line per kind of vector, AUC in percent."""
    tasks = list(next(iter(results.values()))["tasks"])
    print(
        f"{'AUC':16}{'mean':>6} {'± se':>5}{'width':>7}{'seconds':>9} ",
        *(f"{t[:9]:>9}" for t in tasks),
    )
    for name, r in results.items():
        each = (f"{100 * r['tasks'][task]['auc']:9.1f}" for task in tasks)
        mean, se = 100 * r["auc"], 100 * r["auc_se"]
        print(f"{name:16}{mean:6.1f} {se:5.2f}{r['width']:7,}{r['seconds']:9.1f} ", *each)


def main(argv: Sequence[str] | None = None) -> None:
    """Make, score and print every kind of vector."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--boi", type=Path, help="folder of monthly bags, scored as one bag")
    parser.add_argument("--vectors", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--only", nargs="*", help="rivals to score; none if nothing follows")
    parser.add_argument("--result", type=Path, default=Path("reports/baselines.json"))
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    logging.getLogger("gensim").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    months = params.training.months
    behaviors = read_months(args.data / "training" / "behaviors", months)
    catalog = read_parquet(args.data / "training" / "catalog.parquet")
    user_ids = pc.unique(behaviors["user_id"]).sort()
    text = params.embed_items.text_columns
    category = next(task.column for task in params.tasks.values() if task.value is not None)
    source = (behaviors, catalog, user_ids)
    makers: dict[str, Callable[[], np.ndarray]] = {
        "category_counts": lambda: category_counts(*source, category),
        "tf_idf": lambda: tf_idf(*source, text),
        "doc2vec": lambda: doc2vec(*source, text),
        "als": lambda: als(*source),
    }
    if args.only is not None:
        unknown = set(args.only) - set(makers)
        if unknown:
            raise ValueError(
                f"--only: expected some of {', '.join(makers)}, got {', '.join(unknown)}"
            )
        makers = {name: makers[name] for name in args.only}
    if args.boi:
        makers["boi"] = lambda: full_bag(read_months(args.boi, months), user_ids)
    for pair in args.vectors:
        name, given, path = pair.partition("=")
        if not given:
            raise ValueError(f"--vectors: expected NAME=PATH, got {pair!r}")
        makers[name] = lambda path=path: rows_of(user_ids, read_parquet(path), path)  # type: ignore[misc]

    tasks = read_tasks(params, args.data, user_ids)
    results = {}
    for name, make in makers.items():
        started = time.perf_counter()
        x = make()
        seconds = time.perf_counter() - started
        results[name] = {
            **score(x, tasks, params.evaluation),
            "width": x.shape[1],
            "n_users": len(x),
            "seconds": seconds,
        }
        log.info("%s: AUC %.2f", name, 100 * results[name]["auc"])
    write_json(results, args.result)
    print_table(results)


if __name__ == "__main__":
    run_stage(main)
