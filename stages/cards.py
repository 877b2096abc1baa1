"""The data card and the model card of the run, from what the stages measured.

In:  what the stages reported, as JSON; the scores of all tasks; the measured confidence.
Out: two Markdown files (lurm/reporting/cards.py).
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lurm.console import run_stage
from lurm.params import START, load_params
from lurm.reporting.cards import Release, data_card, model_card
from lurm.storage import month_files, read_json, write_text

log = logging.getLogger("cards")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("reports", "confidence", "data-card", "model-card"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    reports, params = args.reports, load_params("params.yaml")
    months, tasks = list(params.months), list(params.tasks)

    def each(kind: str, names: list[str]) -> dict[str, Any]:
        files = month_files(reports / kind, names, ".json") if names else []
        return {name: read_json(file) for name, file in zip(names, files, strict=True)}

    heads = each("heads", tasks).values()
    release = Release(
        settings=params.model_dump(mode="json"),
        catalog=each("catalog", [START, *months]),
        months=each("validation", months),
        comparison=read_json(reports / "months.json"),
        drift=each("drift", months),
        index=each("index", months[-1:])[months[-1]],
        items=read_json(reports / "embed_items.json"),
        clustering=read_json(reports / "cluster_interests.json"),
        smen=read_json(reports / "pretrain_smen.json"),
        confidence=read_json(args.confidence),
        heads=[head for head in heads if "skipped" not in head],
        skipped=[head for head in heads if "skipped" in head],
        scores=read_json(reports / "scores.json"),
    )
    write_text(data_card(release), args.data_card)
    write_text(model_card(release), args.model_card)
    log.info("%s, %s", args.data_card, args.model_card)


if __name__ == "__main__":
    run_stage(main)
