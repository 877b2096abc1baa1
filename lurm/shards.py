"""A month's users encoded shard by shard, each by itself: here, or on one of Spark's workers.

Of users who were not active in the month nothing is read but their rows of the month before, unless empty
periods enter as zeros. Workers take this module from the project that is installed there. A function of the
stage's script would be sent to them with all that it refers to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from lurm.confidence import Confidence
from lurm.encoding import encode_month, no_users, user_vectors, with_others
from lurm.months import month_name, month_number
from lurm.smen import Version, load_smen
from lurm.states import (
    PART,
    finish_month,
    growing_states,
    load_states,
    parts,
    shard_of,
)
from lurm.storage import (
    growing_parquet,
    map_arrow,
    read_json,
    read_parquet,
    read_rows,
    read_runs,
    read_settings,
    reader,
)
from lurm.tables import user_vectors_schema

ROWS = 65_536  # of a group of the published table; in small groups parquet spends more on floats


@dataclass(frozen=True)
class Month:
    """A month to encode: its files and folders, absolute where Spark's workers are to find them."""

    month: str
    boi: Path
    previous: Path  # the published table as of the month before
    states: Path  # folder of the states of the months before
    smen: Path
    confidence: Path
    state: Path  # folder of the states after the month
    scratch: Path  # folder where the rows of the published table wait for each other
    device: str  # cpu | cuda


@dataclass(frozen=True)
class Shard:
    """Users next to each other: their rows in the published table before, and in the month's bags."""

    number: int
    known: slice
    bags: slice


def divide(month: Month, size: int) -> list[Shard]:
    """All users of the month and before in shards of at most ``size``; raises as :func:`parts` does."""
    before = read_parquet(month.previous, ["user_id"])["user_id"].combine_chunks()
    ids, first_rows = read_runs(month.boi, "user_id")
    return [
        Shard(number, known, slice(int(first_rows[runs.start]), int(first_rows[runs.stop])))
        for number, (known, runs) in enumerate(parts(before, ids, size, month.boi))
    ]


def encode_shard(month: Month, shard: Shard) -> None:
    """Write the shard's states where they belong, and its rows of the published table to ``scratch``.

    Raises:
        FileNotFoundError, ValueError: as :func:`lurm.encoding.encode_month` and
            :func:`lurm.states.load_states`, or a file is damaged, or the table before is of another model
            or of a later month.
        OSError: a file cannot be written.
    """
    torch.set_num_threads(1)  # the last digits depend on the number of threads
    torch.backends.cudnn.allow_tf32 = False  # a GRU's default on a GPU, 1e-5 away
    smen, version = load_smen(month.smen)
    smen.to(month.device)
    confidence = Confidence.from_json(read_json(month.confidence))
    number, zeros = month_number(month.month), smen.settings.empty_periods == "zeros"
    boi = read_rows(month.boi, shard.bags)
    ids = boi["user_id"].combine_chunks()
    published_before, states_of = reader(month.previous), load_states(month.states, version.model)
    known = read_rows(month.previous, shard.known, ["user_id"])["user_id"].combine_chunks()
    schema = user_vectors_schema(smen.settings.n_published, ids.type)
    with (
        growing_states(shard_of(month.state, shard.number), smen.settings.scales) as keep,
        pa.ipc.new_file(rows_of(month, shard), schema) as published,
    ):
        for rows, bags in parts(known, ids, PART, month.boi):
            of_shard = slice(shard.known.start + rows.start, shard.known.start + rows.stop)
            before = published_before(of_shard)
            check_before(before, version, number, month.previous)
            active = pc.is_in(before["user_id"], value_set=ids[bags])
            moves = pc.or_(active, pa.scalar(zeros))
            moving = before.filter(moves)
            if len(moving):
                last = _numbers(moving["last_month"])
                states = states_of(moving["user_id"].combine_chunks(), last)
            else:
                states = no_users(smen.settings, ids.type)
            after, vectors = encode_month(smen, states, boi[bags], number)
            kept = after.last_month == number
            keep(after if kept.all() else after.take(np.flatnonzero(kept)))
            now = user_vectors(after, vectors, confidence.of(after.n_behaviors), version)
            published.write_table(with_others(now, before.filter(pc.invert(moves))))


def check_before(before: pa.Table, version: Version, number: int, where: Path) -> None:
    """Return if the month of that number can go on from these rows of a published table.

    Raises:
        ValueError: their vectors are of another model, or of that month or a later one.
    """
    others = [
        name for name in before["model_version"].unique().to_pylist() if name != version.model
    ]
    if others:
        raise ValueError(
            f"{where}: expected vectors of model {version.model}, found those of {others[0]}; encode the "
            "months from the first with one model"
        )
    last = pc.max(before["last_month"]).as_py()
    if last is not None and last >= month_name(number):
        raise ValueError(
            f"{where}: {month_name(number)} should go on from an earlier month, the users there already "
            f"hold {last}; encode the months in order"
        )


def _numbers(months: pa.ChunkedArray) -> NDArray[np.int64]:
    """The number of each month."""
    told = months.combine_chunks().dictionary_encode()
    numbers = np.array([month_number(name) for name in told.dictionary.to_pylist()])
    return numbers[told.indices.to_numpy()]


def rows_of(month: Month, shard: Shard) -> Path:
    """Where a shard's rows of the published table wait for the others."""
    return month.scratch / f"{shard.number:05}.arrow"


def finish(month: Month, shards: Sequence[Shard], vectors: Path) -> None:
    """The month's states are complete, and all rows in one published table, in groups of ROWS."""
    settings = read_settings(month.smen)
    finish_month(
        month.state,
        len(shards),
        month=month.month,
        **{name: settings[name] for name in ("model_version", "n_interests", "scales")},
    )
    tables = [map_arrow(rows_of(month, shard)) for shard in shards]
    with growing_parquet(vectors, tables[0].schema) as append:
        for table in tables:
            for first in range(0, len(table), ROWS):
                append(table[first : first + ROWS])
