"""A month's users encoded shard by shard, each by itself: here, or on one of Spark's workers.

Of users whose vector does not change, since they were not active in the month nor shortly before, nothing
is read but their rows of the month before. Workers take this module from the project that is installed
there. A function of the stage's script would be sent to them with all that it refers to.
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
from lurm.encoding import encode_month, no_users, still_moves, user_vectors, with_others
from lurm.months import month_name, month_number
from lurm.smen import Version, load_smen
from lurm.states import (
    PART,
    UserStates,
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
    """All users of the month and before in shards of at most ``size``.

    Raises:
        ValueError: users before are not in the order of their ids, each once; as :func:`parts`.
    """
    before = read_parquet(month.previous, ["user_id"])["user_id"]
    rising = pc.less(before[:-1], before[1:])
    if not pc.all(rising, skip_nulls=False, min_count=0).as_py():
        raise ValueError(
            f"{month.previous}: expected users in the order of their ids, each once, found others; run "
            "`dvc checkout`, or encode that month again"
        )
    ids, first_rows = read_runs(month.boi, "user_id")
    return [
        Shard(number, known, slice(int(first_rows[runs.start]), int(first_rows[runs.stop])))
        for number, (known, runs) in enumerate(parts(before, ids, size, month.boi))
    ]


def encode_shard(month: Month, shard: Shard) -> None:
    """Write the shard's states where they belong, and its rows of the published table to ``scratch``.

    Raises:
        FileNotFoundError, ValueError: as :func:`lurm.encoding.encode_month` and
            :func:`lurm.states.load_states`, or a file is damaged, or the table before is of another model,
            of a later month or of other behaviors than the states, or numbers are not finite.
        OSError: a file cannot be written.
    """
    torch.set_num_threads(1)  # the last digits depend on the number of threads
    torch.backends.cudnn.allow_tf32 = False  # a GRU's default on a GPU, 1e-5 away
    smen, version = load_smen(month.smen)
    smen.to(month.device)
    confidence = Confidence.from_json(read_json(month.confidence))
    number = month_number(month.month)
    boi = read_rows(month.boi, shard.bags)
    ids = boi["user_id"]
    published_before, states_of = reader(month.previous), load_states(month.states, version.model)
    known = read_rows(month.previous, shard.known, ["user_id"])["user_id"]
    schema = user_vectors_schema(smen.settings.n_published, ids.type)
    with (
        growing_states(shard_of(month.state, shard.number), smen.settings.scales) as keep,
        pa.ipc.new_file(rows_of(month, shard), schema) as published,
    ):
        for rows, bags in parts(known, ids, PART, month.boi):
            of_shard = slice(shard.known.start + rows.start, shard.known.start + rows.stop)
            before = published_before(of_shard)
            check_before(before, version, number, month.previous)
            active = pc.is_in(before["user_id"].cast(ids.type), value_set=ids[bags])
            last = _numbers(before["last_month"].combine_chunks())
            moves = pc.or_(active, pa.array(still_moves(smen, last, number)))
            moving = before.filter(moves)
            if len(moving):
                last = _numbers(moving["last_month"].combine_chunks())
                states = states_of(moving["user_id"].combine_chunks(), last)
                check_same_behaviors(states, moving, month.previous)
            else:
                states = no_users(smen.settings, ids.type)
            after, vectors = encode_month(smen, states, boi[bags], number)
            if not (np.isfinite(vectors).all() and np.isfinite(after.n_behaviors).all()):
                raise ValueError(
                    f"{month.boi}: expected bags and states that give finite vectors and numbers of "
                    "behaviors, found others; rerun build_boi, or run `dvc checkout`"
                )
            kept = after.last_month == number
            keep(after if kept.all() else after.take(np.flatnonzero(kept)))
            now = user_vectors(after, vectors, confidence.of(after.n_behaviors), version)
            published.write_table(with_others(now, before.filter(pc.invert(moves))))


def check_same_behaviors(states: UserStates, rows: pa.Table, where: Path) -> None:
    """Return if states and the users' rows in the published table ``where`` are of the same behaviors.

    Raises:
        ValueError: they are not; the table is of another time, or a month in between was encoded anew.
    """
    n_behaviors, first_month = (
        rows[name].combine_chunks() for name in ("n_behaviors", "first_month")
    )
    same = np.rint(states.n_behaviors) == n_behaviors.to_numpy()
    same &= states.first_month == _numbers(first_month)
    if not same.all():
        since = month_name(int(states.last_month[~same].min()))
        raise ValueError(
            f"{where}: expected the behaviors and first months that the users' states tell, found others "
            f"for {np.count_nonzero(~same):,} of {len(same):,} users; run `dvc checkout`, or encode the "
            f"months from {since} on again, in order"
        )


def check_before(before: pa.Table, version: Version, number: int, where: Path) -> None:
    """Return if the month of that number can go on from these rows of a published table.

    Raises:
        ValueError: their vectors are of another model, of that month or a later one, or not finite.
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
    numbers = before["vector"].combine_chunks().flatten()
    if not pc.all(pc.is_finite(numbers), min_count=0).as_py():
        raise ValueError(
            f"{where}: expected finite vectors, found others; run `dvc checkout`, or encode that month "
            "again"
        )


def _numbers(months: pa.Array) -> NDArray[np.int64]:
    """The number of each month."""
    told = months.dictionary_encode()
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
