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
from lurm.validation import judge, month_figures, month_rules

CONTRACT = 1  # version of the landing contract
EXAMPLES = 3  # rows that the page shows for each reason

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
    story: dict[str, Any] = {"month": args.month, "delivery": str(args.landing)}
    try:
        accept(args, load_params("params.yaml"), story)
    except (ValueError, FileNotFoundError) as refusal:
        write_text(validation_page(**story, refusal=str(refusal)), args.refused)
        raise
    args.refused.unlink(missing_ok=True)


def accept(args: argparse.Namespace, params: Params, story: dict[str, Any]) -> None:
    """Clean the month and write it down; ``story`` is told what becomes known on the way.

    Raises:
        ValueError: the month is refused.
    """
    settings, timezone = params.validate_logs, params.calendar.timezone
    mix_column = params.compare_months.mix_column
    tolerance = timedelta(hours=settings.tolerance_hours)
    start, end = month_bounds(args.month, timezone)
    catalog_schema = read_schema(args.catalog)
    behaviors.check_delivery(read_schema(args.landing), catalog_schema, str(args.landing))
    if mix_column not in catalog_schema.names:
        raise ValueError(
            f"compare_months.mix_column: expected a column of the catalog "
            f"({', '.join(catalog_schema.names)}), got {mix_column}"
        )
    with (
        database(settings.memory_limit, args.landing) as connection,
        replacing(args.clean) as clean,
        replacing(args.quarantine) as quarantine,
    ):
        counts = behaviors.clean_month(
            connection,
            args.landing,
            args.catalog,
            start - tolerance,
            end + tolerance,
            clean,
            quarantine,
        )
        profile = behaviors.profile_month(connection, clean, args.catalog, mix_column)
        heavy = behaviors.heavy_users(connection, clean, settings.heavy_user)
        figures = pd.DataFrame(month_figures(counts, len(heavy)), index=[args.month])
        rules = month_rules(
            settings.max_outside_month,
            settings.max_unknown_items,
            settings.max_repeated_rows,
            settings.max_bad_rows,
            settings.heavy_user,
        )
        verdicts = judge(figures, rules, suite=f"behaviors of {args.month}")
        story |= {
            "counts": counts,
            "profile": profile,
            "verdicts": verdicts,
            "heavy_users": heavy[:10],
            "days": behaviors.behaviors_per_day(connection, clean, timezone),
            "examples": behaviors.examples(connection, quarantine, EXAMPLES),
            "timezone": timezone,
        }
        failed = [v for v in verdicts if not v.success]
        refusals = [v.sentence() for v in failed if v.rule.severity == "critical"]
        if refusals:
            likely = behaviors.likely_month(connection, args.landing, timezone)
            holds = f" (it seems to hold {likely})" if likely not in (None, args.month) else ""
            raise ValueError(
                f"{args.landing} is refused as {args.month}{holds}: {'. '.join(refusals)}"
            )
        profile["sha256"] = file_hash(clean)
    write_json(profile, args.profile)
    write_json(
        {**counts, "users": profile["users"], "items": profile["items"]}
        | {"success": True, "warnings": len(failed)},
        args.result,
    )
    write_text(validation_page(**story), args.page)
    write_json({"month": args.month, "contract": CONTRACT}, args.accepted)
    for verdict in failed:
        log.warning("%s: %s", args.month, verdict.sentence())
    for reason, meaning in behaviors.REASONS.items():
        if counts[reason]:
            log.warning("%s: %d rows set aside: %s", args.month, counts[reason], meaning)
    log.info(
        "%s: %d rows in, %d clean, %d set aside",
        args.month,
        counts["rows_in"],
        counts["rows_clean"],
        counts["rows_set_aside"],
    )


if __name__ == "__main__":
    run_stage(main)
