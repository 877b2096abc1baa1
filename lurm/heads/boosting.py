"""Gradient-boosted trees by LightGBM: a head that finds steps and interactions, at home on counts.

J. H. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29
(2001); G. Ke and others, "LightGBM", NeurIPS 2017. One thread a head, and the same bytes every time.

Letters: U users, F inputs, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lurm.heads.folds import Job, deal, validation_users
from lurm.heads.parallel import in_threads
from lurm.heads.settings import HeadSettings


@dataclass(frozen=True)
class BoostedHead:
    """Trees, as LightGBM writes them down as text."""

    text: str
    width: int

    kind = "boosting"

    @cached_property
    def _booster(self) -> Any:
        import lightgbm

        return lightgbm.Booster(model_str=self.text)

    def log_probabilities(self, x: np.ndarray) -> np.ndarray:
        """Log probabilities of the classes, (U, C) float32. x: (U, F)."""
        return _log_probabilities(self._booster, x)


def fit_boosting(
    x: np.ndarray, y: np.ndarray, n_classes: int, settings: HeadSettings, seed: int = 0
) -> BoostedHead:
    """The head of one task. x: (U, F); y: (U,) class index.

    Trees are added until a stratified share of the users that is held back has not gained for
    ``tree_patience`` trees; the best number of them is kept.

    Raises:
        ValueError: the inputs are not finite.
    """
    import lightgbm  # takes a second to import, and most heads do without

    if not np.isfinite(x).all():
        raise ValueError("inputs of a head should be finite, found NaN or infinity")
    order = deal(y, np.random.default_rng(seed))
    held_back = validation_users(len(y), settings.validation_share)
    train, validation = np.sort(order[~held_back]), np.sort(order[held_back])
    several = {"objective": "multiclass", "num_class": n_classes}
    parameters = {
        **({"objective": "binary"} if n_classes == 2 else several),
        "learning_rate": settings.tree_learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.leaf_size,
        "lambda_l2": 1.0,
        "feature_fraction_bynode": settings.column_share,
        "max_bin": 63,
        "num_threads": 1,
        "deterministic": True,
        "force_col_wise": True,
        "seed": seed,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(x[train], y[train], params=parameters, free_raw_data=False)
    valid = lightgbm.Dataset(x[validation], y[validation], reference=data)
    booster = lightgbm.train(
        parameters,
        data,
        settings.trees,
        valid_sets=[valid],
        callbacks=[lightgbm.early_stopping(settings.tree_patience, verbose=False)],
    )
    return BoostedHead(booster.model_to_string(num_iteration=booster.best_iteration), x.shape[1])


def boosting_out_of_sample(
    x: np.ndarray, jobs: Sequence[Job], settings: HeadSettings, n_threads: int = 1
) -> list[np.ndarray]:
    """Log probabilities of the test users of every job, (1, t, C) float32 each. x: (U, F)."""

    def grow(job: Job) -> np.ndarray:
        head = fit_boosting(x[job.train], job.y, job.n_classes, settings, job.seed)
        return head.log_probabilities(x[job.test])[None]

    return in_threads(grow, jobs, n_threads)


def _log_probabilities(booster: Any, x: np.ndarray) -> np.ndarray:
    raw = np.asarray(booster.predict(x, raw_score=True, num_threads=1), dtype=np.float64)
    if raw.ndim == 1:
        both = [-np.logaddexp(0, raw), -np.logaddexp(0, -raw)]
        return np.stack(both, axis=1).astype(np.float32)
    top = raw - raw.max(axis=1, keepdims=True)
    return (top - np.log(np.exp(top).sum(axis=1, keepdims=True))).astype(np.float32)
