"""Every item, seen in training or new, to the interest of its nearest centre.

Up to ``EXACT_UP_TO`` centres all of them are looked at. Above, only those of the ``PROBES`` nearest of
about sqrt(D) cells of centres (an inverted file), which finds the nearest centre of more than 99 % of
items that lie in clusters (``python -m benchmarks.interests``).

Matrix products round differently with the number of threads, the device and a row's place in its block,
so they only propose candidates: all centres within ``MARGIN`` of the nearest, which is more than that
rounding. Their cosines are then computed one pair at a time. An item's interest therefore depends on its
own vector and the centres, on nothing else.

faiss's inverted file reads a cell once for every row, one inner product at a time. Here all rows of a chunk
that look into a cell do so in one matrix product.

I items, D interests, H hidden size, k interests per item; n rows of a chunk, p pairs of row and centre.
"""

import logging
from collections.abc import Callable

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import threadpoolctl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lurm.tables import ITEM_INTERESTS

LEAST_WEIGHT = 1e-6  # of an interest in an item: what the sums of lurm/boi.py can hold

# Items searched at once, and the products that are held meanwhile (64 MB).
CHUNK, PRODUCTS = 16_384, 1 << 24
# Products of unit rows differ by less, however they are summed in float32.
MARGIN = 1e-5
# Centres that lie as near as the k-th, at most, the lowest first; a row of zeros has all of them.
MOST_TIES = 64
# A search of all centres costs D per item, one by cells about (PROBES + 1) sqrt(D).
EXACT_UP_TO = 16_384
PROBES, CELL_ROUNDS = 16, 5
CHECKED = 1_000  # items, at most, that are looked up among all centres as well
log = logging.getLogger(__name__)

# Places of rows and of centres, and their products, (p,) each.
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def nearest(
    vectors: np.ndarray, centres: np.ndarray, k: int = 1, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest centres of every vector and their cosines, nearest first; ties to the lowest.

    Args:
        vectors: (I, H) float32 unit rows; may be memory-mapped, it is read in chunks.
        centres: (D, H) float32 unit rows.
        k: centres wanted for each vector.
        device: where candidates are looked for: ``cpu``, or torch's name of a GPU, which looks at all.

    Returns:
        (I, k) int32 row numbers of centres, and (I, k) float32 cosines.

    Raises:
        ValueError: fewer than k centres, another width than theirs, or vectors with NaN.
    """
    if k > len(centres):
        raise ValueError(
            f"{k} interests per item were asked of {len(centres)}; "
            "lower cluster_interests.interests_per_item"
        )
    if vectors.shape[1] != centres.shape[1]:
        raise ValueError(
            f"item vectors have width {vectors.shape[1]}, centres {centres.shape[1]}; "
            "they come from different releases: rebuild the interests"
        )
    centres = np.ascontiguousarray(centres, dtype=np.float32)
    if device != "cpu":
        candidates = _on_gpu(centres, k, device)
    elif len(centres) > EXACT_UP_TO:
        candidates = _by_cell(centres, k)
    else:
        candidates = _among_all(centres, k)

    def of_chunk(start: int) -> tuple[np.ndarray, np.ndarray]:
        chunk = np.ascontiguousarray(vectors[start : start + CHUNK], dtype=np.float32)
        if not np.isfinite(chunk).all():
            raise ValueError(
                "item vectors hold NaN or infinity; rerun embed_items with a lower rate"
            )
        row, centre, _ = candidates(chunk)
        cosines = np.einsum("ph,ph->p", chunk[row], centres[centre])  # not by BLAS
        order = np.lexsort((centre, -cosines, row))
        first = np.searchsorted(row[order], np.arange(len(chunk)))
        best = order[first[:, None] + np.arange(k)]
        return centre[best].astype(np.int32), cosines[best]

    starts = range(0, len(vectors), CHUNK)
    if len(starts) < 2 or device != "cpu":
        found = [of_chunk(start) for start in starts]
    else:
        with threadpoolctl.threadpool_limits(1):  # a core for each chunk
            found = joblib.Parallel(-1, prefer="threads")(map(joblib.delayed(of_chunk), starts))
    if not found:
        return np.empty((0, k), np.int32), np.empty((0, k), np.float32)
    interests, cosines = map(np.concatenate, zip(*found, strict=True))
    if device == "cpu" and len(centres) > EXACT_UP_TO:
        _warn_of_misses(vectors, centres, cosines[:, 0])
    return interests, cosines


def _warn_of_misses(vectors: np.ndarray, centres: np.ndarray, cosines: np.ndarray) -> None:
    """Say so if the search by cells missed the nearest centre of one in a hundred of some items or more."""
    some = np.arange(0, len(vectors), max(10, len(vectors) // CHECKED))
    rows = np.ascontiguousarray(vectors[some], dtype=np.float32)
    width = max(1, PRODUCTS // len(centres))
    blocks = (rows[start : start + width] for start in range(0, len(rows), width))
    best = np.concatenate([(block @ centres.T).max(1) for block in blocks])
    missed = float(np.mean(best > cosines[some] + MARGIN))
    if missed >= 0.01:
        log.warning(
            "assignment: the nearest centre of %.0f %% of %d items looked at was missed, as happens where "
            "items lie in no clusters; raise PROBES in lurm/interests/assignment.py, or search on a GPU, "
            "which looks at all centres",
            *(100 * missed, len(some)),
        )


def _near(rows: np.ndarray, centres: np.ndarray, k: int) -> Pairs:
    """Every row (n, H) with the centres as near as its k-th nearest, or all if they are fewer than k."""
    found = []
    k, width = min(k, len(centres)), max(1, PRODUCTS // len(centres))
    for start in range(0, len(rows), width):
        products = rows[start : start + width] @ centres.T
        kth = products.max(1) if k == 1 else np.partition(products, -k, axis=1)[:, -k]
        places = np.flatnonzero(products >= kth[:, None] - MARGIN)
        row, centre = np.divmod(places, len(centres))
        product = products.ravel()[places]
        few = (product > kth[row] + MARGIN) | (_rank(row) < k + MOST_TIES)
        found.append((row[few] + start, centre[few], product[few]))
    return _joined(found)


def _joined(found: list[Pairs]) -> Pairs:
    row, centre, product = zip(*found, strict=True)
    return np.concatenate(row), np.concatenate(centre), np.concatenate(product)


def _rank(row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of every pair among those of its row, 0, 1, ...; pairs are sorted by row."""
    return np.arange(len(row)) - np.searchsorted(row, row)


def _among_all(centres: np.ndarray, k: int) -> Callable[[np.ndarray], Pairs]:
    return lambda rows: _near(rows, centres, k)


def _by_cell(centres: np.ndarray, k: int) -> Callable[[np.ndarray], Pairs]:
    """Candidates among the centres of the nearest cells."""
    cells = _cells(centres)
    label = nearest(centres, cells)[0][:, 0]
    members = np.split(
        np.argsort(label, kind="stable"), np.cumsum(np.bincount(label, minlength=len(cells)))[:-1]
    )
    # By their lowest centre, so that a row as near to all of them finds the lowest centres.
    in_order = sorted(np.unique(label), key=lambda cell: members[cell][0])
    cells, members = cells[in_order], [members[cell] for cell in in_order]
    blocks = [centres[places] for places in members]
    n_probes = min(max(PROBES, k), len(cells))

    def candidates(rows: np.ndarray) -> Pairs:
        probes = _probes(rows, cells, n_probes).ravel()
        looks = np.argsort(probes, kind="stable")  # of row and probe, by cell
        by_cell = np.split(looks, np.searchsorted(probes[looks], np.arange(1, len(cells))))
        found = []
        for look, places, block in zip(by_cell, members, blocks, strict=True):
            if len(look):
                row, centre, product = _near(rows[look // n_probes], block, k)
                found.append((look[row] // n_probes, places[centre], product))
        row, centre, product = _joined(found)
        is_short = np.bincount(row, minlength=len(rows)) < k
        if is_short.any():  # their cells hold fewer than k centres
            others, short = ~is_short[row], np.flatnonzero(is_short)
            missed, there, its = _near(rows[short], centres, k)
            row, centre, product = _joined(
                [(row[others], centre[others], product[others]), (short[missed], there, its)]
            )
        order = np.lexsort((-product, row))
        row, centre, product = row[order], centre[order], product[order]
        kth = product[np.searchsorted(row, np.arange(len(rows))) + k - 1]
        near = product >= kth[row] - MARGIN
        return row[near], centre[near], product[near]

    return candidates


def _probes(rows: np.ndarray, cells: np.ndarray, n_probes: int) -> NDArray[np.int64]:
    """The nearest cells (n, n_probes) of each row; exactly, where others lie as near as the last."""
    row, cell, _ = _near(rows, cells, n_probes)
    crowded = np.bincount(row, minlength=len(rows)) > n_probes
    probes = np.empty((len(rows), n_probes), np.int64)
    probes[~crowded] = cell[~crowded[row]].reshape(-1, n_probes)
    if crowded.any():
        probes[crowded] = nearest(rows[crowded], cells, n_probes)[0]
    return probes


def _on_gpu(centres: np.ndarray, k: int, device: str) -> Callable[[np.ndarray], Pairs]:
    """:func:`_among_all`, the products on a GPU."""
    import torch  # takes seconds

    there = torch.from_numpy(centres).to(device).T

    def candidates(rows: np.ndarray) -> Pairs:
        found = []
        width = max(1, 16 * PRODUCTS // len(centres))
        for start in range(0, len(rows), width):
            products = torch.from_numpy(rows[start : start + width]).to(device) @ there
            kth = products.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
            near = products >= kth - MARGIN
            row, centre = near.nonzero().cpu().numpy().T  # in the order of products[near]
            product = products[near].cpu().numpy()
            nearer = product > kth.ravel().cpu().numpy()[row] + MARGIN
            few = nearer | (_rank(row) < k + MOST_TIES)
            found.append((row[few] + start, centre[few], product[few]))
        return _joined(found)

    return candidates


def _cells(centres: np.ndarray) -> np.ndarray:
    """About sqrt(D) unit rows (cells, H) among the centres, by a few rounds of spherical k-means."""
    n_cells = min(round(len(centres) ** 0.5), EXACT_UP_TO)
    cells = centres[:: len(centres) // n_cells][:n_cells].copy()
    for _ in range(CELL_ROUNDS):
        labels = nearest(centres, cells)[0][:, 0]
        shape = (n_cells, len(centres))
        members = csr_array(
            (np.ones(len(labels), np.float32), (labels, np.arange(len(labels)))), shape=shape
        )
        sums = members @ centres
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        cells = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), cells).astype(np.float32)
    return cells


def softmax_weights(cosines: np.ndarray, temperature: float) -> np.ndarray:
    """exp(cosine / temperature), scaled so that each row sums to 1; (I, k) float32.

    Weights below :data:`LEAST_WEIGHT` are 0, and left to the others.

    >>> softmax_weights(np.array([[0.9, 0.9], [0.1 * np.log(3), 0.0]]), 0.1).round(3).tolist()
    [[0.5, 0.5], [0.75, 0.25]]
    """
    logits = np.asarray(cosines, np.float64) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares[shares < LEAST_WEIGHT * shares.sum(axis=1, keepdims=True)] = 0
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def assign(
    item_ids: pa.ChunkedArray,
    vectors: np.ndarray,
    centres: np.ndarray,
    k: int,
    temperature: float,
    device: str = "cpu",
) -> pa.Table:
    """``tables.ITEM_INTERESTS``: up to k rows per item, sorted by item, then interest.

    With ``k = 1`` the assignment is hard (paper 2.1.2) and every weight is 1; with more it is the
    paper's soft ablation, shared by :func:`softmax_weights`, without interests of weight 0.

    Args:
        item_ids: (I,) identifiers, integer or string.
        vectors: (I, H) float32 unit rows in the same order.
        centres: (D, H) float32 unit rows.
        k: interests per item.
        temperature: of the shares when k > 1.
        device: as for :func:`nearest`.

    Raises:
        ValueError: ids and vectors differ in number, or see :func:`nearest`.
    """
    if len(item_ids) != len(vectors):
        raise ValueError(
            f"{len(item_ids)} item ids came with {len(vectors)} item vectors; "
            "items.parquet and item_vectors.npy must come from one run of embed_items"
        )
    interests, cosines = nearest(vectors, centres, k, device)
    table = pa.table(
        {
            "item_id": item_ids.take(pa.array(np.repeat(np.arange(len(vectors)), k))),
            "interest": interests.ravel(),
            "weight": softmax_weights(cosines, temperature).ravel(),
            "cosine": cosines.ravel(),
        },
        schema=pa.schema([("item_id", item_ids.type), *list(ITEM_INTERESTS.items())[1:]]),
    )
    return merge_maps(table.filter(pc.greater(table["weight"], 0)))


def nearest_of(item_interests: pa.Table) -> pa.Table:
    """The row of each item's nearest interest, from a map sorted by item, then interest."""
    if not len(item_interests):
        return item_interests
    ids, cosines = item_interests["item_id"], item_interests["cosine"].to_numpy()
    starts = np.append(True, pc.not_equal(ids[1:], ids[:-1]).to_numpy())  # the first row of an item
    order = np.lexsort((-cosines, np.cumsum(starts)))  # stable: ties to the lowest interest
    return item_interests.take(pa.array(order[starts]))


def split_catalog(catalog: pa.Table, standing: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of the standing map for items of the catalog, and the catalog's rows not in the map.

    Raises:
        ValueError: the two identify items by different types.
    """
    here, there = catalog["item_id"], standing["item_id"]
    if here.type != there.type:
        raise ValueError(
            f"item_id is {here.type} in the catalog but {there.type} in the standing map; "
            "deliver items with the type that the models were trained on"
        )
    return (
        standing.filter(pc.is_in(there, value_set=here)),
        catalog.filter(pc.invert(pc.is_in(here, value_set=there))),
    )


def merge_maps(*maps: pa.Table) -> pa.Table:
    """The maps of disjoint items as one, sorted by item, then interest."""
    return pa.concat_tables(maps).sort_by([("item_id", "ascending"), ("interest", "ascending")])
