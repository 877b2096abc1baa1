"""A user's life as one sparse sequence of bags, in flat arrays that can be memory-mapped.

Letters: U users, B monthly bags of all users, E entries (interest, count) of all bags, n sequences in a
batch, P periods of all n sequences, D interests.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from lurm.storage import growing_array, read_array, read_parquet, write_array, write_parquet


@dataclass(frozen=True)
class Timelines:
    """Bags sorted by user, then month; entries sorted by interest within a bag.

    Bags of user u are rows ``first_bag[u]:first_bag[u + 1]``, entries of bag b are rows
    ``first_entry[b]:first_entry[b + 1]``. Months are month numbers (:func:`lurm.months.month_number`).
    """

    users: pa.Array  # (U,)
    first_bag: NDArray[np.int64]  # (U + 1,)
    months: NDArray[np.int32]  # (B,)
    first_entry: NDArray[np.int64]  # (B + 1,)
    interests: NDArray[np.int32]  # (E,)
    counts: NDArray[np.float32]  # (E,)


@dataclass(frozen=True)
class Periods:
    """Sequences of bags at one scale: ``lengths`` (n,) periods each, P in all, their bags as CSR."""

    lengths: NDArray[np.int64]  # (n,)
    offsets: NDArray[np.int64]  # (P + 1,)
    interests: NDArray[np.int64]  # (E',)
    counts: NDArray[np.float32]  # (E',)


# Arrays of the timelines and their types.
_KINDS: dict[str, type[np.generic]] = {
    "first_bag": np.int64,
    "months": np.int32,
    "first_entry": np.int64,
    "interests": np.int32,
    "counts": np.float32,
}


def build_timelines(boi: dict[int, pa.Table]) -> Timelines:
    """The timelines of all users in the monthly bags ``{month number: BOI table}``."""
    users = pa.concat_tables(table.select(["user_id"]) for table in boi.values())[
        "user_id"
    ].unique()
    users = users.take(pc.sort_indices(users))
    rows, months, interests, counts = [], [], [], []
    for number, table in boi.items():
        rows.append(pc.index_in(table.column("user_id"), users).to_numpy())
        months.append(np.full(len(table), number, dtype=np.int32))
        interests.append(table.column("interest").to_numpy())
        counts.append(table.column("count").to_numpy())
    user, month = np.concatenate(rows), np.concatenate(months)
    order = np.lexsort((np.concatenate(interests), month, user))
    user, month = user[order], month[order]
    new_bag = np.ones(len(user), dtype=bool)
    new_bag[1:] = (np.diff(user) != 0) | (np.diff(month) != 0)
    first_entry = np.flatnonzero(new_bag)
    return Timelines(
        users=users,
        first_bag=np.searchsorted(user[first_entry], np.arange(len(users) + 1)),
        months=month[first_entry],
        first_entry=np.append(first_entry, len(user)),
        interests=np.concatenate(interests)[order].astype(np.int32),
        counts=np.concatenate(counts)[order].astype(np.float32),
    )


def save_timelines(timelines: Timelines, folder: Path) -> None:
    """Write the timelines as users.parquet and one ``.npy`` per array."""
    write_parquet(pa.table({"user_id": timelines.users}), folder / "users.parquet")
    for name in _arrays():
        write_array(getattr(timelines, name), folder / f"{name}.npy")


def write_timelines(rows: Iterable[pa.RecordBatch], folder: Path) -> tuple[int, int, int]:
    """Write the files of :func:`save_timelines` in memory that follows a batch, but for the users' ids.

    Returns numbers of users, bags and entries.

    Args:
        rows: columns ``user_id``, ``month`` (a number), ``interest`` and ``count``, in batches of any size,
            sorted by the first three over all of them.
    """
    users: list[pa.Array] = []
    n_users = n_bags = n_entries = 0
    last_user: pa.Scalar | None = None
    last_month = -1
    with ExitStack() as files:
        append = {
            name: files.enter_context(growing_array(folder / f"{name}.npy", kind))
            for name, kind in _KINDS.items()
        }
        for batch in rows:
            if not len(batch):
                continue
            user, month = batch["user_id"], batch["month"].to_numpy()
            other_user = pc.not_equal(user[1:], user[:-1]).to_numpy(zero_copy_only=False)
            new_user = np.append(last_user is None or user[0] != last_user, other_user)
            new_bag = new_user | (np.diff(month, prepend=last_month) != 0)
            append["first_bag"](n_bags + (np.cumsum(new_bag) - 1)[new_user])
            append["months"](month[new_bag])
            append["first_entry"](n_entries + np.flatnonzero(new_bag))
            append["interests"](batch["interest"].to_numpy())
            append["counts"](batch["count"].to_numpy())
            users.append(user.filter(pa.array(new_user)))
            n_users, n_bags = n_users + int(new_user.sum()), n_bags + int(new_bag.sum())
            n_entries += len(batch)
            last_user, last_month = user[-1], int(month[-1])
        append["first_bag"](np.array([n_bags]))
        append["first_entry"](np.array([n_entries]))
        ids = pa.concat_arrays(users)
        write_parquet(pa.table({"user_id": ids}), folder / "users.parquet")
    return n_users, n_bags, n_entries


def load_timelines(folder: Path) -> Timelines:
    """The timelines that :func:`save_timelines` wrote; the arrays are memory-mapped."""
    users = read_parquet(folder / "users.parquet")["user_id"].combine_chunks()
    return Timelines(
        users=users, **{name: read_array(folder / f"{name}.npy") for name in _arrays()}
    )


def _arrays() -> list[str]:
    return list(_KINDS)


def ranges(first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of all ranges ``first[i]:last[i]``, one range after the other.

    >>> ranges(np.array([3, 10]), np.array([5, 13])).tolist()
    [3, 4, 10, 11, 12]
    """
    lengths = last - first
    jumps = np.repeat(first - np.cumsum(lengths) + lengths, lengths)
    return jumps + np.arange(len(jumps))


def cut_periods(
    timelines: Timelines,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    *,
    span: int,
    empty_periods: str,
    n_interests: int,
) -> Periods:
    """The sequences of bags ``first[i]:last[i]`` (n ranges within one user each) at one scale.

    Months fall into periods of ``span`` months that start in January of year 0, so that 12 is the
    calendar year. A period's bag is the *sum of counts* of its months, never of their logarithms.
    ``empty_periods`` between a sequence's first and last period are left out ("skip") or become empty
    bags ("zeros").
    """
    bags = ranges(first, last)
    sequence = np.repeat(np.arange(len(first)), last - first)
    period = timelines.months[bags] // span
    # Within a sequence each bag moves on by as many rows as its period number does, or by one.
    steps = np.diff(period, prepend=period[:1]).astype(np.int64)
    if empty_periods == "skip":
        steps = np.minimum(steps, 1)
    steps[np.diff(sequence, prepend=-1) != 0] = 1
    row = np.cumsum(steps) - 1
    lengths = np.bincount(sequence, weights=steps, minlength=len(first)).astype(np.int64)
    entry_first, entry_last = timelines.first_entry[bags], timelines.first_entry[bags + 1]
    entries = ranges(entry_first, entry_last)
    table = sparse.csr_matrix(
        (
            timelines.counts[entries],
            (np.repeat(row, entry_last - entry_first), timelines.interests[entries]),
        ),
        shape=(int(lengths.sum()), n_interests),
    )
    return Periods(
        lengths=lengths,
        offsets=table.indptr.astype(np.int64),
        interests=table.indices.astype(np.int64),
        counts=table.data,
    )
