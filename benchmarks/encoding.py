"""A month's encoding against encoding the whole life again, at sixty months.

    python -m benchmarks.encoding [--device cuda --users 30000]

Users with generated lives (benchmarks/logs.py), active in three months of four, of whom half or none come
in after the first month; SMEN at the paper's sizes, month and year scale. *a month* is
:func:`lurm.encoding.encode_month`, the mean of the last twelve: a year's open bag is seen from empty
to full; *lives* is one encoding of all bags of all users. Users per second count all users whose vector is
published, active or not. CPU seconds of one thread, or with a GPU wall seconds of it and one thread;
reading and writing files is not in it.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks import logs
from benchmarks.measure import measure, now, result_path, slope, table
from lurm.encoding import encode_month, no_users, user_vectors
from lurm.pretraining import view_periods
from lurm.smen import Smen, SmenSettings, Version
from lurm.states import save_states
from lurm.storage import write_json, write_parquet
from lurm.timelines import build_timelines

N_INTERESTS, M, H = 10_000, 10, 128
PER_MONTH = 20  # behaviors of a user
CHUNKS = {"cpu": 64, "cuda": 256}  # lives encoded at once; fewer or more take longer


def monthly_bags(n_users: int, n_months: int, newcomers: float) -> Iterator[tuple[int, pa.Table]]:
    """Month number and bags (:data:`lurm.tables.BOI`) of every month; an item is an interest here."""
    n_behaviors = n_users * n_months * PER_MONTH
    world = logs.World(
        n_behaviors, n_users, n_months, N_INTERESTS, N_INTERESTS, newcomers=newcomers
    )
    for month in range(n_months):
        behaviors = pa.concat_tables(logs.blocks(world, month))
        user, item = (behaviors[name].to_numpy() for name in ("user_id", "item_id"))
        keys, counts = np.unique(user * N_INTERESTS + item, return_counts=True)
        columns = {
            "user_id": keys // N_INTERESTS,
            "interest": (keys % N_INTERESTS).astype(np.int32),
            "count": counts.astype(np.float32),
        }
        yield logs.FIRST + month, pa.table(columns)


def encode(n_users: int, n_months: int, newcomers: float, device: str) -> Callable[[], Any]:
    """Seconds of a month and of whole lives, how far apart their vectors are, and the states' bytes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    smen = Smen(SmenSettings(N_INTERESTS, M, H, {"month": 1, "year": 12})).eval()
    torch.nn.init.normal_(smen.multi_anchor.interests, std=0.3)
    smen.to(device)
    torch.backends.cudnn.allow_tf32 = False  # a GRU's default on a GPU, and too coarse
    bags = dict(monthly_bags(n_users, n_months, newcomers))

    def work() -> Any:
        states = no_users(smen.settings, pa.int64())
        months = []
        for number, boi in bags.items():
            start = now(device)
            states, vectors = encode_month(smen, states, boi, number)
            months.append(now(device) - start)
        timelines = build_timelines(bags)
        start = now(device)
        whole = []
        with torch.inference_mode():
            for first in range(0, len(timelines.users), CHUNKS[device]):
                edges = timelines.first_bag[first : first + CHUNKS[device] + 1]
                periods = view_periods(timelines, edges[:-1], edges[1:], smen.settings)
                whole.append(smen(periods).cpu())
        lives = now(device) - start
        apart = np.abs(torch.cat(whole).flatten(1).numpy() - vectors).max()
        with tempfile.TemporaryDirectory() as folder:
            save_states(states, Path(folder), "v")
            state_bytes = sum(
                path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()
            )
            published = Path(folder, "vectors.parquet")
            nothing_known = np.zeros(len(vectors), dtype=np.float32)
            table = user_vectors(states, vectors, nothing_known, Version("v", "v"))
            write_parquet(table, published)
            vector_bytes = os.path.getsize(published)
        return months, lives, float(apart), state_bytes, vector_bytes, len(states.users)

    return work


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=logs.whole, default=3000)
    parser.add_argument("--months", type=int, default=60)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--result", type=Path, help="default: reports/benchmarks/encoding.json")
    args = parser.parse_args(argv)
    n_users, n_months = (200, 13) if args.tiny else (args.users, args.months)

    rows: list[dict[str, Any]] = []
    for size, newcomers in ((n_users // 10, 0.5), (n_users, 0.5), (n_users, 0.0)):
        run = measure(encode, size, n_months, newcomers, args.device)
        months, lives, apart, state_bytes, vector_bytes, n = run.value
        if apart > 1e-5:
            raise ValueError(f"a month and the whole life give vectors {apart:g} apart")
        month = float(np.mean(months[-12:]))
        rows.append(
            {
                "users": n,
                "months": n_months,
                "newcomers": newcomers,
                "device": args.device,
                "month_seconds": month,
                "lives_seconds": lives,
                "ratio": lives / month,
                "users_per_second": n / month,
                "state_bytes_per_user": round(state_bytes / n),
                "vector_bytes_per_user": round(vector_bytes / n),
                "apart": apart,
                "peak_mb": run.peak_mb,
            }
        )
        print(table(rows[-1:]), flush=True)
    slopes = slope([row["users"] for row in rows[:2]], [row["month_seconds"] for row in rows[:2]])
    print(f"slope of a month in the users: {slopes}")
    write_json({"rows": rows, "slope": slopes}, args.result or result_path("encoding", args.tiny))


if __name__ == "__main__":
    main()
