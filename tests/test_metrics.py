import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from lurm.metrics import (
    accuracy,
    auc,
    binary_auc,
    brier_score,
    calibration_error,
    roc_curve,
    standard_error,
)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 60).flatmap(
        lambda n: st.tuples(arrays(bool, n), arrays(np.int64, n, elements=st.integers(0, 5)))
    )
)
def test_binary_auc_agrees_with_scikit_learn_also_where_scores_tie(case):
    positive, score = case
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="both classes"):
            binary_auc(positive, score)
    else:
        assert binary_auc(positive, score) == pytest.approx(roc_auc_score(positive, score))


def test_multi_class_auc_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 200)
    probabilities = rng.dirichlet(np.ones(4), 200)
    expected = roc_auc_score(y, probabilities, multi_class="ovr", average="macro")
    assert auc(y, probabilities) == pytest.approx(expected)


def test_a_class_missing_from_a_fold_is_left_out_of_the_mean():
    rng = np.random.default_rng(0)
    y = rng.choice([0, 2], 50)
    probabilities = rng.dirichlet(np.ones(3), 50)
    expected = [roc_auc_score(y == c, probabilities[:, c]) for c in (0, 2)]
    assert auc(y, probabilities) == pytest.approx(np.mean(expected))


def test_two_classes_are_scored_by_the_second():
    y, p = np.array([0, 1, 1, 0]), np.array([0.2, 0.7, 0.4, 0.5])
    assert auc(y, np.column_stack([1 - p, p])) == pytest.approx(0.75)


def test_accuracy_is_the_share_of_users_in_their_most_probable_class():
    assert accuracy(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9]])) == 2 / 3


def test_standard_error_is_the_spread_over_the_root_of_the_number():
    assert standard_error([1.0, 2.0, 3.0]) == pytest.approx(1 / np.sqrt(3))
    assert standard_error([1.0]) == 0


def test_roc_curve_passes_through_scikit_learns_points():
    rng = np.random.default_rng(0)
    positive = rng.random(100) < 0.3
    score = rng.integers(0, 10, 100).astype(float)
    fpr, tpr, _ = sklearn_roc_curve(positive, score, drop_intermediate=False)
    inner = np.diff(fpr, append=2) > 0  # the last point of a vertical step
    np.testing.assert_allclose(roc_curve(positive, score, fpr[inner])[1:], tpr[inner][1:])


def test_roc_curve_climbs_from_corner_to_corner():
    rng = np.random.default_rng(0)
    curve = roc_curve(rng.random(50) < 0.5, rng.random(50), np.linspace(0, 1, 101))
    assert curve[0] == 0
    assert curve[-1] == 1
    assert (np.diff(curve) >= 0).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_brier_score_is_that_of_scikit_learn(n_classes):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(n_classes), 50)
    y = rng.integers(0, n_classes, 50)
    expected = brier_score_loss(y, p[:, 1] if n_classes == 2 else p, labels=list(range(n_classes)))
    assert brier_score(y, p) == pytest.approx(expected)


def test_calibration_error_is_what_tenths_of_the_users_are_off_by():
    chance = np.repeat(np.linspace(0.05, 0.95, 10), 100)
    y = np.concatenate([np.arange(100) < 100 * p for p in np.linspace(0.05, 0.95, 10)]).astype(int)
    exact = np.stack([1 - chance, chance], axis=1)
    assert calibration_error(y, exact) == pytest.approx(0, abs=1e-9)
    above = np.stack([1 - chance - 0.04, chance + 0.04], axis=1)
    assert calibration_error(y, above) == pytest.approx(0.04)
