"""What a training and a month cost at the paper's size, by what a user costs on generated logs.

    python -m benchmarks.whole --grow 2 ...    # measures at two sizes, ten times apart
    python -m benchmarks.paper_size            # extrapolates from there to 214 million users

What another user costs is the difference between the two largest sizes over the users between them, so that
what every process takes to start is not in it. It is assumed to stay the same beyond, but for the search
index, whose cells grow with the root of the users. Stages of items and interests do not follow users.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import table
from lurm.console import run_stage
from lurm.storage import read_json

USERS = 214_317_285  # of the paper's industrial data
CORES = 64  # of one machine
MONTHLY = (
    *("update_catalog", "validate_logs", "assign_items", "build_boi", "encode_users"),
    *("index_users", "apply_heads", "watch_drift"),
)
TRAINING = ("pin_training", "build_timelines", "pretrain_smen", "train_heads")
MONTHLY_DATA = ("behaviors", "boi", "states", "user_vectors", "index", "predictions")
# How costs grow with users, where not in proportion: an index has as many cells as the root of its users.
POWER = {"index_users": 1.5}


def per_user(small: Mapping[str, float], large: Mapping[str, float], what: str) -> float:
    """What another user adds to ``what``; not below zero, where it drowns in what a start takes."""
    return max(0.0, (large[what] - small[what]) / (large["users"] - small["users"]))


def cost(found: Mapping[str, Any], stage: str, users: int) -> dict[str, Any]:
    """The row of one stage: CPU seconds of a million users, and CPU hours of ``users``.

    A monthly stage's are those of one month, the mean over the months.
    """
    small, large = sorted(
        (row for row in found["rows"] if row["stage"] == stage), key=lambda row: row["users"]
    )[-2:]
    runs = large["runs"] if stage in MONTHLY else 1
    seconds = per_user(small, large, "cpu_seconds") / runs
    growth = (users / large["users"]) ** (POWER.get(stage, 1) - 1)
    return {
        "stage": stage,
        "once": "a month" if stage in MONTHLY else "a training",
        "cpu_s_per_1e6_users": seconds * 1e6,
        "cpu_hours": seconds * users * growth / 3600,
        f"hours_on_{CORES}_cores": seconds * users * growth / 3600 / CORES,
    }


def storage(found: Mapping[str, Any], kind: str, users: int) -> dict[str, Any]:
    """The row of one kind of data: bytes per user in a month, and terabytes of ``users``."""
    small, large = sorted(found["bytes"], key=lambda row: row["users"])[-2:]
    each = per_user(small, large, kind)
    return {"a month of": kind, "bytes_per_user": each, "terabytes": each * users / 1e12}


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=lambda text: int(float(text)), default=USERS)
    parser.add_argument("--measured", type=Path, default=Path("reports/benchmarks/whole.json"))
    args = parser.parse_args(argv)
    found = read_json(args.measured)
    if len({row["users"] for row in found["rows"]}) < 2:
        raise ValueError(
            f"{args.measured}: expected two sizes or more, found one; run benchmarks.whole with --grow 2"
        )
    print(table([cost(found, stage, args.users) for stage in (*TRAINING, *MONTHLY)]))
    print()
    print(table([storage(found, kind, args.users) for kind in MONTHLY_DATA]))


if __name__ == "__main__":
    run_stage(main)
