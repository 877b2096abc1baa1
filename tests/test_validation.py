import numpy as np
import pandas as pd
import pytest

from lurm.validation import Rule, compare_months, judge


def test_great_expectations_agrees_with_plain_comparison_on_and_beside_every_bound():
    values = [-0.31, -0.3, 0.0, 0.3, 0.3000001, np.nan]
    labels = ["2020-01", "2020-02", "2020-03", "2020-04", "2020-05", "2020-06"]
    figures = pd.DataFrame({"both": values, "most": values, "least": values}, index=labels)
    rules = [
        Rule("least", "a", "warning", at_least=-0.3),
        Rule("both", "b", "critical", at_least=-0.3, at_most=0.3),
        Rule("most", "c", "warning", at_most=0.3),
    ]
    least, both, most = judge(figures, rules, "2020-01")
    assert least.failed == {"2020-01": -0.31}
    assert most.failed == {"2020-05": 0.3000001}
    assert both.failed == least.failed | most.failed
    assert list(both.observed) == labels[:5]
    assert not both.success


def test_a_failure_says_what_was_expected_what_was_found_and_what_to_do():
    rule = Rule("x", "the share of x", "critical", at_most=0.05, is_share=True, remedy="mend it")
    (verdict,) = judge(pd.DataFrame({"x": [0.125]}, index=["m"]), [rule], "s")
    assert verdict.sentence() == "expected the share of x to be at most 5%, found 12.5%; mend it"


@pytest.mark.parametrize("window", [1, 3])
def test_months_are_compared_with_the_trailing_ones_as_a_slow_loop_says(window):
    rng = np.random.default_rng(0)
    categories = ["a", "b", "c", "é"]
    profiles = {}
    for number in range(1, 9):
        counts = dict(zip(categories, rng.integers(0, 50, 4), strict=True))
        total = sum(counts.values())
        mix = {c: n / total for c, n in counts.items() if n}
        profiles[f"2017-0{number}"] = {"behaviors": total, "users": 3, "items": 4, "mix": mix} | {
            "user_id_type": "BIGINT"
        }
    frame = compare_months(profiles, window)
    months = list(profiles)
    assert np.isnan(frame.loc[months[0], ["volume_change", "mix_distance"]].astype(float)).all()
    for i, month in enumerate(months[1:], start=1):
        past = [profiles[m] for m in months[max(0, i - window) : i]]
        rows = sum(p["behaviors"] for p in past)
        mean = rows / len(past)
        here = profiles[month]
        distance = 0.0
        for category in categories:
            before = sum(p["mix"].get(category, 0) * p["behaviors"] for p in past) / rows
            distance += abs(here["mix"].get(category, 0) - before) / 2
        assert frame.loc[month, "volume_change"] == pytest.approx(here["behaviors"] / mean - 1)
        assert frame.loc[month, "mix_distance"] == pytest.approx(distance)
