"""User vectors month by month: each month goes on from the states the month before left behind.

A state holds, per user and scale, the GRU's state after the last *closed* period and the counts of the
*open* one, so a month reads its own bags and nothing older, and a year's bag stays the log of its summed
counts. A period closes with its last month; where a user was not there then, with his next one. The result
is that of encoding the whole life at once (tests hold the two against each other).

Users do not meet here, so a month is encoded in :func:`parts`: memory follows the part, but for the ids of
users. Their states lie in shards, folders of at most SHARD users in the order of their ids, which one
process makes one after the other, or many machines side by side.

Where empty periods are skipped, a month computes nothing for users who were not active in it: they keep
their vector, which the state holds too. Where empty periods enter as zeros every vector moves every month.

Letters: U users, M anchors, H hidden size, D interests.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from scipy import sparse

from lurm.months import month_name
from lurm.smen import Smen, SmenSettings, Version
from lurm.storage import (
    growing_array,
    read_array,
    read_json,
    read_parquet,
    row_count,
    shard_folder,
    shard_folders,
    write_json,
    write_parquet,
)
from lurm.tables import user_vectors_schema
from lurm.timelines import Periods

NEVER = -1  # the open period, first or last month of a user before the first behavior
SHARD = 262_144  # users whose states share a folder
PART = 8_192  # users whose states are in memory at once; larger ones are slower, too
CHUNK = 8_192  # users encoded at once
Piece = tuple[Path, slice]  # a shard, and some of its rows
# Arrays of a scale on disk and their types; the last three are those of the open counts.
_ARRAYS: dict[str, type[np.generic]] = {
    "hidden": np.float32,
    "n_closed": np.int64,
    "period": np.int64,
    "offsets": np.int64,
    "interests": np.int32,
    "counts": np.float32,
}


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
    first_month: NDArray[np.int64]  # (U,)
    last_month: NDArray[np.int64]  # (U,)
    vectors: NDArray[np.float32]  # (U, d), as published
    scales: dict[str, ScaleState]


def no_users(settings: SmenSettings, id_type: pa.DataType) -> UserStates:
    """The states before the first month."""
    none = np.zeros(0, dtype=np.int64)
    shape = (0, settings.n_anchors, settings.width)
    scale = ScaleState(
        hidden=np.zeros(shape, dtype=np.float32),
        n_closed=none,
        period=none,
        open_counts=sparse.csr_matrix((0, settings.n_interests), dtype=np.float32),
    )
    return UserStates(
        users=pa.array([], id_type),
        n_behaviors=np.zeros(0),
        first_month=none,
        last_month=none,
        vectors=np.zeros((0, settings.n_published), dtype=np.float32),
        scales=dict.fromkeys(settings.scales, scale),
    )


@contextmanager
def growing_states(
    folder: Path, scales: Iterable[str], model_version: str
) -> Iterator[Callable[[UserStates], None]]:
    """A function that appends users, in the order of their ids, to the shard of states in ``folder``.

    Written are users.parquet, vectors.npy, a file for each array of each scale, and about.json.
    """
    scales, users, n_interests = list(scales), [], 0
    with ExitStack() as files:
        files.push(partial(_leave_no_empty, folder))

        def grows(name: str, kind: type[np.generic]) -> Callable[[np.ndarray], None]:
            return files.enter_context(growing_array(folder / f"{name}.npy", kind))

        vectors = grows("vectors", np.float32)
        arrays = {
            scale: {name: grows(f"{scale}_{name}", kind) for name, kind in _ARRAYS.items()}
            for scale in scales
        }
        n_entries = dict.fromkeys(scales, 0)
        for scale in scales:
            arrays[scale]["offsets"](np.zeros(1))

        def append(states: UserStates) -> None:
            nonlocal n_interests
            users.append(
                pa.table(
                    {
                        "user_id": states.users,
                        "n_behaviors": states.n_behaviors,
                        "first_month": states.first_month,
                        "last_month": states.last_month,
                    }
                )
            )
            vectors(states.vectors)
            for name, scale in states.scales.items():
                counts, to = scale.open_counts, arrays[name]
                to["hidden"](scale.hidden)
                to["n_closed"](scale.n_closed)
                to["period"](scale.period)
                to["offsets"](counts.indptr[1:].astype(np.int64) + n_entries[name])
                to["interests"](counts.indices)
                to["counts"](counts.data)
                n_entries[name] += counts.nnz
                n_interests = counts.shape[1]

        yield append
        write_parquet(pa.concat_tables(users).combine_chunks(), folder / "users.parquet")
        about = {"model_version": model_version, "n_interests": n_interests, "scales": scales}
        write_json(about, folder / "about.json")


def _leave_no_empty(folder: Path, error: type[BaseException] | None, *_: object) -> None:
    """After an error, remove the folder, from which the files not finished are gone by now."""
    if error is not None:
        with suppress(OSError):
            folder.rmdir()


def save_states(states: UserStates, folder: Path, model_version: str) -> None:
    """Write the states as the only shard of ``folder``, as :func:`growing_states` does."""
    with growing_states(shard_folder(folder, 0), states.scales, model_version) as append:
        append(states)


def load_states(folder: Path, model_version: str, rows: slice = slice(None)) -> UserStates:
    """The states of the given rows, counted over all shards of ``folder``.

    Raises:
        FileNotFoundError: there are none.
        ValueError: another model left them behind, or a shard is missing.
    """
    return load_pieces(cut(all_rows(folder), rows), model_version)


def all_rows(folder: Path) -> list[Piece]:
    """All rows of all shards; raises as :func:`shard_folders` does."""
    return [
        (shard, slice(0, row_count(shard / "users.parquet")))
        for shard in shard_folders(folder, "encode_users")
    ]


def cut(pieces: Sequence[Piece], rows: slice) -> list[Piece]:
    """The given rows, counted over the pieces; for none of them a piece without rows."""
    edges = [0, *accumulate(part.stop - part.start for _, part in pieces)]
    first, last, _ = rows.indices(edges[-1])
    return [
        (shard, slice(part.start + max(first - start, 0), part.start + min(last, stop) - start))
        for (shard, part), (start, stop) in zip(pieces, pairwise(edges), strict=True)
        if start < last and first < stop
    ] or [(pieces[0][0], slice(0, 0))]


def load_pieces(pieces: Sequence[Piece], model_version: str) -> UserStates:
    """The states of the pieces, one after the other; raises as :func:`load_shard` does."""
    return _concatenated([load_shard(shard, model_version, rows) for shard, rows in pieces])


def load_users(pieces: Sequence[Piece]) -> pa.Array:
    """The ids of the users in the pieces, sorted (U,)."""
    ids = [
        read_parquet(shard / "users.parquet", ["user_id"])["user_id"].combine_chunks()[rows]
        for shard, rows in pieces
    ]
    return pa.concat_arrays(ids)


def load_vectors(pieces: Sequence[Piece]) -> NDArray[np.float32]:
    """The vectors of the users in the pieces (U, d)."""
    return np.concatenate([read_array(shard / "vectors.npy")[rows] for shard, rows in pieces])


def load_shard(folder: Path, model_version: str, rows: slice = slice(None)) -> UserStates:
    """The states of those rows that :func:`growing_states` wrote.

    Raises:
        ValueError: another model left them behind.
    """
    about = check_model(folder, model_version)
    users = read_parquet(folder / "users.parquet")
    first, last, _ = rows.indices(len(users))
    users = users.slice(first, last - first)
    scales = {}
    for name in about["scales"]:
        a = {key: read_array(folder / f"{name}_{key}.npy") for key in _ARRAYS}
        offsets = np.array(a["offsets"][first : last + 1])
        entries = slice(offsets[0], offsets[-1])
        scales[name] = ScaleState(
            hidden=np.array(a["hidden"][first:last]),
            n_closed=np.array(a["n_closed"][first:last]),
            period=np.array(a["period"][first:last]),
            open_counts=sparse.csr_matrix(
                (
                    np.array(a["counts"][entries]),
                    np.array(a["interests"][entries]),
                    offsets - offsets[0],
                ),
                shape=(len(users), about["n_interests"]),
            ),
        )
    return UserStates(
        users=users["user_id"].combine_chunks(),
        n_behaviors=users["n_behaviors"].to_numpy(),
        first_month=users["first_month"].to_numpy(),
        last_month=users["last_month"].to_numpy(),
        vectors=np.array(read_array(folder / "vectors.npy")[first:last]),
        scales=scales,
    )


def check_model(shard: Path, model_version: str) -> dict[str, Any]:
    """What the shard says about itself, if that model left it behind.

    Raises:
        ValueError: another model did.
    """
    about: dict[str, Any] = read_json(shard / "about.json")
    if about["model_version"] != model_version:
        raise ValueError(
            f"{shard}: expected the states of model {model_version}, found those of "
            f"{about['model_version']}; encode the months from the first with one model"
        )
    return about


def _concatenated(parts: Sequence[UserStates]) -> UserStates:
    if len(parts) == 1:
        return parts[0]
    scales = {
        name: ScaleState(**_stacked([part.scales[name] for part in parts]))
        for name in parts[0].scales
    }
    return UserStates(**_stacked(parts), scales=scales)


def _stacked(parts: Sequence[UserStates] | Sequence[ScaleState]) -> dict[str, Any]:
    """By field the rows of all parts."""
    stacked: dict[str, Any] = {}
    for name in (field.name for field in fields(parts[0]) if field.name != "scales"):
        rows = [getattr(part, name) for part in parts]
        if isinstance(rows[0], pa.Array):
            stacked[name] = pa.concat_arrays(rows)
        else:
            sparse_rows = sparse.issparse(rows[0])
            stacked[name] = sparse.vstack(rows, "csr") if sparse_rows else np.concatenate(rows)
    return stacked


def parts(before: pa.Array, ids: pa.Array, size: int, where: Path) -> Iterator[tuple[slice, slice]]:
    """Rows of the states and rows of a table, such as the month's bags, that belong together.

    Args:
        before: ids of the users in the states, sorted.
        ids: ids of the users of the table, sorted, each as often as it has rows.
        size: most users of a part, old and new.
        where: the table's file, for errors.

    Raises:
        ValueError: ids of another type than before, or a table that is not sorted by user.
    """
    _same_type(before, ids.type, where)
    rising = pc.less_equal(ids[:-1], ids[1:])
    if not pc.all(rising, skip_nulls=False, min_count=0).as_py():
        raise ValueError(
            f"{where}: expected rows sorted by user, and each with one, found others; rerun the stage "
            "that writes it"
        )
    before = before.cast(ids.type)
    users = pa.concat_arrays([before, ids]).unique()
    bounds = users.take(pc.sort_indices(users))[size::size]
    of_states, of_bags = (
        [0, *pc.search_sorted(values, bounds).to_pylist(), len(values)] for values in (before, ids)
    )
    for state, bags in zip(pairwise(of_states), pairwise(of_bags), strict=True):
        yield slice(*state), slice(*bags)


def _same_type(before: pa.Array, id_type: pa.DataType, where: Path | str) -> None:
    if len(before) and before.type != id_type:
        raise ValueError(
            f"{where}: expected user ids of type {before.type} as in earlier months, found {id_type}; "
            "deliver ids of one type"
        )


def user_vectors(
    states: UserStates,
    vectors: NDArray[np.float32],
    confidence: NDArray[np.float32],
    version: Version,
) -> pa.Table:
    """The published table (:func:`lurm.tables.user_vectors_schema`) of vectors (U, d), confidence (U,)."""
    width = vectors.shape[1]
    columns = [
        states.users,
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
        pa.array(np.rint(states.n_behaviors).astype(np.int64)),
        pa.array(confidence),
        pa.array([month_name(number) for number in states.first_month.tolist()], pa.string()),
        pa.array([month_name(number) for number in states.last_month.tolist()], pa.string()),
        *(pa.array([name] * len(states.users), pa.string()) for name in version),
    ]
    return pa.table(columns, schema=user_vectors_schema(width, states.users.type))


def encode_month(
    smen: Smen, states: UserStates, boi: pa.Table, month: int
) -> tuple[UserStates, NDArray[np.float32]]:
    """The states after the month, and the published vectors (U, d) of all users known by then.

    ``boi`` is the month's bags (:data:`lurm.tables.BOI`), ``month`` its number. The work is done where
    ``smen`` is.

    Raises:
        ValueError: the states already hold the month; an interest the model does not know; a count that is
            not above zero; ids of another type than before.
    """
    settings = smen.settings
    if states.last_month.max(initial=NEVER) >= month:
        raise ValueError(
            f"encode_users: {month_name(month)} should go on from an earlier month, the states "
            f"already hold {month_name(int(states.last_month.max()))}; encode the months in order"
        )
    states, bags = _join(settings, states, boi)
    active = np.diff(bags.indptr) > 0
    moving = np.flatnonzero(active | (settings.empty_periods == "zeros"))
    scales, parts = {}, []
    for name, span in settings.scales.items():
        scale = _add_month(smen, states.scales[name], bags, active, month // span)
        now, steps = _advance(smen, scale, moving, month // span)
        if (month + 1) % span == 0:
            here = active[moving]
            scale = _close(scale, moving[here], now[here], steps[here])
        scales[name] = scale
        parts.append(now)
    vectors, device = (
        states.vectors,
        smen.head_mix.device,
    )  # _join made the vectors, so free to change
    for start in range(0, len(moving), CHUNK):
        rows = slice(start, start + CHUNK)
        with torch.inference_mode():
            merged = smen.merge([torch.from_numpy(part[rows]).to(device) for part in parts])
            vectors[moving[rows]] = smen.publish(merged).cpu().numpy()
    after = UserStates(
        users=states.users,
        n_behaviors=states.n_behaviors + np.asarray(bags.sum(axis=1)).ravel(),
        first_month=np.where(active & (states.first_month == NEVER), month, states.first_month),
        last_month=np.where(active, month, states.last_month),
        vectors=vectors,
        scales=scales,
    )
    return after, vectors


def _join(
    settings: SmenSettings, states: UserStates, boi: pa.Table
) -> tuple[UserStates, sparse.csr_matrix]:
    """The states with a row for each user of the month too, and the month's counts (U, D)."""
    ids = boi.column("user_id")
    _same_type(states.users, ids.type, "encode_users")
    interests = boi.column("interest").to_numpy()
    if len(interests) and not 0 <= interests.min() <= interests.max() < settings.n_interests:
        raise ValueError(
            f"encode_users: the model knows interests 0..{settings.n_interests - 1}, the bags hold "
            f"{interests.min()}..{interests.max()}; rerun build_boi with the model's interests"
        )
    counts = boi.column("count").to_numpy()
    if not ((counts > 0) & np.isfinite(counts)).all():
        raise ValueError(
            "encode_users: expected counts above zero in the bags, found others; rerun build_boi"
        )
    users = pa.concat_arrays([states.users.cast(ids.type), *ids.chunks]).unique()
    users = users.take(pc.sort_indices(users))
    old = pc.index_in(states.users.cast(ids.type), users).to_numpy(zero_copy_only=False)

    def grown(values: NDArray, fill: float) -> NDArray:
        out = np.full((len(users), *values.shape[1:]), fill, dtype=values.dtype)
        out[old] = values
        return out

    def grown_rows(counts: sparse.csr_matrix) -> sparse.csr_matrix:
        rows = counts.tocoo()
        shape = (len(users), settings.n_interests)
        return sparse.csr_matrix((rows.data, (old[rows.row], rows.col)), shape=shape)

    row = pc.index_in(ids, users).to_numpy()
    bags = sparse.csr_matrix(
        (counts, (row, interests)),
        shape=(len(users), settings.n_interests),
    )
    joined = UserStates(
        users=users,
        n_behaviors=grown(states.n_behaviors, 0),
        first_month=grown(states.first_month, NEVER),
        last_month=grown(states.last_month, NEVER),
        vectors=grown(states.vectors, 0),
        scales={
            name: ScaleState(
                hidden=grown(scale.hidden, 0),
                n_closed=grown(scale.n_closed, 0),
                period=grown(scale.period, NEVER),
                open_counts=grown_rows(scale.open_counts),
            )
            for name, scale in states.scales.items()
        },
    )
    return joined, bags


def _add_month(
    smen: Smen, scale: ScaleState, bags: sparse.csr_matrix, active: NDArray[np.bool_], period: int
) -> ScaleState:
    """The scale's state with the month's bags in; a new period first closes the one before it.

    Only users active in the month are touched: the others' open period can wait.
    """
    late = np.flatnonzero(active & (scale.period != NEVER) & (scale.period < period))
    hidden, steps = _advance(smen, scale, late, period - 1)
    scale = _close(scale, late, hidden, steps)
    open_counts = sparse.csr_matrix(scale.open_counts + bags, dtype=np.float32)
    open_counts.sort_indices()
    return replace(scale, period=np.where(active, period, scale.period), open_counts=open_counts)


def _close(
    scale: ScaleState,
    rows: NDArray[np.int64],
    hidden: NDArray[np.float32],
    steps: NDArray[np.int64],
) -> ScaleState:
    """The scale with the open periods of ``rows`` closed: ``hidden`` (rows, M, H) after ``steps`` more.

    Changes the arrays of ``scale``, which _join made.
    """
    scale.hidden[rows] = hidden
    scale.n_closed[rows] += steps
    kept = np.ones(len(scale.period), dtype=np.float32)
    kept[rows] = 0
    open_counts = sparse.csr_matrix(sparse.diags(kept) @ scale.open_counts)
    open_counts.eliminate_zeros()
    return replace(scale, open_counts=open_counts)


def _advance(
    smen: Smen, scale: ScaleState, rows: NDArray[np.int64], until: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The states (len(rows), M, H) as if period ``until`` had ended, and the steps they are ahead.

    A step for the open period, if there is one, and one for each empty period since if those count.
    """
    lengths = (np.diff(scale.open_counts.indptr)[rows] > 0).astype(np.int64)
    if smen.settings.empty_periods == "zeros":
        lengths += until - scale.period[rows]
    out = [scale.hidden[:0]]
    for start in range(0, len(rows), CHUNK):
        part, steps = rows[start : start + CHUNK], lengths[start : start + CHUNK]
        bags = scale.open_counts[part]
        sizes = np.zeros(steps.sum(), dtype=np.int64)
        sizes[(np.cumsum(steps) - steps)[steps > 0]] = np.diff(bags.indptr)[steps > 0]
        periods = Periods(
            lengths=steps,
            offsets=np.concatenate([[0], np.cumsum(sizes)]),
            interests=bags.indices.astype(np.int64),
            counts=bags.data,
        )
        with torch.inference_mode():
            states = smen.advance(
                periods,
                torch.from_numpy(scale.hidden[part]).to(smen.head_mix.device),
                torch.from_numpy(scale.n_closed[part]),
            )
        out.append(states.cpu().numpy())
    return np.concatenate(out), lengths
