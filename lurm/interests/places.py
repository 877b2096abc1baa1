"""Where interests lie on a map, and which are near which: what the explorer shows.

Letters: D interests, H width of a centre, k neighbors.
"""

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

# Interests that t-SNE places itself; the time that it takes grows faster than they do.
LARGEST_MAP = 3000
NEAREST_PLACED = 3


def neighbors(
    centres: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The ``k`` nearest other interests of each (D, k), the nearest first, and their cosines.

    k is at most D - 1. centres: (D, H) unit rows.
    """
    index = faiss.IndexFlatIP(centres.shape[1])
    index.add(centres)
    cosines, found = index.search(centres, min(k, len(centres) - 1) + 1)
    # Interests with equal centres may stand before an interest itself, or keep it out.
    own = found == np.arange(len(centres))[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(centres), found.shape[1] - 1)
    return found[~own].reshape(shape).astype(np.int32), cosines[~own].reshape(shape)


def interest_map(centres: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Places (D, 2) between 0 and 1 on a t-SNE map (van der Maaten and Hinton, JMLR 2008) by cosine.

    Of more than 3,000 interests so many are drawn and placed; the others lie between the nearest of those,
    weighted by cosine, so that the time follows D.

    The same bytes for the same libraries, processor and number of threads: t-SNE makes much of the last
    digits.
    """
    drawn = np.sort(np.random.default_rng(seed).permutation(len(centres))[:LARGEST_MAP])
    placed = _tsne(centres[drawn], seed)
    if len(drawn) == len(centres):
        return placed
    index = faiss.IndexFlatIP(centres.shape[1])
    index.add(centres[drawn])
    cosines, near = index.search(centres, NEAREST_PLACED)
    weights = np.clip(cosines, 1e-3, None) ** 4  # so that the nearest has most of the say
    weights /= weights.sum(axis=1, keepdims=True)
    found: NDArray[np.float32] = np.einsum("dk,dkc->dc", weights, placed[near]).astype(np.float32)
    found[drawn] = placed
    return found


def _tsne(centres: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    from sklearn.manifold import TSNE  # takes a second, which other stages should not wait for

    if len(centres) < 3:
        return np.linspace(0, 1, 2 * len(centres), dtype=np.float32).reshape(-1, 2)
    x = torch.from_numpy(centres).double()
    x = x - x.mean(0)
    _, axes = torch.linalg.eigh(x.T @ x)  # ascending
    start = (x @ axes[:, -2:].flip(1)).numpy()
    start = 1e-4 * start / max(start[:, 0].std(), 1e-12)
    perplexity = min(30, (len(centres) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=seed)
    found = tsne.fit_transform(centres)
    low, high = found.min(axis=0), found.max(axis=0)
    placed: NDArray[np.float32] = ((found - low) / np.maximum(high - low, 1e-12)).astype(np.float32)
    return placed
