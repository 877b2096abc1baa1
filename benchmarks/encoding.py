"""A month's encoding against encoding the whole life again, at sixty months, both from file to file.

    python -m benchmarks.encoding [--device cuda --users 30000]

Users with generated lives (benchmarks/logs.py), active in three months of four, of whom half or none come
in after the first month; SMEN at the paper's sizes, month and year scale, vectors of 64 numbers.
*a month* is what the stage does (:mod:`lurm.shards`): bags, the published table of the month before and
states are read, states and the table are written; its time is the mean of the last twelve, so that a
year's open bag is seen from empty to full. *quiet* is one more month, in which one user of a hundred is
active. *lives* is one encoding of all users' lives, with the table written; before it, bags of all months
are read and brought together by user. Users per second count all users whose vector is published, active or
not. CPU seconds, one thread for what is computed; with a GPU wall seconds.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy import sparse

from benchmarks import logs
from benchmarks.measure import free_memory, measure, now, result_path, slope, table, warm_memory
from lurm.console import run_stage
from lurm.distributed import check_device
from lurm.history import N_ACTIVITY, timeline_history
from lurm.months import month_name, month_number
from lurm.pretraining import view_periods
from lurm.projection import INTEREST, KINDS, Block, Projection, ProjectionSettings
from lurm.shards import Month, divide, encode_shard, finish
from lurm.smen import Smen, SmenSettings, model_settings, model_tensors
from lurm.states import SHARD
from lurm.storage import read_parquet, write_json, write_parquet, write_tensors
from lurm.tables import user_vectors_schema
from lurm.timelines import build_timelines

N_INTERESTS, M, H, PUBLISHED = 10_000, 10, 128, 256
PER_MONTH = 20  # behaviors of a user
TIMED = 12  # the last months
CHUNKS = {"cpu": 64, "cuda": 256}  # lives encoded at once; fewer or more take longer
# Of the free memory, before a clock starts, and bytes for each user at most; see warm_memory.
TOUCHED, TOUCHED_PER_USER = 0.7, 1_000_000


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


def random_smen() -> Smen:
    """A SMEN at the paper's sizes with weights far from zero."""
    torch.manual_seed(0)
    scales = {"month": 1, "year": 12}
    smen = Smen(SmenSettings(N_INTERESTS, M, H, scales, published_width=PUBLISHED)).eval()
    torch.nn.init.normal_(smen.multi_anchor.interests, std=0.3)
    smen.attach(random_projection())
    return smen


def random_projection() -> Projection:
    """A projection of usual sizes: a catalog column of 300 values, 150 directions a block, 600 targets."""
    rng = np.random.default_rng(0)
    sizes = {INTEREST: N_INTERESTS, "category": 300}
    blocks = [Block(kind, source, 150) for source in sizes for kind in KINDS]
    blocks += [Block("activity", "", N_ACTIVITY), Block("smen", "", 150)]
    targets = {INTEREST: 300, "category": 300}
    projection = Projection(ProjectionSettings(PUBLISHED, M * H, sizes, blocks, targets)).eval()
    category = (np.ones(N_INTERESTS), (np.arange(N_INTERESTS), np.arange(N_INTERESTS) % 300))
    table = sparse.csr_matrix(category, shape=(N_INTERESTS, 300), dtype=np.float32)
    projection.compositions = {"category": table}
    rows = {**sizes, "activity": N_ACTIVITY, "smen": M * H}
    for block in blocks:
        axes = rng.standard_normal((rows[block.source or block.kind], block.width))
        projection.axes.append((axes / block.width).astype(np.float32))
    projection.rows = {INTEREST: np.arange(300), "category": np.arange(300)}
    for tensor in (projection.score, projection.linear_out, projection.pair_out):
        torch.nn.init.normal_(tensor, std=0.03)
    return projection


def encode(
    n_users: int, n_months: int, newcomers: float, device: str, touched: float
) -> Callable[[], Any]:
    """Seconds of months, of a quiet month and of whole lives; how far apart vectors are; bytes of files.

    ``touched`` is the share of free memory that is touched before a clock starts, at most.
    """
    torch.set_num_threads(1)
    smen = random_smen()

    def warm() -> None:
        warm_memory(min(touched * free_memory(), n_users * TOUCHED_PER_USER))

    def encode_month(folder: Path, month: int, previous: str, boi: pa.Table) -> float:
        name = month_name(month)
        write_parquet(boi, folder / f"boi/{name}.parquet")
        (scratch := folder / "scratch").mkdir(exist_ok=True)
        of_month = Month(
            name,
            *(folder / f"boi/{name}.parquet", folder / f"vectors/{previous}.parquet"),
            *(folder / "states", folder / "smen.safetensors", folder / "confidence.json"),
            *(folder / "states" / name, scratch),
            device,
        )
        start = now(device)
        shards = divide(of_month, SHARD)
        for shard in shards:
            encode_shard(of_month, shard)
        finish(of_month, shards, folder / f"vectors/{name}.parquet")
        return now(device) - start

    def encode_lives(folder: Path) -> tuple[float, float]:
        smen.to(device)
        schema = user_vectors_schema(PUBLISHED, pa.int64())
        warm()
        start = now(device)
        months = sorted((folder / "boi").iterdir())[:n_months]
        last_month = month_number(months[-1].stem)
        lives = build_timelines({month_number(path.stem): read_parquet(path) for path in months})
        arranged, whole = now(device) - start, []
        with torch.inference_mode():
            for first in range(0, len(lives), CHUNKS[device]):
                rows = np.arange(first, min(first + CHUNKS[device], len(lives)))
                edges = (some := lives.take(rows)).first_bag
                periods = view_periods(some, edges[:-1], edges[1:], smen.settings)
                history = timeline_history(some, edges[:-1], edges[1:], last_month, N_INTERESTS)
                whole.append(smen.publish(smen(periods), history).cpu())
        vectors = torch.cat(whole).numpy()
        columns: dict[str, Any] = {
            name: pa.nulls(len(lives), kind)
            for name, kind in zip(schema.names, schema.types, strict=True)
        }
        columns["user_id"] = lives.users
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), PUBLISHED)
        write_parquet(pa.table(columns, schema=schema), folder / "lives.parquet")
        return arranged, now(device) - start - arranged

    def work() -> Any:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_tensors(
                model_tensors(smen),
                folder / "smen.safetensors",
                {"model_version": "v", **model_settings(smen)},
            )
            write_json({"points": []}, folder / "confidence.json")
            nobody = user_vectors_schema(PUBLISHED, pa.int64()).empty_table()
            write_parquet(nobody, folder / "vectors/start.parquet")
            months: list[float] = []
            previous = "start"
            for month, boi in monthly_bags(n_users, n_months, newcomers):
                if len(months) >= n_months - TIMED:
                    warm()
                months.append(encode_month(folder, month, previous, boi))
                previous = month_name(month)
            last = folder / f"vectors/{previous}.parquet"
            users = read_parquet(last)
            one_of_hundred = pa.array(boi["user_id"].to_numpy() % 100 == 0)
            quiet = encode_month(folder, month + 1, previous, boi.filter(one_of_hundred))
            arranged, encoded = encode_lives(folder)
            of_lives = read_parquet(folder / "lives.parquet")
            if not of_lives["user_id"].equals(users["user_id"]):
                raise ValueError("months and whole lives give vectors of different users")
            apart = np.abs(numbers(of_lives) - numbers(users)).max()
            return {
                "users": len(users),
                "month_seconds": float(np.mean(months[-TIMED:])),
                "quiet_seconds": quiet,
                "bringing_together_seconds": arranged,
                "lives_seconds": encoded,
                "apart": float(apart),
                "state_bytes_per_active_user": round(of_states(folder, previous)),
                "vector_bytes_per_user": round(last.stat().st_size / len(users)),
            }

    return work


def numbers(vectors: pa.Table) -> np.ndarray:
    """All numbers of all vectors."""
    return vectors["vector"].combine_chunks().flatten().to_numpy()


def of_states(folder: Path, month: str) -> float:
    """Bytes of a month's states by user active in it."""
    files = [path for path in (folder / "states" / month).rglob("*") if path.is_file()]
    active = pc.sum(
        pc.equal(read_parquet(folder / f"vectors/{month}.parquet")["last_month"], month)
    )
    return sum(path.stat().st_size for path in files) / active.as_py()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=logs.whole, default=20_000)
    parser.add_argument("--months", type=int, default=60)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it runs")
    parser.add_argument(
        "--result", type=Path, help="default: reports/benchmarks/encoding[_cuda].json"
    )
    args = parser.parse_args(argv)
    check_device(args.device)
    n_users, n_months = (400, 13) if args.tiny else (args.users, args.months)
    touched = 0 if args.tiny else TOUCHED

    rows: list[dict[str, Any]] = []
    sizes = [n_users // 100, n_users // 10, n_users]
    for size, newcomers in [*((size, 0.5) for size in sizes), (n_users, 0.0)]:
        run = measure(encode, size, n_months, newcomers, args.device, touched)
        found = run.value
        if found["apart"] > 1e-5:
            raise ValueError(f"a month and the whole life give vectors {found['apart']:g} apart")
        about = {"months": n_months, "newcomers": newcomers, "device": args.device}
        rates = {
            "ratio": (found["bringing_together_seconds"] + found["lives_seconds"])
            / found["month_seconds"],
            "users_per_second": found["users"] / found["month_seconds"],
            "peak_mb": run.peak_mb,
        }
        rows.append(about | found | rates)
        print(table(rows[-1:]), flush=True)
    grown = rows[: len(sizes)]
    slopes = slope([row["users"] for row in grown], [row["month_seconds"] for row in grown])
    print(f"slope of a month in the users: {slopes}")
    name = "encoding" if args.device == "cpu" else "encoding_cuda"
    write_json({"rows": rows, "slope": slopes}, result_path(name, parser, args))


if __name__ == "__main__":
    run_stage(main)
