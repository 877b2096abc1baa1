"""The engine and the images that the tests of this folder share."""

import fcntl

import pytest

from tests.docker import engine as engines
from tests.docker import images as builds
from tests.docker.engine import Engine, NoEngineError


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine that answers; tests that ask for it are skipped where there is none."""
    with (tmp_path_factory.getbasetemp().parent / "engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two workers of pytest-xdist bring up one engine
        try:
            found = engines.find_or_start()
        except NoEngineError as reason:
            pytest.skip(str(reason))
    return found


@pytest.fixture(scope="session")
def images(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The full name of each image, by its short one; built, or taken from the engine's cache."""
    with (tmp_path_factory.getbasetemp().parent / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        builds.build(engine)
    return {name: f"lurm-{name}:{builds.TAG}" for name in builds.LARGEST_MB}
