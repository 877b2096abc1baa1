"""Behavior logs of any size with realistic skew, month by month, streamed to disk in bounded memory.

    python -m benchmarks.logs --folder runs/logs --behaviors 1e8 --users 1e6 --months 24

Writes ``behaviors/<month>.parquet`` (:data:`lurm.tables.BEHAVIORS`, sorted by user, time, item) and
``item_interests.parquet`` (:data:`lurm.tables.ITEM_INTERESTS`).

- *Users* act at rates of a truncated Pareto distribution: half of the behaviors are those of a few.
  Half of them arrive over time. A user is active in three months out of four from then on.
- *Interests* follow Zipf's law, and so do the items within one. Most of a user's behaviors fall on
  tastes of his own, so that bags are as narrow as real ones.

The same arguments give the same bytes. Every block of users has its own random streams, one for its
users and one for each month, so memory follows the block and neither the users nor the months.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lurm.months import month_bounds, month_name, month_number
from lurm.storage import replacing, write_parquet
from lurm.tables import TIMESTAMP

FIRST = month_number("2015-01")
ROWS = 1 << 19  # behaviors of a block, about
TAIL, LONGEST = 1.2, 2000.0  # Pareto's exponent, and the greatest rate over the least
ZIPF = 1.05
N_TASTES, TASTE_SHARE = 16, 0.8
ACTIVE = 0.75
SCHEMA = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", TIMESTAMP)])


@dataclass(frozen=True)
class World:
    """How many of everything there is, and the seed; items are a multiple of interests.

    Raises:
        ValueError: there is none of something, or items do not divide evenly among interests.
    """

    n_behaviors: int
    n_users: int
    n_months: int
    n_items: int
    n_interests: int
    seed: int = 0
    newcomers: float = 0.5  # share of users who are not there from the first month

    def __post_init__(self) -> None:
        counts = (self.n_behaviors, self.n_users, self.n_months, self.n_items, self.n_interests)
        if min(counts) < 1 or self.n_items % self.n_interests:
            raise ValueError(
                "generated logs: expected one or more behaviors, users, months, items and interests, and "
                f"items that are a multiple of interests, got {', '.join(map(str, counts))}"
            )

    @property
    def users_per_block(self) -> int:
        """Users that together make about ``ROWS`` behaviors a month."""
        per_month = self.n_behaviors / self.n_months / self.n_users
        return max(1, min(self.n_users, int(ROWS / per_month)))


def zipf(uniform: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Ranks 0..n-1 by Zipf's law, from numbers drawn from [0, 1); the continuous law, cut down."""
    power = 1 - ZIPF
    ranks = ((float(n + 1) ** power - 1) * uniform + 1) ** (1 / power)
    return np.minimum(ranks.astype(np.int64) - 1, n - 1)


def mean_rate() -> float:
    """The mean of a Pareto distribution between 1 and ``LONGEST``."""
    a = TAIL
    return a / (a - 1) * (1 - LONGEST ** (1 - a)) / (1 - LONGEST**-a)


def block(world: World, number: int, month: int) -> pa.Table:
    """The behaviors of one block of users in one month (0, 1, ...)."""
    first = number * world.users_per_block
    n = min(world.users_per_block, world.n_users - first)
    of_users = np.random.default_rng([world.seed, number, 0])
    rates = (1 - of_users.random(n) * (1 - LONGEST**-TAIL)) ** (-1 / TAIL) / mean_rate()
    # Newcomers arrive evenly over all months; the others are there from the first.
    is_new = of_users.random(n) < world.newcomers
    arrivals = np.where(is_new, of_users.integers(0, world.n_months, n), 0)
    tastes = zipf(of_users.random((n, N_TASTES)), world.n_interests)

    rng = np.random.default_rng([world.seed, number, 1 + month])
    months = np.arange(world.n_months)
    there = np.mean(
        1 - world.newcomers * (1 - (months + 1) / world.n_months)
    )  # of users, on average
    per_user = world.n_behaviors / world.n_months / world.n_users / (there * ACTIVE)
    active = (arrivals <= month) & (rng.random(n) < ACTIVE)
    counts = rng.poisson(np.where(active, rates * per_user, 0))
    user = np.repeat(np.arange(n), counts)
    rows = len(user)
    of_taste = zipf(rng.random(rows), N_TASTES)
    interest = np.where(
        rng.random(rows) < TASTE_SHARE,
        tastes[user, of_taste],
        zipf(rng.random(rows), world.n_interests),
    )
    rank = zipf(rng.random(rows), world.n_items // world.n_interests)
    start, end = (
        int(bound.timestamp()) for bound in month_bounds(month_name(FIRST + month), "UTC")
    )
    seconds = rng.integers(start, end, rows)
    item = rank * world.n_interests + interest
    order = np.lexsort((item, seconds, user))
    columns = [first + user, item[order], seconds[order] * 1_000_000]
    return pa.table(
        [pa.array(columns[0]), pa.array(columns[1]), pa.array(columns[2]).cast(TIMESTAMP)],
        schema=SCHEMA,
    )


def blocks(world: World, month: int) -> Iterator[pa.Table]:
    """All blocks of a month, by user."""
    for number in range(-(-world.n_users // world.users_per_block)):
        yield block(world, number, month)


def item_interests(world: World) -> pa.Table:
    """The map that every item has one interest by (:data:`lurm.tables.ITEM_INTERESTS`)."""
    items = np.arange(world.n_items)
    return pa.table(
        {
            "item_id": items,
            "interest": pa.array((items % world.n_interests).astype(np.int32)),
            "weight": pa.array(np.ones(world.n_items, np.float32)),
            "cosine": pa.array(np.ones(world.n_items, np.float32)),
        }
    )


def write_logs(world: World, folder: Path) -> int:
    """Write the map and every month into ``folder``; returns how many behaviors there are."""
    write_parquet(item_interests(world), folder / "item_interests.parquet")
    rows = 0
    for month in range(world.n_months):
        path = folder / "behaviors" / f"{month_name(FIRST + month)}.parquet"
        with (
            replacing(path) as temporary,
            pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer,
        ):
            for table in blocks(world, month):
                writer.write_table(table)
                rows += len(table)
    return rows


def whole(text: str) -> int:
    """The integer that ``text`` says, also as 1e8."""
    return int(float(text))


def main(argv: Sequence[str] | None = None) -> None:
    """Write the logs that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    for name, default in {
        "behaviors": 1e7,
        "users": 1e5,
        "months": 24,
        "items": 1e6,
        "interests": 1e4,
        "seed": 0,
    }.items():
        parser.add_argument(f"--{name}", type=whole, default=int(default))
    args = parser.parse_args(argv)
    world = World(
        args.behaviors, args.users, args.months, args.items, args.interests, seed=args.seed
    )
    print(f"{write_logs(world, args.folder):,} behaviors in {args.folder}")


if __name__ == "__main__":
    main()
