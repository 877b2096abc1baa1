"""Logistic regression on few inputs: those most correlated with the class, weighed by how much they are.

One input may be nearly what a task asks: the count of the category, or the log odds that the user chooses
it next. A ridge shares the weight among all inputs; here most of it stays with the few that each tell most
by themselves. Inputs are divided by their deviation and multiplied by (|r| / max |r|)^4, r being the
correlation with the class: an adaptive ridge, as in H. Zou, "The adaptive lasso and its oracle properties",
JASA, 2006, https://doi.org/10.1198/016214506000000735, with marginal correlations for first estimates
(J. Fan and J. Lv, "Sure independence screening", JRSS B, 2008). More than two classes have one regression
each, and their log odds are logits.

Letters: U users, d width, F regressions at once, m inputs kept, V variants, C classes.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lurm.heads.folds import Job
from lurm.heads.logistic import LogisticHead
from lurm.heads.parallel import in_threads
from lurm.heads.settings import HeadSettings

VARIANTS = ((8, 0.1), (32, 0.01), (32, 0.1))  # inputs kept and C, which are compared
POWER = 4.0
_STEPS = 12
_NUMBERS_AT_ONCE = 8_000_000  # of users x regressions x inputs kept


class _Regressions(NamedTuple):
    """Binary regressions: whom each is trained on, and who is in the class."""

    train: Tensor  # (F, U) float64, 1 or 0
    positive: Tensor  # (F, U) float64, 1 or 0


def sparse_out_of_sample(
    x: np.ndarray, jobs: Sequence[Job], settings: HeadSettings, n_threads: int = 1
) -> list[np.ndarray]:
    """Log probabilities of the test users of every job, (V, t, C) float32 each.

    x: (U, d) of all users that jobs name.

    Raises:
        ValueError: the vectors are not finite or all equal.
    """
    inputs = _checked(x)
    most = max(1, _NUMBERS_AT_ONCE // (len(x) * max(m for m, _ in VARIANTS)))
    batches = [jobs[first : first + most] for first in range(0, len(jobs), most)]

    def solve(batch: Sequence[Job]) -> list[np.ndarray]:
        regressions = _regressions(batch, len(x))
        log_odds = [_fitted(inputs, regressions, variant)[2] for variant in VARIANTS]
        out, first = [], 0
        for job in batch:
            rows = slice(first, first + _n_logits(job))
            test = torch.from_numpy(job.test)
            parts = [_log_probabilities(eta[rows][:, test].T) for eta in log_odds]
            out.append(np.stack([part.float().numpy() for part in parts]))
            first = rows.stop
        return out

    return [part for parts in in_threads(solve, batches, n_threads) for part in parts]


def fit_sparse(x: np.ndarray, y: np.ndarray, n_classes: int, variant: int) -> LogisticHead:
    """The head of one task, a linear map with few weights.

    x: (U, d); y: (U,) class index; variant: the row of VARIANTS.

    Raises:
        ValueError: the vectors are not finite or all equal.
    """
    rows = np.arange(len(y))
    regressions = _regressions([Job(rows, y, n_classes, rows[:0], 0)], len(y))
    weight, bias, _ = _fitted(_checked(x), regressions, VARIANTS[variant])
    return LogisticHead(weight.T.float().contiguous(), bias.float())


def _checked(x: np.ndarray) -> Tensor:
    inputs = torch.tensor(x, dtype=torch.float32)
    if not torch.isfinite(inputs).all():
        raise ValueError("user vectors should be finite, found NaN or infinity")
    if not (inputs != inputs[0]).any():
        raise ValueError("user vectors of all users in the task are equal; nothing to learn from")
    return inputs


def _n_logits(job: Job) -> int:
    return 1 if job.n_classes == 2 else job.n_classes


def _regressions(jobs: Sequence[Job], n_users: int) -> _Regressions:
    n_rows = sum(map(_n_logits, jobs))
    train, positive = torch.zeros(2, n_rows, n_users, dtype=torch.float64)
    for row, (job, label) in enumerate(_classes(jobs)):
        rows = torch.from_numpy(job.train)
        train[row, rows] = 1
        positive[row, rows] = torch.from_numpy(job.y == label).double()
    return _Regressions(train, positive)


def _classes(jobs: Sequence[Job]) -> Iterator[tuple[Job, int]]:
    """Each regression's job and class: the second of two, or every one."""
    for job in jobs:
        yield from ((job, label) for label in ([1] if job.n_classes == 2 else range(job.n_classes)))


def _fitted(
    inputs: Tensor, regressions: _Regressions, variant: tuple[int, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (F, d), biases (F,), and the log odds of all users (F, U)."""
    kept, penalty = min(variant[0], inputs.shape[1]), variant[1]
    train, positive = regressions
    x, n = inputs.double(), train.sum(1, keepdim=True)
    mean = train @ x / n  # (F, d)
    deviation = (train @ x.square() / n - mean.square()).clamp(min=0).sqrt()
    share = positive.sum(1, keepdim=True) / n
    spread = (share * (1 - share)).clamp(min=1e-12).sqrt()
    covariance = positive @ x / n - share * mean
    varies = deviation > 1e-6 * deviation.max(1, keepdim=True).values
    correlation = torch.where(varies, covariance / (deviation.clamp(min=1e-30) * spread), 0).abs()
    strength, columns = correlation.topk(kept, dim=1)  # (F, m)
    strength = (strength / strength[:, :1].clamp(min=1e-12)) ** POWER
    scale = strength / deviation.gather(1, columns).clamp(min=1e-30)
    z = inputs.T[columns].double()  # (F, m, U)
    z = (z - mean.gather(1, columns)[..., None]) * scale[..., None]
    z = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
    ridge = torch.ones(kept + 1, dtype=torch.float64)
    ridge[-1] = 1e-8  # the bias is free
    theta = torch.zeros(len(z), kept + 1, dtype=torch.float64)
    theta[:, -1] = share[:, 0].clamp(1e-6, 1 - 1e-6).logit()
    for _ in range(_STEPS):
        p = torch.einsum("fmu,fm->fu", z, theta).sigmoid()
        gradient = penalty * torch.einsum("fmu,fu->fm", z, train * (p - positive)) + ridge * theta
        curved = z * (train * p * (1 - p))[:, None]
        hessian = penalty * curved @ z.transpose(1, 2) + torch.diag(ridge + 1e-9)
        factor = torch.linalg.cholesky(hessian)
        step = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        theta -= step.clamp(-5, 5)
        if step.abs().max() < 1e-6:
            break
    log_odds = torch.einsum("fmu,fm->fu", z, theta)
    weight = torch.zeros(len(z), inputs.shape[1], dtype=torch.float64)
    weight.scatter_(1, columns, theta[:, :-1] * scale)
    bias = theta[:, -1] - (weight * mean).sum(1)
    return weight, bias, log_odds


def _log_probabilities(eta: Tensor) -> Tensor:
    """Log probabilities (t, C) of logits (t, L)."""
    if eta.shape[1] == 1:
        return torch.cat([functional.logsigmoid(-eta), functional.logsigmoid(eta)], dim=1)
    return eta.log_softmax(dim=1)
