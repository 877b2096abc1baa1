"""Judge one month's delivery of behaviors and clean it (README, "Your own logs").

In:  the landed month, and the catalog as known in that month.
Out: the clean month, the rows set aside, a profile of the month, the note that it was accepted, the
     verdicts as JSON and as a page. A month that is refused leaves only a page, at ``--refused``.

The note says the same whatever the month holds: stages that depend on it wait for the month to be
accepted, and do not run again when it is corrected.
"""

import argparse
import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from lurm import behaviors
from lurm.console import run_stage
from lurm.database import database
from lurm.months import month_bounds
from lurm.params import Params, load_params
from lurm.reporting.validation_page import validation_page
from lurm.storage import file_hash, read_schema, replacing, write_json, write_text
from lurm.validation import judge, month_figures, month_rules, refusal

CONTRACT = 1  # version of the landing contract

log = logging.getLogger("validate_logs")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--month", required=True)
    for name in (
        *("landing", "catalog", "clean", "quarantine"),
        *("profile", "accepted", "result", "page", "refused"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    # What is wrong up to here is no fault of the delivery, so no page says it was refused.
    behaviors.check_mix_column(read_schema(args.catalog), params.compare_months.mix_column)
    story: dict[str, Any] = {"month": args.month, "delivery": str(args.landing)}
    if args.landing.is_file():
        story |= {"n_bytes": args.landing.stat().st_size, "sha256": file_hash(args.landing)}
    try:
        accept(args, params, story)
    except (ValueError, FileNotFoundError) as fault:
        write_text(validation_page(**story, refusal=str(fault)), args.refused)
        raise
    args.refused.unlink(missing_ok=True)


def accept(args: argparse.Namespace, params: Params, story: dict[str, Any]) -> None:
    """Clean the month and write it down; ``story`` is told what becomes known on the way.

    Raises:
        ValueError: the month is refused.
    """
    settings, timezone = params.validate_logs, params.calendar.timezone
    start, end = month_bounds(args.month, timezone)
    span = timedelta(hours=settings.tolerance_hours)
    behaviors.check_delivery(
        read_schema(args.landing), read_schema(args.catalog), str(args.landing)
    )
    with (
        database(settings.memory_limit, args.landing) as connection,
        replacing(args.clean) as clean,
        replacing(args.quarantine) as quarantine,
    ):
        month = (args.landing, args.catalog, start - span, end + span, clean, quarantine)
        counts = behaviors.clean_month(connection, *month)
        mix_column = params.compare_months.mix_column
        profile = behaviors.profile_month(connection, clean, args.catalog, mix_column)
        heavy = behaviors.heavy_users(connection, clean, settings.heavy_user)
        verdicts = judge(
            pd.DataFrame(month_figures(counts, len(heavy)), index=[args.month]),
            month_rules(**settings.model_dump(exclude={"tolerance_hours", "memory_limit"})),
            suite=f"behaviors of {args.month}",
        )
        story |= {"counts": counts, "profile": profile, "verdicts": verdicts}
        story |= behaviors.details(connection, clean, quarantine, heavy, timezone)
        if any(verdict.refuses for verdict in verdicts):
            likely = behaviors.likely_month(connection, args.landing, timezone)
            raise ValueError(refusal(verdicts, str(args.landing), args.month, likely))
        profile["sha256"] = file_hash(clean)
    warnings = [verdict.sentence() for verdict in verdicts if not verdict.success]
    result = {**counts, "users": profile["users"], "items": profile["items"]}
    write_json(profile, args.profile)
    write_json(result | {"success": True, "warnings": len(warnings)}, args.result)
    write_text(validation_page(**story), args.page)
    write_json({"month": args.month, "contract": CONTRACT}, args.accepted)
    for warning in [*warnings, *behaviors.set_aside(counts)]:
        log.warning("%s: %s", args.month, warning)
    rows = (counts[key] for key in ("rows_in", "rows_clean", "rows_set_aside"))
    log.info("%s: %d rows in, %d clean, %d set aside", args.month, *rows)


if __name__ == "__main__":
    run_stage(main)
