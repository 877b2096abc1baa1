"""Views are stretches of one life, of every length and place that the shares allow."""

import math

import numpy as np
import pytest

from lurm.timelines import build_timelines
from lurm.views import draw_view, thinned
from tests import reference

LENGTHS = [1, 2, 3, 5, 12]


@pytest.fixture(scope="module")
def timelines():
    lives = {u: {24000 + 2 * i: {0: 1.0} for i in range(n)} for u, n in enumerate(LENGTHS)}
    return build_timelines(reference.boi_tables(lives))


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.4), (0.5, 1.0), (1.0, 1.0), (0.01, 0.01)])
def test_every_stretch_that_the_shares_allow_is_drawn_and_no_other(timelines, low, high):
    rng = np.random.default_rng(0)
    drawn = {u: set() for u in range(len(LENGTHS))}
    for _ in range(1500):
        first, last = draw_view(timelines, low, high, rng)
        for u, a, b in zip(drawn, first, last, strict=True):
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
    lives = timelines.take(np.zeros(5, dtype=int))
    first, last = draw_view(lives, 0.1, 0.4, np.random.default_rng(0))
    assert first.tolist() == [0, 1, 2, 3, 4]
    assert last.tolist() == [1, 2, 3, 4, 5]


def test_two_views_of_a_life_differ_as_a_rule_and_the_same_seed_draws_the_same(timelines):
    lives = timelines.take(np.full(100, 4))
    rng = np.random.default_rng(0)
    one, other = (np.array(draw_view(lives, 0.1, 0.4, rng)) for _ in range(2))
    again = np.array(draw_view(lives, 0.1, 0.4, np.random.default_rng(0)))
    assert (one != other).any(axis=0).mean() > 0.8
    np.testing.assert_array_equal(one, again)


# ---- thinning ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted():
    """Lives of many bags of counts 1 to 4, and one of a single behavior."""
    rng = np.random.default_rng(0)
    lives = {
        u: {24000 + m: {i: float(rng.integers(1, 5)) for i in range(6)} for m in range(8)}
        for u in range(50)
    }
    return build_timelines(reference.boi_tables(lives | {50: {24000: {0: 1.0}}}))


def whole(timelines):
    return timelines.first_bag[:-1], timelines.first_bag[1:]


def as_lists(timelines):
    """Every life as {month: {interest: count}}."""
    lives = []
    for a, b in zip(timelines.first_bag[:-1], timelines.first_bag[1:], strict=True):
        life = {}
        for bag in range(a, b):
            entries = range(timelines.first_entry[bag], timelines.first_entry[bag + 1])
            life[int(timelines.months[bag])] = {
                int(timelines.interests[e]): float(timelines.counts[e]) for e in entries
            }
        lives.append(life)
    return lives


def test_a_share_of_one_keeps_the_views_whole(counted):
    first, last = np.array([3, 100]), np.array([5, 101])
    seen = thinned(counted, first, last, 1.0, np.random.default_rng(0))
    lives = as_lists(counted)
    assert as_lists(seen) == [
        {m: lives[0][m] for m in (24003, 24004)},
        {24004: lives[12][24004]},
    ]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_every_view_keeps_a_share_of_its_behaviors_and_gets_none_that_were_not_there(
    counted, share
):
    seen = thinned(counted, *whole(counted), share, np.random.default_rng(0))
    before, after = as_lists(counted), as_lists(seen)
    kept = []
    for was, now in zip(before, after, strict=True):
        assert now
        for month, bag in now.items():
            assert bag
            assert all(0 < count <= was[month][i] for i, count in bag.items())
        sums = [sum(sum(bag.values()) for bag in life.values()) for life in (now, was)]
        kept.append(sums[0] / sums[1])
    assert kept[-1] == 1  # a lone behavior is not lost
    assert share - 0.1 < min(kept[:-1])
    assert np.mean(kept[:-1]) == pytest.approx((1 + share) / 2, abs=0.08)
    assert np.std(kept[:-1]) > 0.2 * (1 - share)  # shares differ from view to view


def test_fractions_of_soft_assignment_are_kept_or_lost_whole():
    lives = {0: {24000 + m: {0: 0.25, 1: 2.75} for m in range(200)}}
    timelines = build_timelines(reference.boi_tables(lives))
    seen = thinned(timelines, *whole(timelines), 0.5, np.random.default_rng(0))
    values = {float(count) for count in seen.counts}
    assert values == {0.25, 0.75, 1.0, 1.75, 2.0, 2.75}


def test_the_same_seed_thins_the_same(counted):
    one, again = (
        thinned(counted, *whole(counted), 0.5, np.random.default_rng(3)) for _ in range(2)
    )
    assert as_lists(one) == as_lists(again)
