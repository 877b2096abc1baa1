"""What is left by a step that is killed, loses its store or finds the disk full, and how it goes on."""

import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager

import psutil
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from tests.releases.platforms import (
    DONE,
    FAILED,
    Platform,
    check,
    kill_tree,
)
from tests.releases.whole import check_whole

pytestmark = pytest.mark.slow

MONTH, NAME = "2017-04", "refresh/2017-04"
# All that is up to date before publishing; `report` hangs on all but the two others.
ALL = ("open", "encode_users", "apply_heads", "report")


# What publishing does, in this order.
COMMANDS = [
    *("git fetch", "dvc repro", "dvc status", "dvc push", "git add", "git commit", "git push")
]


@pytest.fixture
def ready(platform):
    """A platform with a run of a month that has all but published."""
    platform.deliver(MONTH)
    check(platform.run_month(MONTH, run="run", steps=ALL))
    return platform


# ---- killed --------------------------------------------------------------------------------------


def kill_before(platform: Platform, command: str) -> None:
    """Publish, and kill -9 all of it as the command is about to begin."""
    with platform.started("publish", "--run", "run") as process:
        for line in process.stderr:
            if line.startswith(f"$ {command}"):
                kill_tree(process)
                process.wait()
                return
    raise AssertionError(f"{command} did not come")


def test_publishing_that_is_killed_at_each_of_its_steps_shows_all_or_nothing(ready, six_months):
    before = ready.names()
    for command in COMMANDS:
        kill_before(ready, command)
        assert ready.names() == before, command
        assert "publish" not in ready.steps("run")
    with ready.started("publish", "--run", "run") as process:  # as soon as it can be seen
        while ready.names() == before:
            assert process.poll() is None
        kill_tree(process)
    assert set(ready.names()) == {*before, NAME, f"{NAME}/r1"}
    check_whole(ready)
    visible = ready.names()
    again = ready.step("run", "publish")
    assert again.status == DONE
    assert again.result == {"commit": visible["main"], "published": []}
    assert ready.names() == visible
    assert ready.hashes() == six_months.hashes(NAME)
    assert ready.git("rev-parse", f"{NAME}^") == before["main"]


def test_half_a_push_is_completed_by_the_next_try(ready, six_months):
    # As if git had been killed between two names of its one transaction.
    check({"publish": ready.step("run", "publish")})
    ready.git("update-ref", "-d", f"refs/tags/{NAME}/r1")
    ready.git("update-ref", "-d", f"refs/heads/{NAME}")
    assert ready.step("run", "publish").result["published"] == [f"{NAME}/r1"]
    names = ready.names()
    assert names[NAME] == names[f"{NAME}/r1"] == names["main"]
    assert ready.hashes() == six_months.hashes(NAME)


def words_of(process: psutil.Process) -> list[str]:
    """The command line of a process; none if it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@contextmanager
def stopped_stage(platform: Platform, script: str):
    """A step at work whose stage stands still; yields the step, DVC and the stage."""
    with platform.started("run", "--run", "run", "build_boi") as step:
        found: dict[str, psutil.Process] = {}
        while "stage" not in found:
            assert step.poll() is None
            for child in psutil.Process(step.pid).children(recursive=True):
                words = words_of(child)
                if script in words and "python" in words[0]:
                    child.suspend()
                    found["stage"] = child
                elif "repro" in words:
                    found["dvc"] = child
            time.sleep(0.01)
        try:
            yield step, found["dvc"], found["stage"]
        finally:
            if found["stage"].is_running():
                found["stage"].kill()


@pytest.fixture
def opened(platform):
    """A platform with a run of a month that has only opened."""
    platform.deliver(MONTH)
    check(platform.run_month(MONTH, run="run", steps=("open",)))
    return platform


def test_a_killed_stage_is_a_failure_and_its_step_can_be_repeated(opened, six_months):
    with stopped_stage(opened, "stages/build_boi.py") as (step, _, stage):
        stage.kill()
        _, log = step.communicate()
        assert step.returncode == FAILED
        assert "failed to reproduce 'build_boi@2017-04'" in log
        assert "exited with -9" in opened.steps("run")["build_boi"]["reason"]
    assert opened.step("run", "build_boi").result["ran"] == ["build_boi@2017-04"]
    check({"publish": opened.step("run", "publish")})
    assert opened.hashes() == six_months.hashes(NAME)


@pytest.mark.parametrize("victims", [("step",), ("step", "dvc")])
def test_a_retry_does_not_run_beside_what_a_killed_step_left(opened, victims):
    with stopped_stage(opened, "stages/build_boi.py") as (step, dvc, stage):
        for victim, process in (("step", step), ("dvc", dvc)):
            if victim in victims:
                process.kill()
                process.wait()
        with opened.started("run", "--run", "run", "build_boi") as retry:
            assert "run/lock is held by another process; waiting" in retry.stderr.readline()
            time.sleep(1)
            assert psutil.Process(retry.pid).children() == []
            stage.resume()
            out, log = retry.communicate()
            assert retry.returncode == DONE, log
        # Whoever adopts an orphan may take a while to reap it.
        assert not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE
    assert '"stage": "build_boi"' in out


# ---- a store out of reach ------------------------------------------------------------------------


class Gate:
    """A way to a server that closes for good before the given number of files has gone through."""

    def __init__(self, port: int, files: int) -> None:
        self.port, self.files, self.sent = port, files, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def open(self) -> None:
        """Let everything through."""
        self.files = 10**9

    def _serve(self) -> None:
        while True:
            client, _ = self.listener.accept()
            if self.sent >= self.files:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.port))
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._relay, args=ends, daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                self.sent += data.startswith(b"PUT ")
                if self.sent >= self.files:
                    break
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                end.close()


SECRET = "not-to-be-found-anywhere"


@pytest.fixture
def far(ready, tmp_path):
    """The platform ready to publish, its store behind a gate; with the gate, and what reaches S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    keys = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": SECRET}
    files = S3FileSystem(
        key="a-key", secret=SECRET, client_kwargs={"endpoint_url": f"http://127.0.0.1:{port}"}
    )
    files.mkdir("lurm")
    files.put(f"{ready.store}/", "lurm/store/", recursive=True)
    gate = Gate(port, files=10**9)
    ready.change(
        "the store moves",
        at=tmp_path / "person",
        config={f"url = {ready.store}": f"url = s3://lurm/store\n    endpointurl = {gate.address}"},
    )
    limits = {"AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1"}
    yield Platform(ready.folder, keys | limits), gate, files
    server.stop()


def test_a_store_that_goes_away_in_the_middle_of_a_push_leaves_nothing_published(far, six_months):
    platform, gate, files = far
    before, there = platform.names(), len(files.find("lurm/store"))
    gate.files = gate.sent + 5
    failed = platform.step("run", "publish")
    assert failed.status == FAILED
    assert failed.reason.startswith("dvc push ended with status")
    assert "no output" not in failed.reason
    assert there <= len(files.find("lurm/store", refresh=True)) < there + 5
    assert platform.names() == before

    gone = platform.run_month(MONTH, run="another", steps=("open",))["open"]
    assert gone.status == FAILED  # cannot even pull
    assert "endpoint URL" in gone.reason

    gate.open()
    done = platform.step("run", "publish")
    assert done.status == DONE, done.log
    assert done.result["published"] == [f"{NAME}/r1"]
    assert platform.hashes() == six_months.hashes(NAME)
    files.invalidate_cache()
    for md5 in set(platform.hashes().values()) - in_git(platform):
        assert files.exists(f"lurm/store/files/md5/{md5[:2]}/{md5[2:]}")

    for log in (failed.log, gone.log, done.log):
        assert SECRET not in log
    found = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", SECRET, str(platform.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
    patches = platform.git("log", "--all", "--patch")
    assert SECRET not in patches


def in_git(platform: Platform) -> set[str]:
    """The MD5 of outputs that git keeps, not DVC."""
    stages = platform.at("main", "dvc.lock")["stages"].values()
    files = platform.git("ls-tree", "-r", "--name-only", "main").splitlines()
    return {out["md5"] for stage in stages for out in stage["outs"] if out["path"] in files}


# ---- a full disk ---------------------------------------------------------------------------------


@contextmanager
def small_disk(folder):
    """Let the folder lie on a disk of its own; yields how to leave room of so many bytes."""
    kept = folder.with_name(f"{folder.name}.kept")
    folder.rename(kept)
    folder.mkdir()

    def mount(options: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", options, "lurm-test", str(folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    if mount("size=1g") != 0:
        pytest.skip("not allowed to mount a disk")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True, symlinks=True)

        def leave(room: int) -> None:
            used = shutil.disk_usage(folder).used
            assert mount(f"remount,size={used + room}") == 0

        yield leave
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_at_work_is_told_and_with_more_room_the_run_goes_on(opened, six_months):
    before = opened.names()
    with small_disk(opened.home) as leave:
        leave(64 << 10)
        full = opened.step("run", "encode_users")
        assert full.status == FAILED, full.log
        assert "No space left on device" in full.reason
        assert opened.step("run", "publish").status == FAILED
        assert opened.names() == before
        leave(1 << 30)
        assert opened.step("run", "encode_users").status == DONE
        check({"publish": opened.step("run", "publish")})
    assert opened.hashes() == six_months.hashes(NAME)
    check_whole(opened)


@pytest.mark.parametrize("place", ["store", "repository"])
def test_a_full_disk_where_it_is_published_leaves_nothing_published(ready, six_months, place):
    before = ready.names()
    with small_disk(getattr(ready, place)) as leave:
        leave(0)
        full = ready.step("run", "publish")
        assert full.status == FAILED, full.log
        assert full.reason
        assert ready.names() == before
        leave(1 << 30)
        check({"publish": ready.step("run", "publish")})
        assert ready.hashes() == six_months.hashes(NAME)
        check_whole(ready)
