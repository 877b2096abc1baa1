"""User vectors month by month: each month goes on from the states the months before left behind.

A state holds, per user and scale, the GRU's state after the last *closed* period and the counts of the
*open* one, so a month reads its own bags and nothing older, and a year's bag stays the log of its summed
counts. A period closes with its last month; where a user was not there then, with his next one. The result
is that of encoding the whole life at once (tests hold the two against each other).

Users do not meet here, so any of them can be encoded without the others. Where empty periods are skipped,
who was not active in the month stands where he stood: nothing need be read or computed for him
(:mod:`lurm.shards`). Where empty periods enter as zeros every vector moves every month.

Letters: U users, M anchors, H hidden size, D interests.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from scipy import sparse

from lurm.history import WINDOW, History
from lurm.months import month_name
from lurm.smen import Smen, SmenSettings, Version
from lurm.states import BAGS, ScaleState, UserStates, check_ids
from lurm.tables import user_vectors_schema
from lurm.timelines import Periods

NEVER = -1  # the open period, first or last month of a user before the first behavior
# Users whose bags are summed at once, and whose scales are merged: more leave a processor's caches, while a
# GPU waits for fewer.
CHUNKS = {"cpu": 512, "cuda": 8_192}
MERGED = {"cpu": 64, "cuda": 8_192}


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
        n_months=none,
        first_month=none,
        last_month=none,
        **dict.fromkeys(BAGS, scale.open_counts),
        scales=dict.fromkeys(settings.scales, scale),
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
        _names(states.first_month),
        _names(states.last_month),
        *(pa.repeat(name, len(states.users)) for name in version),
    ]
    return pa.table(columns, schema=user_vectors_schema(width, states.users.type))


def _names(months: NDArray[np.int64]) -> pa.Array:
    numbers, codes = np.unique(months, return_inverse=True)
    names = pa.array([month_name(number) for number in numbers.tolist()], pa.string())
    return names.take(pa.array(codes))


def with_others(now: pa.Table, still: pa.Table) -> pa.Table:
    """The rows of two published tables of different users in one, sorted by user."""
    together = pa.concat_tables([now, still.cast(now.schema)]).combine_chunks()
    return together.take(pc.sort_indices(together["user_id"]))


def encode_month(
    smen: Smen, states: UserStates, boi: pa.Table, month: int
) -> tuple[UserStates, NDArray[np.float32]]:
    """The states after the month, and the published vectors (U, d), of the users of both tables.

    ``states`` are those of any users that were there before, ``boi`` are bags of the month
    (:data:`lurm.tables.BOI`), ``month`` is its number. The work is done where ``smen`` is.

    Raises:
        ValueError: the states already hold the month; an interest the model does not know, or twice of a
            user; a count that is not above zero; ids of another type than before.
    """
    settings = smen.settings
    if states.last_month.max(initial=NEVER) >= month:
        raise ValueError(
            f"encode_users: {month_name(month)} should go on from an earlier month, the states "
            f"already hold {month_name(int(states.last_month.max()))}; encode the months in order"
        )
    states, bags = _join(settings, states, boi)
    active = np.diff(bags.indptr) > 0
    scales, parts = {}, []
    for name, span in settings.scales.items():
        scale = _add_month(smen, states.scales[name], bags, active, month // span)
        now, steps = _advance(smen, scale, np.arange(len(active)), month // span)
        if (month + 1) % span == 0:
            scale = _close(scale, np.flatnonzero(active), now[active], steps[active])
        scales[name] = scale
        parts.append(now)
    counts = {name: getattr(states, name) for name in BAGS}
    if smen.projection is not None:
        counts = _moved_on(states, bags, active, month)
    after = UserStates(
        users=states.users,
        n_behaviors=states.n_behaviors + np.asarray(bags.sum(axis=1)).ravel(),
        n_months=states.n_months + active,
        first_month=np.where(active & (states.first_month == NEVER), month, states.first_month),
        last_month=np.where(active, month, states.last_month),
        **counts,
        scales=scales,
    )
    history = None if smen.projection is None else state_history(after, month)
    numbers = np.empty((len(active), settings.n_anchors, settings.width), dtype=np.float32)
    with torch.inference_mode():
        for rows in _chunks(smen, len(active), MERGED):
            merged = smen.merge([_tensor(smen, part[rows]) for part in parts])
            numbers[rows] = merged.cpu().numpy()
        vectors = smen.publish(torch.from_numpy(numbers), history).numpy()
    return after, vectors


def still_moves(smen: Smen, last_month: NDArray[np.int64], month: int) -> NDArray[np.bool_]:
    """Whose vector changes in a month without behaviors, (U,): those whose windows are not empty yet.

    With ``empty_periods: zeros`` everybody's does.
    """
    if smen.settings.empty_periods == "zeros":
        return np.ones(len(last_month), dtype=bool)
    if smen.projection is None:
        return np.zeros(len(last_month), dtype=bool)
    return last_month >= month - WINDOW


def state_history(states: UserStates, month: int) -> History:
    """The users' histories as of a month that is their last or a later one."""
    away = month - states.last_month
    recent = (states.recent_0, states.recent_1, states.recent_2)
    window = sum(_kept(counts, away + age < WINDOW) for age, counts in enumerate(recent))
    return History(
        total=states.total,
        month=_kept(states.recent_0, away == 0),
        window=sparse.csr_matrix(window, dtype=np.float32),
        n_months=states.n_months,
        span=states.last_month - states.first_month + 1,
        away=np.minimum(away, WINDOW),
    )


def _moved_on(
    states: UserStates, bags: sparse.csr_matrix, active: NDArray[np.bool_], month: int
) -> dict[str, sparse.csr_matrix]:
    """The counts of BAGS after the month; those of users who were not active stay."""
    since = np.where(states.last_month == NEVER, WINDOW, month - states.last_month)
    bags = sparse.csr_matrix(bags, dtype=np.float32)
    bags.sort_indices()
    recent_0, recent_1, recent_2 = states.recent_0, states.recent_1, states.recent_2
    out = {
        "total": states.total + bags,
        "recent_0": _kept(recent_0, ~active) + bags,
        "recent_1": _kept(recent_1, ~active) + _kept(recent_0, active & (since == 1)),
        "recent_2": _kept(recent_2, ~active)
        + _kept(recent_1, active & (since == 1))
        + _kept(recent_0, active & (since == 2)),
    }
    for name, counts in out.items():
        out[name] = sparse.csr_matrix(counts, dtype=np.float32)
        out[name].sort_indices()
    return out


def _kept(counts: sparse.csr_matrix, rows: NDArray[np.bool_]) -> sparse.csr_matrix:
    """The counts of the users marked in ``rows``, the others' rows empty."""
    if rows.all():
        return counts
    out = sparse.csr_matrix(sparse.diags(rows.astype(np.float32)) @ counts)
    out.eliminate_zeros()
    return out


def _join(
    settings: SmenSettings, states: UserStates, boi: pa.Table
) -> tuple[UserStates, sparse.csr_matrix]:
    """The states with a row for each user of the month too, and the month's counts (U, D)."""
    ids = boi.column("user_id")
    check_ids(states.users, ids.type, "encode_users")
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
    row = pc.index_in(ids, users).to_numpy()
    bags = sparse.csr_matrix(
        (counts, (row, interests)),
        shape=(len(users), settings.n_interests),
    )
    if bags.nnz != len(counts):
        raise ValueError(
            "encode_users: expected each interest of a user once in the bags of a month, found "
            f"{len(counts) - bags.nnz:,} again; rerun build_boi"
        )
    if len(users) == len(states.users):
        return states, bags
    old = pc.index_in(states.users.cast(ids.type), users).to_numpy(zero_copy_only=False)

    def grown(values: NDArray, fill: float) -> NDArray:
        out = np.full((len(users), *values.shape[1:]), fill, dtype=values.dtype)
        out[old] = values
        return out

    def grown_rows(counts: sparse.csr_matrix) -> sparse.csr_matrix:
        rows = counts.tocoo()
        shape = (len(users), settings.n_interests)
        return sparse.csr_matrix((rows.data, (old[rows.row], rows.col)), shape=shape)

    joined = UserStates(
        users=users,
        n_behaviors=grown(states.n_behaviors, 0),
        n_months=grown(states.n_months, 0),
        first_month=grown(states.first_month, NEVER),
        last_month=grown(states.last_month, NEVER),
        **{name: grown_rows(getattr(states, name)) for name in BAGS},
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
    """The scale with the open periods of ``rows`` closed: ``hidden`` (rows, M, H) after ``steps`` more."""
    if len(rows) == 0:
        return scale
    if len(rows) < len(scale.hidden):
        before, hidden = hidden, scale.hidden.copy()
        hidden[rows] = before
    n_closed = scale.n_closed.copy()
    n_closed[rows] += steps
    kept = np.ones(len(scale.period), dtype=np.float32)
    kept[rows] = 0
    open_counts = sparse.csr_matrix(sparse.diags(kept) @ scale.open_counts)
    open_counts.eliminate_zeros()
    return ScaleState(hidden, n_closed, scale.period, open_counts)


def _advance(
    smen: Smen, scale: ScaleState, rows: NDArray[np.int64], until: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The states (len(rows), M, H) as if period ``until`` had ended, and the steps they are ahead.

    A step for the open period, if there is one, and one for each empty period since if those count.
    """
    lengths = (np.diff(scale.open_counts.indptr)[rows] > 0).astype(np.int64)
    if smen.settings.empty_periods == "zeros":
        lengths += until - scale.period[rows]
    out = np.empty((len(rows), *scale.hidden.shape[1:]), dtype=np.float32)
    for chunk in _chunks(smen, len(rows), CHUNKS):
        part, steps = rows[chunk], lengths[chunk]
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
                periods, _tensor(smen, scale.hidden[part]), torch.from_numpy(scale.n_closed[part])
            )
        out[chunk] = states.cpu().numpy()
    return out, lengths


def _tensor(smen: Smen, values: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(values).to(smen.head_mix.device)


def _chunks(smen: Smen, n_users: int, sizes: Mapping[str, int]) -> Iterator[slice]:
    size = sizes[smen.head_mix.device.type]
    return (slice(start, start + size) for start in range(0, n_users, size))
