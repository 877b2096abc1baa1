from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lurm.months import check_consecutive, month_bounds, month_name, month_number

months = st.integers(12, 12 * 9998).map(month_name)


@given(months)
def test_a_month_has_one_number_and_one_name(month):
    assert month_name(month_number(month)) == month


@given(st.dates())
def test_numbers_of_months_are_in_the_order_of_their_names(date):
    month = f"{date:%Y-%m}".zfill(7)
    assert month_number(month) // 12 == date.year
    assert month_number(month) % 12 == date.month - 1


@pytest.mark.parametrize(
    "value",
    [
        "2017-13",
        "2017-00",
        "2017-1",
        "17-01",
        "2017-01-01",
        "2017-01\n",
        "",
        "２０１７-01",
        201701,
        None,
    ],
)
def test_what_is_no_month_is_refused_with_an_example(value):
    with pytest.raises(ValueError, match="expected a month such as '2017-05', got"):
        month_number(value)


@pytest.mark.parametrize(
    "timezone", ["America/New_York", "Asia/Kolkata", "UTC", "Pacific/Auckland"]
)
def test_months_meet_without_gap_or_overlap(timezone):
    months = [month_name(month_number("2017-01") + i) for i in range(14)]
    bounds = [month_bounds(month, timezone) for month in months]
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))
    assert all(timedelta(27) < end - start < timedelta(32) for start, end in bounds)


def test_summer_time_moves_the_bounds():
    assert month_bounds("2017-03", "America/New_York") == (
        datetime(2017, 3, 1, 5, tzinfo=UTC),
        datetime(2017, 4, 1, 4, tzinfo=UTC),
    )


def test_consecutive_months_pass_also_over_new_year():
    check_consecutive(["2017-11", "2017-12", "2018-01"], "months")
    check_consecutive([], "months")


@pytest.mark.parametrize(
    ("months", "told"),
    [
        (["2017-01", "2017-03"], "2017-01 must be followed by 2017-02, found 2017-03"),
        (["2017-02", "2017-01"], "2017-02 must be followed by 2017-03, found 2017-01"),
        (["2017-01", "2017-01"], "2017-01 must be followed by 2017-02, found 2017-01"),
        (["2017-01", "May"], "expected a month"),
    ],
)
def test_a_gap_a_repeat_or_a_wrong_order_is_named(months, told):
    with pytest.raises(ValueError, match=told):
        check_consecutive(months, "months")
