"""The head of the paper (3.2): an MLP of one hidden layer, for one task or for many at once.

Letters: U users, d width of a user vector, C classes, M heads at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lurm.heads.folds import Job, deal, validation_users
from lurm.heads.parallel import in_threads
from lurm.heads.settings import HeadSettings

_HEADS_AT_ONCE = 16  # weights and their moments stay in the cache of a core
_NUMBERS_AT_ONCE = 4_000_000  # of heads x users x width


@dataclass(frozen=True)
class MlpHead:
    """A normalizer of the inputs and the MLP behind it."""

    mean: torch.Tensor  # (d,)
    rms: torch.Tensor  # ()
    mlp: torch.nn.Sequential  # d -> hidden -> C logits

    kind = "mlp"

    @property
    def width(self) -> int:
        """Numbers that it takes for each user."""
        return len(self.mean)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Unscaled log probabilities, (U, C) float32. x: (U, d) float32."""
        return self.mlp((x - self.mean) / self.rms)

    def log_probabilities(self, x: np.ndarray) -> np.ndarray:
        """Log probabilities of the classes, (U, C) float32. x: (U, d)."""
        with torch.no_grad():
            logits = self.logits(torch.tensor(x, dtype=torch.float32))
            return logits.log_softmax(dim=1).numpy()


def normalizer(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of every input, (d,), and the root mean square of all centred inputs, ().

    One scale for all inputs keeps their proportions, which a scale per input would undo.

    Raises:
        ValueError: ``x`` holds NaN or infinity, or all rows are equal.
    """
    mean = x.mean(dim=0)
    rms = (x - mean).square().mean().sqrt()
    if not torch.isfinite(rms):
        raise ValueError("user vectors should be finite, found NaN or infinity")
    if rms == 0:
        raise ValueError("user vectors of all users in the task are equal; nothing to learn from")
    return mean, rms


def fit_mlp(
    x: np.ndarray, y: np.ndarray, n_classes: int, settings: HeadSettings, seed: int = 0
) -> MlpHead:
    """A head trained by cross-entropy and Adam, as it was in its best epoch.

    A stratified share of the users is held back; training ends when their loss has not improved for
    ``patience`` epochs. The normalizer is fitted on all rows of ``x``.
    x: (U, d) float32; y: (U,) class index.

    Raises:
        ValueError: the vectors are not finite or all equal.
    """
    rng = np.random.default_rng(seed)
    order = deal(y, rng)
    held_back = validation_users(len(y), settings.validation_share)
    inputs = torch.tensor(x, dtype=torch.float32)
    classes = torch.tensor(y, dtype=torch.int64)
    mean, rms = normalizer(inputs)
    inputs = (inputs - mean) / rms
    train, validation = torch.from_numpy(order[~held_back]), torch.from_numpy(order[held_back])
    train_x, train_y = inputs[train], classes[train]
    validation_x, validation_y = inputs[validation], classes[validation]

    mlp = _started(inputs.shape[1], settings.hidden, n_classes, seed)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=settings.learning_rate, fused=True)
    best_loss, best_epoch, best = float("inf"), -1, _copy(mlp)
    for epoch in range(settings.max_epochs):
        for batch in torch.from_numpy(rng.permutation(len(train))).split(settings.batch_size):
            optimizer.zero_grad()
            logits = mlp(train_x.index_select(0, batch))  # copies whole rows
            functional.cross_entropy(logits, train_y.index_select(0, batch)).backward()
            optimizer.step()
        with torch.no_grad():
            loss = functional.cross_entropy(mlp(validation_x), validation_y).item()
        if loss < best_loss:
            best_loss, best_epoch, best = loss, epoch, _copy(mlp)
        elif epoch - best_epoch >= settings.patience:
            break
    mlp.load_state_dict(best)
    return MlpHead(mean, rms, mlp.requires_grad_(False))


def mlp_of(width: int, hidden: int, n_classes: int) -> torch.nn.Sequential:
    """An MLP of one hidden layer, whose weights are still to be set."""
    linear = partial(torch.nn.utils.skip_init, torch.nn.Linear)
    layers: list[torch.nn.Module] = [
        linear(width, hidden),
        torch.nn.ReLU(),
        linear(hidden, n_classes),
    ]
    return torch.nn.Sequential(*layers)


def _started(width: int, hidden: int, n_classes: int, seed: int) -> torch.nn.Sequential:
    """The MLP with the weights that torch draws for this seed.

    By a generator of its own: the global one is not for several threads.
    """
    mlp = mlp_of(width, hidden, n_classes)
    state = mlp.state_dict()  # the same numbers, not copies
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for fan_in, layer in ((width, 0), (hidden, 2)):
            for name in ("weight", "bias"):
                bound = fan_in**-0.5
                state[f"{layer}.{name}"].uniform_(-bound, bound, generator=generator)
    return mlp


def _copy(mlp: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in mlp.state_dict().items()}


def mlp_out_of_sample(
    x: np.ndarray, jobs: Sequence[Job], settings: HeadSettings, n_threads: int = 1
) -> list[np.ndarray]:
    """Log probabilities of the test users of every job, (1, t, C) float32 each. x: (U, d).

    Heads of like size train in one batched product; each is what :func:`fit_mlp` gives for its job, but
    for rounding.

    Raises:
        ValueError: the vectors are not finite or all equal.
    """
    inputs = torch.from_numpy(np.require(x, np.float32, ["C", "W"]))
    inputs = inputs - inputs.mean(dim=0)  # as good as any origin, and numbers of the right size
    if not torch.isfinite(inputs).all():
        raise ValueError("user vectors should be finite, found NaN or infinity")
    batches = list(_alike(jobs, x.shape[1], settings))

    def train(numbers: list[int]) -> list[np.ndarray]:
        return _train_together(inputs, [jobs[n] for n in numbers], settings)

    found: list[np.ndarray] = [np.zeros(0)] * len(jobs)
    for numbers, parts in zip(batches, in_threads(train, batches, n_threads), strict=True):
        for n, part in zip(numbers, parts, strict=True):
            found[n] = part[None]
    return found


def _alike(jobs: Sequence[Job], width: int, settings: HeadSettings) -> Iterator[list[int]]:
    """Numbers of jobs with equally many classes and steps an epoch, so many that memory is bounded."""
    groups: dict[tuple[int, int], list[int]] = {}
    for n, job in enumerate(jobs):
        n_train = len(job.y) - int(validation_users(len(job.y), settings.validation_share).sum())
        groups.setdefault((job.n_classes, -(-n_train // settings.batch_size)), []).append(n)
    for _, numbers in sorted(groups.items()):
        n_users = max(len(jobs[n].y) for n in numbers)
        share = max(settings.validation_share, settings.batch_size / n_users)
        most = int(_NUMBERS_AT_ONCE / (n_users * share * width))
        most = min(max(most, 1), _HEADS_AT_ONCE)
        for first in range(0, len(numbers), most):
            yield numbers[first : first + most]


def _train_together(x: Tensor, jobs: Sequence[Job], settings: HeadSettings) -> list[np.ndarray]:
    """Log probabilities (t, C) of every job's test users. x: (U, d), of mean zero."""
    n_jobs, n_classes = len(jobs), jobs[0].n_classes
    classes = torch.zeros(n_jobs, len(x), dtype=torch.int64)
    mean, rms = torch.empty(n_jobs, 1, x.shape[1]), torch.empty(n_jobs, 1, 1)
    dice, train, validation, layers = [], [], [], []
    for m, job in enumerate(jobs):
        rows = torch.from_numpy(job.train)
        classes[m, rows] = torch.from_numpy(job.y)
        mean[m, 0], rms[m, 0, 0] = normalizer(x[rows])
        rng = np.random.default_rng(job.seed)
        order = deal(job.y, rng)
        held_back = validation_users(len(order), settings.validation_share)
        dice.append(rng)
        train.append(job.train[order[~held_back]])
        validation.append(job.train[order[held_back]])
        mlp = _started(x.shape[1], settings.hidden, n_classes, job.seed)
        tensors = mlp.state_dict()
        layers.append(
            [tensors[f"{n}.weight"].T for n in (0, 2)] + [tensors[f"{n}.bias"] for n in (0, 2)]
        )
    weights = [torch.stack(parts) for parts in zip(*layers, strict=True)]
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    best = [w.clone() for w in weights]
    best_loss, best_epoch = torch.full((n_jobs,), torch.inf), torch.full((n_jobs,), -1)
    validation_rows, validation_share = _padded(validation)
    left = torch.arange(n_jobs)
    steps = 0
    for epoch in range(settings.max_epochs):
        rows, _ = _padded([train[m][dice[m].permutation(len(train[m]))] for m in left.tolist()])
        sizes = torch.tensor([len(train[m]) for m in left.tolist()])
        for start in range(0, rows.shape[1], settings.batch_size):
            batch = rows[:, start : start + settings.batch_size]
            there = torch.arange(start, start + batch.shape[1]) < sizes[:, None]
            share = there / there.sum(dim=1, keepdim=True)
            target = classes[left].gather(1, batch)
            gradients = _gradients(x, batch, share, target, mean[left], rms[left], weights)
            steps += 1
            _adam(weights, gradients, first, second, steps, settings.learning_rate)
        logits, _ = _logits(x, validation_rows[left], mean[left], rms[left], weights)
        target = classes[left].gather(1, validation_rows[left])
        loss = functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        loss = (loss * validation_share[left]).sum(dim=1)
        better = loss < best_loss[left]
        best_loss[left[better]] = loss[better]
        best_epoch[left[better]] = epoch
        for kept, now in zip(best, weights, strict=True):
            kept[left[better]] = now[better]
        going = epoch - best_epoch[left] < settings.patience
        if not going.all():
            left = left[going]
            weights, first, second = ([t[going] for t in part] for part in (weights, first, second))
            if not len(left):
                break
    found = []
    for m, job in enumerate(jobs):
        test = torch.from_numpy(job.test)[None]
        one = slice(m, m + 1)
        logits, _ = _logits(x, test, mean[one], rms[one], [w[one] for w in best])
        found.append(logits[0].log_softmax(dim=1).numpy())
    return found


def _padded(parts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Row numbers (M, longest), each filled up with its last; and the weights of a mean over them."""
    sizes = torch.tensor([len(part) for part in parts])
    rows = torch.stack(
        [
            torch.from_numpy(np.pad(part, (0, int(sizes.max()) - len(part)), "edge"))
            for part in parts
        ]
    )
    return rows, (torch.arange(rows.shape[1]) < sizes[:, None]) / sizes[:, None]


def _logits(
    x: Tensor, rows: Tensor, mean: Tensor, rms: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Logits (M, B, C) of the rows (M, B), and what the gradients need of the way there."""
    inner, outer, inner_bias, outer_bias = weights
    inputs = x[rows.flatten()].view(*rows.shape, -1)
    inputs.sub_(mean).div_(rms)
    hidden = torch.baddbmm(inner_bias[:, None], inputs, inner).relu_()
    return torch.baddbmm(outer_bias[:, None], hidden, outer), (inputs, hidden)


def _gradients(
    x: Tensor,
    rows: Tensor,
    share: Tensor,
    target: Tensor,
    mean: Tensor,
    rms: Tensor,
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """Of the mean cross-entropy of every head, in the order of ``weights``."""
    logits, (inputs, hidden) = _logits(x, rows, mean, rms, weights)
    wrong = logits.softmax(dim=2)
    wrong.scatter_add_(
        2, target[..., None], torch.full_like(target, -1, dtype=torch.float32)[..., None]
    )
    wrong *= share[..., None]
    back = torch.bmm(wrong, weights[1].transpose(1, 2)).mul_(hidden > 0)
    return [
        torch.bmm(inputs.transpose(1, 2), back),
        torch.bmm(hidden.transpose(1, 2), wrong),
        back.sum(dim=1),
        wrong.sum(dim=1),
    ]


def _adam(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    step: int,
    learning_rate: float,
) -> None:
    """One step of torch's Adam with its default settings, in place."""
    for weight, gradient, mean, square in zip(weights, gradients, first, second, strict=True):
        mean.lerp_(gradient, 0.1)
        square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = square.sqrt().div_((1 - 0.999**step) ** 0.5).add_(1e-8)
        weight.addcdiv_(mean, scale, value=-learning_rate / (1 - 0.9**step))
