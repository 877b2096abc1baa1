import re
from dataclasses import replace

import numpy as np
import pytest

from lurm.behaviors import REASONS
from lurm.reporting.report_page import N_LARGEST, N_SPREAD, example_rows, report_page
from tests.reporting.runs import Page, drift, head, interests, make_run, months_from

PAGES = "validation"


def page_of(**changes):
    text = report_page(make_run(**changes), PAGES)
    return Page(text), text


def whole(number):
    return f"{number:,}"


def test_every_month_shows_what_its_result_says_and_links_to_its_own_page():
    run = make_run()
    page = Page(report_page(run, PAGES))
    for month, counts in run.months.items():
        trailing = run.trailing[month]
        cells = page.row("months", month)
        figures = ("rows_in", "rows_clean", "unknown_item", "repeated_row", "users", "items")
        assert cells[1:7] == [whole(counts[figure]) for figure in figures]
        if trailing["volume_change"] is None:
            assert cells[7:9] == ["", ""]
        else:
            assert float(cells[7].rstrip("%").replace("−", "-")) == pytest.approx(
                100 * trailing["volume_change"], abs=0.05
            )
            assert float(cells[8].rstrip("%")) == pytest.approx(
                100 * trailing["mix_distance"], abs=0.05
            )
        assert f"validation/{month}.html" in page.references


def test_headlines_are_sums_and_results():
    run = make_run()
    page = Page(report_page(run, PAGES))
    assert page.texts["behaviors"] == whole(sum(c["rows_clean"] for c in run.months.values()))
    assert page.texts["users"] == "2,452"
    assert page.texts["items"] == whole(run.catalog["2018-01"]["items"])
    assert page.texts["interests"] == "4"
    assert page.texts["tasks"] == "2"
    assert page.texts["mean-auc"] == "70.0 ± 0.5"


def test_the_catalog_shows_what_its_results_say():
    run = make_run()
    page = Page(report_page(run, PAGES))
    figures = [
        "rows_in",
        "rows_set_aside",
        "new",
        "changed",
        "items",
        "sharing_text",
        "without_text",
    ]
    for month, counts in run.catalog.items():
        cells = page.row("catalog", "at the start" if month == "start" else month)
        assert cells[1:] == [whole(counts[figure]) for figure in figures]


def test_interests_show_what_the_clustering_and_the_table_of_interests_say():
    page, text = page_of()
    assert page.row("clustering", "items")[1:] == ["25%", "3.96", "0.877"]
    assert page.row("clustering", "behaviors")[1:] == ["50%", "3.68", "0.909"]
    assert page.row("examples", "milk") == [
        "milk bread MILK, 1 GA BREAD",
        *("5", "90", "7,001", "95.76%", "0.910"),
    ]
    assert page.row("examples", "tea")[1:] == ["1,234", "80", "310", "4.24%", "0.876"]
    assert page.row("examples", "item 14, without words")[1:4] == ["1", "0", "0"]
    assert 'data-interest="3"' not in text  # it is empty
    assert page.texts["median-items"] == "3"
    assert page.texts["most-items"] == "1,234"


def test_items_that_came_later_show_how_near_they_lie():
    page, _ = page_of()
    assert page.row("assigned", "2018-01") == ["2018-01", "10,132", "33", "0.864", "0.877"]
    assert len(page.tables["assigned"]) == 2
    known = {month: {**result, "new_items": 0} for month, result in make_run().assigned.items()}
    page, text = page_of(assigned=known)
    assert "assigned" not in page.tables
    assert "None: all items were known at training." in text


def test_losses_are_those_of_the_results():
    page, text = page_of()
    assert "loss at the end 6.056" in page.texts["losses"]
    assert "loss at the end 1.922" in page.texts["losses"]
    assert "<title>epoch 2: 3.000</title>" in text
    assert text.count("guessing 6.24") == 2  # log(2 * 256 - 1)


def test_tasks_show_scores_beside_what_naming_the_largest_class_would_score():
    page, text = page_of()
    coffee, age = page.row("scores", "coffee"), page.row("scores", "age")
    assert coffee[0] == "coffee product category COFFEE logistic"
    assert coffee[1:4] == ["101", "no 60, yes 41", "70.0 ± 0.6"]
    assert coffee[5:] == ["61.5", "59.4", "23.4", "1.2"]
    assert age[1:4] == ["48", "18-29 7, 30+ 20, 65+ 21", "70.0 ± 0.6"]
    assert age[5:] == ["61.5", "43.8", "23.4", "1.2"]
    assert page.row("scores", "Mean")[3] == "70.0 ± 0.5"
    assert text.count('class="fold"') == 8
    assert text.count('aria-label="ROC curves of') == 2
    assert "number below" not in text


def test_report_page_names_skipped_tasks_with_their_reason():
    reason = "tasks: age has a class of 2 users ('old'), too few for 5 folds"
    page, _ = page_of(skipped=[{"task": "age", "skipped": reason}])
    assert page.texts["skipped"] == f"Skipped age : {reason}"


def test_report_page_without_label_months_speaks_of_attributes_only():
    run = make_run(tasks=[head("age", {"young": 30, "old": 30})])
    run.settings["evaluation"]["label_months"] = []
    text = report_page(run, "validation")
    assert "category tasks are asked about" not in text
    assert "Attributes: which class" in text


def test_an_accuracy_below_the_largest_class_stands_out():
    _, text = page_of(tasks=[head("coffee", {"no": 90, "yes": 10})])
    assert '<td class="number below">61.5</td>' in text


def test_warnings_and_corrected_months_are_marked_where_they_are():
    comparison = {
        "n_warnings": 2,
        "warnings": [
            {"month": "2017-11", "figure": "volume_change", "value": 0.5},
            {"month": "2017-12", "figure": "mix_distance", "value": 0.2},
        ],
        "due_for_retraining": ["2017-10"],
    }
    page, text = page_of(comparison=comparison)
    assert page.row("months", "2017-10")[-1] == "corrected"
    assert page.row("months", "2017-11")[-1] == "volume"
    assert page.row("months", "2017-12")[-1] == "mix"
    assert "2 warnings" in text
    assert "Due for retraining" in text


def test_a_run_without_warnings_says_so():
    page, text = page_of()
    assert {row[-1] for row in page.tables["months"]} == {""}
    assert "No warning" in text
    assert "Models up to date" in text


def test_a_month_without_rows_set_aside_has_no_column_of_reasons():
    run = make_run()
    clean = {
        month: {**counts, **dict.fromkeys(REASONS, 0), "rows_set_aside": 0, "rows_in": 9}
        for month, counts in run.months.items()
    }
    text = report_page(replace(run, months=clean), PAGES)
    page = Page(text)
    assert page.tables["months"][0][:5] == ["Month", "Delivered", "Used", "Users", "Items"]
    assert "nothing." in text


@pytest.mark.parametrize("n", [1, 2, 13, 60, 240])
def test_any_number_of_months_makes_a_page(n):
    months = months_from("2001-11", n)
    page, text = page_of(months=months)
    assert len(page.tables["months"]) == n + 1
    assert len(text) < 3_000_000


@pytest.mark.parametrize(
    "tasks",
    [[], [head("coffee", {"no": 60, "yes": 41})], [head("age", {str(k): 9 for k in range(30)})]],
    ids=["no task", "no attribute", "many classes"],
)
def test_any_tasks_make_a_page(tasks):
    page, text = page_of(tasks=tasks)
    assert page.texts["tasks"] == str(len(tasks))
    assert ("No task is declared" in text) == (not tasks)


def test_a_run_that_just_began_makes_a_page():
    nothing = interests().slice(3)  # one interest, empty
    page, _ = page_of(interests=nothing, item_losses=[6.0], smen_losses=[5.0])
    assert len(page.tables["examples"]) == 1


def test_ids_may_be_strings_and_words_of_any_script():
    table = interests(ids=("a-1", "b", "c", "ü"), words=("牛奶", "молоко", "حليب"))
    page, _ = page_of(interests=table)
    assert page.row("examples", "牛奶")[0].startswith("牛奶 молоко حليب")
    assert page.row("examples", "item ü, without words")


def test_whatever_customers_write_stays_text():
    bad = "</style><script>alert('x')</script><img src=\"http://x\">&"
    run = make_run(interests=interests(words=(bad, bad), texts=(bad, bad)))
    run.settings["tasks"]["coffee"]["value"] = bad
    run.settings["compare_months"]["mix_column"] = bad
    heads = [run.heads[0], head("age", {bad: 9, "b": 8, "c": 7})]
    roc = {**run.roc, "age": {bad: [(0.0, 0.0), (1.0, 1.0)]}}
    page = Page(report_page(replace(run, heads=heads, roc=roc), PAGES))
    assert not {"script", "img"} & set(page.tags)
    assert page.row("examples", bad)[0] == f"{bad} {bad} {bad} {bad}"
    assert bad in page.row("scores", "coffee")[0]
    assert bad in page.row("scores", "age")[2]


def test_the_page_needs_nothing_from_outside():
    page, text = page_of()
    assert set(page.references) == {f"validation/{month}.html" for month in make_run().months}
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|<iframe", text.lower())


def test_the_same_run_gives_the_same_bytes():
    assert report_page(make_run(), PAGES) == report_page(make_run(), PAGES)


def test_all_settings_are_on_the_page():
    run = make_run()
    text = report_page(run, PAGES)
    for name in run.settings:
        assert f"<h3>{name}</h3>" in text
    assert "beta_days: 5" in text


def test_examples_are_the_largest_and_some_down_to_the_smallest_without_the_empty():
    sizes = np.random.default_rng(0).permutation(np.arange(50))
    largest, spread = example_rows(sizes, N_LARGEST, N_SPREAD)
    assert sizes[largest].tolist() == [49, 48, 47, 46, 45, 44]
    assert sizes[spread][0] == 43
    assert sizes[spread][-1] == 1
    assert (np.diff(sizes[spread]) < 0).all()
    assert example_rows(np.zeros(3, int), 2, 2) == ([], [])
    assert example_rows(np.array([0, 4]), 2, 2) == ([1], [])


# ---- drift --------------------------------------------------------------------------------------


def test_drift_shows_levels_what_was_told_and_the_last_months_figures():
    months = months_from("2017-10", 3)
    found = {month: drift(month, months[:k], ["coffee"]) for k, month in enumerate(months)}
    found[months[1]] = drift(months[1], months[:1], ["coffee"], behaviors_change=2)
    found[months[2]] = drift(months[2], months[:2], ["coffee"], unknown_items=3, turn=1)
    page, text = page_of(months=months, drift=found)
    assert "2017-12 no longer fits the models" in text
    assert page.texts["drift-told"] == (
        "2017-11: the change of volume moved "
        "2017-12: the share of behaviors with items that came after training moved"
    )
    share = page.row("drift", "Share of behaviors with items")
    assert share[1:] == ["3", "0.15", "0.25", "0.4", "retrain"]
    assert page.row("drift", "Median turn")[1:] == ["1", "0.15", "0.3", "", "note"]
    assert page.row("movers", "tea")[1:] == ["50.00%", "25.00%"]
    coffee = page.row("drift-heads", "coffee")
    assert coffee[1:] == ["2,000", "71.0", "70.0", "25.0", "30.0", "6.0"]
    assert text.count('class="level retrain"') == 1
    assert text.count('class="level warn"') == 1
    assert "2017-12: share of behaviors with items that came after training: 3, retrain" in text


def test_a_calm_run_says_so_and_one_month_has_nothing_to_be_compared_with():
    page, text = page_of()
    assert "is like what came before" in text
    assert "drift-told" not in page.texts
    assert "drift-heads" not in page.tables
    page, text = page_of(months=["2017-10"])
    assert page.row("drift", "Change of volume")[1] == ""
    assert "movers" not in page.tables


def test_after_a_retraining_the_page_says_what_became_of_interests_and_space():
    first, _ = page_of()
    assert {"since-standing", "space"}.isdisjoint(first.texts)
    run = make_run()
    since = {"kept": 3, "born": 1, "retired": 2, "behaviors_kept": 0.982}
    page, _ = page_of(
        clustering={**run.clustering, "since_standing": since},
        smen={**run.smen, "space_version": "2017-09-r1-0a1b2c3d"},
    )
    assert "3 interests were kept, 1 born and 2 retired; 98.2%" in page.texts["since-standing"]
    assert page.texts["space"] == "2017-09-r1-0a1b2c3d"
