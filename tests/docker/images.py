"""The images of the tests: which stage runs in which (some in both), their largest sizes, the building."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.docker.engine import Engine

ROOT = Path(__file__).parents[2]
TAG = "test"

STAGES = {
    "logs": [
        "build_boi",
        "cards",
        "collect_labels",
        "compare_months",
        "explore",
        "pin_training",
        "report",
        "update_catalog",
        "validate_logs",
    ],
    "models": [
        "apply_heads",
        "carry_heads",
        "assign_items",
        "build_timelines",
        "cluster_interests",
        "collect_labels",
        "embed_items",
        "encode_users",
        "index_users",
        "map_interests",
        "measure_confidence",
        "open_drift",
        "pin_training",
        "pretrain_smen",
        "train_heads",
        "update_catalog",
        "watch_drift",
    ],
}
LARGEST_MB = {"logs": 1150, "models": 2150, "airflow": 750}

# The port is the same every time: build arguments are part of what the engine's cache goes by.
_WHEEL_PORT = 8771


def build(engine: Engine, tag: str = TAG) -> None:
    """Build all images by ``make images``."""
    with build_flags(engine) as flags:
        command = ["make", "images", f"TAG={tag}", f"BUILD_FLAGS={' '.join(flags)}"]
        done = subprocess.run(
            command, cwd=ROOT, env=engine.environment, capture_output=True, text=True
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{(done.stdout + done.stderr)[-5000:]}")


@contextmanager
def build_flags(engine: Engine) -> Iterator[list[str]]:
    """What ``docker build`` needs to reach the package index that this machine's pip uses."""
    flags = ["--network=host"] if engine.own else []
    with _wheels() as wheels:
        settings = {name: os.environ.get(name) for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")}
        settings["PIP_FIND_LINKS"] = wheels
        yield flags + [f"--build-arg={name}={value}" for name, value in settings.items() if value]


@contextmanager
def _wheels() -> Iterator[str | None]:
    """PIP_FIND_LINKS as a build can reach it: a folder of this machine is served on loopback."""
    place = os.environ.get("PIP_FIND_LINKS")
    if not place or not Path(place).is_dir():
        yield place
        return
    handler = partial(_Quiet, directory=place)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", _WHEEL_PORT), handler)
    except OSError:  # another run serves there; this one's builds are then not from the cache
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing about requests."""
