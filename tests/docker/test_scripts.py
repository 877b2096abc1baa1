"""The small scripts inside the images, as processes."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.docker.images import ROOT

USERS = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"
FILE = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
HEALTH = {
    "metadatabase": {"status": "healthy"},
    "scheduler": {"status": "healthy"},
    "triggerer": {"status": None},
    "dag_processor": {"status": "unhealthy"},
}


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(HEALTH).encode())

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def api() -> Iterator[str]:
    """The address of something that answers as Airflow's API server does."""
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(script: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "docker" / script, *args]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.parametrize("component", ["metadatabase", "scheduler"])
def test_a_healthy_component_is_told_by_the_exit_status(api: str, component: str) -> None:
    assert run("airflow_health.py", component, LURM_API=api).returncode == 0


@pytest.mark.parametrize(
    ("component", "status"),
    [("triggerer", "None"), ("dag_processor", "unhealthy"), ("worker", "no sign of it")],
)
def test_a_component_that_is_not_healthy_is_told_with_its_status(
    api: str, component: str, status: str
) -> None:
    done = run("airflow_health.py", component, LURM_API=api)
    assert done.returncode == 1
    assert done.stderr == f"{component}: expected healthy, got {status}\n"


def test_an_api_server_that_does_not_answer_is_not_healthy() -> None:
    done = run("airflow_health.py", LURM_API="http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("the API server at http://127.0.0.1:9 does not answer")


def test_logins_are_written_for_their_owner_only_before_the_tables_are_made(tmp_path: Path) -> None:
    airflow = tmp_path / "airflow"
    airflow.write_text(f"#!/bin/sh\ntest -s {tmp_path}/logins && echo $* > {tmp_path}/called\n")
    airflow.chmod(0o755)
    environment = {
        USERS: "admin:admin,viewer:viewer",
        FILE: str(tmp_path / "logins"),
        "LURM_PASSWORD_ADMIN": "one",
        "LURM_PASSWORD_VIEWER": "two",
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
    }
    for password in ("two", "three"):
        environment["LURM_PASSWORD_VIEWER"] = password
        assert run("airflow_init.py", **environment).returncode == 0
        logins = json.loads((tmp_path / "logins").read_text())
        assert logins == {"admin": "one", "viewer": password}
    assert (tmp_path / "logins").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "called").read_text() == "db migrate\n"


def test_a_missing_password_is_named(tmp_path: Path) -> None:
    environment = {USERS: "admin:admin,operator:op", FILE: str(tmp_path / "logins")}
    done = run("airflow_init.py", LURM_PASSWORD_ADMIN="one", **environment)
    assert done.returncode == 1
    assert "set LURM_PASSWORD_OPERATOR in docker/.env" in done.stderr
    assert not (tmp_path / "logins").exists()


@pytest.mark.parametrize(
    ("torch", "status", "message"),
    [
        ("class version: cuda = None", 0, ""),
        (
            "class version: cuda = '13.0'\n__version__ = '2.13.0'",
            1,
            "expected torch for cpu, got 2.13.0",
        ),
        ("raise OSError('no libcudart')", 1, "got one that does not load: no libcudart"),
    ],
)
def test_a_build_ends_with_what_to_do_where_torch_is_for_another_device(
    tmp_path: Path, torch: str, status: int, message: str
) -> None:
    (tmp_path / "torch.py").write_text(torch)
    done = run("check_torch.py", "cpu", PYTHONPATH=str(tmp_path))
    assert done.returncode == status
    assert message in done.stderr
    assert ("PIP_EXTRA_INDEX_URL" in done.stderr) == bool(status)
