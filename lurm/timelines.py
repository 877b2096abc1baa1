"""A user's life as one sparse sequence of bags, in flat arrays that can be memory-mapped.

On disk they lie in shards, folders of at most SHARD users in the order of their ids.

Letters: U users, B monthly bags of all users, E entries (interest, count) of all bags, n sequences in a
batch, P periods of all n sequences, D interests.
"""

import resource
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from lurm.storage import (
    growing_array,
    read_array,
    read_json,
    read_parquet,
    read_schema,
    shard_folder,
    write_array,
    write_json,
    write_parquet,
)

SHARD = 262_144  # users


@dataclass(frozen=True)
class Timelines:
    """Bags sorted by user, then month; entries sorted by interest within a bag.

    Bags of user u are rows ``first_bag[u]:first_bag[u + 1]``, entries of bag b are rows
    ``first_entry[b]:first_entry[b + 1]``. Months are month numbers (:func:`lurm.months.month_number`).
    """

    users: pa.Array  # (U,), or none where nobody asks whose lives they are
    first_bag: NDArray[np.int64]  # (U + 1,)
    months: NDArray[np.int32]  # (B,)
    first_entry: NDArray[np.int64]  # (B + 1,)
    interests: NDArray[np.int32]  # (E,)
    counts: NDArray[np.float32]  # (E,)

    def __len__(self) -> int:
        """Number of users."""
        return len(self.first_bag) - 1

    @property
    def n_bags(self) -> int:
        """Number of monthly bags."""
        return len(self.months)

    @property
    def last_interest(self) -> int:
        """The largest number of an interest, -1 if there is none."""
        return int(self.interests.max(initial=-1))

    def take(self, rows: NDArray[np.int64]) -> "Timelines":
        """The lives in these rows, in memory, in the order of the rows and without ids."""
        bags = ranges(self.first_bag[rows], self.first_bag[rows + 1])
        first, last = self.first_entry[bags], self.first_entry[bags + 1]
        entries = ranges(first, last)
        return Timelines(
            users=self.users[:0],
            first_bag=_edges(self.first_bag[rows + 1] - self.first_bag[rows]),
            months=self.months[bags],
            first_entry=_edges(last - first),
            interests=self.interests[entries],
            counts=self.counts[entries],
        )


class ShardedTimelines:
    """The timelines in a folder, shard by shard: a shard is mapped when a life of it is first asked for.

    Its five files then stay open. In memory are a few numbers of each shard, and no user's id before
    ``users`` is asked for.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a shard is missing, or later its arrays do not fit each other.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = shards_of(folder)
        _allow_files(len(_KINDS) * len(self._folders))
        self._about = read_json(folder / "about.json")["shards"]
        self._first_user = _edges(np.array([about["users"] for about in self._about]))
        self._open: dict[int, Timelines] = {}

    def __len__(self) -> int:
        """Number of users."""
        return int(self._first_user[-1])

    @property
    def n_bags(self) -> int:
        """Number of monthly bags."""
        return sum(about["bags"] for about in self._about)

    @property
    def last_interest(self) -> int:
        """The largest number of an interest."""
        return max(about["last_interest"] for about in self._about)

    @property
    def id_type(self) -> pa.DataType:
        """What the users' ids are."""
        return read_schema(self._folders[0] / "users.parquet").field("user_id").type

    @property
    def users(self) -> pa.Array:
        """The ids of all users (U,), read from disk."""
        return pa.concat_arrays([_ids(shard) for shard in self._folders])

    def take(self, rows: NDArray[np.int64]) -> Timelines:
        """The lives in these rows, as :meth:`Timelines.take` gives them."""
        of_shard = np.searchsorted(self._first_user, rows, side="right") - 1
        order = np.argsort(of_shard, kind="stable")
        parts = [
            self._shard(int(number)).take(rows[of_shard == number] - self._first_user[number])
            for number in np.unique(of_shard)
        ] or [self._shard(0).take(rows)]
        if len(parts) == 1:
            return parts[0]
        return _concatenated(parts).take(np.argsort(order))

    def _shard(self, number: int) -> Timelines:
        if number not in self._open:
            folder, about = self._folders[number], self._about[number]
            shard = load_shard(folder, with_users=False)
            told = (about["users"], about["bags"], shard.first_bag[-1], shard.first_entry[-1])
            found = (len(shard), len(shard.first_entry) - 1, shard.n_bags, len(shard.interests))
            if told != found or len(shard.counts) != len(shard.interests):
                raise ValueError(
                    f"{folder}: expected arrays of {told[0]:,} users and {told[1]:,} bags, found "
                    f"{found[0]:,} and {found[1]:,}, or entries of other bags; rerun build_timelines"
                )
            self._open[number] = shard
        return self._open[number]


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


def save_shard(timelines: Timelines, folder: Path) -> dict[str, int]:
    """Write users.parquet and one ``.npy`` per array; what :func:`finish` is to tell of the shard."""
    for name in _KINDS:
        write_array(getattr(timelines, name), folder / f"{name}.npy")
    return _end_shard(folder, timelines.users, timelines.n_bags, timelines.last_interest)


def _end_shard(folder: Path, users: pa.Array, n_bags: int, last_interest: int) -> dict[str, int]:
    write_parquet(pa.table({"user_id": users}), folder / "users.parquet")
    return {"users": len(users), "bags": n_bags, "last_interest": last_interest}


def finish(folder: Path, shards: Sequence[Mapping[str, int]]) -> None:
    """Write about.json, which tells what each shard holds; a folder without one was not finished."""
    write_json({"shards": list(shards)}, folder / "about.json")


def shards_of(folder: Path) -> list[Path]:
    """The shards of the timelines in ``folder``, in the order of their users.

    Raises:
        FileNotFoundError: there are none.
        ValueError: one is missing, or there is something else.
    """
    if not (folder / "about.json").exists():
        raise FileNotFoundError(f"{folder}: expected timelines, found none; run build_timelines")
    n_shards = len(read_json(folder / "about.json")["shards"])
    wanted = [shard_folder(folder, number) for number in range(n_shards)]
    found = sorted(path for path in folder.iterdir() if path.name != "about.json")
    if found != wanted:
        raise ValueError(
            f"{folder}: expected {n_shards:,} shards, 00000 and so on, and nothing else, found "
            f"{', '.join(path.name for path in found) or 'none'}; remove the folder and run "
            "`dvc checkout`, or build_timelines"
        )
    return found


def write_timelines(
    rows: Iterable[pa.RecordBatch], folder: Path, users_per_shard: int = SHARD
) -> tuple[int, int, int]:
    """Write shards as :func:`save_shard` does, in memory that follows a batch and a shard's ids.

    Returns numbers of users, bags and entries.

    Args:
        rows: columns ``user_id``, ``month`` (a number), ``interest`` and ``count``, in batches of any size,
            sorted by the first three over all of them.
        folder: where shards are written.
        users_per_shard: of all shards but the last.
    """
    written, n_entries = [], 0
    for number, batches in groupby(_by_shard(rows, users_per_shard), key=itemgetter(0)):
        told, n = _write_shard((batch for _, batch in batches), shard_folder(folder, number))
        written.append(told)
        n_entries += n
    finish(folder, written)
    return sum(told["users"] for told in written), sum(told["bags"] for told in written), n_entries


def _by_shard(
    rows: Iterable[pa.RecordBatch], users_per_shard: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches, cut where a shard ends, each with the number of its shard."""
    n_users, last_user = 0, None
    for batch in rows:
        if not len(batch):
            continue
        user_of_row = n_users - 1 + np.cumsum(_begins(batch["user_id"], last_user))
        shard_of_row = user_of_row // users_per_shard
        cuts = np.flatnonzero(np.diff(shard_of_row, prepend=-1))
        for start, stop in zip(cuts, [*cuts[1:], len(batch)], strict=True):
            yield int(shard_of_row[start]), batch.slice(start, stop - start)
        n_users, last_user = int(user_of_row[-1]) + 1, batch["user_id"][-1]


def _begins(users: pa.Array, before: pa.Scalar | None) -> NDArray[np.bool_]:
    """Where another user than in the row before begins (n,); ``before`` stands over the first."""
    other = pc.not_equal(users[1:], users[:-1]).to_numpy(zero_copy_only=False)
    return np.append(before is None or users[0] != before, other)


def _write_shard(batches: Iterable[pa.RecordBatch], folder: Path) -> tuple[dict[str, int], int]:
    users: list[pa.Array] = []
    n_bags = n_entries = 0
    last_user: pa.Scalar | None = None
    last_month = last_interest = -1
    with ExitStack() as files:
        append = {
            name: files.enter_context(growing_array(folder / f"{name}.npy", kind))
            for name, kind in _KINDS.items()
        }
        for batch in batches:
            user, month = batch["user_id"], batch["month"].to_numpy()
            interests = batch["interest"].to_numpy()
            new_user = _begins(user, last_user)
            new_bag = new_user | (np.diff(month, prepend=last_month) != 0)
            append["first_bag"](n_bags + (np.cumsum(new_bag) - 1)[new_user])
            append["months"](month[new_bag])
            append["first_entry"](n_entries + np.flatnonzero(new_bag))
            append["interests"](interests)
            append["counts"](batch["count"].to_numpy())
            users.append(user.filter(pa.array(new_user)))
            n_bags += int(new_bag.sum())
            n_entries, last_interest = n_entries + len(batch), max(last_interest, interests.max())
            last_user, last_month = user[-1], int(month[-1])
        append["first_bag"](np.array([n_bags]))
        append["first_entry"](np.array([n_entries]))
        told = _end_shard(folder, pa.concat_arrays(users), n_bags, int(last_interest))
    return told, n_entries


def load_shard(folder: Path, *, with_users: bool = True) -> Timelines:
    """The timelines that :func:`save_shard` wrote; the arrays are memory-mapped."""
    arrays = {name: read_array(folder / f"{name}.npy") for name in _KINDS}
    return Timelines(users=_ids(folder) if with_users else pa.array([]), **arrays)


def _allow_files(n_files: int) -> None:
    """Let this process open so many files beside the 256 that others may take.

    Raises:
        ValueError: the system does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n_files + 256
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ValueError(
            f"timelines: expected to be allowed {wanted:,} open files, the hard limit is {hard:,}; raise "
            "it (`ulimit -Hn`, or `--ulimit nofile` of a container)"
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _ids(shard: Path) -> pa.Array:
    return read_parquet(shard / "users.parquet")["user_id"].combine_chunks()


def _concatenated(parts: list[Timelines]) -> Timelines:
    return Timelines(
        users=parts[0].users[:0],
        first_bag=_edges(np.concatenate([np.diff(part.first_bag) for part in parts])),
        months=np.concatenate([part.months for part in parts]),
        first_entry=_edges(np.concatenate([np.diff(part.first_entry) for part in parts])),
        interests=np.concatenate([part.interests for part in parts]),
        counts=np.concatenate([part.counts for part in parts]),
    )


def _edges(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where ranges of these lengths (n,) begin and end, laid end to end (n + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)])


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
