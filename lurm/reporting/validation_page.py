"""The page about one month's delivery, for people who send or watch the data: one HTML file."""

from collections.abc import Mapping, Sequence
from typing import Any

from lurm.behaviors import REASONS
from lurm.reporting.pages import render
from lurm.validation import Verdict


def validation_page(
    *,
    month: str,
    delivery: str,
    n_bytes: int | None = None,
    sha256: str | None = None,
    refusal: str | None = None,
    timezone: str | None = None,
    counts: Mapping[str, int] | None = None,
    profile: Mapping[str, Any] | None = None,
    verdicts: Sequence[Verdict] = (),
    heavy_users: Sequence[tuple[int | str, int]] = (),
    days: Sequence[tuple[str, int]] = (),
    examples: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page as HTML that needs nothing from outside.

    Args:
        month: the month that the delivery is for.
        delivery: where it lies.
        n_bytes: its size; None if there is no such file.
        sha256: its hash in hex; None if there is no such file.
        refusal: why the month is refused, None if it is accepted.
        timezone: the calendar's time zone.
        counts: see :func:`lurm.behaviors.clean_month`; None if the file could not be read.
        profile: see :func:`lurm.behaviors.profile_month`.
        verdicts: see :func:`lurm.validation.judge`.
        heavy_users: the heaviest users and their behaviors.
        days: clean behaviors by day.
        examples: some of the rows set aside, as delivered.
    """
    return render(
        "validation.html",
        month=month,
        delivery=delivery,
        n_bytes=n_bytes,
        sha256=sha256,
        refusal=refusal,
        timezone=timezone,
        counts=counts,
        profile=profile,
        verdicts=verdicts,
        heavy_users=heavy_users,
        days=days,
        busiest=max((n for _, n in days), default=0),
        reasons=REASONS,
        examples={
            reason: [row for row in examples if row["reason"] == reason] for reason in REASONS
        },
    )
