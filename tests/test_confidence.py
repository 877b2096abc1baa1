"""Confidence: what halves of a record agree in, as a slow loop says; never falling, nothing for none."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lurm.confidence import Confidence, agreement, measure_confidence
from lurm.smen import Smen, SmenSettings
from lurm.timelines import build_timelines
from lurm.views import split
from tests import reference

FIRST, D = 24_204, 5


def timelines_of(lives):
    return build_timelines({m: reference.boi_table(lives, m) for m in reference.months_of(lives)})


def counts_of(timelines, user):
    """What a user met: {(month, interest): count}."""
    found = {}
    for bag in range(timelines.first_bag[user], timelines.first_bag[user + 1]):
        for entry in range(timelines.first_entry[bag], timelines.first_entry[bag + 1]):
            key = int(timelines.months[bag]), int(timelines.interests[entry])
            found[key] = float(timelines.counts[entry])
    return found


# ---- halves -------------------------------------------------------------------------------------


def test_halves_are_disjoint_and_together_the_whole():
    lives = reference.random_lives(12, np.random.default_rng(0), D, FIRST, n_months=8)
    timelines = timelines_of(lives)
    users = np.array([0, 3, 4, 11])
    one, other = split(timelines.take(users), 0.5, np.random.default_rng(1))
    for row, user in enumerate(users):
        whole, a, b = counts_of(timelines, user), counts_of(one, row), counts_of(other, row)
        assert {key: a.get(key, 0) + b.get(key, 0) for key in whole} == pytest.approx(whole)
        assert set(a) | set(b) == set(whole)
    for half in (one, other):
        assert (np.diff(half.first_entry) > 0).all()
        assert (half.counts > 0).all()
        assert len(half.first_bag) == 5
        assert half.first_bag[-1] == len(half.months)


def test_a_single_behavior_falls_into_either_half():
    timelines = timelines_of({user: {FIRST: {0: 1.0}} for user in range(400)})
    one, other = split(timelines, 0.5, np.random.default_rng(0))
    there = np.diff(one.first_bag), np.diff(other.first_bag)
    assert (there[0] + there[1] == 1).all()
    assert 150 < there[0].sum() < 250


# ---- agreement ----------------------------------------------------------------------------------


def test_agreement_is_the_mean_correlation_within_a_group_as_numpy_has_it():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 4)).astype(np.float32)
    y = (x + rng.standard_normal((90, 4))).astype(np.float32)
    n = rng.permutation(90) + 1.0
    found = agreement(x, y, n, 30)
    assert [size for *_, size in found] == [30, 30, 30]
    for group, (mean, r, _) in enumerate(found):
        rows = [row for row in range(90) if 30 * group < n[row] <= 30 * (group + 1)]
        due = np.mean([np.corrcoef(x[rows, k], y[rows, k])[0, 1] for k in range(4)])
        assert r == pytest.approx(due, abs=1e-6)
        assert mean == pytest.approx(np.exp(np.mean(np.log(1 + n[rows]))) - 1)


def test_how_much_was_bought_is_no_agreement():
    rng = np.random.default_rng(0)
    n = np.repeat([1.0, 10.0, 100.0, 1000.0], 500)
    volume = np.log(n)[:, None] * np.ones(3)  # both halves tell the volume, and nothing else
    x, y = (volume + 0.01 * rng.standard_normal((2000, 3)) for _ in range(2))
    assert np.corrcoef(x[:, 0], y[:, 0])[0, 1] > 0.99
    assert all(abs(r) < 0.1 for _, r, _ in agreement(x, y, n, 500))


def test_equal_vectors_and_few_users_tell_nothing():
    same = np.ones((50, 3), dtype=np.float32)
    assert agreement(same, same, np.ones(50), 20) == []
    assert agreement(same[:19], same[:19], np.ones(19), 20) == []


# ---- measured -----------------------------------------------------------------------------------


def measured(n_users=600, **settings):
    """The confidence in vectors of users who like one interest each, with 2 to 512 behaviors."""
    rng = np.random.default_rng(0)
    lives = {
        user: {
            FIRST + month: {
                int(k): float(n)
                for k, n in enumerate(
                    rng.multinomial(2 ** (user % 9), [0.6 if k == user % D else 0.1 for k in range(D)])
                )
                if n
            }
            for month in range(2)
        }
        for user in range(n_users)
    }  # fmt: skip
    import torch

    torch.manual_seed(0)
    smen = Smen(SmenSettings(n_interests=D, n_anchors=2, width=4, scales={"month": 1}))
    torch.nn.init.normal_(smen.multi_anchor.interests)
    options = {"month": FIRST + 1, "max_users": 10**6, "min_group": 60, "seed": 0} | settings
    return measure_confidence(smen.eval(), timelines_of(lives), **options)


def test_more_behaviors_mean_more_confidence():
    points = measured()["points"]
    assert len(points) > 5
    n = [point["n_behaviors"] for point in points]
    confidence = [point["confidence"] for point in points]
    assert n == sorted(n)
    assert confidence == sorted(confidence)
    assert confidence[0] < 0.5 < 0.8 < confidence[-1] <= 1
    fitted = [p["confidence"] for p in points if p["agreement"] == p["confidence"]]
    assert fitted  # where it rises by itself, the fit is what was measured


def test_the_same_seed_gives_the_same_points_and_of_many_users_some_are_taken():
    assert measured() == measured()
    assert measured(max_users=200)["users"] <= 200


def test_too_few_users_leave_the_confidence_at_nothing():
    found = measured(n_users=30)
    assert found["points"] == []
    assert Confidence.from_json(found).of(np.array([0, 5, 10**6])).tolist() == [0, 0, 0]


# ---- used ---------------------------------------------------------------------------------------

curves = st.lists(st.floats(0, 1), min_size=1, max_size=9).map(sorted)


@given(curves, st.lists(st.integers(0, 10**7), min_size=2, max_size=20).map(sorted))
def test_confidence_never_falls_lies_between_0_and_1_and_is_0_for_none(curve, n):
    confidence = Confidence([2.0**k for k in range(len(curve))], curve)
    values = confidence.of(np.array(n))
    assert values.dtype == np.float32
    assert (np.diff(values) >= 0).all()
    assert 0 <= values.min() <= values.max() <= 1
    assert confidence.of(np.array([0])).tolist() == [0]


def test_at_a_measured_point_it_is_what_was_measured_and_beyond_the_last_it_stays():
    confidence = Confidence([4.0, 40.0], [0.25, 0.75])
    assert confidence.of(np.array([4, 40, 4000])).tolist() == [0.25, 0.75, 0.75]
    assert 0.25 < confidence.of(np.array([13]))[0] < 0.75
    assert pa.array(confidence.of(np.array([4]))).type == pa.float32()
