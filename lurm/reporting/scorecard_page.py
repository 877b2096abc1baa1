"""The scorecard as one page: LURM, its rivals, its ablations, and the paper's claims."""

from collections.abc import Mapping, Sequence
from typing import Any

from lurm.heads.settings import BASE_KINDS
from lurm.reporting import figures
from lurm.reporting.pages import render
from lurm.scorecard import Difference

GROUPS = {
    "LURM and its rivals": ("LURM", "rival", "simple"),
    "One thing changed": ("ablation",),
}
# What grows from left to right, as in Fig. 3 and 4 of the paper: methods, and what stands below each.
STEPS = {
    "Months of history": {
        **{f"history_{months}": str(months) for months in (1, 2, 3, 6)},
        "lurm": "all",
    },
    "Interests": {
        "interests_100": "100",
        "interests_300": "300",
        "lurm": "as set",
        "interests_2000": "2,000",
    },
}
USERS = {
    "reported": "Scores on the reported users; those by which settings are chosen are left out.",
    "validation": "Scores on the validation users, by which settings are chosen.",
    "all": "Scores on all users. Settings of LURM and of its rivals were chosen on the validation users, "
    "a fifth of them.",
}
BADGES = {"reproduced": "good", "not reproduced": "bad", "cannot be told": "warn"}


HEADS = (*BASE_KINDS, "blend", "by task")


def scorecard_page(
    card: Mapping[str, Any], users: str, confidence: float, *, quick: bool = False
) -> str:
    """The page as HTML that needs nothing from outside.

    Args:
        card: data sets by name, each with ``methods``, ``claims``, ``n_users`` and ``kinds`` (of tasks).
        users: who was scored, one of ``USERS``.
        confidence: of the intervals.
        quick: whether only logistic heads, and boosted ones for counts, were trained.
    """
    data_sets = []
    for name, found in card.items():
        rows = sorted(found["methods"].values(), key=lambda row: -row["auc"])
        data_sets.append(
            {
                "name": name.replace("_", " ").title(),
                "kinds": [
                    (kind, len(tasks), max(found["n_users"][task] for task in tasks))
                    for kind, tasks in found["kinds"].items()
                ],
                "claims": found["claims"],
                "steps": _steps(found),
                "anchors": _anchors(found["anchors"]),
                "tables": [
                    (f"{title}: {kind} tasks", _rows(rows, families, kind))
                    for title, families in GROUPS.items()
                    for kind in found["kinds"]
                    if any(row["family"] in families and row["heads"][kind] for row in rows)
                ],
            }
        )
    return render(
        "scorecard.html",
        data_sets=data_sets,
        users=USERS[users],
        badges=BADGES,
        confidence=confidence,
        quick=quick,
        heads=HEADS,
    )


def _rows(
    rows: Sequence[Mapping[str, Any]], families: Sequence[str], kind: str
) -> list[dict[str, Any]]:
    """Methods of these families on one kind of tasks, the best first."""
    wanted = [row for row in rows if row["family"] in families and row["heads"][kind]]
    return [_row(row, kind) for row in sorted(wanted, key=lambda r: -r["heads"][kind]["best"])]


def _row(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    lead = Difference(**row["leads"][kind]) if row["leads"][kind] else None
    return {
        **row,
        "means": row["heads"][kind],
        "n": row["n_tasks"][kind],
        "lead": "" if lead is None else str(lead),
        "clear": lead is not None and (lead.low > 0 or lead.high < 0),
    }


def _anchors(anchors: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Title and map of the anchors' outputs before and after training, as Fig. 5 of the paper."""
    return [
        (
            f"{when.title()} training: {100 * found['separation']:.0f} % of neighbors of the same anchor",
            figures.scatter(found["map"], f"t-SNE of the anchors' outputs {when} training"),
        )
        for when, found in anchors.items()
    ]


def _steps(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Title and drawing of everything that grows, for the kinds of tasks there are."""
    drawings = []
    for what, steps in STEPS.items():
        there = [name for name in steps if name in found["methods"]]
        if len(there) < 2:
            continue
        for kind in found["kinds"]:
            scores = [found["methods"][name]["heads"][kind]["best"] for name in there]
            title = f"{what}, {kind} tasks"
            labels = [steps[name] for name in there]
            drawings.append((title, figures.score_steps(labels, scores, f"AUC by {title}")))
    return drawings
