"""The reports of a run in Airflow's UI: served by the API server, linked from the tasks.

A page is shown to whoever is logged in. It lies in the run's workspace, until that is pruned; what was
published is also in the published repository's store.
"""

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink, conf

PREFIX = "/lurm"


class PageLink(BaseOperatorLink):
    """From a task to the page about it."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address of the task's page; the UI shows whole addresses only."""
        base = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
        return (
            f"{base}{PREFIX}/{quote(ti_key.dag_id)}/{quote(ti_key.run_id)}/{quote(ti_key.task_id)}"
        )


def run_folder(dag_id: str, run_id: str) -> Path:
    """Where ``lurm release --run <dag_id>__<run_id>`` works."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{dag_id}__{run_id}").lstrip(".")
    return Path(os.environ["LURM_HOME"]) / "runs" / name


@cache
def _app() -> Any:
    """The pages, for whoever is logged in; made at the first request, which only the API server gets."""
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.responses import FileResponse, JSONResponse

    app = FastAPI(dependencies=[Depends(get_user)])

    @app.get("/{dag_id}/{run_id}/{task_id}")
    def page(dag_id: str, run_id: str, task_id: str) -> Any:
        folder = run_folder(dag_id, run_id)
        record = folder / "steps" / f"{Path(task_id).name}.json"
        if not record.exists():
            raise HTTPException(404, f"{task_id} of {run_id} has left nothing, or was pruned")
        told = json.loads(record.read_text("utf-8"))
        shown = folder / "workspace" / (told.get("page") or "")
        return FileResponse(shown) if shown.is_file() else JSONResponse(told)

    return app


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """The pages as an ASGI application."""
    await _app()(scope, receive, send)


class LurmPlugin(AirflowPlugin):
    """Announces pages and links to Airflow."""

    name = "lurm"
    fastapi_apps = [{"app": pages, "url_prefix": PREFIX, "name": "lurm"}]  # noqa: RUF012
    operator_extra_links = [PageLink()]  # noqa: RUF012
