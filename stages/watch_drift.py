"""Hold a month against the months before it: does the data drift, do models and heads still fit?

In:  the month's profile, behaviors, catalog, bags, map of items, vectors and predictions; the standing map
     of items, shares of the anchors and scores of the heads; the vectors and the state of the drift of the
     month before.
Out: the state of the drift for the next month: measures of the trailing months, predictions that wait for
     their labels, and the label months that are in; JSON with every figure, its level, and what to tell.

The heads' labels of a month are there some months later (`evaluation`): so many months back lie the
predictions that are scored. Those from up to `evaluation.as_of` are not judged: the heads were trained on
these very labels.
"""

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lurm import drift
from lurm.console import run_stage
from lurm.database import database
from lurm.months import month_name, month_number
from lurm.params import Params, load_params
from lurm.storage import (
    month_files,
    read_array,
    read_json,
    read_parquet,
    row_count,
    write_json,
    write_parquet,
)
from lurm.tasks import collect_labels

log = logging.getLogger("watch_drift")
MEMORY = "1GB"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--month", required=True)
    for name in (
        *("profile", "behaviors", "catalog", "boi", "item-interests", "vectors", "predictions"),
        *("standing", "anchor-shares", "heads", "vectors-before", "previous", "state", "result"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    settings = params.watch_drift

    past = drift.from_table(read_parquet(args.previous / "measures.parquet"))
    later = [name for name in past if name != drift.TRAINING and name >= args.month]
    if later:
        raise ValueError(
            f"{args.previous}: expected months before {args.month}, found {', '.join(later)}; name the "
            "drift of the month before"
        )
    now = measure(args)
    figures = drift.compare(now, past)
    heads = score_heads(args, params)
    if heads and heads["judged"]:
        figures |= drift.heads_figures(heads["tasks"])
    judged = drift.judge(figures, settings.limits.model_dump())
    trailing = [month for month in past if month != drift.TRAINING]
    told = drift.sentences(args.month, judged)
    state = drift.carry_on(past, args.month, now, settings.window)
    write_parquet(drift.to_table(state), args.state / "measures.parquet")
    result = {
        "month": args.month,
        "against": trailing,
        "level": drift.worst([row["level"] for row in judged]),
        "figures": judged,
        "measured": now["figure"],
        "anchors": shares_of(now["anchor"]),
        "movers": drift.movers(now, past),
        "heads": heads,
        "told": told,
    }
    write_json(result, args.result)
    for line in told:
        log.warning("%s", line)
    log.info("%s: %s against %s", args.month, result["level"], ", ".join(trailing) or "nothing")


def measure(args: argparse.Namespace) -> drift.Measures:
    """The measures of the month."""
    with database(MEMORY, args.behaviors) as connection:
        paths = (args.behaviors, args.boi, args.item_interests, args.standing)
        now = drift.count_month(connection, *paths)
    profile = read_json(args.profile)
    now["mix"] = {
        key: round(share * profile["behaviors"], 3) for key, share in profile["mix"].items()
    }
    now["anchor"] = drift.anchor_use(read_array(args.anchor_shares), now["interest"])

    moved = partial(drift.moved, args.vectors, args.vectors_before, args.month)
    now["figure"] |= drift.vector_figures(moved)
    if row_count(args.vectors_before):  # in the first month everybody is new
        first_months = read_parquet(args.vectors, ["first_month"])["first_month"]
        new = pc.sum(pc.equal(first_months, args.month)).as_py()
        now["figure"]["new_users"] = round(new / max(now["figure"]["users"], 1), 6)
    return now


def score_heads(args: argparse.Namespace, params: Params) -> dict[str, Any] | None:
    """Scores of the heads on the predictions whose last label month this is; None if there are none.

    Leaves in the state what later months will need.
    """
    labels = params.evaluation.label_months
    asked_about = [name for name, task in params.tasks.items() if task.value is not None]
    files = month_files(args.heads, asked_about, ".json") if asked_about else []
    trained = dict(zip(asked_about, map(read_json, files), strict=True))
    tasks = {name: params.tasks[name] for name in asked_about if "skipped" not in trained[name]}
    if not tasks:
        return None
    gap = month_number(labels[0]) - month_number(params.evaluation.as_of)
    month = month_number(args.month)
    waiting = gap + len(labels) - 1
    categories = {(task.column, str(task.value)) for task in tasks.values()}

    found = collect_labels(read_parquet(args.behaviors), read_parquet(args.catalog), categories)
    asked = read_parquet(args.predictions, ["user_id", *tasks])
    kept = {"labels": (found, len(labels) - 1), "predictions": (asked, waiting)}
    tables: dict[str, dict[int, pa.Table]] = {}
    for kind, (own, n_before) in kept.items():
        earlier = range(month - n_before, month)
        tables[kind] = {
            number: read_parquet(path)
            for number in earlier
            if (path := args.previous / kind / f"{month_name(number)}.parquet").exists()
        }
        tables[kind][month] = own
        for number in range(month - n_before + 1, month + 1):
            if number in tables[kind]:
                path = args.state / kind / f"{month_name(number)}.parquet"
                write_parquet(tables[kind][number], path)

    predicted = tables["predictions"].get(month - waiting)
    if predicted is None or len(tables["labels"]) < len(labels):
        return None
    as_of = month_name(month - waiting)
    came = pa.concat_tables(tables["labels"].values())
    scored = []
    for name, task in tasks.items():
        of_task = (pc.field("column") == task.column) & (pc.field("value") == task.value)
        users = came.filter(of_task)["user_id"].combine_chunks()
        yes = pc.is_in(predicted["user_id"], value_set=users.cast(predicted["user_id"].type))
        if name not in predicted.column_names:
            continue
        probabilities = predicted[name].to_numpy()
        scores = drift.score_head(probabilities, np.asarray(yes, dtype=bool), trained[name]["auc"])
        scored.append({"task": name, **scores})
    return {"as_of": as_of, "judged": as_of > params.evaluation.as_of, "tasks": scored}


def shares_of(counts: dict[str, float]) -> list[float]:
    """The counts as shares of their sum, in order."""
    total = sum(counts.values()) or 1
    return [round(value / total, 6) for value in counts.values()]


if __name__ == "__main__":
    run_stage(main)
