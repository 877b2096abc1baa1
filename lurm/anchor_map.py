"""What anchors put out for the same bags, as a map, and whether it can be told from which anchor it came.

The paper's Fig. 5 shows a t-SNE of the outputs of the multi-anchor module, before the GRU. Anchors that
look at different interests lie apart in it.

Letters: n bags, M anchors, H hidden size.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from lurm.smen import Smen
from lurm.timelines import ShardedTimelines, Timelines, ranges

NEIGHBORS = 10


def anchor_outputs(
    smen: Smen, timelines: Timelines | ShardedTimelines, n_bags: int, seed: int
) -> NDArray[np.float32]:
    """r (n, M, H) of eq. 5 for monthly bags, at most all, at unit length (or zero).

    They are drawn at random among those of as many random users.
    """
    rng = np.random.default_rng(seed)
    lives = timelines.take(rng.permutation(len(timelines))[:n_bags])
    drawn = rng.permutation(lives.n_bags)[:n_bags]
    first, last = lives.first_entry[drawn], lives.first_entry[drawn + 1]
    entries = ranges(first, last)
    with torch.inference_mode():
        r = smen.multi_anchor(
            torch.from_numpy(np.concatenate([[0], np.cumsum(last - first)])),
            torch.from_numpy(lives.interests[entries].astype(np.int64)),
            torch.from_numpy(lives.counts[entries]),
        )
        return torch.nn.functional.normalize(r, dim=2).numpy()


def separation(outputs: NDArray[np.float32]) -> float:
    """Share of the ten nearest outputs (by cosine) that come from the same anchor; 1 / M is chance."""
    from sklearn.neighbors import (
        NearestNeighbors,
    )  # takes a second, which encoding should not wait for

    n, m, _ = outputs.shape
    x = outputs.reshape(n * m, -1)
    anchor = np.tile(np.arange(m), n)
    finder = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(x) - 1)).fit(x)
    return float((anchor[finder.kneighbors(return_distance=False)] == anchor[:, None]).mean())


def anchor_map(outputs: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Places (n, M, 2) of the outputs on a t-SNE map (van der Maaten and Hinton, JMLR 2008)."""
    from sklearn.manifold import TSNE

    n, m, _ = outputs.shape
    x = outputs.reshape(n * m, -1)
    tsne = TSNE(perplexity=min(30, (len(x) - 1) / 3), init="pca", random_state=seed)
    return tsne.fit_transform(x).astype(np.float32).reshape(n, m, 2)
