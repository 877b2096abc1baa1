"""The explorer of a release: interests, lives and anchors as one page to look around in, offline.

What the page holds is packed: rows of numbers as base64 of little-endian arrays, texts as lists. So 1e5
interests stay a page that opens in seconds. Users appear under other names; each life stands in an
element of its own, which erasure takes out (:mod:`lurm.erasure.artifacts`).

Letters: D interests, N months, M anchors, k neighbors, L lives.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lurm.reporting.pages import render

N_ROWS = 14  # interests shown of a life
N_OWN = 4  # interests named of an anchor


@dataclass(frozen=True)
class Life:
    """What one user did: by month and interest a count."""

    name: str  # under which the user appears
    n_behaviors: int
    confidence: float
    bags: Mapping[str, Mapping[int, float]]  # by month


@dataclass(frozen=True)
class Release:
    """What the stages wrote, as it was read; rows of interests are in order of their number."""

    months: Sequence[str]
    through: str  # the last month of training
    interests: pa.Table  # lurm.interests.description.describe
    lineage: pa.Table  # tables.INTEREST_LINEAGE
    since_standing: Mapping[str, Any] | None  # lurm.interests.lineage.changes
    interest_map: pa.Table  # map_interests
    anchor_map: pa.Table  # map_interests
    masses: NDArray[np.float64]  # (D, N) of behaviors
    items: pa.Table  # text, interest, n_behaviors; those that can be searched for
    lives: Sequence[Life]
    scores: Mapping[str, Any]  # lurm.reporting.scores.summary
    drift: Mapping[str, Mapping[str, Any]]  # every month: watch_drift


def pack(array: NDArray[Any], kind: str) -> str:
    """The numbers as base64 of a little-endian array of this dtype.

    >>> pack(np.array([1, 2]), "uint8")
    'AQI='
    """
    return base64.b64encode(
        np.ascontiguousarray(array, np.dtype(kind).newbyteorder("<")).tobytes()
    ).decode()


def anchors_of_bag(bag: Mapping[int, float], shares: NDArray[np.float32]) -> NDArray[np.float64]:
    """Which part of a bag each anchor holds, (M,), sum 1: sum_j alpha_ij b_j over its interests (eq. 5-6).

    shares: alpha (D, M). An empty bag is held by nobody: zeros.

    >>> anchors_of_bag({0: 1.0}, np.float32([[0.25, 0.75]])).tolist()
    [0.25, 0.75]
    """
    held = np.zeros(shares.shape[1])
    for interest, count in bag.items():
        held += np.log1p(count) * shares[interest]
    return held / held.sum() if held.sum() else held


def explorer_page(release: Release) -> str:
    """The page as HTML that needs nothing from outside."""
    lives = [{"name": life.name, "json": _script(_life(life, release))} for life in release.lives]
    return render(
        "explorer.html",
        model_version=release.scores["model_version"],
        months=list(release.months),
        through=release.through,
        n_interests=len(release.interests),
        n_items=len(release.items),
        n_anchors=len(release.interest_map["anchor_shares"][0]),
        since=release.since_standing,
        born=_named(release, "born"),
        retired=_named(release, "retired"),
        scores=release.scores,
        drift=release.drift,
        lives=lives,
        payload=_script(_payload(release)),
    )


def _payload(release: Release) -> dict[str, Any]:
    """What the page draws from."""
    interests, places = release.interests, release.interest_map
    shares = np.stack(places["anchor_shares"].to_numpy(zero_copy_only=False))
    totals = np.maximum(release.masses.sum(axis=0), 1)
    trend = release.masses / totals
    peak = np.maximum(trend.max(axis=1, keepdims=True), 1e-12)
    log_mass = np.log1p(release.masses).sum(axis=1)
    log_mass /= max(log_mass.sum(), 1e-12)
    near = np.stack(places["neighbors"].to_numpy(zero_copy_only=False))
    lineage = {
        row["interest"]: row for row in release.lineage.to_pylist() if row["interest"] is not None
    }
    rows = [lineage[row] for row in range(len(interests))]
    return {
        "months": list(release.months),
        "through": release.through,
        "n_anchors": shares.shape[1],
        "n_neighbors": near.shape[1],
        "words": interests["top_words"].to_pylist(),
        "top_items": [texts[:3] for texts in interests["top_items"].to_pylist()],
        "ids": pack(np.array([row["interest_id"] for row in rows]), "int32"),
        "born": pack(np.array([row["status"] == "born" for row in rows]), "uint8"),
        "since": [row["since"] for row in rows],
        "n_items": pack(interests["n_items"].to_numpy(), "int32"),
        "n_users": pack(interests["n_users"].to_numpy(), "int32"),
        "n_behaviors": pack(release.masses.sum(axis=1), "float32"),
        "x": pack(places["x"].to_numpy(), "float32"),
        "y": pack(places["y"].to_numpy(), "float32"),
        "neighbors": pack(near, "int32"),
        "anchor": pack(shares.argmax(axis=1), "uint8"),
        "anchor_share": pack(np.rint(255 * shares.max(axis=1)), "uint8"),
        "trend": pack(np.rint(255 * trend / peak), "uint8"),
        "peak": pack(peak, "float32"),
        "items": release.items["text"].to_pylist(),
        "item_interest": pack(release.items["interest"].to_numpy(), "int32"),
        "item_behaviors": pack(release.items["n_behaviors"].to_numpy(), "int32"),
        "outputs": {
            "anchor": pack(release.anchor_map["anchor"].to_numpy(), "uint8"),
            "x": pack(release.anchor_map["x"].to_numpy(), "float32"),
            "y": pack(release.anchor_map["y"].to_numpy(), "float32"),
        },
        "anchors": [
            {
                "mass": round(float(column @ log_mass), 4),
                "own": np.argsort(-(column - column @ log_mass) * log_mass, kind="stable")[
                    :N_OWN
                ].tolist(),
            }
            for column in shares.T
        ],
    }


def _life(life: Life, release: Release) -> dict[str, Any]:
    shares = np.stack(release.interest_map["anchor_shares"].to_numpy(zero_copy_only=False))
    total: dict[int, float] = {}
    for bag in life.bags.values():
        for interest, count in bag.items():
            total[interest] = total.get(interest, 0) + count
    rows = sorted(total, key=lambda interest: (-total[interest], interest))[:N_ROWS]
    bags = [life.bags.get(month, {}) for month in release.months]
    return {
        "name": life.name,
        "n_behaviors": life.n_behaviors,
        "confidence": round(life.confidence, 2),
        "n_interests": len(total),
        "rows": rows,
        "counts": [[round(bag.get(row, 0), 2) for bag in bags] for row in rows],
        "others": [round(sum(v for i, v in bag.items() if i not in rows), 2) for bag in bags],
        "anchors": [[round(share, 3) for share in anchors_of_bag(bag, shares)] for bag in bags],
    }


def _named(release: Release, status: str) -> list[dict[str, Any]]:
    """The interests that came or went with this release, those of most behaviors first."""
    words = release.interests["top_words"].to_pylist()
    rows = [
        row | {"words": words[row["interest"]] if row["interest"] is not None else []}
        for row in release.lineage.to_pylist()
        if row["status"] == status and row["share"] is not None
    ]
    return sorted(rows, key=lambda row: (-row["share"], row["interest_id"]))


def _script(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
