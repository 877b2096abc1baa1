"""The steps of a run: open, stage after stage, gate, publish; each can be repeated.

What became of a step is written to ``<run>/steps/<step>.json``, for the calendar to show, link and tell:

    status   done | refused | waits | failed
    reason   what was said, if it did not end well
    page     the report that a person would read, if there is one, in the workspace
    result   of a stage: what ran, rows in, rows out, rows set aside

A step *refused* will be refused again until somebody delivers better data or settings; one that
*waits* for an earlier month, or *failed* for any other reason, may be tried again as it is.
"""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lurm.erasure.rows import n_left_out
from lurm.releases.gates import PASSED
from lurm.releases.places import Places
from lurm.releases.plans import Plan, Refresh, plan_retraining, read_plan, write_plan
from lurm.releases.workspaces import CommandError, Workspace, bring_up_to_date, opened
from lurm.storage import read_json, row_count, write_json

log = logging.getLogger(__name__)

# Exit status of a step, which tells the calendar whether to try again.
STATUS = {"done": 0, "refused": 1, "failed": 70, "waits": 75}


class StepError(Exception):
    """A step did not end well; ``status`` is one of :data:`STATUS`."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def step(
    places: Places, run: str, name: str, work: Callable[[Workspace], dict[str, Any]]
) -> dict[str, Any]:
    """Do ``work`` in the run's workspace and write down what became of it; returns its result.

    Raises:
        StepError: it did not end well.
    """
    closed = Workspace(places, run)
    record = closed.folder / "steps" / f"{name}.json"
    try:
        with opened(places, run) as workspace:
            record.unlink(missing_ok=True)
            result = work(workspace)
            told = {"status": "done", "result": result, "image": os.environ.get("LURM_IMAGE")}
            write_json(told | {"page": _page(workspace, name, refused=False)}, record)
            return result
    except (CommandError, ValueError, OSError) as error:
        status, reason = _judge(error, closed)
        if status == "waits":  # the next try lands what is delivered by then
            (closed.folder / "based-on").unlink(missing_ok=True)
        told = {"status": status, "reason": reason, "page": _page(closed, name, refused=True)}
        try:
            write_json(told, record)
        except OSError as another:  # a disk that is full is full for this too
            log.warning("%s", another)
        raise StepError(status, reason) from error


def open_refresh(workspace: Workspace, month: str) -> dict[str, Any]:
    """Make the refresh of ``month`` the run's plan, and land what is delivered now."""
    return _open(workspace, Refresh(month=month))


def open_retraining(workspace: Workspace, first: str | None, through: str | None) -> dict[str, Any]:
    """Make a retraining the run's plan; see :func:`lurm.releases.plans.plan_retraining`."""
    bring_up_to_date(workspace, lambda _: None)
    return _open(workspace, plan_retraining(workspace, first, through))


def _open(workspace: Workspace, plan: Plan) -> dict[str, Any]:
    marks = (workspace.folder / name for name in ("based-on", PASSED))
    for known in (*marks, *workspace.folder.glob("steps/*.json")):
        known.unlink(missing_ok=True)  # land what is delivered now
    bring_up_to_date(workspace, plan.prepare)
    write_plan(plan, workspace.folder)
    return plan.model_dump()


def run_stage(workspace: Workspace, stage: str) -> dict[str, Any]:
    """Bring one stage of ``dvc.yaml`` up to date, as far as the run's plan goes."""
    plan = read_plan(workspace.folder)
    bring_up_to_date(workspace, plan.prepare)
    targets = plan.targets(workspace, stage)
    output = workspace.do("dvc", "repro", *targets)
    ran = re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE)
    told = {"stage": stage, "ran": ran, "warnings": warnings(workspace, stage, plan)}
    return told | _rows(workspace, targets)


def _rows(workspace: Workspace, targets: list[str]) -> dict[str, dict[str, int]]:
    """Rows in, out and set aside, by folder, counted in the parquet files that DVC recorded.

    Where users were forgotten, also how many rows of theirs were left out before.
    """
    counts: dict[str, dict[str, int]] = {"rows_in": {}, "rows_out": {}, "rows_set_aside": {}}
    for name, recorded in workspace.stages().items():
        if name not in targets and name.partition("@")[0] not in targets:
            continue
        for role, key in (("deps", "rows_in"), ("outs", "rows_out")):
            for path in (entry["path"] for entry in recorded.get(role, [])):
                if path.endswith(".parquet"):
                    aside = path.startswith("data/quarantine/")
                    rows = counts["rows_set_aside" if aside else key]
                    folder = str(Path(path).parent)
                    rows[folder] = rows.get(folder, 0) + row_count(workspace.root / path)
                    if role == "deps" and (n := n_left_out(workspace.root / path)):
                        left_out = counts.setdefault("rows_forgotten", {})
                        left_out[folder] = left_out.get(folder, 0) + n
    return counts


def warnings(workspace: Workspace, stage: str, plan: Plan) -> list[str]:
    """What a person should look at, though nothing failed; of a refresh, about its month."""
    if stage == "validate_logs" and isinstance(plan, Refresh):
        verdict = read_json(workspace.root / f"reports/validation/{plan.month}.json")
        return [f"{verdict['warnings']} of the rules are not met"] if verdict["warnings"] else []
    if stage == "watch_drift" and isinstance(plan, Refresh):
        told: list[str] = read_json(workspace.root / f"reports/drift/{plan.month}.json")["told"]
        return told
    if stage == "compare_months":
        warnings = read_json(workspace.root / "reports/months.json")["warnings"]
        months = [plan.month] if isinstance(plan, Refresh) else [w["month"] for w in warnings]
        return [
            f"{w['month']}: {w['figure']} is {w['value']:.3g}"
            for w in warnings
            if w["month"] in months
        ]
    return []


def _judge(error: Exception, workspace: Workspace) -> tuple[str, str]:
    """How the step ended, and why."""
    if not isinstance(error, CommandError):
        return ("refused" if isinstance(error, ValueError) else "failed"), str(error)
    if not error.stated:
        return "failed", str(error)
    month = (error.stage or "").partition("@")[2]
    plan = read_json(workspace.folder / "plan.json") if error.stage else {}
    if month and month < plan.get("month", ""):
        return "waits", f"waits for {month}, whose {error.stage} says: {error.reason()}"
    return "refused", error.reason()


PAGES = {"report": "reports/report.html", "explore": "reports/explorer.html"}


def _page(workspace: Workspace, name: str, *, refused: bool) -> str | None:
    """The page that a person would read about the step."""
    if name in PAGES:
        page = PAGES[name]
    elif name == "validate_logs" and (workspace.folder / "plan.json").exists():
        month = read_json(workspace.folder / "plan.json").get("month")
        page = f"reports/{'refused' if refused else 'validation'}/{month}.html"
    else:
        return None
    return page if (workspace.root / page).exists() else None
