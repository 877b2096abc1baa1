"""Measure how far vectors can be trusted that rest on so many behaviors (lurm/confidence.py).

In:  the training timelines; the encoder.
Out: JSON with the measured points, which the months' vectors take their confidence from.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from lurm.confidence import measure_confidence
from lurm.console import run_stage
from lurm.months import month_number
from lurm.params import load_params
from lurm.smen import load_smen
from lurm.storage import write_json
from lurm.timelines import ShardedTimelines

log = logging.getLogger("measure_confidence")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("timelines", "smen", "confidence"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    settings, month = params.measure_confidence, month_number(params.training.through)
    torch.set_num_threads(1)  # the last digits depend on the number of threads

    smen, version = load_smen(args.smen)
    timelines = ShardedTimelines(args.timelines)
    found = measure_confidence(smen, timelines, month=month, **settings.model_dump())
    write_json({"model_version": version.model, **found}, args.confidence)
    points = found["points"]
    if not points:
        log.warning(
            "%s: expected %d users to compare, found %d with two behaviors; confidence is 0 for all",
            *(args.confidence, settings.min_group, found["users"]),
        )
    for point in points:
        log.info("%(n_behaviors)8.1f behaviors: confidence %(confidence).2f", point)


if __name__ == "__main__":
    run_stage(main)
