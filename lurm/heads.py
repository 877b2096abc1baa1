"""Heads: one small MLP per task on frozen user vectors (paper 3.2), its training and its scores.

Letters: U users, d width of a user vector, C classes, K folds x repeats.

The same input and seed give the same bytes for a fixed number of threads; the stage takes one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from lurm.metrics import accuracy, auc, roc_curve, standard_error
from lurm.storage import read_tensors, write_tensors
from lurm.vectors import vector_matrix, vector_space


class Training(TypedDict, total=False):
    """How a head is trained; the names and defaults of :func:`train_head`."""

    hidden: int
    learning_rate: float
    batch_size: int
    max_epochs: int
    patience: int
    validation_share: float


@dataclass(frozen=True)
class Head:
    """A trained head: the normalizer of its inputs and the MLP behind it."""

    mean: torch.Tensor  # (d,)
    rms: torch.Tensor  # ()
    mlp: torch.nn.Sequential  # d -> hidden -> C logits

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Unscaled log probabilities, (U, C) float32. x: (U, d) float32."""
        return self.mlp((x - self.mean) / self.rms)


@dataclass(frozen=True)
class Scores:
    """What cross-validation found: one score per fold and repeat, and who was scored how."""

    auc: list[float]  # K
    accuracy: list[float]  # K
    test_rows: list[np.ndarray]  # K times (n,) row numbers
    probabilities: list[np.ndarray]  # K times (n, C) out-of-fold class probabilities

    @property
    def mean_auc(self) -> float:
        """AUC, mean over folds and repeats."""
        return float(np.mean(self.auc))

    @property
    def auc_se(self) -> float:
        """Standard error of :attr:`mean_auc`."""
        return standard_error(self.auc)

    @property
    def mean_accuracy(self) -> float:
        """Accuracy, mean over folds and repeats."""
        return float(np.mean(self.accuracy))

    def record(self) -> dict[str, Any]:
        """The figures as a JSON object: means, standard error, and every fold by itself."""
        folds = zip(self.auc, self.accuracy, strict=True)
        return {
            "auc": self.mean_auc,
            "auc_se": self.auc_se,
            "acc": self.mean_accuracy,
            "folds": [{"auc": auc, "acc": acc} for auc, acc in folds],
        }


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


def deal(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Row numbers in random order within their class, classes one after the other, (U,).

    Taking every k-th of them is a stratified sample: class shares differ by one user at most.
    """
    order = rng.permutation(len(y))
    return order[np.argsort(y[order], kind="stable")]


def stratified_folds(y: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of every user, (U,) int64; fold sizes, overall and per class, differ by one at most."""
    fold = np.empty(len(y), dtype=np.int64)
    fold[deal(y, rng)] = np.arange(len(y)) % folds
    return fold


def train_head(
    x: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    *,
    hidden: int = 64,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    max_epochs: int = 40,
    patience: int = 6,
    validation_share: float = 0.1,
    seed: int = 0,
) -> Head:
    """A head trained by cross-entropy and Adam, as it was in its best epoch.

    A stratified share of the users is held back; training ends when their loss has not improved for
    ``patience`` epochs. The normalizer is fitted on all rows of ``x``.
    x: (U, d) float32; y: (U,) class index.

    Raises:
        ValueError: the vectors are not finite or all equal.
    """
    rng = np.random.default_rng(seed)
    order = deal(y, rng)
    held_back = np.diff(np.ceil(np.arange(len(y) + 1) * validation_share)) > 0
    inputs = torch.tensor(x, dtype=torch.float32)
    classes = torch.tensor(y, dtype=torch.int64)
    mean, rms = normalizer(inputs)
    inputs = (inputs - mean) / rms
    train, validation = torch.from_numpy(order[~held_back]), torch.from_numpy(order[held_back])
    train_x, train_y = inputs[train], classes[train]
    validation_x, validation_y = inputs[validation], classes[validation]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mlp = _mlp(inputs.shape[1], hidden, n_classes)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=learning_rate, fused=True)
    best_loss, best_epoch, best = float("inf"), -1, _copy(mlp)
    for epoch in range(max_epochs):
        for batch in torch.from_numpy(rng.permutation(len(train))).split(batch_size):
            optimizer.zero_grad()
            logits = mlp(train_x.index_select(0, batch))  # copies whole rows
            functional.cross_entropy(logits, train_y.index_select(0, batch)).backward()
            optimizer.step()
        with torch.no_grad():
            loss = functional.cross_entropy(mlp(validation_x), validation_y).item()
        if loss < best_loss:
            best_loss, best_epoch, best = loss, epoch, _copy(mlp)
        elif epoch - best_epoch >= patience:
            break
    mlp.load_state_dict(best)
    return Head(mean, rms, mlp.requires_grad_(False))


def _mlp(width: int, hidden: int, n_classes: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, n_classes)
    )


def _copy(mlp: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in mlp.state_dict().items()}


def predict(head: Head, x: np.ndarray) -> np.ndarray:
    """Class probabilities, (U, C) float32. x: (U, d), vectors of the space the head was trained in.

    Raises:
        ValueError: the vectors have another width than those of the training.
    """
    if x.shape[1] != len(head.mean):
        raise ValueError(
            f"the head takes vectors of width {len(head.mean)}, got {x.shape[1]}; "
            "apply it to vectors of the space it was trained in"
        )
    with torch.no_grad():
        logits = head.logits(torch.tensor(x, dtype=torch.float32))
        return logits.softmax(dim=1).numpy()


def predictions(vectors: pa.Table, heads: Mapping[str, tuple[Head, Mapping[str, Any]]]) -> pa.Table:
    """What every head says of every user: ``user_id``, ``model_version``, then by task, in their order.

    A category task has one column, ``<task>``: the probability of "yes", float32. An attribute task
    has two: ``<task>``, the most likely class, and ``<task>_probability``, its probability, float32.
    vectors: `tables.user_vectors_schema`; heads: by task, each as :func:`load_head` returns it.

    Raises:
        ValueError: a head belongs to another space than the vectors, or two columns share a name.
    """
    x, space = vector_matrix(vectors), vector_space(vectors)
    columns: dict[str, Any] = {name: vectors[name] for name in ("user_id", "model_version")}
    for task, (head, about) in sorted(heads.items()):
        trained_in = about.get("space_version", about["model_version"])
        if trained_in != space:
            raise ValueError(
                f"the head of {task} was trained on vectors of space {trained_in}, these are of "
                f"space {space}; train it anew, or take vectors of its space"
            )
        probabilities = predict(head, x)
        if about["value"] is not None:
            answer = {task: probabilities[:, about["classes"].index("yes")]}
        else:
            likely = pa.array(about["classes"]).take(pa.array(probabilities.argmax(axis=1)))
            answer = {task: likely, f"{task}_probability": probabilities.max(axis=1)}
        taken = ", ".join(columns.keys() & answer.keys())
        if taken:
            raise ValueError(f"tasks: two columns would be called {taken}; rename the task {task}")
        columns |= answer
    return pa.table(columns)


def splits(
    y: np.ndarray, folds: int, repeats: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers of the training and of the test part, for every repeat and fold."""
    for repeat in range(repeats):
        fold = stratified_folds(y, folds, np.random.default_rng([seed, repeat]))
        for k in range(folds):
            yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


def fold_heads(
    x: np.ndarray,
    y: np.ndarray,
    *,
    folds: int,
    repeats: int,
    seed: int,
    **training: Unpack[Training],
) -> Iterator[tuple[Head, np.ndarray]]:
    """For every repeat and fold the head that its training part gives, and the rows of its test part.

    x: (U, d) float32; y: (U,) class index 0..C-1, every class at least ``folds`` times.

    Raises:
        ValueError: a class has fewer users than there are folds, or the vectors are not usable.
    """
    counts = np.bincount(y)
    if len(counts) < 2 or counts.min() < folds:
        raise ValueError(
            f"{folds} folds need at least two classes with {folds} users each, "
            f"got classes of {', '.join(map(str, counts))} users"
        )
    for number, (train, test) in enumerate(splits(y, folds, repeats, seed)):
        yield train_head(x[train], y[train], len(counts), seed=seed + number, **training), test


def carry_heads(
    x: np.ndarray,
    others: Mapping[str, np.ndarray],
    y: np.ndarray,
    *,
    folds: int,
    repeats: int,
    seed: int,
    **training: Unpack[Training],
) -> tuple[list[float], dict[str, list[float]]]:
    """AUC of every fold (K) with heads trained on ``x``: on its own vectors, and on other vectors by name.

    The other vectors (U, d) are of the same users, by another model; a head meets them of users only that
    it was not trained on. The rest is as for :func:`cross_validate`.
    """
    own: list[float] = []
    carried: dict[str, list[float]] = {name: [] for name in others}
    for head, test in fold_heads(x, y, folds=folds, repeats=repeats, seed=seed, **training):
        own.append(auc(y[test], predict(head, x[test])))
        for name, other in others.items():
            carried[name].append(auc(y[test], predict(head, other[test])))
    return own, carried


def cross_validate(
    x: np.ndarray,
    y: np.ndarray,
    *,
    folds: int = 5,
    repeats: int = 2,
    seed: int = 0,
    **training: Unpack[Training],
) -> Scores:
    """Scores by stratified cross-validation; normalizer and head see the training part only.

    x: (U, d) float32; y: (U,) class index 0..C-1, every class at least ``folds`` times.

    Raises:
        ValueError: a class has fewer users than there are folds, or the vectors are not usable.
    """
    scores = Scores([], [], [], [])
    for head, test in fold_heads(x, y, folds=folds, repeats=repeats, seed=seed, **training):
        probabilities = predict(head, x[test])
        scores.auc.append(auc(y[test], probabilities))
        scores.accuracy.append(accuracy(y[test], probabilities))
        scores.test_rows.append(test)
        scores.probabilities.append(probabilities)
    return scores


def roc_curves(
    y: np.ndarray, scores: Scores, classes: Sequence[str], grid: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean out-of-fold true positive rate of every class against the rest, (G,) per class.

    With two classes only the second has a curve. grid: (G,) false positive rates from 0 to 1.
    """
    parts = list(zip(scores.test_rows, scores.probabilities, strict=True))
    return {
        name: np.mean([roc_curve(y[test] == c, p[:, c], grid) for test, p in parts], axis=0)
        for c, name in enumerate(classes)
        if len(classes) > 2 or c == 1
    }


def roc_table(y: np.ndarray, scores: Scores, classes: Sequence[str]) -> dict[str, list[Any]]:
    """:func:`roc_curves` on a grid of hundredths: columns ``fpr``, ``tpr`` and ``class``."""
    grid = np.linspace(0, 1, 101)
    curves = roc_curves(y, scores, classes, grid)
    return {
        "fpr": grid.round(2).tolist() * len(curves),
        "tpr": np.concatenate(list(curves.values())).round(5).tolist(),
        "class": np.repeat(list(curves), len(grid)).tolist(),
    }


def save_head(head: Head, path: Path | str, settings: Mapping[str, Any]) -> None:
    """Write the head as safetensors, ``settings`` (task, classes, model version) in its header."""
    write_tensors({"mean": head.mean, "rms": head.rms, **head.mlp.state_dict()}, path, settings)


def load_head(path: Path | str) -> tuple[Head, dict[str, Any]]:
    """The head that :func:`save_head` wrote, and its settings."""
    tensors, settings = read_tensors(path)
    mean, rms = tensors.pop("mean"), tensors.pop("rms")
    hidden, width = tensors["0.weight"].shape
    mlp = _mlp(width, hidden, len(tensors["2.weight"]))
    mlp.load_state_dict(tensors)
    return Head(mean, rms, mlp.requires_grad_(False)), settings
