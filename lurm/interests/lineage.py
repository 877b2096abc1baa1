"""Which interest is which from one release to the next (SimClusters keeps its communities in this way).

An interest has two numbers. Its *row* is its place in W^e and in the bags, 0..D-1, and means nothing beyond
one release. Its *id* is its own: it is born with it, keeps it, row and all, while it stays what it is, and
is retired with it; no id is given twice. The row of a retired interest goes to one that is born.

Where a standing interest lies among the new item vectors, the mean of its items says. The new vectors need
not lie in the space of the old, so neither the encoder nor the space has to be carried over. Measured on
the example, a month apart: 98 % of behaviors keep their interest in this way, at the mean cosine of a
cold start; with the spaces turned onto each other (orthogonal Procrustes on all items) 75 %, since the
words' random vectors are drawn anew when the vocabulary changes; with the encoder trained onward 99 %.

References: twitter/the-algorithm, `simclusters_v2`: a weekly run starts from the standing clusters, empty
ones get new members, and old centres are reported against new.

I items, D interests (D' standing ones), H hidden size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from lurm.tables import INTEREST_LINEAGE


def standing_interests(item_ids: pa.ChunkedArray, nearest: pa.Table) -> np.ndarray:
    """Row of the interest that every item has in the standing map, (I,) int64; -1 if it is not there.

    ``nearest`` has one row of ``tables.ITEM_INTERESTS`` per item.

    Raises:
        ValueError: the two identify items by different types.
    """
    if item_ids.type != nearest["item_id"].type:
        raise ValueError(
            f"item_id is {item_ids.type} in the catalog but {nearest['item_id'].type} in the standing "
            "map; deliver items with one type, or set cluster_interests.start to anew"
        )
    place = pc.index_in(item_ids, nearest["item_id"])
    return pc.fill_null(nearest["interest"].take(place), -1).to_numpy().astype(np.int64)


def places(vectors: np.ndarray, standing: np.ndarray, n_interests: int) -> np.ndarray:
    """Where standing interests lie: the directions of the means of their items, (D, H) float32.

    Zeros for an interest without items. vectors: (I, H) unit rows; standing: (I,) rows of interests, of
    which those below 0 and from D on are left out.

    >>> places(np.float32([[1, 0], [0, 1], [0, 1]]), np.array([0, 2, -1]), 3).tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    known = np.flatnonzero((standing >= 0) & (standing < n_interests))
    members = csr_array(
        (np.ones(len(known), np.float32), (standing[known], known)),
        shape=(n_interests, len(vectors)),
    )
    means = members @ np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return (means / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def remain(
    starts: np.ndarray, centres: np.ndarray, lost: np.ndarray, min_cosine: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows hold the interest that stood there, (D,) bool, and the cosines (D,) of start and centre.

    It must not have ``lost`` its place (:func:`lurm.interests.clustering.cluster_onward`), and its centre
    must not have turned away further than to ``min_cosine``. starts, centres: (D, H), unit rows or zeros.
    """
    cosines = np.einsum("dh,dh->d", starts, centres)
    return ~lost & starts.any(axis=1) & (cosines >= min_cosine), cosines


def shares_of(interests: np.ndarray, n_behaviors: np.ndarray, n_interests: int) -> np.ndarray:
    """Share of all behaviors in each interest, (D,) float64. interests: (I,) rows, -1 for none.

    >>> shares_of(np.array([1, -1, 1, 0]), np.array([2, 1, 4, 1]), 3).tolist()
    [0.125, 0.75, 0.0]
    """
    known = interests >= 0
    sums = np.bincount(interests[known], weights=n_behaviors[known], minlength=n_interests)
    shares: np.ndarray = sums / max(n_behaviors.sum(), 1)
    return shares


def first_lineage(shares: Sequence[float] | np.ndarray, through: str) -> pa.Table:
    """The lineage (``tables.INTEREST_LINEAGE``) of a first release: all are born, ids are rows.

    ``shares`` (D,) of behaviors; ``through``: the last month that the release has learnt from.
    """
    none = pa.table({name: pa.array([], kind) for name, kind in INTEREST_LINEAGE.items()})
    nothing = np.zeros(len(shares))
    return next_lineage(
        none, nothing.astype(bool), nothing, np.asarray(shares), nothing[:0], through
    )


def next_lineage(
    before: pa.Table,
    kept: np.ndarray,
    cosines: np.ndarray,
    shares: np.ndarray,
    shares_before: np.ndarray,
    through: str,
    last_id: int = -1,
) -> pa.Table:
    """What became of every interest there ever was, one row each, sorted by id (``INTEREST_LINEAGE``).

    Args:
        before: the lineage of the standing release.
        kept: (D,) which rows hold the interest that the standing release had there.
        cosines: (D,) between where that one stood and the centre.
        shares: (D,) of behaviors of the training months.
        shares_before: (D',) the same by the standing map.
        through: the last month that the new release has learnt from.
        last_id: the highest id that any release gave, also one that was taken back.

    Raises:
        ValueError: a row is kept in which no interest stood.
    """
    rows = [row for row in before.to_pylist() if row["status"] == "retired"]
    retired = [row | {"cosine": None, "share": None} for row in rows]
    standing = {row["interest"]: row for row in before.to_pylist() if row["status"] != "retired"}
    absent = [row for row in np.flatnonzero(kept).tolist() if row not in standing]
    if absent:
        raise ValueError(f"lineage: no interest stood in rows {absent}, so none can be kept there")
    following = 1 + max(before["interest_id"].to_pylist(), default=-1)
    following = max(following, 1 + last_id)
    now = []
    for row, share in enumerate(shares.tolist()):
        one: dict[str, Any] = {"interest": row, "share": share, "until": None}
        if kept[row]:
            old = {key: standing[row][key] for key in ("interest_id", "since")}
            now.append(one | old | {"status": "kept", "cosine": float(cosines[row])})
        else:
            new = {"interest_id": following, "since": through, "cosine": None}
            now.append(one | new | {"status": "born"})
            following += 1
    for row, old in standing.items():
        if row >= len(kept) or not kept[row]:
            share = float(shares_before[row]) if row < len(shares_before) else 0.0
            end = {"interest": None, "status": "retired", "until": through}
            retired.append(old | end | {"cosine": None, "share": share})
    every = sorted([*retired, *now], key=lambda row: row["interest_id"])
    return pa.Table.from_pylist(every, schema=pa.schema(list(INTEREST_LINEAGE.items())))


def changes(
    lineage: pa.Table, standing: np.ndarray, interests: np.ndarray, n_behaviors: np.ndarray
) -> dict[str, Any]:
    """What changed, in figures: the report of a retraining.

    ``behaviors_kept`` and ``items_kept`` are shares of all behaviors and items, new ones among them, whose
    interest now bears the id that it bore in the standing release.

    Args:
        lineage: of :func:`next_lineage`.
        standing: (I,) every item's row in the standing release, -1 if it had none.
        interests: (I,) every item's row now.
        n_behaviors: (I,) of the training months.
    """
    status = np.array(lineage["status"].to_pylist())
    told = lineage["share"].is_valid().to_numpy()  # of those retired before, there is no share
    rows = lineage.filter(pc.equal(lineage["status"], "kept"))
    is_kept = np.zeros(int(interests.max(initial=0)) + 1, dtype=bool)
    there = rows["interest"].to_numpy()
    is_kept[there[there < len(is_kept)]] = True
    same = (standing == interests) & is_kept[interests]
    cosines = rows["cosine"].to_numpy().astype(np.float64)
    return {
        "kept": int((status == "kept").sum()),
        "born": int((status == "born").sum()),
        "retired": int(((status == "retired") & told).sum()),
        "behaviors_kept": round(float(same @ n_behaviors / max(n_behaviors.sum(), 1)), 6),
        "items_kept": round(float(same.mean()), 6),
        "centre_cosine": {
            "mean": round(float(cosines.mean()), 6),
            "least_of_95_percent": round(float(np.quantile(cosines, 0.05)), 6),
            "least": round(float(cosines.min()), 6),
        }
        if len(cosines)
        else None,
    }
