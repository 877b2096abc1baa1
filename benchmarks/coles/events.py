"""CoLES for the scorecard: hands the lives to the environment of its library, and reads vectors back.

Letters: U users, E events, H width.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lurm.storage import write_parquet

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parents[1] / ".venv-coles"
DAY = 86_400_000_000  # microseconds


def events(
    behaviors: pa.Table,
    catalog: pa.Table,
    user_ids: pa.Array,
    columns: Sequence[str],
    timezone: str,
) -> pa.Table:
    """Behaviors as events (E rows), sorted by user, time and item.

    ``user`` is the row in ``user_ids``; `event_time` counts days; `gap` is log(1 + days since the event
    before); `weekday`, in the time zone, is 1 to 7; the catalog's columns hold their values' numbers.
    Behaviors of other users are left out.
    """
    user = pc.index_in(behaviors["user_id"], value_set=user_ids)
    behaviors = behaviors.append_column("user", user).filter(pc.is_valid(user))
    behaviors = behaviors.sort_by(
        [(name, "ascending") for name in ("user", "timestamp", "item_id")]
    )
    user = behaviors["user"].to_numpy().astype(np.int64)
    days = behaviors["timestamp"].cast(pa.int64()).to_numpy() / DAY
    gap = np.diff(days, prepend=days[:1])
    gap[np.diff(user, prepend=-1) != 0] = 0
    local = behaviors["timestamp"].cast(pa.timestamp("us", tz=timezone))
    item = pc.index_in(behaviors["item_id"], value_set=catalog["item_id"].combine_chunks())
    return pa.table(
        {
            "user": user,
            "event_time": days,
            "gap": np.log1p(gap).astype(np.float32),
            "weekday": pc.day_of_week(local, count_from_zero=False),
        }
        | {name: numbered(catalog[name].take(item)) for name in columns}
    )


def numbered(values: pa.ChunkedArray) -> np.ndarray:
    """Numbers (E,) int64 of values, from 1 on by how common they are; no value is a value too."""
    codes = values.combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
    ranks = np.argsort(np.argsort(-np.bincount(codes), kind="stable"))
    return ranks[codes] + 1


def coles(found: pa.Table, n_users: int, scratch: Path, **budget: int) -> np.ndarray:
    """User vectors (U, H) float32 by the library; the same seed gives the same bytes.

    Raises:
        FileNotFoundError: its environment is missing.
        RuntimeError: it failed there.
    """
    python = ENVIRONMENT / "bin/python"
    if not python.exists():
        raise FileNotFoundError(
            f"CoLES runs in an environment of its own, and {python} is missing: "
            "run `make coles-environment`"
        )
    table, vectors = scratch / "events.parquet", scratch / "vectors.npy"
    write_parquet(found, table)
    options = {"events": table, "out": vectors, "users": n_users} | budget
    told = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    done = subprocess.run(
        [python, "-I", HERE / "train.py", *told], stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"CoLES failed (exit status {done.returncode}):\n{done.stderr[-2000:]}")
    return np.load(vectors)
