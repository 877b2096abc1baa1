"""LURM against its rivals: paired differences, their intervals, and the paper's claims as verdicts.

A record is what one method scored on one data set: its width, its seconds, for every task the AUC and the
ACC of each fold of its best head, the mean AUC of every kind of head, and ``influence``, what each user
adds to an AUC (:func:`lurm.metrics.auc_influence`). Methods are scored on the same users and folds, so
that users and tasks can be compared in pairs.

Letters: T tasks, U users, K folds times repeats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lurm.metrics import two_way_interval

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
    confidence: float,
    tasks: Sequence[str] | None = None,
) -> Difference:
    """Mean AUC of ``own`` less that of ``other``, over the tasks that both have, with its interval.

    The interval is over users and tasks (:func:`lurm.metrics.two_way_interval`).
    ``tasks`` limits it to some.

    Raises:
        ValueError: the records have no such task in common.
    """
    shared = [t for t in tasks or own["tasks"] if t in own["tasks"] and t in other["tasks"]]
    if not shared:
        raise ValueError(
            f"{own['method']} and {other['method']} were scored on different tasks: "
            f"{', '.join(own['tasks'])} and {', '.join(other['tasks'])}; score both again"
        )
    gaps = [task_auc(own, task) - task_auc(other, task) for task in shared]
    influence = [own["influence"][task] - other["influence"][task] for task in shared]
    return Difference(*two_way_interval(np.array(gaps), np.array(influence), confidence))


def task_auc(record: Record, task: str) -> float:
    """AUC of one task, mean over folds."""
    return float(np.mean(record["tasks"][task]["auc"]))


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


def best(
    records: Mapping[str, Record], among: Sequence[str], tasks: Sequence[str] | None = None
) -> str:
    """The method of the highest mean AUC among those named, of which some may be absent.

    Methods that lack some of the tasks are compared with no one, and left out.
    """
    wanted = set(tasks) if tasks else set.union(*(set(r["tasks"]) for r in records.values()))
    there = [name for name in among if name in records and wanted <= records[name]["tasks"].keys()]
    return max(there, key=lambda name: float(fold_means(records[name], tasks).mean()))


def head_means(record: Record, tasks: Sequence[str]) -> dict[str, float]:
    """Mean AUC of every kind of head, and of the ``best``, over those tasks that the record has."""
    scored = [record["tasks"][task] for task in tasks if task in record["tasks"]]
    kinds = scored[0]["kinds"] if scored else {}
    means = {kind: float(np.mean([task["kinds"][kind] for task in scored])) for kind in kinds}
    return means | ({"best": float(np.mean([np.mean(t["auc"]) for t in scored]))} if scored else {})


def summary(
    records: Mapping[str, Record],
    own: str,
    confidence: float,
    groups: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, Any]]:
    """One row for each method: mean AUC, its error, width, seconds, tasks, and ``own`` less the method.

    ``groups`` are the tasks of each kind (wide, attribute), whose means stay apart in ``heads`` and
    ``leads``.
    """
    rows = {}
    for name, record in records.items():
        present = {
            group: [task for task in tasks if task in record["tasks"]]
            for group, tasks in groups.items()
        }
        rows[name] = {
            "auc": mean_auc(record),
            "auc_se": mean_auc_error(record),
            "acc": float(np.mean([np.mean(t["acc"]) for t in record["tasks"].values()])),
            "width": record["width"],
            "seconds": record["seconds"],
            "seconds_scoring": record.get("seconds_scoring"),
            "budget": record.get("budget", {}),
            "folds": fold_means(record).tolist(),
            "n_tasks": {group: len(tasks) for group, tasks in present.items()},
            "heads": {group: head_means(record, tasks) for group, tasks in present.items()},
            "leads": {
                group: None
                if name == own or not tasks
                else difference(records[own], record, confidence, tasks).to_json()
                for group, tasks in present.items()
            },
            "tasks": {
                task: {figure: float(np.mean(scores[figure])) for figure in ("auc", "acc")}
                for task, scores in record["tasks"].items()
            },
        }
    return rows
