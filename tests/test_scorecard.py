import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lurm.metrics import two_way_interval
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
        task: {
            "auc": [f + t / 100 for f in folds],
            "acc": [0.5] * len(folds),
            "kinds": {"logistic": float(np.mean(folds)) + t / 100 - 0.01},
        }
        for t, task in enumerate(tasks)
    }
    rng = np.random.default_rng(len(method))
    influence = {task: rng.normal(0, 1e-3, 20) for task in tasks}
    return {"method": method, "width": 3, "seconds": 1.0, "tasks": scores, "influence": influence}


OWN = record("own", [0.70, 0.72, 0.71, 0.73])
RIVAL = record("rival", [0.68, 0.71, 0.69, 0.71])


def test_difference_is_the_mean_over_tasks_with_an_interval_over_users_and_tasks():
    found = difference(OWN, RIVAL, 0.95)
    assert found.mean == pytest.approx(0.0175)
    influence = [OWN["influence"][task] - RIVAL["influence"][task] for task in OWN["tasks"]]
    expected = two_way_interval(np.full(2, 0.0175), np.array(influence), 0.95)
    assert (found.low, found.high) == pytest.approx(expected[1:])


def test_difference_is_over_the_tasks_that_both_have():
    fewer = record("fewer", [0.60, 0.61], tasks=("coffee",))
    assert difference(OWN, fewer, 0.95).mean == pytest.approx(0.715 - 0.605)


def test_difference_without_a_task_in_common_is_refused():
    with pytest.raises(ValueError, match="own and other were scored on different tasks"):
        difference(OWN, record("other", [0.7] * 4, tasks=("tea",)), 0.95)


def test_a_difference_may_be_of_some_tasks_alone():
    uneven = record("uneven", [0.70, 0.72, 0.71, 0.73])
    uneven["tasks"]["age"]["auc"] = [0.5, 0.5, 0.5, 0.6]
    assert difference(OWN, uneven, 0.95, ["coffee"]).mean == pytest.approx(0)
    assert difference(OWN, uneven, 0.95, ["age"]).mean > 0.1


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


def test_best_leaves_out_methods_without_some_of_the_tasks():
    partial = record("partial", [0.99, 0.99], tasks=("coffee",))
    records = {"own": OWN, "partial": partial}
    assert best(records, list(records)) == "own"
    assert best(records, list(records), ["coffee"]) == "partial"


def test_summary_keeps_the_means_of_wide_tasks_and_attributes_apart():
    groups = {"wide": ["coffee"], "attribute": ["age"]}
    rows = summary({"own": OWN, "rival": RIVAL}, "own", 0.95, groups)
    assert rows["own"]["leads"] == {"wide": None, "attribute": None}
    assert rows["rival"]["leads"]["wide"]["mean"] == pytest.approx(0.0175)
    assert rows["rival"]["heads"]["wide"] == pytest.approx({"logistic": 0.6875, "best": 0.6975})
    assert rows["rival"]["heads"]["attribute"]["best"] == pytest.approx(0.7075)
    assert rows["rival"]["auc"] == pytest.approx(fold_means(RIVAL).mean())
    assert rows["rival"]["tasks"]["age"]["auc"] == pytest.approx(0.6975 + 0.01)


def test_the_error_of_the_mean_takes_tasks_as_given():
    spread = np.std([0.70, 0.72, 0.71, 0.73], ddof=1) / 2
    assert mean_auc_error(OWN) == pytest.approx((2 * spread**2) ** 0.5 / 2)


def test_a_difference_reads_in_points_with_a_true_minus():
    assert str(Difference(-0.012, -0.03, 0.006)) == "−1.2 (−3.0 to +0.6)"
