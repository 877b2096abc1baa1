"""The data card and the model card of a release: Markdown, and every figure in them was measured.

After T. Gebru et al., "Datasheets for Datasets" (https://arxiv.org/abs/1803.09010) and M. Mitchell et al.,
"Model Cards for Model Reporting" (https://arxiv.org/abs/1810.03993), as far as a run can fill them in. What
only a person knows, such as the licence of the data, comes from the settings (`cards`).
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lurm.behaviors import REASONS
from lurm.drift import LEVELS, MEANINGS
from lurm.reporting.pages import percent, sentence, share, whole

# Sections of the settings that make a model what it is.
MODEL_SETTINGS = ("embed_items", "cluster_interests", "build_boi", "pretrain_smen", "evaluation")
TRUSTED = 0.5  # confidence below which the model card says how many behaviors it takes


@dataclass(frozen=True)
class Release:
    """What the stages wrote, as it was read; mappings by month are in calendar order."""

    settings: Mapping[str, Any]  # every section of params.yaml
    catalog: Mapping[str, Mapping[str, int]]  # "start" and every month: counts of update_catalog
    months: Mapping[str, Mapping[str, Any]]  # every month: counts of validate_logs
    comparison: Mapping[str, Any]  # compare_months
    drift: Mapping[str, Mapping[str, Any]]  # every month: watch_drift
    index: Mapping[str, Any]  # index_users of the last month
    items: Mapping[str, Any]  # embed_items
    clustering: Mapping[str, Any]  # cluster_interests
    smen: Mapping[str, Any]  # pretrain_smen
    confidence: Mapping[str, Any]  # measure_confidence
    heads: Sequence[Mapping[str, Any]]  # train_heads, in the order of the settings
    skipped: Sequence[Mapping[str, Any]]  # train_heads, of tasks that could not be trained
    scores: Mapping[str, Any]  # lurm.reporting.scores.summary


def cell(text: object) -> str:
    """Text that cannot leave its cell of a Markdown table, nor become HTML.

    >>> cell("a|b <i>")
    'a\\\\|b &lt;i&gt;'
    """
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|")


def data_card(release: Release) -> str:
    """The card of the data, as Markdown."""
    figures = ("rows_in", "rows_clean", "rows_set_aside", *REASONS)
    months = release.months
    trained = set(release.settings["training"]["months"])
    labelled = set(release.settings["evaluation"]["label_months"])
    return _render(
        "data_card.md",
        release=release,
        about=release.settings["cards"],
        months=list(months),
        roles={
            month: "training" if month in trained else "labels" if month in labelled else "later"
            for month in months
        },
        totals={figure: sum(counts[figure] for counts in months.values()) for figure in figures},
        reasons=REASONS,
        limits=data_limits(release),
    )


def model_card(release: Release) -> str:
    """The card of the models, as Markdown."""
    smen = release.settings["pretrain_smen"]
    return _render(
        "model_card.md",
        release=release,
        about=release.settings["cards"],
        width=smen["published_width"] or smen["n_anchors"] * smen["width"],
        settings={name: release.settings[name] for name in MODEL_SETTINGS},
        tasks=[
            {
                **head,
                "brier": head.get("brier"),
                "calibration_error": head.get("calibration_error"),
                "least": min(fold["auc"] for fold in head["folds"]),
                "most": max(fold["auc"] for fold in head["folds"]),
                "majority": max(c["n_users"] for c in head["classes"]) / head["n_users"],
            }
            for head in release.heads
        ],
        last=list(release.drift.values())[-1],
        meanings=MEANINGS,
        loud=[row for month in release.drift.values() for row in month["told"]],
        limits=model_limits(release),
    )


def data_limits(release: Release) -> list[str]:
    """What the measurements say the data do not show, in sentences."""
    months, last = list(release.months), list(release.catalog.values())[-1]
    said = []
    if len(months) < 24:
        said.append(
            f"It covers {len(months)} month{'' if len(months) == 1 else 's'}, fewer than two years: what "
            "belongs to a season cannot be told from what changed."
        )
    if last["sharing_text"]:
        said.append(
            f"{whole(last['sharing_text'])} of {whole(last['items'])} items share their words with "
            "another item, and cannot be told apart by them."
        )
    if last["without_text"]:
        said.append(f"{whole(last['without_text'])} items are without words.")
    aside = sum(counts["rows_set_aside"] for counts in release.months.values())
    rows = sum(counts["rows_in"] for counts in release.months.values())
    if aside:
        said.append(f"{share(aside, rows)} of the rows were set aside and teach nothing.")
    same = sum(counts["same_moment"] for counts in release.months.values())
    if same:
        said.append(
            f"{whole(same)} rows equal another in user, item and time; they were kept, and may be "
            "repetitions."
        )
    warned = sorted({row["month"] for row in release.comparison["warnings"]})
    if warned:
        said.append(f"Volume or mix strayed from the months before in {', '.join(warned)}.")
    return said


def model_limits(release: Release) -> list[str]:
    """What the measurements say the models cannot do, or is not known of them, in sentences."""
    said = []
    settings = release.settings
    n_months, smen = len(settings["training"]["months"]), settings["pretrain_smen"]
    for name, span in smen["scales"].items():
        if n_months < 2 * span:
            said.append(
                f"The scale `{name}` spans {span} months and the models learned from {n_months}: they "
                "saw fewer than two whole periods of it."
            )
    said += [f"No head for {h['task']}: {h['skipped']}." for h in release.skipped]
    chance = [h["task"] for h in release.heads if h["auc"] - 2 * h["auc_se"] <= 0.5]
    if chance:
        said.append(
            f"Not told from chance (AUC within two standard errors of 50): {', '.join(chance)}."
        )
    largest = {
        h["task"]: max(c["n_users"] for c in h["classes"]) / h["n_users"] for h in release.heads
    }
    below = [h["task"] for h in release.heads if h["acc"] < largest[h["task"]]]
    if below:
        said.append(f"Less often right than naming the largest class: {', '.join(below)}.")
    few = [
        f"{h['task']} ({whole(h['n_users'])} of {whole(release.smen['n_users'])} users)"
        for h in release.heads
        if h["n_users"] < release.smen["n_users"] / 2
    ]
    if few:
        said.append(f"Learned from less than half of the users: {', '.join(few)}.")
    points = release.confidence["points"]
    trusted = [p for p in points if p["confidence"] >= TRUSTED]
    untrusted = [p["n_behaviors"] for p in points if p["confidence"] < TRUSTED]
    if not points:
        said.append("There were too few users to measure a confidence; it is 0 for all.")
    elif not trusted:
        said.append(f"No vector has a confidence of {TRUSTED:g}.")
    elif untrusted:
        said.append(
            f"Vectors that rest on {max(untrusted):.0f} behaviors or fewer have a confidence below "
            f"{TRUSTED:g}."
        )
    empty = release.clustering["behaviors"]["share_empty"]
    if empty:
        said.append(f"{share(empty)} of the interests hold no behavior of the training months.")
    if release.comparison["due_for_retraining"]:
        corrected = ", ".join(release.comparison["due_for_retraining"])
        said.append(f"Corrected since training, so due for retraining: {corrected}.")
    judged = [m for m in release.drift.values() if m["heads"] and m["heads"]["judged"]]
    if not judged:
        said.append(
            "How the heads do on months after their training is not known yet: no labels are in."
        )
    retrain = [m["month"] for m in release.drift.values() if m["level"] == LEVELS[-1]]
    if retrain:
        said.append(f"Drift asked for a retraining in {', '.join(retrain)}.")
    said.append(
        "Standard errors are of cross-validation, whose folds share training users: the true spread is "
        "somewhat larger."
    )
    return said


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # Markdown; what customers wrote passes through `cell`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (whole, share, percent, sentence, cell):
        environment.filters[filter_.__name__] = filter_
    return environment.get_template(template).render(**values).rstrip() + "\n"
