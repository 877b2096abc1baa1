"""The calendar: months are strings such as ``"2017-05"``, everywhere and always.

A month belongs to the data set's own time zone; instants are stored in UTC.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


def month_number(month: str) -> int:
    """Months since year 0, so that differences count months.

    >>> month_number("2018-01") - month_number("2017-11")
    2

    Raises:
        ValueError: ``month`` is not of the form ``YYYY-MM``.
    """
    if not isinstance(month, str) or not is_month(month):
        raise ValueError(f"expected a month such as '2017-05', got {month!r}")
    return int(month[:4]) * 12 + int(month[5:]) - 1


def is_month(text: str) -> bool:
    """Whether the text names a month."""
    return bool(_MONTH.fullmatch(text))


def month_name(number: int) -> str:
    """Inverse of :func:`month_number`.

    >>> month_name(month_number("2017-12") + 1)
    '2018-01'
    """
    return f"{number // 12:04d}-{number % 12 + 1:02d}"


def month_bounds(month: str, timezone: str) -> tuple[datetime, datetime]:
    """First instant of the month and of the next, in UTC, for a calendar kept in ``timezone``.

    >>> month_bounds("2017-12", "America/New_York")[1].isoformat()
    '2018-01-01T05:00:00+00:00'
    """
    zone = ZoneInfo(timezone)
    start, end = (
        datetime(n // 12, n % 12 + 1, 1, tzinfo=zone).astimezone(UTC)
        for n in (month_number(month), month_number(month) + 1)
    )
    return start, end


def check_consecutive(months: Sequence[str], what: str) -> None:
    """Return if the months follow each other without a gap.

    Raises:
        ValueError: a month is malformed, repeated, out of order or missing; the message names it.
    """
    numbers = [month_number(month) for month in months]
    for here, there in pairwise(numbers):
        if there != here + 1:
            raise ValueError(
                f"{what}: {month_name(here)} must be followed by {month_name(here + 1)}, "
                f"found {month_name(there)}; add the missing month or remove the extra one"
            )
