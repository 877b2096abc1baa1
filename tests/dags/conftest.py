"""The DAGs as Airflow would load them, without Airflow's database."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DAGS = ("lurm_refresh", "lurm_arrival", "lurm_retrain")
PLUGINS = ("lurm_steps", "lurm_delivery", "lurm_notices", "lurm_pages")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., ModuleType]]:
    """Load one file of ``dags/`` anew, in an environment with the given settings."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    for name in [name for name in os.environ if name.startswith("LURM_")]:
        monkeypatch.delenv(name)
    for folder in ("dags/plugins", "dags"):
        monkeypatch.syspath_prepend(str(ROOT / folder))

    def load_module(name: str, **settings: str) -> ModuleType:
        here = {
            "LURM_HOME": "/platform/lurm",
            "LURM_REPOSITORY": "/platform/published.git",
            "LURM_LANDING": "/platform/landing",
        }
        for key, value in (here | settings).items():
            monkeypatch.setenv(key, value)
        for known in (*DAGS, *PLUGINS):
            sys.modules.pop(known, None)
        return importlib.import_module(name)

    yield load_module
    for known in (*DAGS, *PLUGINS):
        sys.modules.pop(known, None)
