"""The scores of all tasks of a run in one small record."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any


def summary(
    heads: Sequence[Mapping[str, Any]], model_version: str, kinds: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The scores of every task, their mean, and the mean of each kind of tasks.

    ``mean_auc_se`` takes the tasks as given and their scores as independent: the root of the summed
    squares of their standard errors, divided by the number of tasks. Without tasks both are None.
    Tasks that could not be trained are under ``skipped``, with the reason. ``tasks`` and ``skipped`` are
    lists, in the order given: DVC shows what lies outside of lists as metrics.

    Args:
        heads: results of train_heads.
        model_version: of the vectors that were scored.
        kinds: ``category`` or ``attribute`` by task; without it there are no means by kind.

    >>> summary([{"task": "a", "auc": 0.7, "auc_se": 0.03, "acc": 0.6, "n_users": 9},
    ...          {"task": "b", "auc": 0.8, "auc_se": 0.04, "acc": 0.6, "n_users": 9}], "v")["mean_auc_se"]
    0.025
    """
    figures = ("task", "n_users", "auc", "auc_se", "acc", "brier", "calibration_error")
    skipped = [dict(head) for head in heads if "skipped" in head]
    heads = [head for head in heads if "skipped" not in head]
    by_kind: dict[str, list[float]] = {}
    for head in heads:
        if kinds is not None:
            by_kind.setdefault(kinds[head["task"]], []).append(head["auc"])
    return {
        "model_version": model_version,
        "mean_auc": sum(head["auc"] for head in heads) / len(heads) if heads else None,
        "mean_auc_se": (
            sqrt(sum(head["auc_se"] ** 2 for head in heads)) / len(heads) if heads else None
        ),
        "mean_auc_by_kind": {kind: sum(auc) / len(auc) for kind, auc in by_kind.items()},
        "tasks": [{f: head[f] for f in figures if f in head} for head in heads],
        "skipped": skipped,
    }
