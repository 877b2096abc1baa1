"""The paper's claims (a) to (h) on one data set, each with its verdict and the figure behind it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.data_sets import DataSet
from benchmarks.methods import ABLATIONS, HISTORY, METHODS
from lurm.scorecard import (
    Difference,
    Record,
    Verdict,
    best,
    better,
    difference,
    not_below,
    within,
)

# What the paper calls almost lossless, and what it calls a small difference, in AUC.
LOSSLESS, SAME = 0.01, 0.01
# Share of an output's neighbors that are of its own anchor, from which anchors lie apart.
APART = 0.9


def kinds(data_set: DataSet, tasks: Iterable[str]) -> dict[str, list[str]]:
    """The tasks of every kind present, ``wide`` (categories) and ``attribute``."""
    groups: dict[str, list[str]] = {}
    for name in tasks:
        task = data_set.params.tasks.get(name)
        groups.setdefault("attribute" if task and task.value is None else "wide", []).append(name)
    return groups


def anchors_apart(before: float, after: float) -> dict[str, Any]:
    """The entry of claim (h): after training, not before, neighbors of an output are of its anchor."""
    told = after > APART >= before
    return {
        "claim": "h",
        "what": "outputs of anchors lie apart after training, not before",
        "verdict": "reproduced" if told else "not reproduced",
        "figure": f"{100 * before:.0f} % of neighbors of the same anchor before, {100 * after:.0f} % after",
    }


def verdicts(
    records: Mapping[str, Record],
    data_set: DataSet,
    confidence: float,
    by_kind: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """One entry for each comparison and kind of tasks that has records: claim, what, verdict, figure."""
    found: list[dict[str, Any]] = []

    def compare(
        claim: str,
        what: str,
        one: str,
        other: str,
        judge: Callable[[Difference], Verdict],
        kind: str | None = None,
    ) -> None:
        if one not in records or other not in records:
            return
        for name in [kind] if kind else by_kind:
            gap = difference(records[one], records[other], confidence, by_kind[name])
            entry = {"claim": claim, "what": f"{name} tasks: {what}"}
            found.append(entry | {"verdict": judge(gap), "figure": str(gap)})

    rivals = [n for n, m in METHODS.items() if m.family in ("rival", "simple") and n in records]
    for kind, tasks in by_kind.items():
        if any(set(tasks) <= records[name]["tasks"].keys() for name in rivals):
            rival = best(records, rivals, tasks)
            what = f"LURM beats the best rival, {METHODS[rival].title}"
            compare("a", what, "lurm", rival, better, kind)
    for months in HISTORY:
        what = f"all history beats a {ABLATIONS[f'history_{months}'].title}"
        compare("b", what, "lurm", f"history_{months}", better)
    compare("c", "SMEN loses nothing of its BoI", "lurm", "boi", lambda d: not_below(d, LOSSLESS))
    for scale in ("month", "year"):
        what = f"two scales beat the {scale} alone"
        compare("d", what, "lurm", f"{scale}_only", better)
    compare("e", "ten anchors beat one", "lurm", "anchors_1", better)
    compare("e", "ten anchors beat one of equal width", "lurm", "anchors_1_wide", better)
    standing = f"D = {data_set.params.cluster_interests.n_interests}"
    for one, other in (
        ("interests_300", "interests_100"),
        ("lurm", "interests_300"),
        ("interests_2000", "lurm"),
    ):
        titles = [standing if name == "lurm" else ABLATIONS[name].title for name in (one, other)]
        compare("f", f"{titles[0]} beats {titles[1]}", one, other, better)
    what = "hard and soft assignment differ by less than a point"
    compare("g", what, "lurm", "soft", lambda d: within(d, SAME))
    return found
