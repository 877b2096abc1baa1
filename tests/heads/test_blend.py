import numpy as np
import pytest
from scipy.optimize import minimize

from lurm.heads.blend import blended, fit_blend


def log_odds(n_users, n_classes, seed=0):
    """Classes, and the log probabilities of two heads: one that knows them well, one that knows little."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n_users)
    logits = rng.standard_normal((n_users, 2, n_classes)) * 0.8
    logits[np.arange(n_users), 0, y] += 1.5
    logits[np.arange(n_users), 1, y] += 0.5
    return logits - np.log(np.exp(logits).sum(axis=2, keepdims=True)), y


def loss(z, y, parameters):
    return -blended(z, parameters)[np.arange(len(y)), y].astype(np.float64).mean()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_fit_blend_reaches_the_least_log_loss(n_classes):
    z, y = log_odds(500, n_classes)
    found = fit_blend(z, y)
    start = np.append([0.5, 0.5], np.zeros(n_classes))
    best = minimize(
        lambda at: loss(z, y, at), start, method="Nelder-Mead", options={"maxiter": 5000}
    )
    assert loss(z, y, found) < best.fun + 1e-3  # a little ridge holds the weights
    assert found[0] > found[1] > 0


@pytest.mark.parametrize("n_classes", [2, 3])
def test_fit_blend_makes_probabilities_right_that_were_too_sure(n_classes):
    z, y = log_odds(2000, n_classes)
    sure = z[:, :1] * 4
    sure = sure - np.log(np.exp(sure).sum(axis=2, keepdims=True))
    p = np.exp(blended(sure, fit_blend(sure, y)))
    top = p.max(axis=1)
    upper = top > np.median(top)
    assert top[upper].mean() == pytest.approx((p.argmax(axis=1) == y)[upper].mean(), abs=0.03)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_fit_blend_gives_no_head_a_negative_weight(n_classes):
    z, y = log_odds(500, n_classes)
    against = -z[:, 1] - np.log(np.exp(-z[:, 1]).sum(axis=1, keepdims=True))
    parameters = fit_blend(np.stack([z[:, 0], against], axis=1), y)
    assert parameters[0] > 0
    assert parameters[1] == 0


@pytest.mark.parametrize("n_classes", [2, 3])
def test_fit_blend_raises_what_a_penalty_has_shrunk(n_classes):
    z, y = log_odds(500, n_classes)
    shrunk = z * np.array([1e-3, 1.0])[:, None]
    shrunk = shrunk - np.log(np.exp(shrunk).sum(axis=2, keepdims=True))
    found, expected = blended(shrunk, fit_blend(shrunk, y)), blended(z, fit_blend(z, y))
    np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=0.02)


def test_fit_blend_leaves_out_a_single_head_that_is_worse_than_chance():
    z, y = log_odds(500, 2)
    parameters = fit_blend(z[:, :1, ::-1], y)
    assert parameters[0] == 0
    np.testing.assert_allclose(np.exp(blended(z[:1, :1], parameters))[0, 1], y.mean(), atol=0.01)
