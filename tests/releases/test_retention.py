"""What is removed, and what stays: every published name, and every run that may go on."""

import hashlib
import os
import subprocess
import time

import pytest

from lurm.releases.locks import locked
from tests.releases.platforms import DONE, LATER, SHORT, check, get, vectors
from tests.releases.test_corrections import correct
from tests.releases.whole import check_whole

pytestmark = pytest.mark.slow


def age(folder, days):
    """Make a run look as if it was touched last so long ago."""
    then = time.time() - days * 86_400
    for path in (folder, *folder.glob("steps/*.json")):
        os.utime(path, (then, then))


def objects(place):
    """The MD5 of all objects of a cache or store."""
    return {path.parent.name + path.name for path in place.glob("files/md5/??/*")}


def test_runs_and_files_that_nothing_names_are_removed_and_every_name_stays_whole(later, tmp_path):
    # One run is published, one has opened, one was given up, and one was killed as it began.
    later.deliver(*LATER)
    correct(later, "2017-06")
    check(later.run_month("2017-06", run="published", steps=SHORT))
    correct(later, "2017-05")
    check(later.run_month("2017-05", run="young", steps=("open", "build_boi")))
    correct(later, "2017-04")
    check(later.run_month("2017-04", run="given-up", steps=("open", "build_boi")))
    age(later.home / "runs/given-up", days=31)
    (later.home / "runs/killed").mkdir()
    unneeded = later.store / "files/md5/12/3456789012345678901234567890ab"
    unneeded.parent.mkdir(exist_ok=True)
    unneeded.touch()
    names, before = later.names(), objects(later.home / "cache")

    pruned = later.release("prune", "--days", "30", "--store")
    assert pruned.status == DONE, pruned.log
    assert pruned.result == {"removed": ["given-up", "published"], "kept": ["killed", "young"]}
    assert not unneeded.exists()
    assert objects(later.home / "cache") < before
    assert later.names() == names
    check_whole(later)
    for name in names:
        for month in later.at(name, "params.yaml")["months"]:
            got = get(later, vectors(month), name, tmp_path / "consumer")
            assert hashlib.md5(got).hexdigest() == later.hashes(name)[vectors(month)]

    # The young one goes on as if nothing had been.
    published = later.step("young", "publish")
    assert published.result["published"] == ["refresh/2017-05/r2", "refresh/2017-06/r3"]
    check_whole(later)


def test_pruning_waits_for_steps_at_work(platform):
    with (
        locked(platform.home / "cache.lock", shared=True),
        platform.started("prune") as process,
    ):
        assert "cache.lock is held by another process; waiting" in process.stderr.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)


def test_a_run_that_is_opened_again_is_no_longer_a_published_one(platform):
    platform.deliver("2017-04")
    check(platform.run_month("2017-04", run="again", steps=SHORT))
    correct(platform, "2017-04")
    check(platform.run_month("2017-04", run="again", steps=("open",)))
    assert platform.release("prune").result == {"removed": [], "kept": ["again"]}
    assert platform.step("again", "publish").result["published"] == ["refresh/2017-04/r2"]
