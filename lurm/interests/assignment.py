"""Every item, seen in training or new, to the interest of its nearest centre.

Up to ``EXACT_UP_TO`` centres the search is exact. Above, it looks into the ``PROBES`` nearest of about
sqrt(D) cells of centres (an inverted file), which finds the nearest centre of more than 99 % of items
that lie in clusters (``python -m benchmarks.interests``). Matrix products round differently with the
number of threads and with a row's place in its block, so the search only proposes candidates; their
cosines are then computed one pair at a time. An item's interest therefore depends on its own vector and
the centres, on nothing else.

I items, D interests, H hidden size, k interests per item.
"""

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from lurm.tables import ITEM_INTERESTS

# Items searched at once; bounds memory at about CHUNK * (k + SPARE) * H * 4 bytes.
CHUNK = 16_384
# Candidates beyond k, so that a near tie at the edge is settled by the exact cosines.
SPARE = 3
# An exact search costs D per item, an approximate one about (PROBES + 1) sqrt(D).
EXACT_UP_TO = 16_384
PROBES, CELL_ROUNDS = 16, 5


def search_index(centres: np.ndarray) -> faiss.Index:
    """Index of the (D, H) centres by inner product: exact, or an inverted file if there are many."""
    centres = np.ascontiguousarray(centres, dtype=np.float32)
    exact = faiss.IndexFlatIP(centres.shape[1])
    if len(centres) <= EXACT_UP_TO:
        exact.add(centres)
        return exact
    cells = _cells(centres)
    exact.add(cells)
    index = faiss.IndexIVFFlat(exact, cells.shape[1], len(cells), faiss.METRIC_INNER_PRODUCT)
    index.nprobe = PROBES
    index.add(centres)
    return index


def _cells(centres: np.ndarray) -> np.ndarray:
    """About sqrt(D) unit rows (cells, H) among the centres, by a few rounds of spherical k-means."""
    n_cells = min(round(len(centres) ** 0.5), EXACT_UP_TO)
    cells = centres[:: len(centres) // n_cells][:n_cells].copy()
    for _ in range(CELL_ROUNDS):
        labels = nearest(centres, cells)[0][:, 0]
        shape = (n_cells, len(centres))
        members = csr_array((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=shape)
        sums = members @ centres
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        cells = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), cells).astype(np.float32)
    return cells


def nearest(vectors: np.ndarray, centres: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest centres of every vector and their cosines, nearest first; ties to the lowest.

    Args:
        vectors: (I, H) float32 unit rows; may be memory-mapped, it is read in chunks.
        centres: (D, H) float32 unit rows.
        k: centres wanted for each vector.

    Returns:
        (I, k) int32 row numbers of centres, and (I, k) float32 cosines.

    Raises:
        ValueError: fewer than k centres, or another width than theirs.
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
    index = search_index(centres)
    n_candidates = min(k + SPARE, len(centres))
    interests = np.empty((len(vectors), k), np.int32)
    cosines = np.empty((len(vectors), k), np.float32)
    for start in range(0, len(vectors), CHUNK):
        rows = slice(start, start + CHUNK)
        chunk = np.ascontiguousarray(vectors[rows], dtype=np.float32)
        candidates = np.sort(index.search(chunk, n_candidates)[1], axis=1)
        exact = np.einsum("nh,nkh->nk", chunk, centres[candidates])  # (n, k + SPARE), without BLAS
        exact[candidates < 0] = -np.inf  # the cells looked into held fewer
        best = np.argsort(-exact, axis=1, kind="stable")[:, :k]
        interests[rows] = np.take_along_axis(candidates, best, axis=1)
        cosines[rows] = np.take_along_axis(exact, best, axis=1)
    return interests, cosines


def softmax_weights(cosines: np.ndarray, temperature: float) -> np.ndarray:
    """exp(cosine / temperature), scaled so that each row sums to 1; (I, k) float32.

    >>> softmax_weights(np.array([[0.9, 0.9], [0.1 * np.log(3), 0.0]]), 0.1).round(3).tolist()
    [[0.5, 0.5], [0.75, 0.25]]
    """
    logits = np.asarray(cosines, np.float64) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def assign(
    item_ids: pa.ChunkedArray, vectors: np.ndarray, centres: np.ndarray, k: int, temperature: float
) -> pa.Table:
    """``tables.ITEM_INTERESTS``: k rows per item, sorted by item, then interest.

    With ``k = 1`` the assignment is hard (paper 2.1.2) and every weight is 1; with more it is the
    paper's soft ablation, shared by :func:`softmax_weights`.

    Args:
        item_ids: (I,) identifiers, integer or string.
        vectors: (I, H) float32 unit rows in the same order.
        centres: (D, H) float32 unit rows.
        k: interests per item.
        temperature: of the shares when k > 1.

    Raises:
        ValueError: ids and vectors differ in number, or see :func:`nearest`.
    """
    if len(item_ids) != len(vectors):
        raise ValueError(
            f"{len(item_ids)} item ids came with {len(vectors)} item vectors; "
            "items.parquet and item_vectors.npy must come from one run of embed_items"
        )
    interests, cosines = nearest(vectors, centres, k)
    table = pa.table(
        {
            "item_id": item_ids.take(pa.array(np.repeat(np.arange(len(vectors)), k))),
            "interest": interests.ravel(),
            "weight": softmax_weights(cosines, temperature).ravel(),
            "cosine": cosines.ravel(),
        },
        schema=pa.schema([("item_id", item_ids.type), *list(ITEM_INTERESTS.items())[1:]]),
    )
    return merge_maps(table)


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
