"""Heads of every kind, their calibration and the choice among them, without a look at the test users.

What is chosen or fitted besides the heads themselves (the penalty of a logistic head, weights of a blend,
calibration, the kind) is found on log probabilities of users of the training part, by heads that were not
trained on them (:func:`lurm.heads.folds.nested_splits`).

Inputs may come in blocks, such as the user vector and counts beside it. A kind on several blocks is the
blend of that kind on each.

Letters: U users, n users of a task, d width, C classes, V settings of a kind that are compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lurm.heads.blend import blended, fit_blend
from lurm.heads.boosting import BoostedHead, boosting_out_of_sample, fit_boosting
from lurm.heads.folds import Job, Nested, inner_splits, nested_splits
from lurm.heads.logistic import LogisticHead, fit_logistic, logistic_out_of_sample
from lurm.heads.mlp import MlpHead, fit_mlp, mlp_out_of_sample
from lurm.heads.scores import Scores
from lurm.heads.settings import BASE_KINDS, KINDS, HeadSettings
from lurm.heads.sparse import VARIANTS, fit_sparse, sparse_out_of_sample
from lurm.metrics import auc
from lurm.tasks import TaskLabels

BaseHead = LogisticHead | MlpHead | BoostedHead
Inputs = np.ndarray | Mapping[str, np.ndarray]  # (U, d), or such by the name of their block
Part = tuple[str, str]  # kind and block
VECTOR = "vector"  # the block of inputs that are not a mapping
_OUT_OF_SAMPLE = {
    "logistic": logistic_out_of_sample,
    "sparse": sparse_out_of_sample,
    "mlp": mlp_out_of_sample,
    "boosting": boosting_out_of_sample,
}


@dataclass(frozen=True)
class BlendedHead:
    """Heads and how their log probabilities are put together; with one head: calibrated."""

    parts: tuple[tuple[str, BaseHead], ...]  # block and head
    parameters: np.ndarray  # (P + C,) float64, as of `blend.fit_blend`

    kind = "blend"


Head = BaseHead | BlendedHead


def parts_of(head: Head) -> list[dict[str, Any]]:
    """What a head is made of, as JSON objects: kind, block of inputs, and weight of its log odds."""
    if not isinstance(head, BlendedHead):
        return [{"kind": head.kind, "inputs": VECTOR, "weight": 1.0}]
    return [
        {"kind": part.kind, "inputs": block, "weight": round(float(weight), 4)}
        for (block, part), weight in zip(head.parts, head.parameters, strict=False)
    ]


def predict(head: Head, x: Inputs) -> np.ndarray:
    """Class probabilities, (U, C) float32. x: (U, d), vectors of the space the head was trained in.

    A head of several blocks takes a mapping of their names to matrices.

    Raises:
        ValueError: a block is absent, or has another width than in the training.
    """
    if isinstance(head, BlendedHead):
        z = np.stack([_log_probabilities(part, x, block) for block, part in head.parts], axis=1)
        return np.exp(blended(z, head.parameters))
    return np.exp(_log_probabilities(head, x, VECTOR))


def _log_probabilities(head: BaseHead, x: Inputs, block: str) -> np.ndarray:
    blocks = _blocks(x)
    if block not in blocks:
        raise ValueError(
            f"the head takes inputs of {block}, got {', '.join(blocks)}; "
            "apply it to the inputs it was trained on"
        )
    if blocks[block].shape[1] != head.width:
        raise ValueError(
            f"the head takes vectors of width {head.width}, got {blocks[block].shape[1]}; "
            "apply it to vectors of the space it was trained in"
        )
    return head.log_probabilities(blocks[block])


def _blocks(x: Inputs) -> dict[str, np.ndarray]:
    blocks = dict(x) if isinstance(x, Mapping) else {VECTOR: x}
    return {name: np.ascontiguousarray(part, dtype=np.float32) for name, part in blocks.items()}


def out_of_fold(
    x: Inputs,
    tasks: Mapping[str, TaskLabels],
    *,
    kinds: Sequence[str] = ("auto",),
    folds: int = 5,
    repeats: int = 2,
    seed: int = 0,
    settings: HeadSettings | None = None,
    n_threads: int = 1,
) -> dict[str, dict[str, Scores]]:
    """Scores of every kind of head for every task, by kind and by task; all heads train side by side.

    The folds are those of :func:`lurm.heads.folds.splits`, of each task by itself. Results are the same for
    any ``n_threads``, and for other tasks and kinds beside them but for rounding.

    Args:
        x: inputs of all users, (U, d) float32 or a mapping of blocks to such.
        tasks: users of each task, as rows of ``x``, and their classes, each at least ``folds`` times.
        kinds: of `settings.KINDS`.
        folds: of each cross-validation, 2 or more.
        repeats: cross-validations with other folds.
        seed: of folds and of heads.
        settings: what heads are trained with.
        n_threads: heads that train at the same time, or batches of them.

    Raises:
        ValueError: a kind is unknown, a class has fewer users than there are folds, or inputs are not
            finite or all equal.
    """
    settings = settings or HeadSettings()
    run = _cross_validated(_blocks(x), tasks, kinds, folds, repeats, seed, settings, n_threads)
    scores: dict[str, dict[str, Scores]] = {kind: {} for kind in kinds}
    for name, labels in tasks.items():
        results = {kind: Scores() for kind in kinds}
        for number, (_, test) in enumerate(run.nested[name].outer):
            recipes = run.recipes(name, number, kinds, settings)
            for kind, recipe in recipes.items():
                log_p = recipe.log_probabilities(run.found[name], number)
                results[kind].add(labels.y[test], test, np.exp(log_p), recipe.name(settings))
        for kind in kinds:
            scores[kind][name] = results[kind]
    return scores


def fit(
    x: Inputs,
    y: np.ndarray,
    n_classes: int,
    settings: HeadSettings | None = None,
    *,
    kind: str = "auto",
    folds: int = 5,
    seed: int = 0,
    n_threads: int = 1,
) -> Head:
    """A head for these users, chosen and calibrated by cross-validation among them.

    x: (U, d) float32 or a mapping of blocks to such; y: (U,) class index, every class at least ``folds``
    times; kind: of `settings.KINDS`.

    Raises:
        ValueError: as :func:`out_of_fold`.
    """
    settings, blocks = settings or HeadSettings(), _blocks(x)
    parts = _parts([kind], blocks, settings)
    rows = np.arange(len(y))
    labels = TaskLabels(rows, y, tuple(map(str, range(n_classes))))
    recipe = Recipe(((parts[0], 0),), None)
    if _needs_evidence([kind], parts, settings):
        _check_classes("task", y, folds)
        nested = inner_splits(y, folds, seed, settings.choice_users)
        found = _sampled(blocks, parts, {"": labels}, {"": nested}, seed, settings, n_threads)
        recipe = _recipe(kind, parts, _evidence(found[""], nested, 0), settings)
    return _cook(recipe, blocks, y, n_classes, settings, seed)


def fold_heads(
    x: Inputs,
    y: np.ndarray,
    *,
    kind: str = "auto",
    folds: int = 5,
    repeats: int = 2,
    seed: int = 0,
    settings: HeadSettings | None = None,
    n_threads: int = 1,
) -> Iterator[tuple[Head, np.ndarray]]:
    """The heads that :func:`out_of_fold` scores, of one task: each with the rows of its test part.

    x: (U, d) float32 or a mapping of blocks to such; y: (U,) class index.

    Raises:
        ValueError: as :func:`out_of_fold`.
    """
    settings, blocks = settings or HeadSettings(), _blocks(x)
    labels = TaskLabels(np.arange(len(y)), y, tuple(map(str, range(int(y.max()) + 1))))
    run = _cross_validated(
        blocks, {"task": labels}, [kind], folds, repeats, seed, settings, n_threads, outer=False
    )
    for number, (train, test) in enumerate(run.nested["task"].outer):
        recipe = run.recipes("task", number, [kind], settings)[kind]
        seen = {name: part[train] for name, part in blocks.items()}
        n_classes = len(labels.classes)
        yield _cook(recipe, seen, y[train], n_classes, settings, seed + number), test


def carry_heads(
    x: Inputs,
    others: Mapping[str, Inputs],
    y: np.ndarray,
    *,
    kind: str = "auto",
    folds: int = 5,
    repeats: int = 2,
    seed: int = 0,
    settings: HeadSettings | None = None,
    n_threads: int = 1,
) -> tuple[list[float], dict[str, list[float]]]:
    """AUC of every fold (K) of heads trained on ``x``: on its own vectors, and on other vectors by name.

    The other vectors (U, d) are of the same users, by another model; a head is scored on them with users
    that it was not trained on. The rest is as for :func:`fold_heads`.
    """
    own: list[float] = []
    carried: dict[str, list[float]] = {name: [] for name in others}
    heads = fold_heads(
        x,
        y,
        kind=kind,
        folds=folds,
        repeats=repeats,
        seed=seed,
        settings=settings,
        n_threads=n_threads,
    )
    for head, test in heads:
        own.append(auc(y[test], predict(head, _rows(x, test))))
        for name, other in others.items():
            carried[name].append(auc(y[test], predict(head, _rows(other, test))))
    return own, carried


def _rows(x: Inputs, rows: np.ndarray) -> Inputs:
    return {name: part[rows] for name, part in _blocks(x).items()}


def _cook(
    recipe: "Recipe",
    blocks: Mapping[str, np.ndarray],
    y: np.ndarray,
    n_classes: int,
    settings: HeadSettings,
    seed: int,
) -> Head:
    heads = tuple(
        (block, _fit_part(blocks[block], y, n_classes, base, variant, settings, seed))
        for (base, block), variant in recipe.parts
    )
    plain = recipe.parameters is None and heads[0][0] == VECTOR
    if plain:
        return heads[0][1]
    parameters = recipe.parameters
    if parameters is None:  # the head as it is, of another block
        parameters = np.append(1.0, np.zeros(n_classes))
    return BlendedHead(heads, parameters)


def _fit_part(
    x: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    kind: str,
    variant: int,
    settings: HeadSettings,
    seed: int,
) -> BaseHead:
    if kind == "logistic":
        return fit_logistic(x, y, n_classes, settings.penalties[variant])
    if kind == "sparse":
        return fit_sparse(x, y, n_classes, variant)
    if kind == "mlp":
        return fit_mlp(x, y, n_classes, settings, seed)
    return fit_boosting(x, y, n_classes, settings, seed)


def _check_classes(name: str, y: np.ndarray, folds: int) -> None:
    counts = np.bincount(y)
    if len(counts) < 2 or counts.min() < folds:
        raise ValueError(
            f"{name}: {folds} folds need at least two classes with {folds} users each, "
            f"got classes of {', '.join(map(str, counts))} users"
        )


def _parts(
    kinds: Sequence[str], blocks: Mapping[str, np.ndarray], settings: HeadSettings
) -> list[Part]:
    """What has to be trained for these kinds."""
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kind of head: expected one of {', '.join(KINDS)}, got {kind!r}")
    several = {"blend", "auto"} & set(kinds)
    bases = [k for k in BASE_KINDS if k in kinds or (several and k in settings.candidates)]
    return [(kind, block) for kind in bases for block in blocks]


def _needs_evidence(kinds: Sequence[str], parts: Sequence[Part], settings: HeadSettings) -> bool:
    """Whether anything is to be chosen or fitted besides the heads themselves."""
    n_blocks = len({block for _, block in parts})
    return settings.calibrate or n_blocks > 1 or not {"mlp", "boosting"}.issuperset(kinds)


@dataclass(frozen=True)
class _Sampled:
    """Log probabilities (V, t, C) of the test users of all outer and inner splits of a task, by part."""

    outer: dict[Part, list[np.ndarray]]
    inner: dict[Part, list[np.ndarray]]


def _sampled(
    blocks: Mapping[str, np.ndarray],
    parts: Sequence[Part],
    tasks: Mapping[str, TaskLabels],
    nested: Mapping[str, Nested],
    seed: int,
    settings: HeadSettings,
    n_threads: int,
) -> dict[str, _Sampled]:
    """Heads of all tasks, parts and splits, by task."""
    jobs = []
    for name, labels in tasks.items():
        rows, y = labels.rows, labels.y
        for number, (train, test) in enumerate(nested[name].outer + nested[name].inner):
            jobs.append(Job(rows[train], y[train], len(labels.classes), rows[test], seed + number))
    sampled = {name: _Sampled({}, {}) for name in tasks}
    for kind, block in parts:
        found = iter(_OUT_OF_SAMPLE[kind](blocks[block], jobs, settings, n_threads))
        for name in tasks:
            sampled[name].outer[kind, block] = [next(found) for _ in nested[name].outer]
            sampled[name].inner[kind, block] = [next(found) for _ in nested[name].inner]
    return sampled


@dataclass(frozen=True)
class _Run:
    """A nested cross-validation of several tasks."""

    parts: list[Part]
    nested: Mapping[str, Nested]
    found: Mapping[str, _Sampled]
    plain: bool  # nothing is chosen or fitted besides the heads themselves

    def recipes(
        self, task: str, number: int, kinds: Sequence[str], settings: HeadSettings
    ) -> dict[str, "Recipe"]:
        """What the training part of an outer fold says each kind should be made of."""
        if self.plain:
            return {
                kind: Recipe(((p, 0),), None) for p in self.parts for kind in kinds if p[0] == kind
            }
        evidence = _evidence(self.found[task], self.nested[task], number)
        return {kind: _recipe(kind, self.parts, evidence, settings) for kind in kinds}


def _cross_validated(
    blocks: Mapping[str, np.ndarray],
    tasks: Mapping[str, TaskLabels],
    kinds: Sequence[str],
    folds: int,
    repeats: int,
    seed: int,
    settings: HeadSettings,
    n_threads: int,
    outer: bool = True,
) -> _Run:
    """Train all that the kinds need, on all splits; without ``outer`` on the inner ones only."""
    parts = _parts(kinds, blocks, settings)
    for name, labels in tasks.items():
        _check_classes(name, labels.y, folds)
    nested = {
        name: nested_splits(labels.y, folds, repeats, seed, settings.choice_users)
        for name, labels in tasks.items()
    }
    plain = not _needs_evidence(kinds, parts, settings)
    wanted = {
        name: replace(n, outer=n.outer if outer else [], inner=[] if plain else n.inner)
        for name, n in nested.items()
    }
    # seeds follow the numbers of splits, which those of inner ones go on from
    first = seed if outer else seed + folds * repeats
    found = _sampled(blocks, parts, tasks, wanted, first, settings, n_threads)
    return _Run(parts, nested, found, plain)


@dataclass(frozen=True)
class _Evidence:
    """What heads that did not see them say of the users of a training part."""

    y: np.ndarray  # (n,) class index
    inner_fold: np.ndarray  # (n,)
    log_p: dict[Part, np.ndarray]  # (V, n, C)


def _evidence(found: _Sampled, nested: Nested, number: int) -> _Evidence:
    """What is known for the outer split of that number."""
    uses = nested.uses[number]
    users = np.sort(np.concatenate([rows for _, rows in uses]))
    inner_fold = np.zeros(len(users), dtype=np.int64)
    log_p = {}
    for part, inner in found.inner.items():
        n_variants, _, n_classes = inner[0].shape
        log_p[part] = np.empty((n_variants, len(users), n_classes), dtype=np.float32)
        for fold, (n, rows) in enumerate(uses):
            at = np.searchsorted(users, rows)
            log_p[part][:, at] = inner[n][:, np.searchsorted(nested.inner[n][1], rows)]
            inner_fold[at] = fold
    return _Evidence(nested.y[users], inner_fold, log_p)


@dataclass(frozen=True)
class Recipe:
    """Which heads, with which of the compared settings, and how they are put together."""

    parts: tuple[tuple[Part, int], ...]
    parameters: np.ndarray | None  # (P + C,), None: the head as it is

    def log_probabilities(self, found: _Sampled, number: int) -> np.ndarray:
        """Log probabilities (t, C) of the test users of an outer split."""
        z = np.stack([found.outer[part][number][v] for part, v in self.parts], axis=1)
        return z[:, 0] if self.parameters is None else blended(z, self.parameters)

    def name(self, settings: HeadSettings) -> str:
        """In words, such as ``logistic 0.01`` or ``0.6 logistic 0.01 + 0.5 boosting``."""
        words = []
        for n, ((kind, block), variant) in enumerate(self.parts):
            word = kind
            if kind == "logistic":
                word = f"logistic {settings.penalties[variant]:g}"
            if kind == "sparse":
                word = "sparse {} {:g}".format(*VARIANTS[variant])
            word += "" if block == VECTOR else f" of {block}"
            if len(self.parts) > 1 and self.parameters is not None:
                word = f"{self.parameters[n]:.2f} {word}"
            words.append(word)
        return " + ".join(words)


def _recipe(
    kind: str, parts: Sequence[Part], evidence: _Evidence, settings: HeadSettings
) -> Recipe:
    best = {part: _best_variant(evidence.log_p[part], evidence.y) for part in parts}
    if kind in BASE_KINDS:
        return _put_together([p for p in parts if p[0] == kind], best, evidence, settings)
    candidates = [part for part in parts if part[0] in settings.candidates]
    together = _put_together(candidates, best, evidence, settings)
    if kind == "blend" or len(candidates) == 1:
        return together
    bases = list(dict.fromkeys(base for base, _ in candidates))
    options = [
        _put_together([p for p in candidates if p[0] == base], best, evidence, settings)
        for base in bases
    ]
    options.append(together)
    return min(options, key=lambda recipe: _honest_loss(recipe, evidence))


def _put_together(
    parts: Sequence[Part], best: Mapping[Part, int], evidence: _Evidence, settings: HeadSettings
) -> Recipe:
    if len(parts) == 1 and not settings.calibrate:
        return Recipe(((parts[0], best[parts[0]]),), None)
    z = np.stack([evidence.log_p[part][best[part]] for part in parts], axis=1)
    parameters = fit_blend(z, evidence.y)
    used = [n for n in range(len(parts)) if parameters[n] > 0] or [0]
    chosen = tuple((parts[n], best[parts[n]]) for n in used)
    return Recipe(chosen, np.append(parameters[used], parameters[len(parts) :]))


def _honest_loss(recipe: Recipe, evidence: _Evidence) -> float:
    """Log loss a user, with weights and calibration fitted on the other inner folds."""
    z = np.stack([evidence.log_p[part][variant] for part, variant in recipe.parts], axis=1)
    y, total = evidence.y, 0.0
    for fold in np.unique(evidence.inner_fold):
        test = evidence.inner_fold == fold
        log_p = blended(z[test], fit_blend(z[~test], y[~test]))
        total -= float(log_p[np.arange(len(log_p)), y[test]].sum())
    return total / len(y)


def _best_variant(log_p: np.ndarray, y: np.ndarray) -> int:
    """The setting of the highest AUC among users that the heads were not trained on. log_p: (V, n, C).

    Of those within a ten-thousandth the one of least log loss.
    """
    if len(log_p) == 1:
        return 0
    aucs = np.array([auc(y, part) for part in log_p])
    losses = -log_p[:, np.arange(len(y)), y].mean(axis=1, dtype=np.float64)
    return int(np.argmin(np.where(aucs >= aucs.max() - 1e-4, losses, np.inf)))
