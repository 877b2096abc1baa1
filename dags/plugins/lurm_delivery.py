"""Waiting for a month to be delivered, without holding a worker."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import fsspec
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException, TaskDeferralTimeout
from airflow.triggers.base import BaseTrigger, TriggerEvent
from lurm_steps import SETTINGS

EVERY = 30.0  # seconds between two looks


def is_delivered(path: str) -> bool:
    """Whether the file is there; ``path`` may be an ``s3://`` address."""
    files, name = fsspec.core.url_to_fs(path)
    files.invalidate_cache()
    return bool(files.exists(name))


class DeliveryTrigger(BaseTrigger):
    """Fires when the file is there."""

    def __init__(self, path: str, every: float) -> None:
        super().__init__()
        self.path, self.every = path, every

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How the triggerer makes this trigger anew."""
        return "lurm_delivery.DeliveryTrigger", {"path": self.path, "every": self.every}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again."""
        while not await asyncio.to_thread(is_delivered, self.path):
            await asyncio.sleep(self.every)
        yield TriggerEvent(self.path)


class DeliverySensor(BaseOperator):
    """Succeeds when the behaviors of the month are in the landing place, fails at the deadline."""

    template_fields = ("month",)
    ui_color = "#f4ead2"

    def __init__(self, *, month: str, landing: str, **options: Any) -> None:
        super().__init__(**options)
        self.month, self.landing = month, landing

    def execute(self, context: Context) -> str:
        """Return the path if it is there, else wait for it.

        Raises:
            AirflowFailException: the run names no month.
        """
        if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", self.month):
            raise AirflowFailException(
                f"expected a month such as 2017-08 as partition key or parameter `month`, "
                f"got {self.month!r}; trigger the run again with one"
            )
        path = f"{self.landing.rstrip('/')}/behaviors/{self.month}.parquet"
        if is_delivered(path):
            return path
        self.log.info("%s is not there yet; waiting up to %s", path, SETTINGS.deadline)
        self.defer(
            trigger=DeliveryTrigger(path, EVERY),
            method_name="arrived",
            timeout=SETTINGS.deadline - timedelta(seconds=1),
        )
        return path

    def arrived(self, context: Context, event: str) -> str:
        """Go on when the trigger has fired."""
        return event

    def resume_execution(self, next_method: str, next_kwargs: Any, context: Context) -> Any:
        """Say what did not come, when the deadline has passed."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            raise AirflowFailException(
                f"{self.month} was not delivered to {self.landing} within {SETTINGS.deadline}; "
                "deliver it, then clear this task"
            ) from None
