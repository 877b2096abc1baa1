"""Two continuous sub-sequences of a user's life: the positive pair of SMEN (paper 2.2.4).

Letters: n users in a batch, E entries of their views.
"""

import numpy as np
from numpy.typing import NDArray

from lurm.timelines import Timelines, ranges


def draw_view(
    lives: Timelines, min_share: float, max_share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last + 1 bag of one random stretch of each life, (n,) each.

    A stretch holds between ``min_share`` of the user's active months, rounded down, and ``max_share``,
    rounded up, at least one; its length and its place are uniform. The paper does not say how long a
    sub-sequence is.
    """
    first, last = lives.first_bag[:-1], lives.first_bag[1:]
    active = last - first
    shortest = np.clip(np.floor(active * min_share), 1, None)
    longest = np.clip(np.ceil(active * max_share), shortest, active)
    length = rng.integers(shortest, longest, endpoint=True)
    start = first + rng.integers(0, active - length, endpoint=True)
    return start, start + length


def thinned(
    timelines: Timelines,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    min_share: float,
    rng: np.random.Generator,
) -> Timelines:
    """The n views ``first[i]:last[i]`` as lives of their own, each with a random part of its behaviors.

    Every view keeps a share of its behaviors drawn uniformly from ``min_share`` to 1, each behavior by
    chance; entries and bags that lose all of theirs go, and a view that would lose everything stays whole.
    With ``min_share`` 1 nothing is lost.

    Departure: the paper's views are whole. Two thinned ones cannot be told to be one user's by how much
    was bought, and agree in what a user would buy again.
    """
    bags = ranges(first, last)
    begin, end = timelines.first_entry[bags], timelines.first_entry[bags + 1]
    entries = ranges(begin, end)
    view = np.repeat(np.arange(len(first)), last - first)  # of each bag
    bag = np.repeat(np.arange(len(bags)), end - begin)  # of each entry
    counts = timelines.counts[entries]
    if min_share < 1:
        share = rng.uniform(min_share, 1, len(first))[view][bag]
        whole = np.floor(counts)  # soft assignment leaves fractions
        rest = (counts - whole) * (rng.random(len(counts)) < share)
        kept = (rng.binomial(whole.astype(np.int64), share) + rest).astype(np.float32)
        left = np.bincount(view[bag], weights=kept, minlength=len(first))
        counts = np.where(left[view][bag] > 0, kept, counts)
    there = counts > 0
    sizes = np.bincount(bag[there], minlength=len(bags))
    return Timelines(
        users=timelines.users[:0],  # nobody's life
        first_bag=np.concatenate(
            [[0], np.cumsum(np.bincount(view[sizes > 0], minlength=len(first)))]
        ),
        months=timelines.months[bags[sizes > 0]],
        first_entry=np.concatenate([[0], np.cumsum(sizes[sizes > 0])]),
        interests=timelines.interests[entries[there]],
        counts=counts[there],
    )


def split(
    timelines: Timelines, share: float, rng: np.random.Generator
) -> tuple[Timelines, Timelines]:
    """The histories with a random ``share`` of their behaviors, and with the rest.

    Each behavior falls into either part by chance. Entries and bags that are left with nothing go; a user
    may be left with no bag.
    """
    user = np.repeat(np.arange(len(timelines)), np.diff(timelines.first_bag))  # of each bag
    bag = np.repeat(np.arange(timelines.n_bags), np.diff(timelines.first_entry))  # of each entry
    counts = timelines.counts
    integers = np.floor(counts)  # soft assignment leaves fractions
    fractions = (counts - integers) * (rng.random(len(counts)) < share)
    kept = (rng.binomial(integers.astype(np.int64), share) + fractions).astype(np.float32)

    def with_counts(values: NDArray[np.float32]) -> Timelines:
        mask = values > 0
        sizes = np.bincount(bag[mask], minlength=timelines.n_bags)
        n_bags = np.bincount(user[sizes > 0], minlength=len(timelines))
        return Timelines(
            users=timelines.users[:0],  # nobody's history
            first_bag=np.concatenate([[0], np.cumsum(n_bags)]),
            months=timelines.months[sizes > 0],
            first_entry=np.concatenate([[0], np.cumsum(sizes[sizes > 0])]),
            interests=timelines.interests[mask],
            counts=values[mask],
        )

    return with_counts(kept), with_counts(counts - kept)
