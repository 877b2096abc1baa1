"""The page about one run, for people who look before they read: one HTML file.

D interests.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from lurm.behaviors import REASONS
from lurm.drift import LEVELS, MEANINGS
from lurm.reporting import figures
from lurm.reporting.figures import Points, Series
from lurm.reporting.pages import render

# Example interests: so many of the largest, and so many from there down to the smallest.
N_LARGEST, N_SPREAD = 6, 6
N_ITEMS = 3  # items shown of each


@dataclass(frozen=True)
class Run:
    """What the stages wrote, as it was read; mappings by month are in calendar order."""

    settings: Mapping[str, Any]  # every section of params.yaml
    catalog: Mapping[str, Mapping[str, int]]  # "start" and every month: counts of update_catalog
    months: Mapping[str, Mapping[str, Any]]  # every month: counts of validate_logs
    comparison: Mapping[str, Any]  # compare_months
    trailing: Mapping[str, Mapping[str, float | None]]  # every month: its row of the comparison
    items: Mapping[str, Any]  # embed_items
    item_losses: Sequence[float]  # by step
    clustering: Mapping[str, Any]  # cluster_interests
    interests: pa.Table  # lurm.interests.description.describe
    assigned: Mapping[str, Mapping[str, Any]]  # every month: assign_items
    smen: Mapping[str, Any]  # pretrain_smen
    smen_losses: Sequence[float]  # by epoch
    heads: Sequence[Mapping[str, Any]]  # train_heads, in the order of the settings
    skipped: Sequence[Mapping[str, Any]]  # train_heads, of tasks that could not be trained
    roc: Mapping[str, Mapping[str, Points]]  # every task and class: its mean curve
    scores: Mapping[str, Any]  # lurm.reporting.scores.summary
    drift: Mapping[str, Mapping[str, Any]]  # every month: watch_drift


def example_rows(sizes: np.ndarray, n_largest: int, n_spread: int) -> tuple[list[int], list[int]]:
    """Rows of the largest interests, and of some from there down to the smallest.

    Empty ones are left out; of equal size the first counts as larger. sizes: (D,) int64.

    >>> example_rows(np.array([5, 0, 9, 1, 7, 3]), 2, 2)
    ([2, 4], [0, 3])
    """
    ranked = [int(row) for row in np.argsort(-sizes, kind="stable") if sizes[row] > 0]
    rest = ranked[n_largest:]
    places = np.linspace(0, len(rest) - 1, min(n_spread, len(rest))).round().astype(int)
    return ranked[:n_largest], [rest[place] for place in places]


def curves(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """The ROC curve of every class, in the order of the rows (``fpr``, ``tpr``, ``class``)."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        found.setdefault(row["class"], []).append((row["fpr"], row["tpr"]))
    return found


def guessing_loss(batch_size: int, n_users: int) -> float:
    """The contrastive loss when all 2n - 1 candidates of eq. 2 are as likely.

    A batch has one pair from each of n users, so it has at most ``n_users`` pairs.

    >>> round(guessing_loss(256, 2452), 2)
    6.24
    """
    return math.log(max(2 * min(batch_size, n_users) - 1, 1))


def report_page(run: Run, validation_pages: str) -> str:
    """The page as HTML that needs nothing from outside.

    Args:
        run: what to tell.
        validation_pages: folder of the monthly pages, relative to this one.
    """
    months, settings = list(run.months), run.settings
    labels = figures.month_labels(months)
    trained = set(settings["training"]["months"])
    roles = ["trained" if month in trained else "later" for month in months]

    def by_month(name: str, figure: str, looks: Sequence[str] | None = roles) -> str:
        layer = Series(name, "aside", [run.months[month][figure] for month in months])
        return figures.bars(
            months, [layer], labels, label=f"{name} by month", looks=looks, width=250
        )

    catalog = list(run.catalog)
    kinds = {
        "own": (
            "with words of their own",
            lambda c: c["items"] - c["sharing_text"] - c["without_text"],
        ),
        "shared": ("that share their words", lambda c: c["sharing_text"]),
        "aside": ("without words", lambda c: c["without_text"]),
    }
    sizes = run.interests["n_behaviors"].to_numpy()
    n_items = run.interests["n_items"].to_numpy()
    largest, spread = example_rows(np.where(n_items > 0, sizes + 1, 0), N_LARGEST, N_SPREAD)
    embedding, smen = settings["embed_items"], settings["pretrain_smen"]
    n_users = run.smen["n_users"]
    axis = figures.score_axis(
        value
        for head in run.heads
        for value in [
            *(fold["auc"] for fold in head["folds"]),
            head["auc"] - head["auc_se"],
            head["auc"] + head["auc_se"],
        ]
    )
    totals = {
        figure: sum(counts[figure] for counts in run.months.values())
        for figure in ("rows_in", "rows_clean", "rows_set_aside", *REASONS)
    }
    return render(
        "report.html",
        run=run,
        months=months,
        trained=trained,
        validation_pages=validation_pages,
        totals=totals,
        reasons={reason: meaning for reason, meaning in REASONS.items() if totals[reason]},
        unseen_reasons=[reason for reason in REASONS if not totals[reason]],
        width=smen["published_width"] or smen["n_anchors"] * smen["width"],
        warnings={
            month: [w["figure"] for w in run.comparison["warnings"] if w["month"] == month]
            for month in months
        },
        month_figures=[
            ("Clean behaviors", by_month("clean behaviors", "rows_clean")),
            ("Users", by_month("users", "users")),
            ("Items", by_month("items", "items")),
            ("Rows set aside", by_month("rows set aside", "rows_set_aside", None)),
        ],
        catalog_figures=[
            (
                "Items known",
                figures.bars(
                    catalog,
                    [
                        Series(f"items {name}", look, [count(run.catalog[m]) for m in catalog])
                        for look, (name, count) in kinds.items()
                    ],
                    ["start", *labels],
                    label="Items known by month",
                    width=480,
                ),
            ),
            (
                "Items that came with a month",
                figures.bars(
                    months,
                    [Series("new items", "", [run.catalog[month]["new"] for month in months])],
                    labels,
                    label="New items by month",
                    looks=roles,
                    width=480,
                ),
            ),
        ],
        interest_figures=[
            (
                "Interests by items",
                figures.doublings(n_items.tolist(), "items", "Interests by number of items"),
            ),
            (
                "Interests by behaviors",
                figures.doublings(sizes.tolist(), "behaviors", "Interests by behaviors"),
            ),
            (
                "Interests by mean cosine",
                figures.hundredths(
                    run.interests["mean_cosine"].drop_null().to_pylist(), "Interests by cosine"
                ),
            ),
        ],
        examples=[
            (title, [run.interests.slice(row, 1).to_pylist()[0] for row in rows])
            for title, rows in (("The largest", largest), ("From there to the smallest", spread))
            if rows
        ],
        n_shown=N_ITEMS,
        median_items=int(np.median(n_items)),
        most_items=int(n_items.max()),
        most_behaviors=int(sizes.max()),
        loss_figures=[
            (
                "Item embedding",
                figures.loss_curve(
                    run.item_losses,
                    "step",
                    guessing_loss(embedding["batch_size"], n_users),
                    "Loss of the item embedding",
                    smooth=max(len(run.item_losses) // 50, 1),
                ),
            ),
            (
                "SMEN",
                figures.loss_curve(
                    run.smen_losses,
                    "epoch",
                    guessing_loss(smen["batch_size"], n_users),
                    "Loss of SMEN",
                ),
            ),
        ],
        tasks=[_task(run, head, axis) for head in run.heads],
        mean_dots=(
            figures.score_dots(run.scores["mean_auc"], run.scores["mean_auc_se"], [], axis)
            if run.heads
            else ""
        ),
        score_scale=figures.score_scale(axis),
        **_drift(run, labels),
        settings={
            name: yaml.safe_dump(section, sort_keys=False, allow_unicode=True)
            for name, section in settings.items()
        },
    )


def _drift(run: Run, labels: Sequence[str]) -> dict[str, Any]:
    """The levels of all months as a figure, the last month's figures, and the last scores of heads."""
    months = list(run.drift)
    found = {month: {row["figure"]: row for row in run.drift[month]["figures"]} for month in months}

    def cell(row: Mapping[str, Any]) -> tuple[str, str]:
        if row["value"] is None:
            return "", "nothing to compare"
        return row["level"], f"{row['value']:.3g}, {row['level']}"

    grid = figures.level_grid(
        [MEANINGS[name].removeprefix("the ") for name in MEANINGS],
        months,
        [[cell(found[month][name]) for month in months] for name in MEANINGS],
        labels,
        label="Levels of drift by figure and month",
    )
    scored = [run.drift[month] for month in months if run.drift[month]["heads"]]
    words = {
        row["interest"]: row["top_words"]
        for row in run.interests.select(["interest", "top_words"]).to_pylist()
    }
    return {
        "drift_grid": grid,
        "drift_levels": LEVELS,
        "drift_meanings": MEANINGS,
        "drift_limits": run.settings["watch_drift"]["limits"],
        "drift_last": run.drift[months[-1]],
        "drift_loud": [month for month in months if run.drift[month]["told"]],
        "drift_heads": scored[-1]["heads"] if scored else None,
        "drift_movers": [
            {**row, "words": words.get(row["interest"], [])}
            for row in run.drift[months[-1]]["movers"]
        ],
    }


def made_of(parts: Sequence[Mapping[str, Any]]) -> str:
    """The parts of a head in words.

    >>> made_of([{"kind": "logistic", "inputs": "vector", "weight": 0.6},
    ...          {"kind": "boosting", "inputs": "counts", "weight": 0.5}])
    'logistic, boosting on counts'
    """
    return ", ".join(
        part["kind"] + ("" if part["inputs"] == "vector" else f" on {part['inputs']}")
        for part in parts
    )


def _task(run: Run, head: Mapping[str, Any], axis: tuple[float, float]) -> dict[str, Any]:
    asked = run.settings["tasks"][head["task"]]
    colours = figures.class_colours([c["class"] for c in head["classes"]])
    roc = run.roc[head["task"]]
    return {
        **head,
        "column": asked["column"],
        "value": asked["value"],
        "brier": head.get("brier"),
        "calibration_error": head.get("calibration_error"),
        "made_of": made_of(head.get("head", [])),
        "majority": max(c["n_users"] for c in head["classes"]) / head["n_users"],
        "colours": colours,
        "curves": list(roc),
        "dots": figures.score_dots(
            head["auc"], head["auc_se"], [fold["auc"] for fold in head["folds"]], axis
        ),
        "roc": figures.roc(roc, colours, f"ROC curves of {head['task']}"),
    }
