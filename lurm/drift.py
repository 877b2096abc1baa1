"""Drift: what a month looks like beside the months before it, and beside what the models were trained on.

A month is boiled down to its *measures*, ``{kind: {key: value}}``: kind ``figure`` holds single numbers,
every other kind counts by key. The measures of the last months travel from month to month, so that a month
reads its own data and what the month before left behind. What they differ by are the drift's *figures*;
limits from the settings give each a level, and the worst level is the month's:

    calm      nothing to see
    note      it stands in the report
    warn      a person is told
    retrain   a person is told to retrain: the models no longer fit what comes in

Letters: U users, M anchors, D interests, d numbers of a vector.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lurm.database import literal, one
from lurm.metrics import binary_auc
from lurm.states import parts
from lurm.storage import read_parquet, read_schema, reader
from lurm.tables import MEASURES, USER_VECTORS, check_columns
from lurm.vectors import vector_matrix

Measures = dict[str, dict[str, float]]


class Moved(NamedTuple):
    """Vectors of some users: as of the month, and of those among them that were there the month before."""

    x: NDArray[np.float32]  # (U, d) as of the month
    before: NDArray[np.float32]  # (U', d) as of the month before
    rows: NDArray[np.int64]  # (U',) of the same users in x
    active: NDArray[np.bool_]  # (U',) whether they had behaviors in the month


TRAINING = "training"  # stands for the months of training among the months of a state
LEVELS = ("calm", "note", "warn", "retrain")
N_BINS, N_MOVERS = 10, 5
USERS = 65_536  # whose vectors are in memory at once

# What each figure says; those with a sign are judged by their size.
MEANINGS = {
    "behaviors_change": "the change of volume",
    "users_change": "the change of the number of users",
    "new_users_change": "the change of the share of new users",
    "activity_psi": "the shift in behaviors per user (PSI)",
    "mix_psi": "the shift in the category mix (PSI)",
    "interest_psi": "the shift in interests (PSI)",
    "interest_psi_training": "the shift in interests since training (PSI)",
    "anchor_psi": "the shift in the use of anchors (PSI)",
    "unknown_items": "the share of behaviors with items that came after training",
    "unknown_distance": "how much farther such items lie from their interests than others",
    "norm_change": "the change of the vectors' mean length",
    "mean_shift": "the shift of the mean vector, in spreads of the vectors",
    "turn": "the median turn of active users' vectors in the month (1 - cosine)",
    "auc_loss": "the loss of the heads' AUC against that at training",
    "calibration_gap": "the gap between what heads predicted and what came",
}


def psi(now: Sequence[float] | NDArray, past: Sequence[float] | NDArray) -> float:
    """Population stability index of two sets of counts (K,) over the same keys, 0 if they are alike.

    ``sum_k (p_k - q_k) ln(p_k / q_k)`` of the shares, half a count added to every key on both sides, so
    that one that vanishes or appears stays finite. By custom 0.1 is worth a look and 0.25 a shift.

    >>> round(psi([50, 50], [50, 50]), 3), round(psi([75, 25], [50, 50]), 3)
    (0.0, 0.269)
    """
    p, q = (np.asarray(counts, dtype=np.float64) + 0.5 for counts in (now, past))
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


# ---- what a month looks like --------------------------------------------------------------------


def count_month(
    connection: duckdb.DuckDBPyConnection,
    behaviors: Path,
    boi: Path,
    item_interests: Path,
    standing: Path,
) -> Measures:
    """Behaviors, users and interests of a month, and its items that training did not know.

    ``activity`` counts users by doublings of their behaviors in the month, ``interest`` behaviors.

    Args:
        connection: to count with.
        behaviors: the clean month.
        boi: its bags.
        item_interests: the month's map of items to interests.
        standing: the map of the items known at training.
    """
    where = [
        f"read_parquet({literal(path)})" for path in (behaviors, boi, item_interests, standing)
    ]
    rows, bags, items, known = where
    nearest = f"(SELECT item_id, max(cosine) AS cosine FROM {items} GROUP BY item_id)"
    n, new, cosine_known, cosine_new = one(
        connection,
        "SELECT count(*), count(*) FILTER (fresh), avg(cosine) FILTER (NOT fresh), "
        "avg(cosine) FILTER (fresh) FROM "
        "(SELECT cosine, k.item_id IS NULL AS fresh "
        f"FROM {rows} JOIN {nearest} USING (item_id) "
        f"LEFT JOIN (SELECT DISTINCT item_id FROM {known}) AS k USING (item_id))",
    )
    activity = connection.sql(
        "SELECT floor(log2(n))::INTEGER, count(*) FROM "
        f"(SELECT count(*) AS n FROM {rows} GROUP BY user_id) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    masses = connection.sql(
        f"SELECT interest, sum(count::DECIMAL(18, 6))::DOUBLE FROM {bags} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    figures = {
        "behaviors": float(n),
        "users": float(sum(users for _, users in activity)),
        "unknown_items": new / max(n, 1),
        "cosine_known": cosine_known,
        "cosine_unknown": cosine_new,
    }
    return {
        "figure": {name: round(value, 6) for name, value in figures.items() if value is not None},
        "activity": {str(doubling): float(users) for doubling, users in activity},
        "interest": {str(interest): round(mass, 6) for interest, mass in masses},
    }


def anchor_use(shares: NDArray[np.float32], interests: Mapping[str, float]) -> dict[str, float]:
    """Behaviors that each anchor takes up: the interests' masses, shared out as eq. 6 says.

    shares: alpha (D, M), rows sum to 1 (:meth:`lurm.smen.MultiAnchor.shares`).
    """
    rows = np.array([int(key) for key in interests], dtype=np.int64)
    masses = np.array(list(interests.values()), dtype=np.float64)
    return {
        str(k): round(float(v), 3) for k, v in enumerate(masses @ shares[rows].astype(np.float64))
    }


def moved(vectors: Path, previous: Path, month: str) -> Iterator[Moved]:
    """The vectors as of the month beside those of the month before, part by part.

    Raises:
        ValueError: columns are missing, they are not of one model, or users of the month before are gone.
    """
    for path in (vectors, previous):
        check_columns(read_schema(path), USER_VECTORS, str(path))
    ids, known = (
        read_parquet(path, ["user_id"])["user_id"].combine_chunks() for path in (vectors, previous)
    )
    now, before = reader(vectors), reader(previous)
    for rows_before, rows_now in parts(known, ids, USERS, vectors):
        x, then = now(rows_now), before(rows_before)
        places = pc.index_in(
            then["user_id"].combine_chunks().cast(ids.type), x["user_id"].combine_chunks()
        )
        models = pa.concat_tables([x, then.cast(x.schema)])["model_version"].unique().to_pylist()
        if places.null_count or len(models) != 1:
            raise ValueError(
                f"{vectors}: expected all users of {previous}, with vectors of one model, found "
                f"{places.null_count:,} missing and vectors of {', '.join(models)}; name the vectors of "
                f"{month} and of the month before"
            )
        rows = places.to_numpy().astype(np.int64)
        active = np.asarray(pc.equal(x["last_month"], month), dtype=bool)
        matrix = vector_matrix(x)
        there = vector_matrix(then) if len(then) else matrix[:0]
        yield Moved(matrix, there, rows, active[rows])


def vector_figures(parts: Callable[[], Iterable[Moved]]) -> dict[str, float]:
    """How long the vectors are, and how far they moved in the month.

    Args:
        parts: gives the users part by part, from the first again at each call.

    Returns:
        ``norm``, the mean length; ``mean_shift``, how far the mean of all vectors moved, in root mean
        squares of the distance to it; ``turn``, the median over active users of one minus the cosine
        between their vectors before and now, both from the mean before. The last two only if there was a
        month before.
    """
    sums = [(len(part.before), part.before.sum(axis=0, dtype=np.float64)) for part in parts()]
    n_before = sum(n for n, _ in sums)
    mean = np.sum([total for _, total in sums], axis=0) / max(n_before, 1)

    n, norms, squares, shift, cosines = 0, 0.0, 0.0, np.zeros_like(mean), []
    for part in parts():
        n += len(part.x)
        norms += float(np.linalg.norm(part.x.astype(np.float64), axis=1).sum())
        then, now = part.before - mean, part.x - mean
        squares += float((then**2).sum())
        shift += now.sum(axis=0)
        now = now[part.rows]
        lengths = np.linalg.norm(then, axis=1) * np.linalg.norm(now, axis=1)
        turning = part.active & (lengths > 0)
        cosines.append((then * now).sum(axis=1)[turning] / lengths[turning])

    found = {"norm": norms / n}
    if squares > 0:
        found["mean_shift"] = float(np.linalg.norm(shift / n)) / (squares / n_before) ** 0.5
    turned = np.concatenate(cosines)
    if len(turned):
        found["turn"] = float(1 - np.median(turned))
    return {name: round(value, 6) for name, value in found.items()}


# ---- heads, once labels are there ---------------------------------------------------------------


def score_head(
    probabilities: NDArray[np.float32], came: NDArray[np.bool_], auc_at_training: float
) -> dict[str, Any]:
    """How a head's predictions (U,) did against what came (U,), as a JSON object.

    ``calibration_error`` is the mean over tenths of the users, by prediction, of the distance between the
    mean prediction and the share of those to whom it came. ``auc`` is None if it came to all or to none.
    """
    order = np.argsort(probabilities, kind="stable")
    bins = [part for part in np.array_split(order, N_BINS) if len(part)]
    gaps = [len(b) * abs(float(probabilities[b].mean() - came[b].mean())) for b in bins]
    told = came.any() and not came.all()
    return {
        "users": len(came),
        "auc": round(binary_auc(came, probabilities), 6) if told else None,
        "auc_at_training": round(auc_at_training, 6),
        "predicted": round(float(probabilities.mean(dtype=np.float64)), 6),
        "observed": round(float(came.mean()), 6),
        "calibration_error": round(sum(gaps) / len(came), 6),
    }


def heads_figures(tasks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the tasks, each of :func:`score_head`, of the loss of AUC and |predicted - observed|."""
    losses = [t["auc_at_training"] - t["auc"] for t in tasks if t["auc"] is not None]
    gaps = [abs(t["predicted"] - t["observed"]) for t in tasks]
    found = {"auc_loss": losses, "calibration_gap": gaps}
    return {name: float(np.mean(values)) for name, values in found.items() if values}


# ---- a month beside others ----------------------------------------------------------------------


def compare(now: Measures, past: Mapping[str, Measures]) -> dict[str, float]:
    """The figures of :data:`MEANINGS` that a month's measures give beside those of the months before.

    Counts are compared with the sum over the trailing months, single numbers with their mean; without
    trailing months only what needs none is there.

    Args:
        now: of the month.
        past: by month in order, of the trailing months, and of :data:`TRAINING` if known.
    """
    trailing = [measures for month, measures in past.items() if month != TRAINING]
    own = now["figure"]
    found: dict[str, float] = {
        name: own[name] for name in ("unknown_items", "mean_shift", "turn") if name in own
    }
    if "cosine_unknown" in own and "cosine_known" in own:
        found["unknown_distance"] = own["cosine_known"] - own["cosine_unknown"]
    if past.get(TRAINING, {}).get("interest"):
        found["interest_psi_training"] = _psi_of("interest", now, [past[TRAINING]])
    for name, figure in (
        ("behaviors", "behaviors_change"),
        ("users", "users_change"),
        ("norm", "norm_change"),
    ):
        before = [m["figure"][name] for m in trailing if m["figure"].get(name)]
        if before:
            found[figure] = own[name] / float(np.mean(before)) - 1
    shares = [m["figure"]["new_users"] for m in trailing if "new_users" in m["figure"]]
    if shares and "new_users" in own:
        found["new_users_change"] = own["new_users"] - float(np.mean(shares))
    if trailing:
        for kind in ("activity", "mix", "interest", "anchor"):
            found[f"{kind}_psi"] = _psi_of(kind, now, trailing)
    return found


def _psi_of(kind: str, now: Measures, past: Sequence[Measures]) -> float:
    keys = sorted({key for measures in (now, *past) for key in measures.get(kind, {})})
    before = [sum(measures.get(kind, {}).get(key, 0) for measures in past) for key in keys]
    return psi([now[kind].get(key, 0) for key in keys], before)


def movers(now: Measures, past: Mapping[str, Measures]) -> list[dict[str, Any]]:
    """The interests whose share of the behaviors moved most against the trailing months, in points."""
    trailing = [measures for month, measures in past.items() if month != TRAINING]
    if not trailing:
        return []
    total = sum(now["interest"].values()) or 1
    before_total = sum(sum(m["interest"].values()) for m in trailing) or 1
    keys = {key for measures in (now, *trailing) for key in measures["interest"]}
    rows = [
        (
            now["interest"].get(key, 0) / total,
            sum(m["interest"].get(key, 0) for m in trailing) / before_total,
            int(key),
        )
        for key in keys
    ]
    rows.sort(key=lambda row: (-abs(row[0] - row[1]), row[2]))
    return [
        {"interest": interest, "share": round(share, 6), "before": round(before, 6)}
        for share, before, interest in rows[:N_MOVERS]
    ]


def judge(
    figures: Mapping[str, float], limits: Mapping[str, Mapping[str, float | None]]
) -> list[dict[str, Any]]:
    """Every figure of :data:`MEANINGS` with its value, None if there is none, and its level.

    limits: by figure, the size from which on it is of level ``note``, ``warn``, ``retrain``; None: never.

    >>> judge({"turn": 0.3}, {name: {"note": 0.1, "warn": 0.2, "retrain": None} for name in MEANINGS})[12]
    {'figure': 'turn', 'value': 0.3, 'level': 'warn'}
    """
    told = []
    for figure in MEANINGS:
        value, level = figures.get(figure), "calm"
        for name in LEVELS[1:]:
            limit = limits[figure][name]
            if value is not None and limit is not None and abs(value) >= limit:
                level = name
        value = None if value is None else round(value, 6)
        told.append({"figure": figure, "value": value, "level": level})
    return told


def worst(levels: Sequence[str]) -> str:
    """The worst of the levels."""
    return max(levels, key=LEVELS.index, default=LEVELS[0])


def sentences(month: str, judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a person is told of the figures that warn or ask for a retraining, worst first."""
    loud = sorted(
        (row for row in judged if LEVELS.index(row["level"]) >= 2),
        key=lambda row: -LEVELS.index(row["level"]),
    )
    return [
        f"{month}: {MEANINGS[row['figure']]} is {row['value']:.3g}"
        + ("; trigger lurm_retrain" if row["level"] == "retrain" else "")
        for row in loud
    ]


# ---- what travels from month to month -----------------------------------------------------------


def to_table(state: Mapping[str, Measures]) -> pa.Table:
    """The measures by month as rows of :data:`lurm.tables.MEASURES`, in their order."""
    rows = [
        (month, kind, key, value)
        for month, measures in state.items()
        for kind, values in measures.items()
        for key, value in values.items()
    ]
    columns = zip(*rows, strict=True) if rows else ([] for _ in MEASURES)
    return pa.table([list(c) for c in columns], schema=pa.schema(MEASURES))


def from_table(table: pa.Table) -> dict[str, Measures]:
    """The measures by month that :func:`to_table` laid out."""
    state: dict[str, Measures] = {}
    for row in table.to_pylist():
        kinds = state.setdefault(row["month"], {})
        kinds.setdefault(row["kind"], {})[row["key"]] = row["value"]
    return state


def carry_on(
    past: Mapping[str, Measures], month: str, now: Measures, window: int
) -> dict[str, Measures]:
    """What the next month is held against: training, and the last ``window`` months with this one."""
    months = [name for name in past if name != TRAINING][-(window - 1) :] if window > 1 else []
    kept = [*([TRAINING] if TRAINING in past else []), *months]
    return {**{name: past[name] for name in kept}, month: now}
