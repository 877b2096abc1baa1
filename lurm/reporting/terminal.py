"""The table of tasks at the end of a run: ``python -m lurm.reporting.terminal SCORES PAGE``."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lurm.console import run_stage
from lurm.storage import read_json


def table(scores: Mapping[str, Any]) -> str:
    """The scores as aligned text, in percent. scores: see :func:`lurm.reporting.scores.summary`."""
    rows = [("task", "users", "AUC", "ACC", "Brier", "calib.")]
    rows += [
        (
            task["task"],
            f"{task['n_users']:,}",
            _auc(task["auc"], task["auc_se"]),
            *(_percent(task.get(figure)) for figure in ("acc", "brier", "calibration_error")),
        )
        for task in scores["tasks"]
    ]
    for kind, mean in scores.get("mean_auc_by_kind", {}).items():
        rows.append((f"mean, {kind}", "", f"{100 * mean:.1f}", "", "", ""))
    if scores["mean_auc"] is not None:
        rows.append(("mean", "", _auc(scores["mean_auc"], scores["mean_auc_se"]), "", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _auc(value: float, error: float) -> str:
    return f"{100 * value:.1f} ± {100 * error:.1f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and where the page lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", type=Path)
    parser.add_argument("page", type=Path)
    args = parser.parse_args(argv)
    scores = read_json(args.scores)
    print(f"Model {scores['model_version']}, scores in percent\n")
    print(table(scores))
    for task in scores.get("skipped", []):
        print(f"\nSkipped: {task['task']}: {task['skipped']}")
    print(f"\nReport: {args.page}")


if __name__ == "__main__":
    run_stage(main)
