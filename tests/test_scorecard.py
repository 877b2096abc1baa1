import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lurm.scorecard import (
    Difference,
    best,
    better,
    difference,
    fold_means,
    mean_auc_error,
    not_below,
    summary,
    within,
)


def record(method, folds, tasks=("coffee", "age")):
    """A method whose task number t scores the folds plus t hundredths."""
    scores = {
        task: {"auc": [f + t / 100 for f in folds], "acc": [0.5] * len(folds)}
        for t, task in enumerate(tasks)
    }
    return {"method": method, "width": 3, "seconds": 1.0, "tasks": scores}


OWN = record("own", [0.70, 0.72, 0.71, 0.73])
RIVAL = record("rival", [0.68, 0.71, 0.69, 0.71])


def test_the_lead_is_the_mean_of_paired_differences_and_its_interval_is_wider_than_their_error():
    found = difference(OWN, RIVAL, folds=2, confidence=0.95)
    gaps = np.array([0.02, 0.01, 0.02, 0.02])
    assert found.mean == pytest.approx(gaps.mean())
    plain = (
        3.182 * gaps.std(ddof=1) / 2
    )  # t of three degrees of freedom; as if folds were independent
    assert found.high - found.mean > plain
    assert found.high - found.mean == pytest.approx(found.mean - found.low)


def test_a_method_with_fewer_repeats_is_compared_on_the_folds_that_both_have():
    short = record("short", [0.60, 0.61])
    assert difference(OWN, short, 2, 0.95).mean == pytest.approx((0.10 + 0.11) / 2)


def test_methods_of_different_tasks_are_not_compared():
    with pytest.raises(ValueError, match="own and other were scored on different tasks"):
        difference(OWN, record("other", [0.7] * 4, tasks=("coffee",)), 2, 0.95)


def test_a_difference_may_be_of_some_tasks_alone():
    uneven = record("uneven", [0.70, 0.72, 0.71, 0.73])
    uneven["tasks"]["age"]["auc"] = [0.5, 0.5, 0.5, 0.6]
    assert difference(OWN, uneven, 2, 0.95, ["coffee"]).mean == pytest.approx(0)
    assert difference(OWN, uneven, 2, 0.95, ["age"]).mean > 0.1


@given(st.floats(-0.2, 0.2), st.floats(0, 0.1), st.floats(0.001, 0.05))
def test_a_verdict_never_rests_on_an_interval_that_holds_the_other_answer(mean, half, margin):
    found = Difference(mean, mean - half, mean + half)
    if better(found) == "cannot be told":
        assert found.low <= 0 <= found.high
    if within(found, margin) == "reproduced":
        assert max(abs(found.low), abs(found.high)) < margin
    if not_below(found, margin) == "not reproduced":
        assert found.high < -margin


def test_the_best_is_found_among_the_methods_that_are_there():
    assert best({"own": OWN, "rival": RIVAL}, ["rival", "absent"]) == "rival"


def test_the_summary_says_how_far_every_other_method_lies_behind():
    rows = summary({"own": OWN, "rival": RIVAL}, "own", 2, 0.95)
    assert rows["own"]["lead"] is None
    assert rows["rival"]["lead"]["mean"] == pytest.approx(0.0175)
    assert rows["rival"]["auc"] == pytest.approx(fold_means(RIVAL).mean())
    assert rows["rival"]["tasks"]["age"]["auc"] == pytest.approx(0.6975 + 0.01)


def test_the_error_of_the_mean_takes_tasks_as_given():
    spread = np.std([0.70, 0.72, 0.71, 0.73], ddof=1) / 2
    assert mean_auc_error(OWN) == pytest.approx((2 * spread**2) ** 0.5 / 2)


def test_a_difference_reads_in_points_with_a_true_minus():
    assert str(Difference(-0.012, -0.03, 0.006)) == "−1.2 (−3.0 to +0.6)"
