"""Behaviors to monthly bags: the stage against DuckDB, Polars and pandas run bare on the same query.

    python -m benchmarks.bags                 # one month of 1e6, 1e7 and 1e8 behaviors
    python -m benchmarks.bags --spark         # Spark too; needs `make extras` and Java 17

Every engine reads one month's parquet files, joins, counts, sorts and writes one parquet file, in a process
of its own on all cores. The stage also checks that no behavior lacks an interest, keeps to the memory limit
of ``build_boi``, and names its file once it is on the disk; its rivals do none of that. ``ratio`` is
seconds over those of the fastest rival.

It is one shop with ever more users, ten items for each of ``--interests``. Where each item has one
interest, a hard map, all count behaviors. The second size comes with a soft map too, of two interests an
item: the rivals add its weights up as floats, in any order.

Of Spark the peak is that of the driver's Python alone.

On a machine that others use too, compare ``cpu_seconds`` (all cores together) as well.

pandas holds several copies of a month: it sits a size out if that would not fit into half of memory.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from benchmarks import logs
from benchmarks.measure import Measured, measure, result_path, slope, table, warm_memory
from lurm.boi import boi_query, check_assigned, counted
from lurm.console import run_stage
from lurm.database import database, literal, write_sorted
from lurm.params import Memory
from lurm.storage import file_hash, replacing, write_json, write_parquet

BYTES_PANDAS = 150  # a behavior takes about as many in pandas' joins
TOUCHED = 40  # bytes of memory for each behavior that are touched before a clock starts


# The bare query, of a hard and of a soft map.
BARE = """
SELECT user_id, interest, CAST({share} AS FLOAT) AS count
FROM behaviors JOIN item_interests USING (item_id)
GROUP BY user_id, interest ORDER BY user_id, interest
"""


def lurm(folder: Path, out: Path, memory_limit: str, _: bool) -> Callable[[], int]:
    """The stage's own path."""

    def work() -> int:
        behaviors, items = files(folder)
        with database(memory_limit, behaviors) as connection, replacing(out) as bags:
            connection.execute("SET enable_progress_bar = false")
            rows = write_sorted(connection, boi_query(connection, behaviors, items), bags)
            total = counted(connection.read_parquet(str(bags)))
            check_assigned(connection, total, behaviors, items)
            return rows

    return work


def duckdb_bare(folder: Path, out: Path, _: str, soft: bool) -> Callable[[], int]:
    """DuckDB: its own scan, and its own writer."""

    def work() -> int:
        connection = duckdb.connect()
        connection.execute("SET enable_progress_bar = false")
        for view, path in zip(("behaviors", "item_interests"), files(folder), strict=True):
            connection.execute(f"CREATE VIEW {view} AS FROM {literal(path)}")
        bags = BARE.format(share="SUM(weight)" if soft else "COUNT(*)")
        rows = connection.execute(f"COPY ({bags}) TO {literal(out)} (COMPRESSION zstd)")
        return int(rows.fetchall()[0][0])

    return work


def polars(folder: Path, out: Path, _: str, soft: bool) -> Callable[[], int]:
    """Polars: lazy, on its streaming engine."""
    import polars as pl

    def work() -> int:
        behaviors, items = map(pl.scan_parquet, files(folder))
        share = pl.col("weight").sum() if soft else pl.len().cast(pl.Float32)
        bags = (
            behaviors.join(items, on="item_id")
            .group_by("user_id", "interest")
            .agg(share.alias("count"))
            .sort("user_id", "interest")
        )
        bags.sink_parquet(out, compression="zstd", engine="streaming")
        return pq.read_metadata(out).num_rows

    return work


def pandas(folder: Path, out: Path, _: str, soft: bool) -> Callable[[], int]:
    """pandas: the columns it needs, all in memory."""
    import pandas as pd

    def work() -> int:
        behaviors, items = files(folder)
        users = pd.read_parquet(behaviors, columns=["user_id", "item_id"])
        interests = pd.read_parquet(items, columns=["item_id", "interest", "weight"])
        weights = users.merge(interests, on="item_id").groupby(["user_id", "interest"])["weight"]
        counts = weights.sum() if soft else weights.size().astype("float32")
        bags = counts.rename("count").reset_index()
        bags.to_parquet(out, compression="zstd", index=False)
        return len(bags)

    return work


def spark(folder: Path, out: Path, memory_limit: str, _: bool) -> Callable[[], int]:
    """The stage's path on Spark, local[2]; the session's start counts."""
    from lurm.boi_on_spark import write_boi_parts
    from lurm.spark import spark as session_on

    def work() -> int:
        behaviors, items = files(folder)
        with (
            tempfile.TemporaryDirectory(dir=folder) as parts,
            database(memory_limit, behaviors) as connection,
        ):
            with session_on("build_boi", "local[2]", memory_limit) as session:
                paths = write_boi_parts(session, behaviors, items, Path(parts, "parts"))
            listed = ", ".join(map(literal, paths))
            query = f"FROM read_parquet([{listed}]) ORDER BY user_id, interest"
            rows = write_sorted(connection, query, out)
            check_assigned(connection, counted(connection.read_parquet(str(out))), behaviors, items)
            return rows

    return work


RIVALS = {"duckdb": duckdb_bare, "polars": polars, "pandas": pandas}


def files(folder: Path) -> tuple[Path, Path]:
    """The month's behaviors, and the items' interests."""
    (behaviors,) = (folder / "behaviors").glob("*.parquet")
    return behaviors, folder / "item_interests.parquet"


def share_out(item_interests: Path) -> None:
    """Every item gets a second interest, the next, and each of the two a share."""
    hard = pq.read_table(item_interests)
    item, interest = (hard[name].to_numpy() for name in ("item_id", "interest"))
    share = np.random.default_rng(0).uniform(0.1, 0.9, len(hard))
    soft = {
        "item_id": np.tile(item, 2),
        "interest": np.concatenate([interest, (interest + 1) % (interest.max() + 1)]),
        "weight": np.concatenate([share, 1 - share]).astype(np.float32),
        "cosine": np.tile(hard["cosine"].to_numpy(), 2),
    }
    write_parquet(pa.table(soft, schema=hard.schema), item_interests)


def same_bags(one: Path, other: Path, soft: bool) -> bool:
    """Whether two files hold the same rows in the same order; counts of a soft map to rounding."""
    a, b = (pq.read_table(path, columns=["user_id", "interest", "count"]) for path in (one, other))
    return (
        len(a) == len(b)
        and all(
            np.array_equal(a[name].to_numpy(), b[name].to_numpy()) for name in a.column_names[:2]
        )
        and np.allclose(a["count"].to_numpy(), b["count"].to_numpy(), 1e-4 if soft else 0, atol=0)
    )


def compare(
    n_behaviors: int,
    n_interests: int,
    folder: Path,
    memory_limit: str,
    repeats: int,
    with_spark: bool,
    soft: bool,
) -> list[dict[str, Any]]:
    """One row for each engine on a month of the shop; medians of ``repeats`` runs in turn.

    Raises:
        ValueError: an engine gives other bags than the stage.
    """
    world = logs.World(
        n_behaviors,
        n_users=max(10, n_behaviors // 50),
        n_months=1,
        n_items=10 * n_interests,
        n_interests=n_interests,
    )
    n = logs.write_logs(world, folder)
    if soft:
        share_out(files(folder)[1])
    engines = {"lurm": lurm, **RIVALS} | ({"spark": spark} if with_spark else {})
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n * BYTES_PANDAS > memory / 2:
        del engines["pandas"]
    runs: dict[str, list[Measured]] = {name: [] for name in engines}
    for _ in range(repeats):
        for name, engine in engines.items():
            out = folder / f"{name}.parquet"
            warm_memory(min(n * TOUCHED, memory / 4))
            runs[name].append(measure(engine, folder, out, memory_limit, soft))
            if not same_bags(folder / "lurm.parquet", out, soft):
                raise ValueError(f"{name} gives other bags than the stage for {n:,} behaviors")
    if with_spark and file_hash(folder / "lurm.parquet") != file_hash(folder / "spark.parquet"):
        raise ValueError(f"Spark gives other bytes than DuckDB for {n:,} behaviors")
    seconds = {name: float(np.median([run.seconds for run in of])) for name, of in runs.items()}
    fastest = min(seconds[name] for name in RIVALS if name in seconds)
    return [
        {
            "engine": name,
            "map": "soft" if soft else "hard",
            "behaviors": n,
            "interests": n_interests,
            "bags": of[0].value,
            "seconds": seconds[name],
            "cpu_seconds": float(np.median([run.cpu_seconds for run in of])),
            "ratio": seconds[name] / fastest,
            "peak_mb": max(run.peak_mb for run in of),
        }
        for name, of in runs.items()
    ]


def memory(text: str) -> str:
    """A limit as params.yaml takes it."""
    return str(TypeAdapter(Memory).validate_python(text))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=logs.whole, nargs="+", default=[10**6, 10**7, 10**8])
    parser.add_argument("--interests", type=logs.whole, default=10**4)
    parser.add_argument("--memory-limit", type=memory, default="1GB")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--spark", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--result", type=Path, help="default: reports/benchmarks/bags.json")
    args = parser.parse_args(argv)
    sizes, repeats, n_interests = args.sizes, args.repeats, args.interests
    if args.tiny:
        sizes, repeats, n_interests = [1000, 10_000], 1, 100
    rows = []
    for size, soft in [*((size, False) for size in sizes), *((size, True) for size in sizes[1:2])]:
        with tempfile.TemporaryDirectory() as folder:
            fewer_if_long = repeats if size <= 10**7 else min(repeats, 3)
            limits = (args.memory_limit, fewer_if_long, args.spark)
            of_size = compare(size, n_interests, Path(folder), *limits, soft)
        print(table(of_size), flush=True)
        rows += of_size
    ours = [row for row in rows if (row["engine"], row["map"]) == ("lurm", "hard")]
    slopes = {
        what: slope([row["behaviors"] for row in ours], [row[what] for row in ours])
        for what in ("seconds", "cpu_seconds")
    }
    print(f"slopes of the stage in behaviors: {slopes}")
    if len(ours) > 1:
        last, tenfold = ours[-1], 10 ** slopes["seconds"][-1]
        more = f"{10 * last['behaviors']:,} behaviors"
        print(f"{more}: {last['seconds'] * tenfold:,.1f} s by the last slope")
    write_json(
        {"memory_limit": args.memory_limit, "rows": rows, "slope": slopes},
        result_path("bags", parser, args),
    )


if __name__ == "__main__":
    run_stage(main)
