"""A container engine for the tests: one that answers already, or one brought up for them.

An engine serves if it has, or can fetch, the base image of ``docker/Dockerfile``. Where none does, and
this is a Debian with root's rights, an engine is installed and started on a socket of its own, without
touching the network (containers then share the host's), and the base image is a stand-in made from
Debian's packages. Where that cannot be done either, `NoEngineError` says why.

    python tests/docker/engine.py          bring it up; prints DOCKER_HOST=...
    python tests/docker/engine.py --stop   end the one brought up here; its images stay

The engine's folder is LURM_TEST_ENGINE (default: /var/tmp/lurm-engine). It outlives the tests, so that
builds are cached between them.
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

BASE_IMAGE = "python:3.11-slim"
FOLDER = Path(os.environ.get("LURM_TEST_ENGINE", "/var/tmp/lurm-engine"))
SOCKET = FOLDER / "docker.sock"
HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class NoEngineError(RuntimeError):
    """There is no engine and none can be brought up; the message says why."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers: its DOCKER_HOST, a client that can build with it, whose it is."""

    host: str
    client: Path
    own: bool

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which ``docker``, ``make images`` and compose talk to this engine."""
        path = f"{self.client.parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "1", "PATH": path}

    def docker(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The finished client command."""
        done = subprocess.run(
            [self.client, *args], env=self.environment, capture_output=True, text=True
        )
        if check and done.returncode:
            raise RuntimeError(f"docker {' '.join(args)}\n{done.stdout}{done.stderr}")
        return done

    def has_base_image(self) -> bool:
        """Whether the base image is there, or could be pulled."""
        there = self.docker("image", "inspect", BASE_IMAGE, check=False).returncode == 0
        return there or self.docker("pull", "--quiet", BASE_IMAGE, check=False).returncode == 0


def find_or_start() -> Engine:
    """An engine with the base image.

    Raises:
        NoEngineError: there is none, and none can be brought up here.
    """
    for host in (os.environ.get("DOCKER_HOST"), "unix:///var/run/docker.sock"):
        engine = _answering(host) if host and host != f"unix://{SOCKET}" else None
        if engine and engine.has_base_image():
            return engine
    engine = _answering(f"unix://{SOCKET}")
    if engine is None:
        _install()
        engine = _start()
    if engine.docker("image", "inspect", BASE_IMAGE, check=False).returncode:
        _import_base(engine)
    return engine


def stop() -> None:
    """End the engine that was brought up here."""
    pid_file = FOLDER / "docker.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.2)


def _answering(host: str) -> Engine | None:
    """The engine at ``host``, with the first client on PATH that can build with it."""
    for folder in os.environ["PATH"].split(os.pathsep):
        client = shutil.which("docker", path=folder)
        if client and _builds(client):
            engine = Engine(host, Path(client), own=host == f"unix://{SOCKET}")
            if engine.docker("version", check=False).returncode == 0:
                return engine
    return None


def _builds(client: str) -> bool:
    """Whether this client knows BuildKit: by its plugin, or because it dates from before the plugin."""
    if subprocess.run([client, "buildx", "version"], capture_output=True).returncode == 0:
        return True
    done = subprocess.run([client, "--version"], capture_output=True, text=True)
    version = done.stdout.removeprefix("Docker version ").split(".")[0]
    return version.isdigit() and int(version) < 23


def _install() -> None:
    """Install engine and debootstrap from Debian's packages where they are missing."""
    if os.geteuid() != 0:
        raise NoEngineError("no container engine answers, and only root can start one")
    if shutil.which("dockerd") and shutil.which("debootstrap"):
        return
    if not shutil.which("apt-get"):
        raise NoEngineError("no container engine answers, and there is no apt-get to install one")
    install = ["apt-get", "install", "-qq", "--no-install-recommends", "docker.io", "debootstrap"]
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise NoEngineError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _start() -> Engine:
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = ["dockerd", "--host", f"unix://{SOCKET}", "--pidfile", str(FOLDER / "docker.pid")]
    command += ["--data-root", str(FOLDER / "data"), "--exec-root", str(FOLDER / "exec")]
    command += ["--iptables=false", "--ip6tables=false", "--bridge=none"]
    with (FOLDER / "dockerd.log").open("ab") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    for _ in range(60):
        engine = _answering(f"unix://{SOCKET}")
        if engine:
            return engine
        if daemon.poll() is not None:
            break
        time.sleep(0.5)
    raise NoEngineError(f"dockerd did not come up; see {FOLDER / 'dockerd.log'}")


def _import_base(engine: Engine) -> None:
    """Import Debian with its Python under the base image's name, laid out as the official image."""
    root = FOLDER / "base"
    packages = "ca-certificates,python3,python3-pip,python3-venv"
    shutil.rmtree(root, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoEngineError(f"debootstrap failed: {done.stdout[-500:]}{done.stderr}")
    for name, target in (("python", "python3"), ("python3", "python3"), ("pip", "pip3")):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{target}")
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / leftover)
        (root / leftover / "partial").mkdir(parents=True)
    if HOST_CERTIFICATES.exists():  # the host may reach its package index only with them
        shutil.copy(HOST_CERTIFICATES, root / HOST_CERTIFICATES.relative_to("/"))
    archive = FOLDER / "base.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=".")
    engine.docker("import", "--change", 'CMD ["python3"]', str(archive), BASE_IMAGE)
    archive.unlink()
    shutil.rmtree(root)


if __name__ == "__main__":
    if sys.argv[1:] == ["--stop"]:
        stop()
    else:
        print(f"DOCKER_HOST={find_or_start().host}")
