"""Telling a person: what failed or deserves a look, for which month, why, and what to do next.

``LURM_NOTIFIER`` names any Airflow notifier by its import path and ``LURM_NOTIFIER_OPTIONS`` its options
as JSON, in which ``{message}`` stands for the notice. Without it, a notice is a line in the task's log.
"""

import json
import logging
import os
from typing import Any

from airflow.sdk import BaseNotifier, Context
from airflow.sdk.module_loading import import_string

log = logging.getLogger(__name__)

NEXT = {
    "await_delivery": "deliver the month, then clear this task",
    "validate_logs": "read Report, deliver the month again, then clear `open` and what follows it",
    "gate": "read Report and decide: other settings, more months, or another limit in params.yaml",
}
OTHERWISE = "remove the cause, then clear this task; it goes on from there"


class Notice(BaseNotifier):
    """One notice about a task that failed, or that ended well with warnings."""

    def notify(self, context: Context) -> None:
        """Tell it, unless there is nothing to tell."""
        message = compose(context)
        if message:
            tell(message, context)


def compose(context: Any) -> str | None:
    """The notice as text; None if the task ended well and warned of nothing."""
    ti, run = context["ti"], context["dag_run"]
    month = run.partition_key or (context.get("params") or {}).get("month") or ""
    where = " ".join(filter(None, (ti.dag_id, month, ti.task_id)))
    error = context.get("exception")
    if error:
        return f"{where} failed: {error}. Next: {NEXT.get(ti.task_id, OTHERWISE)}."
    result = ti.xcom_pull(task_ids=ti.task_id) or {}
    if result.get("warnings"):
        return f"{where} warns: {'; '.join(result['warnings'])}. Next: read Report."
    return None


def tell(message: str, context: Any) -> None:
    """Hand the message to the notifier that is set."""
    log.warning("%s", message)
    name = os.environ.get("LURM_NOTIFIER")
    if name:
        options = json.loads(os.environ.get("LURM_NOTIFIER_OPTIONS", "{}"))
        filled = {
            key: value.replace("{message}", message) if isinstance(value, str) else value
            for key, value in options.items()
        }
        import_string(name)(**filled).notify(context)


def notice() -> Notice:
    """For a task's ``on_failure_callback`` and ``on_success_callback``."""
    return Notice()


class Overdue(BaseNotifier):
    """A notice about a run that was ended because it took longer than its DAG allows.

    Airflow 3.3.2 has deadline alerts, but cannot clear tasks of a DAG that has one (TypeError in
    ``_recalculate_dagrun_queued_at_deadlines``), and clearing is how a stopped month goes on.
    """

    def notify(self, context: Context) -> None:
        """Tell it; a run that ended because a task failed was told of by that task."""
        if context.get("reason") == "timed_out":
            run = context["dag_run"]
            message = f"{run.dag_id} {run.run_id} has not ended in time and was stopped"
            tell(f"{message}. Next: {OTHERWISE}.", context)


def overdue() -> Overdue:
    """For a DAG's ``on_failure_callback``, beside its ``dagrun_timeout``."""
    return Overdue()
