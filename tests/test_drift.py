"""Drift: the figures equal slow ones, what is planted is found, what is calm stays calm."""

import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lurm import drift
from lurm.drift import (
    MEANINGS,
    TRAINING,
    carry_on,
    compare,
    from_table,
    judge,
    psi,
    to_table,
    worst,
)
from lurm.tables import MEASURES, check_columns
from tests.test_params import FILE

LIMITS = yaml.safe_load(FILE.read_text("utf-8"))["watch_drift"]["limits"]
LIMITS = {name: {"retrain": None, **limits} for name, limits in LIMITS.items()}


def slow_psi(now, past):
    total = 0.0
    for k in range(len(now)):
        p = (now[k] + 0.5) / (sum(now) + 0.5 * len(now))
        q = (past[k] + 0.5) / (sum(past) + 0.5 * len(past))
        total += (p - q) * math.log(p / q)
    return total


counts = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=30)


@given(counts)
def test_psi_equals_a_loop_is_symmetric_and_never_negative(pairs):
    now, past = ([pair[side] for pair in pairs] for side in (0, 1))
    assert psi(now, past) == pytest.approx(slow_psi(now, past), abs=1e-9)
    assert psi(now, past) == pytest.approx(psi(past, now))
    assert psi(now, past) >= -1e-12
    assert psi(now, now) == 0


def test_psi_does_not_depend_on_the_volume():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(50))
    assert psi(2e6 * shares, 1e6 * shares) < 1e-6


# ---- a month beside others ----------------------------------------------------------------------


def month(seed, n=20_000, shares=None, **figures):
    """Measures of a month drawn from the same world every time."""
    rng = np.random.default_rng([7, seed])
    shares = shares if shares is not None else np.random.default_rng(7).dirichlet(np.ones(40))
    interest = rng.multinomial(n, shares)
    single = {
        "behaviors": n, "users": n / 20, "new_users": 0.02, "unknown_items": 0.03,
        "cosine_known": 0.93, "cosine_unknown": 0.91, "norm": 5.0, "mean_shift": 0.05, "turn": 0.02,
    }  # fmt: skip
    return {
        "figure": single | figures,
        "activity": {str(k): float(v) for k, v in enumerate(rng.multinomial(n // 20, [0.5, 0.3, 0.2]))},
        "mix": {f"category {k}": float(interest[k::8].sum()) for k in range(8)},
        "interest": {str(k): float(v) for k, v in enumerate(interest) if v},
        "anchor": {str(k): float(interest[k::4].sum()) for k in range(4)},
    }  # fmt: skip


PAST = {TRAINING: {"figure": {}, "interest": month(0, 10**6)["interest"]}} | {
    f"2017-0{k}": month(k) for k in (1, 2, 3)
}


def levels(now, past=PAST, heads=()):
    judged = judge(compare(now, past) | drift.heads_figures(heads), LIMITS)
    return {row["figure"]: row["level"] for row in judged if row["level"] != "calm"}


@pytest.mark.parametrize("seed", range(10))
def test_a_month_like_those_before_it_is_calm(seed):
    assert levels(month(100 + seed)) == {}


def test_double_volume_is_told_and_asks_for_no_retraining():
    assert levels(month(9, 40_000)) == {"behaviors_change": "warn", "users_change": "warn"}


def test_a_category_that_vanishes_shows_in_the_mix_and_asks_for_a_retraining():
    shares = np.random.default_rng(7).dirichlet(np.ones(40))
    shares[0::8] = 0
    found = levels(month(9, shares=shares / shares.sum()))
    assert found["mix_psi"] == found["interest_psi"] == "warn"
    assert found["interest_psi_training"] == "retrain"
    assert not any(name.endswith("_change") for name in found)


def test_new_items_that_lie_far_from_their_interests_ask_for_a_retraining():
    assert levels(month(9, unknown_items=0.2, cosine_unknown=0.81)) == {
        "unknown_items": "note",
        "unknown_distance": "note",
    }
    found = levels(month(9, unknown_items=0.5, cosine_unknown=0.5))
    assert found == {"unknown_items": "retrain", "unknown_distance": "retrain"}


def test_vectors_that_leap_are_told():
    assert levels(month(9, norm=10.0, mean_shift=1.0, turn=0.5)) == {
        "norm_change": "warn",
        "mean_shift": "warn",
        "turn": "warn",
    }


def test_the_first_month_has_nothing_before_it_but_training():
    figures = month(1)["figure"]
    first = month(1) | {
        "figure": {k: v for k, v in figures.items() if k not in ("new_users", "mean_shift", "turn")}
    }
    found = compare(first, {TRAINING: PAST[TRAINING]})
    assert set(found) == {"unknown_items", "unknown_distance", "interest_psi_training"}
    judged = judge(found, LIMITS)
    assert [row["figure"] for row in judged] == list(MEANINGS)
    assert {row["level"] for row in judged if row["value"] is None} == {"calm"}


def test_the_second_month_is_not_held_against_everybody_being_new_in_the_first():
    first = month(1)
    del first["figure"]["new_users"]
    assert "new_users_change" not in compare(month(2), {"2017-01": first})


def test_counts_are_compared_with_all_trailing_months_together():
    found = compare(month(4), PAST)
    keys = [str(k) for k in range(40)]
    trailing = [PAST[f"2017-0{k}"]["interest"] for k in (1, 2, 3)]
    past = [sum(m.get(key, 0) for m in trailing) for key in keys]
    now = [month(4)["interest"].get(key, 0) for key in keys]
    assert found["interest_psi"] == pytest.approx(slow_psi(now, past))


def test_interests_that_moved_most_are_named():
    shares = np.random.default_rng(7).dirichlet(np.ones(40))
    shares[11] += 0.5
    (first, *rest) = drift.movers(month(9, shares=shares / shares.sum()), PAST)
    assert first["interest"] == 11
    assert first["share"] > first["before"] + 0.2
    assert len(rest) == 4
    assert drift.movers(month(9), {TRAINING: PAST[TRAINING]}) == []


# ---- levels and words ---------------------------------------------------------------------------


def test_a_level_begins_at_its_limit_and_falls_are_judged_as_rises():
    limits = LIMITS | {"turn": {"note": 0.1, "warn": 0.2, "retrain": 0.3}}
    for value, level in ((0.09, "calm"), (0.1, "note"), (-0.25, "warn"), (0.3, "retrain")):
        (row,) = (row for row in judge({"turn": value}, limits) if row["figure"] == "turn")
        assert row["level"] == level
    assert worst(["note", "retrain", "warn"]) == "retrain"
    assert worst([]) == "calm"


def test_a_person_is_told_of_warnings_and_first_of_what_asks_for_a_retraining():
    judged = judge({"behaviors_change": 1.0, "unknown_items": 0.5, "turn": 0.16}, LIMITS)
    assert drift.sentences("2017-08", judged) == [
        "2017-08: the share of behaviors with items that came after training is 0.5; "
        "trigger lurm_retrain",
        "2017-08: the change of volume is 1",
    ]


# ---- vectors, anchors, heads --------------------------------------------------------------------


def test_vectors_tell_how_long_they_are_and_how_far_they_moved():
    rng = np.random.default_rng(0)
    before = rng.standard_normal((200, 5)).astype(np.float32)
    x = np.concatenate([before + 0.3, rng.standard_normal((9, 5)).astype(np.float32)])
    active = np.arange(200) < 50
    whole = drift.Moved(x, before, np.arange(200), active)
    parts = [
        drift.Moved(x[:80], before[:80], np.arange(80), active[:80]),
        drift.Moved(x[80:], before[80:], np.arange(120), active[80:]),
    ]
    found = drift.vector_figures(lambda: [whole])
    assert drift.vector_figures(lambda: iter(parts)) == found
    mean = before.mean(0)
    spread = np.sqrt(np.mean([((row - mean) ** 2).sum() for row in before]))
    assert found["norm"] == pytest.approx(np.mean([np.linalg.norm(row) for row in x]), rel=1e-5)
    assert found["mean_shift"] == pytest.approx(np.linalg.norm(x.mean(0) - mean) / spread, rel=1e-4)
    turns = [
        1 - (a - mean) @ (b - mean) / np.linalg.norm(a - mean) / np.linalg.norm(b - mean)
        for a, b in zip(before[:50], x[:50], strict=True)
    ]
    assert found["turn"] == pytest.approx(np.median(turns), abs=1e-5)
    first = drift.Moved(x, before[:0], np.arange(0), active[:0])
    nobody = drift.vector_figures(lambda: [first])
    assert list(nobody) == ["norm"]


def test_anchors_share_the_masses_of_the_interests_met():
    shares = np.array([[0.5, 0.5], [1, 0], [0.25, 0.75]], dtype=np.float32)
    assert drift.anchor_use(shares, {"0": 10, "2": 4}) == {"0": 6.0, "1": 8.0}


def test_a_head_is_scored_by_auc_and_calibration():
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.05, 0.95, 4000).astype(np.float32)
    came = rng.random(4000) < chance
    true = drift.score_head(chance, came, 0.8)
    assert true["calibration_error"] < 0.03
    assert true["predicted"] == pytest.approx(true["observed"], abs=0.02)
    bold = drift.score_head(chance**3, came, 0.8)
    assert bold["auc"] == pytest.approx(true["auc"], abs=1e-4)
    assert bold["calibration_error"] > 0.1 < bold["observed"] - bold["predicted"]
    assert levels(month(9), heads=[true | {"auc_at_training": true["auc"]}]) == {}
    assert levels(month(9), heads=[bold | {"auc": 0.6}]) == {
        "auc_loss": "retrain",
        "calibration_gap": "retrain",
    }


def test_what_came_to_nobody_has_no_auc():
    scores = drift.score_head(np.full(20, 0.1, dtype=np.float32), np.zeros(20, dtype=bool), 0.7)
    assert scores["auc"] is None
    assert drift.heads_figures([scores]) == {"calibration_gap": pytest.approx(0.1)}


# ---- what travels -------------------------------------------------------------------------------


def test_measures_come_back_from_their_table():
    table = to_table(PAST)
    check_columns(table.schema, MEASURES, "measures")
    back = from_table(table)
    assert list(back) == list(PAST)
    assert {name: {k: v for k, v in m.items() if v} for name, m in PAST.items()} == back
    assert from_table(to_table({})) == {}


@pytest.mark.parametrize(
    ("window", "kept"), [(1, []), (2, ["2017-03"]), (9, ["2017-01", "2017-02", "2017-03"])]
)
def test_so_many_months_travel_on_and_training_always_does(window, kept):
    assert list(carry_on(PAST, "2017-04", month(4), window)) == [TRAINING, *kept, "2017-04"]
