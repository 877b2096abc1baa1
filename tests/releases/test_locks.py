import os
import signal
import subprocess
import sys
import time

import pytest

from lurm.releases.locks import locked

# Holds the lock as told, starts a child that inherits it if told, says its pid, and waits.
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from lurm.releases.locks import locked
path, shared, child = sys.argv[1:]
with locked(Path(path), shared=shared == "shared") as held:
    pid = subprocess.Popen(["sleep", "60"], pass_fds=(held,)).pid if child == "child" else 0
    print(pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a/lock"


@pytest.fixture
def holders():
    """Start processes that hold a lock; they and their children end with the test."""
    pids = []

    def start(path, shared="alone", child="none"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), shared, child],
            stdout=subprocess.PIPE,
            text=True,
        )
        process.child = int(process.stdout.readline())
        pids.extend(pid for pid in (process.pid, process.child) if pid)
        return process

    yield start
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def is_free(path, *, shared=False):
    """Whether another process gets the lock at once."""
    option = "--shared" if shared else "--exclusive"
    return (
        subprocess.run(["flock", option, "--nonblock", path, "true"], check=False).returncode == 0
    )


def test_a_lock_is_held_until_the_block_ends(path):
    with locked(path):
        assert not is_free(path)
        assert not is_free(path, shared=True)
    assert is_free(path)


def test_shared_locks_go_together_and_keep_one_alone_out(path, holders):
    holders(path, "shared")
    with locked(path, shared=True):
        assert is_free(path, shared=True)
        assert not is_free(path)


def test_a_lock_ends_with_a_process_that_is_killed(path, holders):
    holder = holders(path)
    assert not is_free(path)
    holder.kill()
    holder.wait()
    assert is_free(path)


def test_a_child_keeps_the_lock_when_its_parent_is_killed(path, holders):
    parent = holders(path, child="child")
    parent.kill()
    parent.wait()
    assert not is_free(path)
    os.kill(parent.child, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not is_free(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_waits_says_for_what(path, holders, caplog):
    holder = holders(path)
    caplog.set_level("INFO")
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {holder.pid}"])
    with locked(path):
        assert f"{path} is held by another process" in caplog.text
    killer.wait()
