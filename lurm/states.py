"""Where users stand after a month, on disk: shards of users, memory-mapped and read in parts.

Users do not meet in encoding, so a month is encoded in :func:`parts`: memory follows the part, but for the
ids of users. States lie in shards, folders of at most SHARD users in the order of their ids, which one
process makes one after the other, or many machines side by side.

Letters: U users, M anchors, H hidden size, D interests, d numbers of a vector.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

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
    row_count,
    shard_folder,
    shard_folders,
    write_json,
    write_parquet,
)

SHARD = 262_144  # users whose states share a folder
PART = 8_192  # users whose states are in memory at once; larger ones are slower, too
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


def model_of(pieces: Sequence[Piece]) -> str:
    """The model that left the states behind.

    Raises:
        ValueError: not all were left by one.
    """
    model: str = read_json(pieces[0][0] / "about.json")["model_version"]
    for shard, _ in pieces[1:]:
        check_model(shard, model)
    return model


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
    check_ids(before, ids.type, where)
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


def check_ids(before: pa.Array, id_type: pa.DataType, where: Path | str) -> None:
    """Return if ids of that type can go on from the ids of earlier months.

    Raises:
        ValueError: they cannot.
    """
    if len(before) and before.type != id_type:
        raise ValueError(
            f"{where}: expected user ids of type {before.type} as in earlier months, found {id_type}; "
            "deliver ids of one type"
        )
