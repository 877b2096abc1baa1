"""Saved states of users: a month's folder holds the states of the users active in it, and no others.

A user's state changes with their own behaviors only, so it is saved with the last month that had some,
which the published table names. A month reads the states of the users whose vector it changes
(:func:`lurm.encoding.still_moves`), each from there, and writes those of its own users. Where empty periods
enter as zeros, it reads everybody's.

A month's states lie in shards, Arrow files of users in the order of their ids, which one process makes one
after the other, or many machines side by side. They are memory-mapped: only the rows asked for are read.

Letters: U users, M anchors, H hidden size, D interests.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from lurm.months import month_name, month_number
from lurm.storage import map_arrow, read_json, replacing, write_json
from lurm.timelines import ranges

SHARD = 262_144  # users whose states share a file, active or not
FIGURES = ("n_behaviors", "n_months", "first_month")  # of a user, on disk
BAGS = ("total", "recent_0", "recent_1", "recent_2")  # counts of a user's history, on disk as lists
PART = 8_192  # users whose states are in memory at once; larger ones are slower, too


@dataclass(frozen=True)
class ScaleState:
    """Where each user stands at one scale."""

    hidden: NDArray[np.float32]  # (U, M, H) after the last closed period
    n_closed: NDArray[np.int64]  # (U,) closed periods
    period: NDArray[np.int64]  # (U,) number of the open period
    open_counts: sparse.csr_matrix  # (U, D) counts in the open period


@dataclass(frozen=True)
class UserStates:
    """Where each user stands after a month; users are sorted by id, months are month numbers."""

    users: pa.Array  # (U,)
    n_behaviors: NDArray[np.float64]  # (U,)
    n_months: NDArray[np.int64]  # (U,) months with behaviors
    first_month: NDArray[np.int64]  # (U,)
    last_month: NDArray[np.int64]  # (U,)
    # Counts (U, D) of the whole history, of the last month, and of the first and second month before it.
    # Rows are empty where the model has no projection, the only reader.
    total: sparse.csr_matrix
    recent_0: sparse.csr_matrix
    recent_1: sparse.csr_matrix
    recent_2: sparse.csr_matrix
    scales: dict[str, ScaleState]

    def take(self, rows: NDArray[np.int64]) -> "UserStates":
        """The states in these rows, in the order of the rows."""
        scales = {
            name: ScaleState(**{f.name: getattr(scale, f.name)[rows] for f in fields(scale)})
            for name, scale in self.scales.items()
        }
        return UserStates(
            users=self.users.take(pa.array(rows)),
            scales=scales,
            **{name: getattr(self, name)[rows] for name in (*FIGURES, "last_month", *BAGS)},
        )


@contextmanager
def growing_states(shard: Path, scales: Iterable[str]) -> Iterator[Callable[[UserStates], None]]:
    """A function that appends users, in the order of their ids, to a shard of a month's states.

    All were active in the month. Appended users are a batch of an Arrow file, which has their columns of
    :class:`UserStates` but for ``last_month``, and those of every scale behind its name. States of nobody
    leave a file without a batch; it needs them for its columns.

    Raises:
        ValueError: none were appended.
    """
    scales = list(scales)
    with replacing(shard) as temporary, ExitStack() as files:
        writer: pa.RecordBatchFileWriter | None = None

        def append(states: UserStates) -> None:
            nonlocal writer
            columns: dict[str, Any] = {"user_id": states.users}
            columns |= {name: getattr(states, name) for name in FIGURES}
            for name in BAGS:
                columns |= _lists(name, getattr(states, name))
            for name in scales:
                scale = states.scales[name]
                _, m, h = scale.hidden.shape
                anchors = pa.FixedSizeListArray.from_arrays(pa.array(scale.hidden.ravel()), h)
                columns[f"{name}_hidden"] = pa.FixedSizeListArray.from_arrays(anchors, m)
                columns[f"{name}_n_closed"] = scale.n_closed
                columns[f"{name}_period"] = scale.period
                columns |= _lists(name, scale.open_counts)
            batch = pa.record_batch(columns)
            if writer is None:
                writer = files.enter_context(pa.ipc.new_file(temporary, batch.schema))
            if len(batch):
                writer.write_batch(batch)

        yield append
        if writer is None:
            raise ValueError(f"{shard}: expected states, if of nobody, none were appended")


def _lists(name: str, counts: sparse.csr_matrix) -> dict[str, pa.Array]:
    """The columns of sparse counts (U, D): a list of interests and a list of counts for each user."""
    offsets = pa.array(counts.indptr, pa.int32())
    interests, numbers = pa.array(counts.indices, pa.int32()), pa.array(counts.data, pa.float32())
    return {
        f"{name}_interests": pa.ListArray.from_arrays(offsets, interests),
        f"{name}_counts": pa.ListArray.from_arrays(offsets, numbers),
    }


def _counts(
    batch: pa.RecordBatch, name: str, rows: NDArray[np.int64], n_interests: int, where: Path
) -> sparse.csr_matrix:
    """The counts (len(rows), D) of the columns that :func:`_lists` made."""
    interests, counts = batch[f"{name}_interests"], batch[f"{name}_counts"]
    offsets = counts.offsets.to_numpy()
    first, last = offsets[rows], offsets[rows + 1]
    entries = ranges(first, last)
    numbers = counts.values.to_numpy()[entries]
    if not np.isfinite(numbers).all():
        raise ValueError(_damaged(where, name))
    edges = np.concatenate([[0], np.cumsum(last - first)])
    indices = interests.values.to_numpy()[entries]
    return sparse.csr_matrix((numbers, indices, edges), shape=(len(rows), n_interests))


def _damaged(where: Path, name: str) -> str:
    return (
        f"{where}: expected finite states, got others in {name!r}; run `dvc checkout`, or encode the "
        "months from that one on again"
    )


def finish_month(
    folder: Path,
    n_shards: int,
    *,
    month: str,
    model_version: str,
    n_interests: int,
    scales: Iterable[str],
) -> None:
    """Write about.json of a month's states: of when they are, and between which ids a shard's users lie.

    It comes last, so a folder that has none was not finished.
    """
    shards = []
    for number in range(n_shards):
        users = map_arrow(shard_of(folder, number))["user_id"]
        bounds = (users[0].as_py(), users[-1].as_py()) if len(users) else (None, None)
        shards.append({"users": len(users), "first": bounds[0], "last": bounds[1]})
    about = {
        "month": month,
        "model_version": model_version,
        "n_interests": n_interests,
        "scales": list(scales),
        "shards": shards,
    }
    write_json(about, folder / "about.json")


def shard_of(folder: Path, number: int) -> Path:
    """The file of a month's shard of that number."""
    return folder / f"{number:05}.arrow"


def load_states(
    folder: Path, model_version: str
) -> Callable[[pa.Array, NDArray[np.int64]], UserStates]:
    """A function that gives the states of users, each from the month he was last active in.

    It takes the ids of one user or more, sorted (U,), and the numbers of these months (U,). Files stay
    mapped once a state in them was asked for.

    Args:
        folder: that of all months' states.
        model_version: the model that the states are of.

    Raises:
        FileNotFoundError: a month has none.
        ValueError: another model left them behind; some are missing, or not finite.
    """

    @cache
    def month(number: int) -> dict[str, Any]:
        return check_month(folder / month_name(number), model_version)

    @cache
    def batches(number: int, shard: int) -> list[tuple[pa.RecordBatch, Any, Any]]:
        table = map_arrow(shard_of(folder / month_name(number), shard))
        return [
            (batch, batch["user_id"][0].as_py(), batch["user_id"][-1].as_py())
            for batch in table.to_batches()
        ]

    def of_month(number: int, users: pa.Array) -> list[UserStates]:
        about, found = month(number), []
        where, first, last = folder / month_name(number), users[0].as_py(), users[-1].as_py()
        for shard, told in enumerate(about["shards"]):
            if told["users"] and told["first"] <= last and first <= told["last"]:
                for batch, lowest, highest in batches(number, shard):
                    if lowest <= last and first <= highest:
                        rows = _places(batch["user_id"], users)
                        found.append(_states_of(batch, rows, about, number, where))
        ids = pa.concat_arrays([users[:0], *(states.users for states in found)])
        if not ids.equals(users):
            missing = pc.sum(pc.invert(pc.is_in(users, value_set=ids))).as_py()
            raise ValueError(
                f"{where}: expected the states of all users last active in that month, each once, found "
                f"none of {missing:,} of the {len(users):,} asked for; run `dvc checkout`, or encode the "
                "months from that one on again"
            )
        return found

    def load(users: pa.Array, last_month: NDArray[np.int64]) -> UserStates:
        months = [np.flatnonzero(last_month == number) for number in np.unique(last_month)]
        found: list[UserStates] = []
        for rows in months:
            found += of_month(int(last_month[rows[0]]), users.take(pa.array(rows)))
        return brought_together(found, np.concatenate(months))

    return load


def load_shard(folder: Path, number: int) -> Iterator[UserStates]:
    """The states in the shard of that number of a month's ``folder``, batch by batch; of nobody in one."""
    about, table = read_json(folder / "about.json"), map_arrow(shard_of(folder, number))
    for batch in table.to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]:
        rows = np.arange(len(batch))
        yield _states_of(batch, rows, about, month_number(about["month"]), folder)


def check_month(folder: Path, model_version: str) -> dict[str, Any]:
    """What the month's states say about themselves, if that model left them behind.

    Raises:
        FileNotFoundError: there are none, or they were not finished.
        ValueError: another model did, or it was in another month.
    """
    if not (folder / "about.json").exists():
        raise FileNotFoundError(
            f"{folder}: expected the states of the users of {folder.name}, found none or unfinished ones; "
            "run `dvc checkout`, or encode that month again"
        )
    about: dict[str, Any] = read_json(folder / "about.json")
    if about["model_version"] != model_version:
        raise ValueError(
            f"{folder}: expected the states of model {model_version}, found those of "
            f"{about['model_version']}; encode the months from the first with one model"
        )
    if about["month"] != folder.name:
        raise ValueError(
            f"{folder}: expected the states after {folder.name}, found those after {about['month']}; run "
            "`dvc checkout`"
        )
    return about


def last_month_before(folder: Path, month: str, model_version: str) -> str | None:
    """The last month before that one of which ``folder`` has states of the model; None without one."""
    earlier = sorted(path.parent.name for path in folder.glob("*/about.json"))
    of_model = (
        name
        for name in reversed(earlier)
        if name < month
        and read_json(folder / name / "about.json")["model_version"] == model_version
    )
    return next(of_model, None)


def _states_of(
    batch: pa.RecordBatch,
    rows: NDArray[np.int64],
    about: Mapping[str, Any],
    month: int,
    where: Path,
) -> UserStates:
    """The states in these rows of a batch that :func:`growing_states` wrote."""
    scales = {}
    for name in about["scales"]:
        hidden = batch[f"{name}_hidden"]
        m, h = hidden.type.list_size, hidden.type.value_type.list_size
        hidden = hidden.flatten().flatten().to_numpy().reshape(-1, m, h)[rows]
        if not np.isfinite(hidden).all():
            raise ValueError(_damaged(where, name))
        scales[name] = ScaleState(
            hidden=hidden,
            n_closed=batch[f"{name}_n_closed"].to_numpy()[rows],
            period=batch[f"{name}_period"].to_numpy()[rows],
            open_counts=_counts(batch, name, rows, about["n_interests"], where),
        )
    return UserStates(
        users=batch["user_id"].take(pa.array(rows)),
        last_month=np.full(len(rows), month),
        scales=scales,
        **{name: batch[name].to_numpy()[rows] for name in FIGURES},
        **{name: _counts(batch, name, rows, about["n_interests"], where) for name in BAGS},
    )


def _places(ids: pa.Array, wanted: pa.Array) -> NDArray[np.int64]:
    """The rows of sorted ``ids`` that hold sorted ``wanted``, of those that are there."""
    rows = pc.search_sorted(ids, wanted).to_numpy().astype(np.int64)
    rows = rows[rows < len(ids)]
    there = pc.equal(ids.take(pa.array(rows)), wanted[: len(rows)])
    return rows[there.to_numpy(zero_copy_only=False)]


def brought_together(parts: Sequence[UserStates], rows: NDArray[np.int64]) -> UserStates:
    """The states of all parts; ``rows`` (U,) are those of the result where they belong, part after part."""
    if len(parts) == 1 and (np.diff(rows) > 0).all():
        return parts[0]
    scales = {
        name: ScaleState(**_columns([part.scales[name] for part in parts], rows))
        for name in parts[0].scales
    }
    return UserStates(**_columns(parts, rows), scales=scales)


def _columns(
    parts: Sequence[UserStates] | Sequence[ScaleState], rows: NDArray[np.int64]
) -> dict[str, Any]:
    """By field what the parts hold, each row where it belongs."""
    order, columns = np.argsort(rows), {}
    for name in (field.name for field in fields(parts[0]) if field.name != "scales"):
        held = [getattr(part, name) for part in parts]
        if isinstance(held[0], pa.Array):
            columns[name] = pa.concat_arrays(held).take(pa.array(order))
        elif sparse.issparse(held[0]):
            columns[name] = sparse.vstack(held, "csr")[order]
        else:  # a state's numbers, copied once
            columns[name] = np.empty((len(rows), *held[0].shape[1:]), held[0].dtype)
            edges = accumulate(map(len, held), initial=0)
            for (first, last), values in zip(pairwise(edges), held, strict=True):
                columns[name][rows[first:last]] = values
    return columns


def parts(
    before: pa.Array | pa.ChunkedArray, ids: pa.Array | pa.ChunkedArray, size: int, where: Path
) -> Iterator[tuple[slice, slice]]:
    """Rows of users known before and rows of a table, such as the month's bags, that belong together.

    Args:
        before: ids of the users known before, sorted.
        ids: ids of the users of the table, sorted, each as often as it has rows.
        size: most users of a part, known and new.
        where: the table's file, for errors.

    Raises:
        ValueError: ids of another type than before, or a table that is not sorted by user.
    """
    check_ids(before, ids.type, where)
    before, ids = _in_one(before.cast(ids.type)), _in_one(ids)
    rising = pc.less_equal(ids[:-1], ids[1:])
    if ids.null_count or not pc.all(rising, min_count=0).as_py():
        raise ValueError(
            f"{where}: expected rows sorted by user, and each with one, found others; rerun the stage "
            "that writes it"
        )
    users = pa.concat_arrays([before, ids]).unique()
    bounds = users.take(pc.sort_indices(users))[size::size]
    of_before, of_table = (
        [0, *pc.search_sorted(values, bounds).to_pylist(), len(values)] for values in (before, ids)
    )
    for known, rows in zip(pairwise(of_before), pairwise(of_table), strict=True):
        yield slice(*known), slice(*rows)


def _in_one(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """All ids in one array, be they more than 2 GiB of text."""
    if pa.types.is_string(ids.type):
        ids = ids.cast(pa.large_string())
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids


def check_ids(before: pa.Array | pa.ChunkedArray, id_type: pa.DataType, where: Path | str) -> None:
    """Return if ids of that type can go on from the ids of earlier months.

    Raises:
        ValueError: they cannot.
    """
    if len(before) and before.type != id_type:
        raise ValueError(
            f"{where}: expected user ids of type {before.type} as in earlier months, found {id_type}; "
            "deliver ids of one type"
        )
