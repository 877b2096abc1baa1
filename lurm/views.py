"""Two continuous sub-sequences of a user's life: the positive pair of SMEN (paper 2.2.4).

Letters: n users in a batch.
"""

import numpy as np
from numpy.typing import NDArray

from lurm.timelines import Timelines


def draw_view(
    timelines: Timelines,
    users: NDArray[np.int64],
    min_share: float,
    max_share: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last + 1 bag of one random stretch of each user's life, (n,) each.

    A stretch holds between ``min_share`` and ``max_share`` of the user's active months, at least one;
    its length and its place are uniform. The paper does not say how long a sub-sequence is.
    """
    first, last = timelines.first_bag[users], timelines.first_bag[users + 1]
    active = last - first
    shortest = np.clip(np.floor(active * min_share), 1, None)
    longest = np.clip(np.ceil(active * max_share), shortest, active)
    length = rng.integers(shortest, longest, endpoint=True)
    start = first + rng.integers(0, active - length, endpoint=True)
    return start, start + length
