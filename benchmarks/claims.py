"""The paper's claims (a) to (h) on one data set, each with its verdict and the figure behind it."""

from collections.abc import Callable, Mapping
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


def kinds(data_set: DataSet) -> dict[str, list[str]]:
    """The tasks of every kind there is, ``category`` and ``attribute``."""
    found: dict[str, list[str]] = {}
    for name, task in data_set.params.tasks.items():
        found.setdefault("attribute" if task.value is None else "category", []).append(name)
    return found


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
    records: Mapping[str, Record], data_set: DataSet, folds: int, confidence: float
) -> list[dict[str, Any]]:
    """One entry for each comparison whose records are there: claim, what, verdict, figure."""
    found: list[dict[str, Any]] = []
    by_kind = kinds(data_set)

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
        tasks = by_kind[kind] if kind else None
        gap = difference(records[one], records[other], folds, confidence, tasks)
        found.append({"claim": claim, "what": what, "verdict": judge(gap), "figure": str(gap)})

    rivals = [n for n, m in METHODS.items() if m.family in ("rival", "simple") and n in records]
    if rivals:
        rival = best(records, rivals)
        compare("a", f"LURM beats the best rival, {METHODS[rival].title}", "lurm", rival, better)
    for kind in by_kind:
        for months in HISTORY:
            what = f"{kind} tasks: all history beats a {ABLATIONS[f'history_{months}'].title}"
            compare("b", what, "lurm", f"history_{months}", better, kind)
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
