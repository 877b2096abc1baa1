"""The head of the paper (3.2): an MLP of one hidden layer, for one task or for many at once.

Letters: U users, d width of a user vector, C classes, M heads at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from lurm.heads.folds import Job, deal
from lurm.heads.parallel import in_threads
from lurm.heads.settings import HeadSettings


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
    held_back = np.diff(np.ceil(np.arange(len(y) + 1) * settings.validation_share)) > 0
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
    """An MLP of one hidden layer, with weights as torch draws them."""
    return torch.nn.Sequential(
        torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, n_classes)
    )


def _started(width: int, hidden: int, n_classes: int, seed: int) -> torch.nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mlp_of(width, hidden, n_classes)


def _copy(mlp: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in mlp.state_dict().items()}


def mlp_out_of_sample(
    x: np.ndarray, jobs: Sequence[Job], settings: HeadSettings, n_threads: int = 1
) -> list[np.ndarray]:
    """Log probabilities of the test users of every job, (1, t, C) float32 each. x: (U, d)."""

    def train(job: Job) -> np.ndarray:
        head = fit_mlp(x[job.train], job.y, job.n_classes, settings, job.seed)
        return head.log_probabilities(x[job.test])[None]

    return in_threads(train, jobs, 1)
