"""What a training and a month cost at the paper's size, by what a user costs on generated logs.

    python -m benchmarks.paper_size            # extrapolates what is in git to 214 million users
    python -m benchmarks.whole                 # measures anew, at three sizes ten times apart

What another user costs is the difference between the two largest sizes over the users between them, so that
what every process takes to start is not in it. A month costs what the longest of them did, when all users
had come in. Costs are assumed to stay the same beyond, but for the search index, whose cells grow with the
root of the users. Stages of items and interests do not follow users.

Hours are CPU hours over the cores that a stage can use as it is built (``SPREAD``), as if these were all
busy to the end. docs/at-the-papers-size.md has the tables, and what else they rest on.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import table
from lurm.console import run_stage
from lurm.storage import read_json

USERS = 214_317_285  # of the paper's industrial data
MACHINES, CORES = 10, 64  # and cores of one machine
# Over what a stage spreads its work; all others take one thread.
SPREAD = {
    "build_boi": "machines",  # Spark
    "encode_users": "machines",  # but for what comes before and behind the shards
}
# What holds a part of the users at a time. Their peaks still grew, by ids and by pages of mapped files.
BOUNDED = {
    *("validate_logs", "build_boi", "build_timelines", "pretrain_smen"),
    *("encode_users", "train_heads", "apply_heads", "watch_drift", "cluster_interests"),
}
DATA = ("behaviors", "boi", "states", "user_vectors", "index", "predictions", "timelines")
# How costs grow with users, where not in proportion: an index has as many cells as the root of its users.
POWER = {"index_users": 1.5}
NEGLIGIBLE = 1.0  # CPU seconds for a million users


def per_user(small: Mapping[str, float], large: Mapping[str, float], what: str) -> float:
    """What another user adds to ``what``; not below zero, where it drowns in what a start takes."""
    return max(0.0, (large[what] - small[what]) / (large["users"] - small["users"]))


def cost(found: Mapping[str, Any], stage: str, users: int) -> dict[str, Any]:
    """The row of one stage: CPU seconds of a million users; CPU hours, hours and memory of ``users``.

    A monthly stage's are those of one month, the longest.
    """
    small, large = sorted(
        (row for row in found["rows"] if row["stage"] == stage), key=lambda row: row["users"]
    )[-2:]
    seconds = per_user(small, large, "cpu_seconds") * large["longest"] / large["seconds"]
    growth = (users / large["users"]) ** (POWER.get(stage, 1) - 1)
    cpu_hours = seconds * users * growth / 3600
    spread = SPREAD.get(stage, "one thread")
    cores = {"one thread": 1, "machines": MACHINES * CORES}[spread]
    memory = large["peak_mb"] + per_user(small, large, "peak_mb") * (users - large["users"])
    return {
        "stage": stage,
        "once": "a month" if large["runs"] > 1 else "a training",
        "cpu_s_per_1e6_users": seconds * 1e6,
        "cpu_hours": cpu_hours,
        "spreads_over": spread,
        "hours": cpu_hours / cores,
        "memory_gb": "bounded" if stage in BOUNDED else memory / 1000,
    }


def costs(found: Mapping[str, Any], users: int) -> list[dict[str, Any]]:
    """The rows of all stages that follow users, in the pipeline's order."""
    stages = dict.fromkeys(row["stage"] for row in found["rows"])
    rows = [cost(found, stage, users) for stage in stages]
    return [row for row in rows if row["cpu_s_per_1e6_users"] >= NEGLIGIBLE]


def together(rows: Sequence[Mapping[str, Any]], once: str) -> dict[str, Any]:
    """The row of all stages that run once a month, or once a training, one after the other."""
    of = [row for row in rows if row["once"] == once]
    sums = {
        name: sum(row[name] for row in of) for name in ("cpu_s_per_1e6_users", "cpu_hours", "hours")
    }
    return {"stage": "together", "once": once, "spreads_over": "", "memory_gb": "", **sums}


def storage(found: Mapping[str, Any], kind: str, users: int) -> dict[str, Any]:
    """The row of one kind of data, of a month if it has any: bytes per user, terabytes of ``users``."""
    small, large = sorted(found["bytes"], key=lambda row: row["users"])[-2:]
    each = per_user(small, large, kind)
    return {"data": kind, "bytes_per_user": each, "terabytes": each * users / 1e12}


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=lambda text: int(float(text)), default=USERS)
    parser.add_argument("--measured", type=Path, default=Path("reports/benchmarks/whole.json"))
    args = parser.parse_args(argv)
    if not args.measured.exists():
        raise FileNotFoundError(
            f"{args.measured}: expected the figures of two sizes, found none; run "
            "`python -m benchmarks.whole`, an hour or more"
        )
    found = read_json(args.measured)
    if len({row["users"] for row in found["rows"]}) < 2:
        raise ValueError(
            f"{args.measured}: expected two sizes or more, found one; run benchmarks.whole with --grow 2"
        )
    rows = costs(found, args.users)
    print(table([*rows, together(rows, "a month"), together(rows, "a training")]))
    print()
    print(table([storage(found, kind, args.users) for kind in DATA]))


if __name__ == "__main__":
    run_stage(main)
