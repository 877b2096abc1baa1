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
BADGES = {"reproduced": "good", "not reproduced": "bad", "cannot be told": "warn"}


def scorecard_page(card: Mapping[str, Any], confidence: float) -> str:
    """The page as HTML that needs nothing from outside.

    Args:
        card: data sets by name, each with ``methods``, ``claims`` and ``n_users``.
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
                "scale": figures.score_scale(axis),
                "groups": {
                    title: [_row(row, axis) for row in rows if row["family"] in families]
                    for title, families in GROUPS.items()
                    if any(row["family"] in families for row in rows)
                },
            }
        )
    return render("scorecard.html", data_sets=data_sets, badges=BADGES, confidence=confidence)


def _row(row: Mapping[str, Any], axis: tuple[float, float]) -> dict[str, Any]:
    lead = Difference(**row["lead"]) if row["lead"] else None
    return {
        **row,
        "dots": figures.score_dots(row["auc"], row["auc_se"], row["folds"], axis),
        "lead": "" if lead is None else str(lead),
        "clear": lead is not None and (lead.low > 0 or lead.high < 0),
    }
