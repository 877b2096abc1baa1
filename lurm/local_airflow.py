"""Airflow on this machine: a real one, in processes of its own, for trying things out or a small shop.

Everything lies in one folder:

    airflow/     Airflow's home: settings, logs, pids, passwords
    postgres/    its database, where PostgreSQL is installed; SQLite in airflow/ otherwise
    lurm/        the runs, the DVC cache (LURM_HOME)
    published.git, store/, landing/    what is published, DVC's store, where deliveries arrive
"""

import contextlib
import json
import logging
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lurm.releases.founding import found
from lurm.storage import read_json, replacing, write_text

PROCESSES = ("dag-processor", "scheduler", "triggerer", "api-server")
USERS = "admin:admin,operator:op,viewer:viewer"
PATIENCE = 90  # seconds until all processes are healthy

log = logging.getLogger(__name__)


def up(project: Path, folder: Path, port: int) -> None:
    """Start what is not running, and wait until all is well; prints address and passwords.

    Raises:
        OSError: it did not become healthy; the message names the log.
    """
    folder = folder.resolve()
    environment = _environment(project.resolve(), folder, port)
    repository = Path(environment["LURM_REPOSITORY"])
    if not repository.exists():
        found(project, repository, environment["LURM_STORE"], os.environ.get("AWS_ENDPOINT_URL"))
    for path in (environment[f"LURM_{name}"] for name in ("HOME", "LANDING", "STORE")):
        if "://" not in path:
            Path(path).mkdir(parents=True, exist_ok=True)
    (folder / "airflow/logs").mkdir(parents=True, exist_ok=True)
    first = not (folder / "airflow/passwords.json").exists()
    subprocess.run(
        [_airflow(), "db", "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    for name in PROCESSES:
        _start(folder, name, [_airflow(), name], environment)
    _wait_until_healthy(folder, port)
    log.info("Airflow is at http://localhost:%d; `lurm airflow down` stops it", port)
    if first:
        for user, password in read_json(folder / "airflow/passwords.json").items():
            log.info("  user %-9s password %s", user, password)
        log.info(
            "The passwords are in %s and are not printed again", folder / "airflow/passwords.json"
        )


def down(folder: Path) -> None:
    """Stop every process that :func:`up` started, each by its pid.

    The API server comes after the scheduler, whose tasks tell it how they ended.
    """
    for name in (*PROCESSES, "postgres"):
        pid = _pid(folder, name)
        if pid:
            stop = signal.SIGINT if name == "postgres" else signal.SIGTERM
            os.kill(pid, stop)
            _wait_until_gone(pid)
        (folder / f"airflow/pids/{name}").unlink(missing_ok=True)
    log.info("stopped")


def call(project: Path, folder: Path, port: int, words: list[str]) -> int:
    """Call Airflow's command line, on the Airflow in ``folder``; returns its exit status."""
    environment = _environment(project.resolve(), folder.resolve(), port)
    return subprocess.run([_airflow(), *words], env=environment, check=False).returncode


def deliver(folder: Path, deliveries: Path, months: list[str], port: int, *, tell: bool) -> None:
    """Put the months into the landing place, as a customer would; ``tell`` Airflow of each.

    Raises:
        FileNotFoundError: a month is not among the deliveries.
        OSError: Airflow cannot be reached.
    """
    for month in months:
        if not (deliveries / f"behaviors/{month}.parquet").exists():
            raise FileNotFoundError(f"{deliveries}: expected behaviors/{month}.parquet, found none")
    for month in months:
        once = ("items.parquet", "users.parquet")
        # Behaviors last: a month that is there has its items there.
        for name in (*once, f"items/{month}.parquet", f"behaviors/{month}.parquet"):
            if (deliveries / name).exists():
                with replacing(folder / "landing" / name) as temporary:
                    shutil.copyfile(deliveries / name, temporary)
        if tell:
            client = Client(folder, port)
            asset = client.call("GET", "assets?name_pattern=lurm_delivery")["assets"][0]["id"]
            client.call("POST", "assets/events", {"asset_id": asset, "partition_key": month})
        log.info("%s is delivered%s", month, ", and Airflow knows" if tell else "")


class Client:
    """Airflow's REST interface, as user admin."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"http://localhost:{port}"
        password = read_json(folder / "airflow/passwords.json")["admin"]
        token = self._send("POST", "/auth/token", {"username": "admin", "password": password}, {})
        self.headers = {"Authorization": f"Bearer {token['access_token']}"}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to one request, as JSON.

        Raises:
            OSError: it was refused, or Airflow cannot be reached.
        """
        return self._send(method, f"/api/v2/{path}", body, self.headers)

    def _send(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(
            self.address + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", **headers},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise OSError(f"{method} {path}: {error}: {error.read().decode()}") from error
        return json.loads(text) if text else None


def _environment(project: Path, folder: Path, port: int) -> dict[str, str]:
    """What all processes find in their environment; what is set already stays."""
    home = folder / "airflow"
    keys = {n: _kept(home / n, secrets.token_urlsafe(48)) for n in ("jwt_secret", "secret_key")}
    store = os.environ.get("LURM_STORE", str(folder / "store"))
    places = {
        "LURM_HOME": str(folder / "lurm"),
        "LURM_REPOSITORY": str(folder / "published.git"),
        "LURM_STORE": store,
        "LURM_LANDING": str(folder / "landing"),
        "LURM_MOUNTS": "" if "://" in store else store,
        "LURM_SINCE": _kept(home / "since", datetime.now(UTC).date().isoformat()),
    }
    settings = {
        "CORE__DAGS_FOLDER": str(project / "dags"),
        "CORE__PLUGINS_FOLDER": str(project / "dags/plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": USERS,
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "CORE__EXECUTION_API_SERVER_URL": f"http://localhost:{port}/execution/",
        "DATABASE__SQL_ALCHEMY_CONN": _database(folder),
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__WORKERS": "1",
        "LOGGING__WORKER_LOG_SERVER_PORT": str(port + 1),
        "LOGGING__TRIGGER_LOG_SERVER_PORT": str(port + 2),
        "API__BASE_URL": f"http://localhost:{port}",
        "API__SECRET_KEY": keys["secret_key"],
        "API_AUTH__JWT_SECRET": keys["jwt_secret"],
        "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "TRIGGERER__CAPACITY": "50",
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return (
        places
        | {f"AIRFLOW__{name}": value for name, value in settings.items()}
        | os.environ
        | {"AIRFLOW_HOME": str(home), "PATH": path}
    )


def _kept(path: Path, first: str) -> str:
    """What the file says; ``first``, the first time. Nobody else may read it."""
    if not path.exists():
        write_text(first, path)
        path.chmod(0o600)
    return path.read_text("utf-8")


def _database(folder: Path) -> str:
    """The database's address: PostgreSQL, started if need be, where it is installed; else SQLite."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    owner = "postgres" if os.getuid() == 0 else None  # PostgreSQL does not run as root
    if not programs or (owner and owner not in {user.pw_name for user in pwd.getpwall()}):
        return f"sqlite:///{folder / 'airflow/airflow.db'}"
    place = folder / "postgres"
    if not (place / "PG_VERSION").exists():
        place.mkdir(parents=True, exist_ok=True)
        if owner:
            shutil.chown(place, owner, owner)
        initdb = [str(programs[-1] / "initdb"), "-D", str(place), "-U", "airflow", "--auth=trust"]
        subprocess.run(initdb, check=True, user=owner, stdout=subprocess.DEVNULL, cwd="/")
    if not _pid(folder, "postgres"):
        port_free = ["-c", "listen_addresses=", "-k", str(place)]
        command = [str(programs[-1] / "postgres"), "-D", str(place), *port_free]
        _start(folder, "postgres", command, dict(os.environ), owner)
        ready = [str(programs[-1] / "pg_isready"), "-h", str(place), "-U", "airflow"]
        for _ in range(PATIENCE):
            if subprocess.run(ready, stdout=subprocess.DEVNULL, check=False).returncode == 0:
                break
            time.sleep(1)
    return f"postgresql+psycopg2://airflow@/postgres?host={place}"


def _start(
    folder: Path,
    name: str,
    command: list[str],
    environment: dict[str, str],
    owner: str | None = None,
) -> None:
    if _pid(folder, name):
        return
    pids, logs = folder / "airflow/pids", folder / "airflow/logs"
    for path in (pids, logs):
        path.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name}.log").open("ab") as out:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=owner,
        )
    write_text(str(process.pid), pids / name)


def _pid(folder: Path, name: str) -> int | None:
    """The pid of a process that is running, or None."""
    path = folder / f"airflow/pids/{name}"
    if not path.exists():
        return None
    pid = int(path.read_text("utf-8"))
    command = Path(f"/proc/{pid}/cmdline")
    program = b"postgres" if name == "postgres" else b"airflow"
    # A pid of a former life may be somebody else's by now.
    return pid if command.exists() and program in command.read_bytes() else None


def _wait_until_healthy(folder: Path, port: int) -> None:
    address = f"http://localhost:{port}/api/v2/monitor/health"
    for _ in range(PATIENCE):
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                told = json.load(answer)
        except (OSError, ValueError):
            told = {}
        if told and all(part["status"] == "healthy" for part in told.values()):
            return
        time.sleep(1)
    raise OSError(f"Airflow is not healthy after {PATIENCE} s; see {folder / 'airflow/logs'}")


def _wait_until_gone(pid: int) -> None:
    for _ in range(PATIENCE * 10):
        with contextlib.suppress(ChildProcessError):  # not started by this process
            os.waitpid(pid, os.WNOHANG)
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def _airflow() -> str:
    return str(Path(sys.executable).with_name("airflow"))
