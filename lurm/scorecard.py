"""LURM against its rivals: paired differences, their intervals, and the paper's claims as verdicts.

A record is what one method scored on one data set: its width, its seconds, and for every task the AUC
and the ACC of each fold. All methods of a data set are scored on the same users and folds, so that folds
can be compared in pairs.

Letters: T tasks, K folds times repeats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lurm.metrics import paired_interval

Record = Mapping[str, Any]
Verdict = Literal["reproduced", "not reproduced", "cannot be told"]


@dataclass(frozen=True)
class Difference:
    """Mean difference of AUC over tasks, and the ends of its interval."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """The three figures as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        signs = [
            f"{100 * figure:+.1f}".replace("-", "−") for figure in (self.mean, self.low, self.high)
        ]
        return f"{signs[0]} ({signs[1]} to {signs[2]})"


def fold_means(record: Record, tasks: Sequence[str] | None = None) -> np.ndarray:
    """AUC of every fold, (K,), mean over the tasks (all of the record's unless named)."""
    return np.mean([record["tasks"][task]["auc"] for task in tasks or record["tasks"]], axis=0)


def mean_auc(record: Record) -> float:
    """AUC, mean over tasks and folds."""
    return float(fold_means(record).mean())


def mean_auc_error(record: Record) -> float:
    """Standard error of :func:`mean_auc`, the tasks taken as given and their folds as independent."""
    spreads = [np.std(t["auc"], ddof=1) / len(t["auc"]) ** 0.5 for t in record["tasks"].values()]
    return float(np.linalg.norm(spreads) / len(spreads))


def difference(
    own: Record,
    other: Record,
    folds: int,
    confidence: float,
    tasks: Sequence[str] | None = None,
) -> Difference:
    """Mean AUC of ``own`` less that of ``other`` over the folds that both have, with its interval.

    The interval is corrected for the users that training parts share
    (:func:`lurm.metrics.paired_interval`). A method that was scored on fewer repeats is compared on those.

    Raises:
        ValueError: the records do not hold the same tasks.
    """
    if own["tasks"].keys() != other["tasks"].keys():
        raise ValueError(
            f"{own['method']} and {other['method']} were scored on different tasks: "
            f"{', '.join(own['tasks'])} and {', '.join(other['tasks'])}; score both again"
        )
    one, two = fold_means(own, tasks), fold_means(other, tasks)
    shared = min(len(one), len(two))
    return Difference(
        *paired_interval((one[:shared] - two[:shared]).tolist(), 1 / folds, confidence)
    )


def better(found: Difference) -> Verdict:
    """Verdict on the claim that the difference is above zero.

    >>> better(Difference(0.02, 0.01, 0.03)), better(Difference(0.01, -0.01, 0.03))
    ('reproduced', 'cannot be told')
    """
    if found.low > 0:
        return "reproduced"
    return "not reproduced" if found.high < 0 else "cannot be told"


def within(found: Difference, margin: float) -> Verdict:
    """Verdict on the claim that the difference lies within ``margin`` of zero.

    >>> within(Difference(0.002, -0.004, 0.008), 0.01)
    'reproduced'
    >>> within(Difference(0.002, -0.02, 0.024), 0.01)
    'cannot be told'
    """
    if -margin < found.low and found.high < margin:
        return "reproduced"
    outside = found.low > margin or found.high < -margin
    return "not reproduced" if outside else "cannot be told"


def not_below(found: Difference, margin: float) -> Verdict:
    """Verdict on the claim that at most ``margin`` is lost.

    >>> not_below(Difference(0.002, -0.004, 0.02), 0.01)
    'reproduced'
    """
    if found.low > -margin:
        return "reproduced"
    return "not reproduced" if found.high < -margin else "cannot be told"


def best(records: Mapping[str, Record], among: Sequence[str]) -> str:
    """The method of the highest mean AUC among those named, of which some may be absent."""
    return max(
        (name for name in among if name in records), key=lambda name: mean_auc(records[name])
    )


def summary(
    records: Mapping[str, Record], own: str, folds: int, confidence: float
) -> dict[str, dict[str, Any]]:
    """One row for each method: mean AUC, its error, width, seconds, tasks, and ``own`` less the method."""
    rows = {}
    for name, record in records.items():
        rows[name] = {
            "auc": mean_auc(record),
            "auc_se": mean_auc_error(record),
            "acc": float(np.mean([np.mean(t["acc"]) for t in record["tasks"].values()])),
            "width": record["width"],
            "seconds": record["seconds"],
            "folds": fold_means(record).tolist(),
            "lead": None
            if name == own
            else difference(records[own], record, folds, confidence).to_json(),
            "tasks": {
                task: {figure: float(np.mean(scores[figure])) for figure in ("auc", "acc")}
                for task, scores in record["tasks"].items()
            },
        }
    return rows
