"""Logistic regression with an L2 penalty, for many tasks, training parts and penalties at once.

    minimise over w, b:  1/2 ||w||^2 + C sum_u loss(y_u, b + w (x_u - mean) / rms)

as scikit-learn's LogisticRegression writes it, on inputs that are centred and divided by one root mean
square. Two classes have one logit, more have one each. The steps are Newton's; each is found by
conjugate gradients, in the principal coordinates of the inputs, where the diagonal of the Hessian is a
good preconditioner. All heads share the inputs, so every product with them is one matrix product over
all heads. The principal coordinates are exact: with fewer users than inputs they have as many numbers as
there are users, whatever the width.

Letters: U users, d width, r rank of the inputs, F heads at once, L logits of a head, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lurm.heads.folds import Job
from lurm.heads.parallel import in_threads, one_thread
from lurm.heads.settings import HeadSettings

_NUMBERS_AT_ONCE = 1_000_000  # of users x heads x logits
_NEWTON_STEPS, _INNER_STEPS = 30, 60
_ROWS_AT_ONCE = 16_384
_FORCING = 0.1  # a Newton step is solved until its residual is so much smaller
# Newton decrement at the end, in loss per user: of heads to keep, and of those that are only compared.
_EXACT, _NEAR = 1e-9, 1e-6


@dataclass(frozen=True)
class LogisticHead:
    """A linear map to log odds (two classes) or logits."""

    weight: Tensor  # (d, L) on the inputs as they are
    bias: Tensor  # (L,)

    kind = "logistic"

    @property
    def width(self) -> int:
        """Numbers that it takes for each user."""
        return len(self.weight)

    def log_probabilities(self, x: np.ndarray) -> np.ndarray:
        """Log probabilities of the classes, (U, C) float32. x: (U, d)."""
        inputs = torch.from_numpy(np.require(x, np.float32, ["C", "W"]))
        return _log_probabilities(inputs @ self.weight + self.bias).numpy()


def fit_logistic(x: np.ndarray, y: np.ndarray, n_classes: int, penalty: float) -> LogisticHead:
    """The head of one task. x: (U, d); y: (U,) class index; penalty: C, larger is weaker.

    Raises:
        ValueError: the vectors are not finite or all equal.
    """
    rows = np.arange(len(y))
    job = Job(rows, y, n_classes, rows[:0], 0)
    inputs = principal_coordinates(x)
    for _, theta in _solutions(inputs.z, x.shape[1], [job], [penalty], _EXACT):
        weight = inputs.directions @ theta[:-1, 0].double()
        bias = theta[-1, 0].double() - inputs.mean @ weight
    return LogisticHead(weight.float(), bias.float())


def logistic_out_of_sample(
    x: np.ndarray, jobs: Sequence[Job], settings: HeadSettings, n_threads: int = 1
) -> list[np.ndarray]:
    """Log probabilities of the test users of every job, (penalties, t, C) float32 each.

    x: (U, d) of all users that jobs name.

    Raises:
        ValueError: the vectors are not finite or all equal.
    """
    with one_thread():
        z = principal_coordinates(x).z

    def solve(numbers: list[int]) -> list[np.ndarray]:
        batch = [jobs[n] for n in numbers]
        rows = np.unique(np.concatenate([part for job in batch for part in (job.train, job.test)]))
        where = np.full(len(z), -1)
        where[rows] = np.arange(len(rows))
        moved = [replace(job, train=where[job.train], test=where[job.test]) for job in batch]
        inputs = z if len(rows) == len(z) else z[torch.from_numpy(rows)]
        tests = [torch.from_numpy(job.test) for job in moved]
        by_penalty = [
            [_log_probabilities(eta[test, f]).numpy() for f, test in enumerate(tests)]
            for eta, _ in _solutions(inputs, x.shape[1], moved, settings.penalties)
        ]
        return [np.stack([part[f] for part in by_penalty]) for f in range(len(batch))]

    found: list[np.ndarray] = [np.zeros(0)] * len(jobs)
    batches = list(_batches(jobs, len(z)))
    for numbers, parts in zip(batches, in_threads(solve, batches, n_threads), strict=True):
        for n, part in zip(numbers, parts, strict=True):
            found[n] = part
    return found


@dataclass(frozen=True)
class Coordinates:
    """Inputs in their principal directions."""

    z: Tensor  # (U, r) float32, columns orthogonal, means zero
    directions: Tensor  # (d, r) float64, orthonormal columns
    mean: Tensor  # (d,) float64


def principal_coordinates(x: np.ndarray) -> Coordinates:
    """The centred rows of ``x`` (U, d) in their principal directions.

    No row moves: the rank r is at most the smaller of U - 1 and d, and all of it is kept.

    Raises:
        ValueError: ``x`` holds NaN or infinity, or all rows are equal.
    """
    mean = torch.from_numpy(x.mean(axis=0, dtype=np.float64))
    inputs = torch.from_numpy(np.require(x, np.float32, ["C", "W"]))
    wide = inputs.shape[1] > len(inputs)
    if wide:
        centred = inputs.double() - mean
        gram = centred @ centred.T
    else:
        gram = torch.zeros(inputs.shape[1], inputs.shape[1], dtype=torch.float64)
        for rows in inputs.split(_ROWS_AT_ONCE):
            centred = rows.double() - mean
            gram += centred.T @ centred
    if not torch.isfinite(gram).all():
        raise ValueError("user vectors should be finite, found NaN or infinity")
    values, vectors = torch.linalg.eigh(gram)
    if not values[-1] > 0:
        raise ValueError("user vectors of all users in the task are equal; nothing to learn from")
    kept = values > values[-1] * 1e-12
    values, vectors = values[kept].flip(0), vectors[:, kept].flip(1)
    if wide:
        return Coordinates(
            (vectors * values.sqrt()).float(), centred.T @ vectors / values.sqrt(), mean
        )
    z = torch.cat(
        [((rows.double() - mean) @ vectors).float() for rows in inputs.split(_ROWS_AT_ONCE)]
    )
    return Coordinates(z, vectors, mean)


def _batches(jobs: Sequence[Job], n_users: int) -> Iterator[list[int]]:
    """Numbers of jobs that are solved at once: as many logits each, within the memory allowed."""
    for logits in sorted({_n_logits(job) for job in jobs}):
        alike = [n for n, job in enumerate(jobs) if _n_logits(job) == logits]
        most = max(1, _NUMBERS_AT_ONCE // (n_users * logits))
        for first in range(0, len(alike), most):
            yield alike[first : first + most]


def _n_logits(job: Job) -> int:
    return 1 if job.n_classes == 2 else job.n_classes


def _solutions(
    z: Tensor,
    width: int,
    jobs: Sequence[Job],
    penalties: Sequence[float],
    tolerance: float = _NEAR,
) -> Iterator[tuple[Tensor, Tensor]]:
    """For every penalty the logits of all users (U, F, L), and the parameters, (r + 1, F, L), bias last.

    Jobs have equally many logits. Each penalty starts at the solution of the one before. The tensors
    are the same objects each time, changed in place.
    """
    n, n_jobs, logits = len(z), len(jobs), _n_logits(jobs[0])
    weight, target = torch.zeros(n, n_jobs, 1), torch.zeros(n, n_jobs, logits)
    for f, job in enumerate(jobs):
        rows = torch.from_numpy(job.train)
        weight[rows, f] = 1
        classes = torch.from_numpy(job.y)
        target[rows, f] = (
            classes[:, None].float() if logits == 1 else functional.one_hot(classes, logits).float()
        )
    square, users = z.double().square().sum(dim=1), weight.sum(dim=0).double()
    centres = (z.T @ weight[..., 0]).double() / users.T
    mean_square = (square @ weight[..., 0].double() / users[:, 0] - centres.square().sum(0)) / width
    if not (mean_square > square.mean() / width * 1e-10).all():
        raise ValueError("user vectors of all users in the task are equal; nothing to learn from")
    inputs = torch.cat([z, torch.ones(n, 1)], dim=1)
    squares = inputs.square().T
    theta = torch.zeros(inputs.shape[1], n_jobs, logits)
    eta = torch.zeros(n, n_jobs, logits)
    for penalty in penalties:
        ridge = (mean_square / penalty).float().repeat(len(theta), 1)[..., None]
        ridge[-1] = 0  # the bias is free
        _newton(inputs, squares, target, weight, ridge, theta, eta, tolerance)
        yield eta, theta


def _newton(
    inputs: Tensor,
    squares: Tensor,
    target: Tensor,
    weight: Tensor,
    ridge: Tensor,
    theta: Tensor,
    eta: Tensor,
    tolerance: float,
) -> None:
    """Move ``theta`` (r + 1, F, L) and ``eta`` (U, F, L) to the minimum, in place.

    inputs: (U, r + 1); squares: of these, (r + 1, U); target: (U, F, L); weight: (U, F, 1), 0 or 1;
    ridge: (r + 1, F, 1).
    """
    users = weight.sum(dim=0)[:, 0]
    left = torch.arange(theta.shape[1])
    for _ in range(_NEWTON_STEPS):
        whole = len(left) == theta.shape[1]
        some = (lambda t: t) if whole else (lambda t: t[:, left])  # noqa: B023
        p, w, t, lam = _probabilities(some(eta)), some(weight), some(target), some(ridge)
        gradient = _product(inputs.T, w * (p - t)) + lam * some(theta)
        diagonal = _product(squares, w * p * (1 - p)) + lam + 1e-6
        step, moved = _conjugate_gradients(inputs, p, w, lam, gradient, diagonal)
        decrement = -(gradient * step).sum(dim=(0, 2)) / users[left]
        before = _objective(some(eta), t, w, lam, some(theta))
        length = torch.ones(len(left))
        for _ in range(20):
            at = length[None, :, None]
            after = _objective(some(eta) + at * moved, t, w, lam, some(theta) + at * step)
            worse = after > before + 1e-5 * (1 + before.abs())
            if not worse.any():
                break
            length = torch.where(worse, length / 2, length)
        step *= length[None, :, None]
        moved *= length[None, :, None]
        if whole:
            theta += step
            eta += moved
        else:
            theta[:, left] += step
            eta[:, left] += moved
        left = left[decrement > tolerance]
        if not len(left):
            return


def _conjugate_gradients(
    inputs: Tensor, p: Tensor, weight: Tensor, ridge: Tensor, gradient: Tensor, diagonal: Tensor
) -> tuple[Tensor, Tensor]:
    """Newton's step ``-H^-1 gradient`` (r + 1, F, L), nearly, and the change of the logits, (U, F, L)."""
    step, moved = torch.zeros_like(gradient), torch.zeros_like(p)
    residual = -gradient
    towards = residual / diagonal
    direction = towards.clone()
    size = (residual * towards).sum(dim=(0, 2))
    goal = size * _FORCING**2
    for _ in range(_INNER_STEPS):
        seen = _product(inputs, direction)
        curved = p * (seen if p.shape[2] == 1 else seen - (p * seen).sum(dim=2, keepdim=True))
        if p.shape[2] == 1:
            curved *= 1 - p
        bent = _product(inputs.T, curved.mul_(weight)) + ridge * direction
        along = (direction * bent).sum(dim=(0, 2))
        length = torch.where(along > 0, size / along, 0)[None, :, None]
        step += length * direction
        moved += length * seen
        residual -= length * bent
        towards = residual / diagonal
        shrunk = (residual * towards).sum(dim=(0, 2))
        if (shrunk <= goal).all():
            break
        direction = towards + torch.where(size > 0, shrunk / size, 0)[None, :, None] * direction
        size = shrunk
    return step, moved


def _product(matrix: Tensor, heads: Tensor) -> Tensor:
    """(A, B) times (B, F, L): (A, F, L)."""
    return (matrix @ heads.flatten(1)).view(-1, *heads.shape[1:])


def _probabilities(eta: Tensor) -> Tensor:
    return eta.sigmoid() if eta.shape[2] == 1 else eta.softmax(dim=2)


def _objective(eta: Tensor, target: Tensor, weight: Tensor, ridge: Tensor, theta: Tensor) -> Tensor:
    """Penalised loss of every head, (F,)."""
    if eta.shape[2] == 1:
        loss = functional.softplus(eta) - target * eta
    else:
        loss = eta.logsumexp(dim=2, keepdim=True) - (target * eta).sum(dim=2, keepdim=True)
    return (weight * loss).sum(dim=(0, 2)) + 0.5 * (ridge * theta.square()).sum(dim=(0, 2))


def _log_probabilities(eta: Tensor) -> Tensor:
    """Log probabilities (U, C) of the logits (U, L)."""
    if eta.shape[1] == 1:
        return torch.cat([functional.logsigmoid(-eta), functional.logsigmoid(eta)], dim=1)
    return eta.log_softmax(dim=1)
