"""What is left by a stage that is killed or finds the disk full, and that a rerun makes it good."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.pipeline.workspaces import Workspace

pytestmark = pytest.mark.slow

# One of each kind.
STAGES = [
    "open_catalog",
    "update_catalog@2017-02",
    "validate_logs@2017-02",
    "compare_months",
    "pin_training@2017-02",
    "pin_catalog",
    "embed_items",
    "cluster_interests",
    "assign_items@2017-03",
    "build_boi@2017-02",
    "build_timelines",
    "pretrain_smen",
    "measure_confidence",
    "encode_users@2017-02",
    "index_users@2017-02",
    "collect_labels@2017-03",
    "train_heads@coffee",
    "apply_heads@2017-02",
    "open_drift",
    "watch_drift@2017-02",
    "report",
    "map_interests",
    "cards",
    "explore",
]


def test_every_stage_is_interrupted_here(complete_journey):
    found = complete_journey.stages()
    assert {name.split("@")[0] for name in found} == {name.split("@")[0] for name in STAGES}


def outputs(workspace: Workspace, stage: str) -> list[str]:
    """The paths that the stage declares."""
    return [out["path"] for out in workspace.stages()[stage]["outs"]]


def files(workspace: Workspace, stage: str, below: str = ".") -> dict[str, str]:
    """MD5 of each file that is an output of the stage, or in one; unfinished ones do not count."""
    root = workspace.root / below
    outs = [root / path for path in outputs(workspace, stage)]
    found = [file for out in outs for file in [out, *out.rglob("*")] if file.is_file()]
    return {
        str(file.relative_to(root)): hashlib.md5(file.read_bytes()).hexdigest()
        for file in found
        if file.suffix != ".tmp"
    }


def largest(workspace: Workspace, stage: str) -> int:
    """Bytes of the largest file the stage writes."""
    return max((workspace.root / file).stat().st_size for file in files(workspace, stage))


def unfinished(workspace: Workspace) -> list[Path]:
    """Temporary files that were left behind."""
    return list(workspace.root.rglob("*.tmp"))


def remove_outputs(workspace: Workspace, stage: str) -> None:
    """As DVC does before it runs a stage."""
    for path in outputs(workspace, stage):
        out = workspace.root / path
        shutil.rmtree(out) if out.is_dir() else out.unlink()


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_leaves_files_whole_or_not_at_all_and_a_rerun_the_bytes_of_a_clean_run(
    workspace, run_stage, stage
):
    clean, half = files(workspace, stage), largest(workspace, stage) // 2
    remove_outputs(workspace, stage)
    killed = run_stage(workspace, stage, limit=half, fatal=True)  # in the middle of a file
    assert killed.status == -signal.SIGXFSZ
    assert files(workspace, stage).items() <= clean.items()
    # before the first, a middle and the last file is put in its place
    for moment in sorted({1, (len(clean) + 1) // 2, len(clean)}):
        assert run_stage(workspace, stage, kill_at=moment).status == -signal.SIGKILL
        assert files(workspace, stage).items() <= clean.items()
    done = run_stage(workspace, stage)
    assert done.status == 0, done.output
    assert files(workspace, stage) == clean


# ---- the whole of DVC ----------------------------------------------------------------------------

# Loaded by every Python at its start: a stage that is about to put the file in its place says so, and
# waits to be killed.
PAUSE = """
import os, sys, time
def pause(event, args):
    if event == "os.rename" and sys.argv[0].startswith("stages/"):
        if str(args[1]).endswith(os.environ["PAUSE_AT"]):
            open(os.environ["PAUSED"], "w").close()
            time.sleep(300)
sys.addaudithook(pause)
"""


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("encode_users@2017-02", "data/states/2017-02/about.json"),
        ("train_heads@age", "reports/heads/age.json"),
    ],
)
def test_after_dvc_and_its_stage_are_killed_the_next_run_ends_in_the_same_bytes(
    complete_journey, workspace, tmp_path, stage, file
):
    before = workspace.hashes()
    cache = complete_journey.root.parent / "cache"  # without what DVC knows of earlier runs
    shutil.copytree(cache, tmp_path / "cache", ignore=shutil.ignore_patterns("runs"))
    workspace.use_cache(tmp_path / "cache")
    workspace.forget(stage)
    (tmp_path / "sitecustomize.py").write_text(PAUSE)
    paused = tmp_path / "paused"
    pausing = {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{workspace.root}",
        "PAUSE_AT": file,
        "PAUSED": str(paused),
    }
    with subprocess.Popen(
        ["dvc", "repro"],
        cwd=workspace.root,
        env=workspace.environment() | pausing,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as dvc:
        while not paused.exists():
            assert dvc.poll() is None
            time.sleep(0.05)
        os.killpg(dvc.pid, signal.SIGKILL)
    assert not (workspace.root / file).exists()

    # DVC's lock ends with the process; it strikes dead processes off its list of who reads and writes.
    again = workspace.do("dvc", "repro")
    assert "had been killed. Auto removed it from the lock file." in again.output
    assert again.ran == [stage]
    assert workspace.hashes() == before
    assert "up to date" in workspace.do("dvc", "status").output


# ---- a full disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_cannot_write_says_so_and_leaves_nothing_half_written(
    workspace, run_stage, stage
):
    clean, half = files(workspace, stage), largest(workspace, stage) // 2
    remove_outputs(workspace, stage)
    done = run_stage(workspace, stage, limit=half)
    assert done.status == 70
    assert "File too large; make room and run again" in done.error
    assert files(workspace, stage).items() <= clean.items()
    assert unfinished(workspace) == []


@pytest.fixture
def small_disk(workspace):
    """A folder of the workspace on a disk of its own; returns its name and how to set its size."""
    folder = workspace.root / "disk"
    folder.mkdir()

    def resize(size: int, options: str = "remount,") -> int:
        command = ["mount", "-t", "tmpfs", "-o", f"{options}size={size}", "lurm-test", str(folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    if resize(1, options="") != 0:
        pytest.skip("not allowed to mount a disk")
    yield folder.name, resize
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "stage",
    [
        "update_catalog@2017-02",
        "validate_logs@2017-02",
        "embed_items",
        "build_boi@2017-02",
        "build_timelines",
        "encode_users@2017-02",
        "train_heads@coffee",
    ],
)
def test_a_full_disk_is_reported_and_with_more_space_the_stage_ends_well(
    workspace, run_stage, small_disk, stage
):
    clean, half = files(workspace, stage), largest(workspace, stage) // 2
    disk, resize = small_disk
    resize(half)
    full = run_stage(workspace, stage, outputs_in=disk)
    assert full.status == 70
    assert "No space left on device; make room and run again" in full.error
    assert files(workspace, stage, disk).items() <= clean.items()
    assert unfinished(workspace) == []
    resize(2 * sum(file.stat().st_size for file in workspace.root.rglob("*")))
    done = run_stage(workspace, stage, outputs_in=disk)
    assert done.status == 0
    assert files(workspace, stage, disk) == clean
