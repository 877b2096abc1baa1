"""Views are stretches of one life, of every length and place that the shares allow."""

import math

import numpy as np
import pytest

from lurm.timelines import build_timelines
from lurm.views import draw_view
from tests import reference

LENGTHS = [1, 2, 3, 5, 12]


@pytest.fixture(scope="module")
def timelines():
    lives = {u: {24000 + 2 * i: {0: 1.0} for i in range(n)} for u, n in enumerate(LENGTHS)}
    return build_timelines(reference.boi_tables(lives))


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.4), (0.5, 1.0), (1.0, 1.0), (0.01, 0.01)])
def test_every_stretch_that_the_shares_allow_is_drawn_and_no_other(timelines, low, high):
    rng = np.random.default_rng(0)
    users = np.array([4, 0, 3, 1, 2])
    drawn = {u: set() for u in users}
    for _ in range(1500):
        first, last = draw_view(timelines, users, low, high, rng)
        for u, a, b in zip(users, first, last, strict=True):
            drawn[u].add((int(a), int(b)))
    for u, stretches in drawn.items():
        n, start = LENGTHS[u], int(timelines.first_bag[u])
        shortest = max(1, math.floor(n * low))
        longest = max(shortest, math.ceil(n * high))
        assert stretches == {
            (start + a, start + a + length)
            for length in range(shortest, longest + 1)
            for a in range(n - length + 1)
        }


def test_a_user_with_one_month_gives_that_month(timelines):
    first, last = draw_view(timelines, np.zeros(5, dtype=int), 0.1, 0.4, np.random.default_rng(0))
    assert (first == 0).all()
    assert (last == 1).all()


def test_two_views_of_a_life_differ_as_a_rule_and_the_same_seed_draws_the_same(timelines):
    users = np.full(100, 4)
    rng = np.random.default_rng(0)
    one, other = (np.array(draw_view(timelines, users, 0.1, 0.4, rng)) for _ in range(2))
    again = np.array(draw_view(timelines, users, 0.1, 0.4, np.random.default_rng(0)))
    assert (one != other).any(axis=0).mean() > 0.8
    np.testing.assert_array_equal(one, again)
