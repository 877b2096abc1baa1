"""The scorecard as one page: LURM, its rivals, its ablations, and the paper's claims."""

from collections.abc import Mapping
from typing import Any

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
    "all": "Scores on all users, those by which settings were chosen among them.",
}
BADGES = {"reproduced": "good", "not reproduced": "bad", "cannot be told": "warn"}


def scorecard_page(card: Mapping[str, Any], users: str, confidence: float) -> str:
    """The page as HTML that needs nothing from outside.

    Args:
        card: data sets by name, each with ``methods``, ``claims``, ``n_users`` and ``kinds`` (of tasks).
        users: who was scored, one of ``USERS``.
        confidence: of the intervals.
    """
    data_sets = []
    for name, found in card.items():
        rows = sorted(found["methods"].values(), key=lambda row: -row["auc"])
        axis = figures.score_axis(score for row in rows for score in row["folds"])
        data_sets.append(
            {
                "name": name.replace("_", " ").title(),
                "tasks": found["n_users"],
                "claims": found["claims"],
                "steps": _steps(found),
                "anchors": _anchors(found["anchors"]),
                "scale": figures.score_scale(axis),
                "groups": {
                    title: [_row(row, axis) for row in rows if row["family"] in families]
                    for title, families in GROUPS.items()
                    if any(row["family"] in families for row in rows)
                },
            }
        )
    return render(
        "scorecard.html",
        data_sets=data_sets,
        users=USERS[users],
        badges=BADGES,
        confidence=confidence,
    )


def _row(row: Mapping[str, Any], axis: tuple[float, float]) -> dict[str, Any]:
    lead = Difference(**row["lead"]) if row["lead"] else None
    return {
        **row,
        "dots": figures.score_dots(row["auc"], row["auc_se"], row["folds"], axis),
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
        for kind, tasks in found["kinds"].items():
            scores = [
                sum(found["methods"][name]["tasks"][task]["auc"] for task in tasks) / len(tasks)
                for name in there
            ]
            title = f"{what}, {kind} tasks"
            labels = [steps[name] for name in there]
            drawings.append((title, figures.score_steps(labels, scores, f"AUC by {title}")))
    return drawings
