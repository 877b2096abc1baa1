"""What the first month is held against: the interests as the models were trained on them.

In:  the table of interests, with the behaviors of the training months in each.
Out: the state of the drift before the first month (lurm/drift.py); a table of labels without rows, so that
     the folder of label months exists where no task asks about any.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from lurm.console import run_stage
from lurm.drift import TRAINING, to_table
from lurm.storage import read_parquet, write_parquet
from lurm.tables import LABELS

log = logging.getLogger("open_drift")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("interests", "state", "labels"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)

    interests = read_parquet(args.interests, ["interest", "n_behaviors"]).to_pylist()
    masses = {str(row["interest"]): float(row["n_behaviors"]) for row in interests}
    write_parquet(
        to_table({TRAINING: {"figure": {}, "interest": masses}}), args.state / "measures.parquet"
    )
    write_parquet(pa.schema({**LABELS, "user_id": pa.string()}).empty_table(), args.labels)
    log.info("%s: %d interests, %.0f behaviors", args.state, len(masses), sum(masses.values()))


if __name__ == "__main__":
    run_stage(main)
