"""Weights of several heads' log probabilities, and the calibration of one: both are one small regression.

    log p(c | u)  ~  sum_k w_k log p_k(c | u) + b_c,     w >= 0

With one head this is Platt's calibration (J. Platt, "Probabilities for support vector machines", 1999;
for more classes "vector scaling", C. Guo and others, "On calibration of modern neural networks", ICML
2017, with one temperature). It is fitted on users whom the heads were not trained on.

Letters: U users, P heads, C classes, Q = P + C parameters.
"""

from collections.abc import Callable, Sequence

import numpy as np

_FLOOR = -15.0  # log probability: one sure and wrong tree must not decide a weight
_RIDGE = 1e-3  # a user: so that separable classes do not raise a weight without end


def fit_blend(z: np.ndarray, y: np.ndarray, parts: Sequence[int] | None = None) -> np.ndarray:
    """Weights and class biases, (P + C,) float64, of least log loss.

    z: (U, P, C) log probabilities; y: (U,) class index; parts: the heads that may have weight.
    """
    _, n_parts, n_classes = z.shape
    allowed = np.zeros(n_parts, dtype=bool)
    allowed[list(range(n_parts) if parts is None else parts)] = True
    while True:
        parameters = _newton(z, y, np.flatnonzero(allowed))
        negative = parameters[:n_parts] < 0
        if not negative.any():
            return parameters
        if allowed.sum() == 1:  # worse than chance: what it says is left out
            parameters[:n_parts] = 0
            share = np.bincount(y, minlength=n_classes) + 0.5
            parameters[n_parts:] = np.log(share / share.sum())
            return parameters
        allowed &= ~negative
        if not allowed.any():
            allowed[int(parameters[:n_parts].argmax())] = True


def blended(z: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Log probabilities (U, C) float32 of the blend. z: (U, P, C); parameters: as of :func:`fit_blend`."""
    n_parts = z.shape[1]
    logits = np.einsum("upc,p->uc", np.maximum(z, _FLOOR), parameters[:n_parts])
    logits = logits + parameters[n_parts:]
    logits -= logits.max(axis=1, keepdims=True)
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def _newton(z: np.ndarray, y: np.ndarray, parts: np.ndarray) -> np.ndarray:
    n_users, n_parts, n_classes = z.shape
    if n_classes == 2:  # the same in log odds: a quarter of the work
        clipped = np.maximum(z, _FLOOR)
        design = np.ones((n_users, len(parts) + 1))
        design[:, :-1] = clipped[:, parts, 1] - clipped[:, parts, 0]
        free = _binary(design, y == 1, len(parts))
        bias = np.array([0.0, free[-1]])
    else:
        free = _several(np.maximum(z[:, parts], _FLOOR).astype(np.float64), y)
        bias = free[len(parts) :]
    parameters = np.zeros(n_parts + n_classes)
    parameters[parts] = free[: len(parts)]
    parameters[n_parts:] = bias
    return parameters


def _binary(design: np.ndarray, positive: np.ndarray, n_parts: int) -> np.ndarray:
    """Logistic regression of the columns, the last of which is the bias, from equal weights on."""
    prior = np.append(np.full(n_parts, 1 / n_parts), 0.0)
    ridge = _RIDGE * len(design) * np.append(_spread(design[:, :-1]), 1.0)
    theta = prior.copy()

    def loss(at: np.ndarray) -> float:
        eta = design @ at
        return float(
            (np.logaddexp(0, eta) - positive * eta).sum() + (ridge / 2 * (at - prior) ** 2).sum()
        )

    now = loss(theta)
    for _ in range(30):
        p = 1 / (1 + np.exp(-(design @ theta)))
        gradient = design.T @ (p - positive) + ridge * (theta - prior)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge)
        theta, now, done = _stepped(theta, np.linalg.solve(hessian, -gradient), gradient, loss, now)
        if done:
            break
    return theta


def _spread(log_odds: np.ndarray) -> np.ndarray:
    """Variance of every column: so the ridge weighs a head alike, however much its penalty shrank it."""
    return np.maximum(log_odds.var(axis=0), 1e-12)


def _several(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    n_users, n_parts, n_classes = z.shape
    prior = np.append(np.full(n_parts, 1 / n_parts), np.zeros(n_classes))
    centred = z - z.mean(axis=2, keepdims=True)  # what is the same for all classes says nothing
    spread = _spread(centred.transpose(0, 2, 1).reshape(-1, n_parts))
    ridge = _RIDGE * n_users * np.append(spread, np.ones(n_classes))
    theta, target = prior.copy(), np.eye(n_classes)[y]

    def logits(at: np.ndarray) -> np.ndarray:
        eta = np.einsum("upc,p->uc", z, at[:n_parts]) + at[n_parts:]
        return eta - eta.max(axis=1, keepdims=True)

    def loss(at: np.ndarray) -> float:
        eta = logits(at)
        normalizer = np.log(np.exp(eta).sum(axis=1)).sum()
        return float(normalizer - (target * eta).sum() + (ridge / 2 * (at - prior) ** 2).sum())

    now = loss(theta)
    for _ in range(30):
        p = np.exp(logits(theta))
        p /= p.sum(axis=1, keepdims=True)
        rest = p - target
        gradient = np.append(np.einsum("upc,uc->p", z, rest), rest.sum(axis=0))
        gradient += ridge * (theta - prior)
        means = np.einsum("upc,uc->up", z, p)
        hessian = np.diag(ridge)
        weighted = z * p[:, None]
        hessian[:n_parts, :n_parts] += np.einsum("upc,uqc->pq", weighted, z) - means.T @ means
        cross = weighted.sum(axis=0) - means.T @ p
        hessian[:n_parts, n_parts:] += cross
        hessian[n_parts:, :n_parts] += cross.T
        hessian[n_parts:, n_parts:] += np.diag(p.sum(axis=0)) - p.T @ p
        theta, now, done = _stepped(theta, np.linalg.solve(hessian, -gradient), gradient, loss, now)
        if done:
            break
    return theta


def _stepped(
    theta: np.ndarray,
    step: np.ndarray,
    gradient: np.ndarray,
    loss: Callable[[np.ndarray], float],
    now: float,
) -> tuple[np.ndarray, float, bool]:
    """Parameters after the step, halved until the loss does not rise; their loss; whether to end."""
    for _ in range(30):
        then = loss(theta + step)
        if then <= now:
            break
        step = step / 2
    else:
        return theta, now, True
    return theta + step, then, bool(-(gradient @ step) < 1e-9 * (1 + abs(now)))
