"""``docker/compose.yaml`` brought up on the tests' engine.

Three things are changed, since the tests' engine has no networks of its own and no registry: every
service shares the host's network, on ports that are free; the two public images are replaced by
stand-ins (``stand_ins.Dockerfile``); the store's health check is one that its stand-in knows.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml

from tests.docker.engine import Engine
from tests.docker.images import ROOT, TAG

COMPOSE = ROOT / "docker" / "compose.yaml"
# What listens where: the address of it within compose.yaml, and the setting that moves it.
PORTS = {
    "postgres:5432": {"PGPORT": "{}"},
    "store:7070": {"PORT": "{}"},
    "api-server:8080": {"AIRFLOW__API__PORT": "{}"},
    "scheduler:8793": {"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": "{}"},
    "triggerer:8794": {"AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": "{}"},
}


class Composition:
    """The services of compose.yaml under one name, with passwords and folders of their own."""

    def __init__(self, engine: Engine, place: Path, uid: int) -> None:
        """Prepare everything under ``place``: settings, a home folder of ``uid``'s, a DAGs folder."""
        self.engine = engine
        self.name = f"lurm{secrets.token_hex(3)}"
        self.home = place / "home"
        self.dags = place / "dags"
        for folder in (self.home, self.dags):
            folder.mkdir()
        os.chown(self.home, uid, -1)
        self.ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        socket_file = Path(engine.host.removeprefix("unix://"))
        self.settings = {
            "TAG": TAG,
            "LURM_HOME": str(self.home),
            "LURM_DAGS": str(self.dags),
            "LURM_REPOSITORY": str(self.home / "published.git"),
            "LURM_LANDING": "s3://lurm/landing",
            "LURM_UID": str(uid),
            "LURM_GID": str(uid),
            "DOCKER_SOCKET": str(socket_file),
            "DOCKER_GID": str(socket_file.stat().st_gid),
            "STORE_ACCESS_KEY": "lurm",
            "AIRFLOW_FERNET_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        }
        for name in _empty_settings() - self.settings.keys():
            self.settings[name] = secrets.token_hex(16)
        self._env_file = place / "env"
        self._env_file.write_text("".join(f"{k}={v}\n" for k, v in self.settings.items()))
        self._file = place / "compose.yaml"
        self._file.write_text(yaml.safe_dump(self._on_the_hosts_network()))

    def _on_the_hosts_network(self) -> dict[str, Any]:
        text = COMPOSE.read_text()
        for address, port in self.ports.items():
            text = text.replace(f"//{address}", f"//127.0.0.1:{port}")
            text = text.replace(f"@{address}", f"@127.0.0.1:{port}")
        compose = yaml.safe_load(text)
        del compose["networks"]
        for name, service in compose["services"].items():
            service.pop("ports", None)
            service["network_mode"] = "host"
            if "LURM_NETWORK" in service["environment"]:
                service["environment"]["LURM_NETWORK"] = "host"
            for address, setting in PORTS.items():
                service["environment"] |= {
                    key: value.format(self.ports[address])
                    for key, value in setting.items()
                    if address.startswith(name)
                }
        for name in ("postgres", "store"):
            compose["services"][name]["image"] = f"lurm-test-{name}"
        store = compose["services"]["store"]
        probe = (
            f"import urllib.request as u; u.urlopen('http://127.0.0.1:{self.ports['store:7070']}/')"
        )
        store["healthcheck"]["test"] = ["CMD", "python", "-c", probe]
        return compose

    def compose(self, *args: str) -> str:
        """What a compose command prints."""
        plugin = self.engine.docker("compose", "version", check=False).returncode == 0
        command = [str(self.engine.client), "compose"] if plugin else ["docker-compose"]
        command += ["--file", str(self._file), "--project-directory", str(COMPOSE.parent)]
        command += ["--env-file", str(self._env_file), "--project-name", self.name]
        done = subprocess.run(
            [*command, *args], env=self.engine.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"compose {' '.join(args)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def containers(self) -> dict[str, dict[str, Any]]:
        """The state of every service's container, by the service's name."""
        labels = f"label=com.docker.compose.project={self.name}"
        ids = self.engine.docker("ps", "--all", "--quiet", "--filter", labels).stdout.split()
        if not ids:
            return {}
        found = json.loads(self.engine.docker("inspect", *ids).stdout)
        return {c["Config"]["Labels"]["com.docker.compose.service"]: c["State"] for c in found}

    def ask(
        self, path: str, token: str = "", body: dict[str, Any] | None = None, method: str = ""
    ) -> Any:
        """What Airflow's API answers; `HTTPError` where it refuses."""
        url = f"http://127.0.0.1:{self.ports['api-server:8080']}{path}"
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        data = None if body is None else json.dumps(body).encode()
        request = Request(url, data, headers, method=method or ("GET" if data is None else "POST"))
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def login(self, user: str) -> str:
        """A token of this user's."""
        password = self.settings[f"LURM_PASSWORD_{user.upper()}"]
        return self.ask("/auth/token", body={"username": user, "password": password})[
            "access_token"
        ]


def compose_is_there(engine: Engine) -> bool:
    """Whether compose is at hand, as a plugin of the client or as a program."""
    plugin = engine.docker("compose", "version", check=False).returncode == 0
    return plugin or shutil.which("docker-compose") is not None


def build_stand_ins(engine: Engine, flags: list[str]) -> None:
    """Build the images that stand in for the public ones."""
    for name in ("postgres", "store"):
        file = str(ROOT / "tests/docker/stand_ins.Dockerfile")
        engine.docker(
            "build",
            "--file",
            file,
            "--target",
            name,
            *flags,
            "--tag",
            f"lurm-test-{name}",
            str(ROOT),
        )


def _empty_settings() -> set[str]:
    """The settings that docker/env.example leaves to be filled in."""
    lines = (ROOT / "docker/env.example").read_text().splitlines()
    return {line[:-1] for line in lines if line.endswith("=") and not line.startswith("#")}


def _free_ports(n: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports
