import re
from copy import deepcopy
from dataclasses import replace

import pytest

from lurm.behaviors import REASONS
from lurm.reporting.cards import Release, cell, data_card, model_card
from tests.reporting.runs import drift, head, make_run, months_from

POINTS = [
    {"n_behaviors": 4.2, "agreement": 0.31, "confidence": 0.31, "users": 100},
    {"n_behaviors": 42.4, "agreement": 0.66, "confidence": 0.66, "users": 100},
]


def make_release(run=None, **changes):
    """What the cards of a run are made of."""
    run = run or make_run()
    release = Release(
        settings=run.settings,
        catalog=run.catalog,
        months=run.months,
        comparison=run.comparison,
        drift=run.drift,
        index={"kind": "inverted_file", "users": 2469, "recall_at_10": 0.9713},
        items=run.items,
        clustering=run.clustering,
        smen=run.smen,
        confidence={"users": 2400, "points": POINTS},
        heads=run.heads,
        skipped=run.skipped,
        scores=run.scores,
    )
    return replace(release, **changes)


def rows(card):
    """The cells of every row of a table, by the first one."""
    found = {}
    for line in card.splitlines():
        if line.startswith("| "):
            first, *others = (c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1])
            found.setdefault(first, others)
    return found


def limits(card):
    return card.split("## Known limits\n")[1].split("\n## ")[0].strip().splitlines()


# ---- the data card ------------------------------------------------------------------------------


def test_the_data_card_tells_source_licence_months_and_what_was_set_aside():
    release = make_release()
    card = data_card(release)
    found = rows(card)
    about = release.settings["cards"]
    assert found["Licence"] == [about["licence"]]
    assert found["Source"] == [about["source"]]
    for month, counts in release.months.items():
        assert found[month][1:6] == [
            f"{counts[name]:,}"
            for name in ("rows_in", "rows_clean", "rows_set_aside", "users", "items")
        ]
        assert found[month][6] == "calm"
    assert [found[month][0] for month in release.months] == ["training"] * 3 + ["labels"]
    for reason in REASONS:
        total = sum(counts[reason] for counts in release.months.values())
        assert found[reason.replace("_", " ")][1] == f"{total:,}"
    assert found["Delivered"] == [
        f"{sum(c['rows_in'] for c in release.months.values()):,} behaviors"
    ]


def test_the_limits_of_the_data_are_those_that_were_measured():
    release = make_release()
    told = limits(data_card(release))
    assert any(line.startswith("- It covers 4 months, fewer than two years") for line in told)
    assert any("8,004 of 10,132 items share their words" in line for line in told)
    warned = {"warnings": [{"month": "2017-11", "figure": "volume_change", "value": 0.5}]}
    told = limits(data_card(make_release(comparison=release.comparison | warned)))
    assert "- Volume or mix strayed from the months before in 2017-11." in told


def test_data_without_faults_have_no_limits_that_were_measured():
    run = make_run(months=months_from("2015-01", 24))
    clean = dict.fromkeys(("rows_set_aside", "same_moment", *REASONS), 0)
    catalog = {m: c | {"sharing_text": 0, "without_text": 0} for m, c in run.catalog.items()}
    months = {m: c | clean for m, c in run.months.items()}
    assert limits(data_card(make_release(run, catalog=catalog, months=months))) == [
        "- None was measured."
    ]


# ---- the model card -----------------------------------------------------------------------------


def test_the_model_card_tells_quality_with_its_spread():
    card = model_card(make_release())
    found = rows(card)
    assert found["coffee"] == [
        "101",
        "2",
        "70.0 ± 0.6",
        "68.5 to 71.5",
        "61.5",
        "59.4",
        "23.4",
        "1.2",
    ]
    assert found["**mean**"][2] == "**70.0 ± 0.5**"
    assert found["42"] == ["0.66", "0.66", "100"]
    assert found["Index of the last month"] == ["inverted file, 2,469 users, recall@10 0.971"]
    assert "Model `2017-12-r1-0123abcd`, release 1, trained through\n2017-12" in card


def test_the_model_card_holds_every_parameter_of_the_models():
    release = make_release()
    card = model_card(release)
    for section in ("embed_items", "cluster_interests", "build_boi", "pretrain_smen", "evaluation"):
        for key, value in release.settings[section].items():
            assert f"| {key} | `{cell(value)}` |" in card


def test_the_limits_of_the_models_are_those_that_were_measured():
    weak = head("age", {"18-29": 7, "30+": 20, "65+": 21}, auc=0.505)
    few = [head("coffee", {"no": 60, "yes": 41}), weak]
    told = "\n".join(limits(model_card(make_release(make_run(tasks=few)))))
    assert "scale `year` spans 12 months and the models learned from 3" in told
    assert "Not told from chance (AUC within two standard errors of 50): age." in told
    assert "coffee (101 of 2,452 users), age (48 of 2,452 users)" in told
    assert "rest on 4 behaviors or fewer have a confidence below 0.5" in told
    assert "50% of the interests hold no behavior" in told
    assert "months after their training is not known yet" in told
    assert "Less often right" not in told
    worse = [few[0] | {"acc": 0.5}]
    told = "\n".join(limits(model_card(make_release(make_run(tasks=worse)))))
    assert "Less often right than naming the largest class: coffee." in told


def test_drift_and_corrected_months_stand_on_the_model_card():
    run = make_run()
    months = list(run.months)
    moved = dict(run.drift) | {months[-1]: drift(months[-1], months[:3], ["coffee"], turn=3)}
    moved[months[-1]]["heads"]["judged"] = True
    corrected = run.comparison | {"due_for_retraining": ["2017-11"]}
    card = model_card(make_release(run, drift=moved, comparison=corrected))
    assert f"{months[-1]}, against {', '.join(months[:3])}: **retrain**." in card
    assert f"Drift asked for a retraining in {months[-1]}." in card
    assert "due for retraining: 2017-11." in card
    assert "not known yet" not in card
    assert f"- {months[-1]}: the median turn" in card


def test_a_release_without_tasks_or_confidence_has_its_cards():
    run = make_run(months=["2017-10"], tasks=[])
    card = model_card(make_release(run, confidence={"users": 3, "points": []}))
    assert "No task is declared." in card
    assert "Not measured: too few users." in card
    assert "against nothing, it is the first" in card
    assert data_card(make_release(run)).startswith("# Data card")


@pytest.mark.parametrize("text", ["a | b", "<script>alert(1)</script>", "two\nlines"])
def test_what_people_write_cannot_leave_its_cell(text):
    settings = deepcopy(dict(make_run().settings))
    settings["cards"] = dict.fromkeys(settings["cards"], text)
    for card in (data_card, model_card):
        made = card(make_release(settings=settings))
        assert text not in made
        assert cell(text) in made


def test_the_same_release_gives_the_same_cards():
    assert data_card(make_release()) == data_card(make_release())
    assert model_card(make_release()) == model_card(make_release())
