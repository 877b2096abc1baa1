"""The scores of the run as one record, and its page for people.

In:  what the stages reported: one JSON per month and kind, losses and ROC curves as CSV, scores of
     the heads; the table of interests.
Out: the scores of all tasks as JSON; one HTML page that needs nothing from outside.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv

from lurm.console import run_stage
from lurm.params import START, load_params
from lurm.reporting.report_page import Run, curves, report_page
from lurm.reporting.scores import summary
from lurm.storage import month_files, read_json, read_parquet, write_json, write_text

log = logging.getLogger("report")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("reports", "interests", "page", "scores"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    reports, params = args.reports, load_params("params.yaml")
    months, tasks = list(params.months), list(params.tasks)

    def each(kind: str, names: list[str]) -> dict[str, Any]:
        files = month_files(reports / kind, names, ".json")
        return {name: read_json(file) for name, file in zip(names, files, strict=True)}

    smen = read_json(reports / "pretrain_smen.json")
    heads = list(each("heads", tasks).values()) if tasks else []
    kinds = {
        name: "attribute" if task.value is None else "category"
        for name, task in params.tasks.items()
    }
    scores = summary(heads, smen["model_version"], kinds)
    run = Run(
        settings=params.model_dump(mode="json"),
        catalog=each("catalog", [START, *months]),
        months=each("validation", months),
        comparison=read_json(reports / "months.json"),
        trailing={row["month"]: row for row in read_csv(reports / "months.csv", "month")},
        items=read_json(reports / "embed_items.json"),
        item_losses=[row["loss"] for row in read_csv(reports / "embed_items.csv")],
        clustering=read_json(reports / "cluster_interests.json"),
        interests=read_parquet(args.interests),
        assigned=each("assign_items", months),
        smen=smen,
        smen_losses=[row["loss"] for row in read_csv(reports / "pretrain_smen.csv")],
        heads=[head for head in heads if "skipped" not in head],
        skipped=[head for head in heads if "skipped" in head],
        roc={
            head["task"]: curves(read_csv(reports / "roc" / f"{head['task']}.csv", "class"))
            for head in heads
            if "skipped" not in head
        },
        scores=scores,
        drift=each("drift", months),
    )
    page = report_page(run, os.path.relpath(reports / "validation", args.page.parent))
    write_text(page, args.page)
    write_json(scores, args.scores)
    log.info("%d months, %d tasks: %s, %s", len(months), len(tasks), args.page, args.scores)


def read_csv(path: Path, text: str = "") -> list[dict[str, Any]]:
    """The rows of a CSV file; the column ``text`` stays as it is written."""
    kinds = csv.ConvertOptions(column_types={text: pa.string()})
    return csv.read_csv(path, convert_options=kinds).to_pylist()


if __name__ == "__main__":
    run_stage(main)
