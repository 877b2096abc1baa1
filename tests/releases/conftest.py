"""The platforms that tests start from; made once, under pytest-xdist by the first worker."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.workspaces import Workspace
from tests.releases import platforms
from tests.releases.platforms import Platform


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Make a folder by its name, unless it is made."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if place.name.startswith("popen-") else place

    def make_once(name: str, make: Callable[[Path], None]) -> Path:
        folder = place / name
        with (place / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / f"{name}.made").exists():
                make(folder)
                (place / f"{name}.made").touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def new_platform(once) -> Platform:
    """Three months delivered, nothing published. Never changed."""
    return Platform(once("new_platform", platforms.found))


@pytest.fixture(scope="session")
def first_release(once, new_platform) -> Platform:
    """The same with the first release published: trained through the second month. Never changed."""

    def make(folder: Path) -> None:
        platforms.bootstrap(new_platform.copy(folder))

    return Platform(once("first_release", make))


@pytest.fixture(scope="session")
def six_months(once, first_release) -> Platform:
    """The same with three refreshes published, one after the other. Never changed."""

    def make(folder: Path) -> None:
        platforms.refresh_in_order(first_release.copy(folder))

    return Platform(once("six_months", make))


@pytest.fixture(scope="session")
def plain(once, new_platform) -> Workspace:
    """The six months landed in a clone of the project, and one plain ``dvc repro``. Never changed."""
    return Workspace(once("plain_repro", new_platform.repro_plainly) / "project/workspace")


@pytest.fixture
def platform(first_release, tmp_path) -> Platform:
    """A copy of the first release."""
    return first_release.copy(tmp_path / "platform")


@pytest.fixture
def later(six_months, tmp_path) -> Platform:
    """A copy of the six months."""
    return six_months.copy(tmp_path / "platform")
