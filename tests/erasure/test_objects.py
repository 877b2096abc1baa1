"""Published files as DVC keeps them: what takes an object's place, in DVC's own eyes too."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from lurm.erasure.objects import Cache, Freed, read_commit
from lurm.erasure.tombstones import Tombstones
from lurm.releases.places import Places
from lurm.releases.workspaces import Workspace
from lurm.storage import read_parquet, write_parquet

KEY = b"a key that is long enough to be one"
STAGES = """
stages:
  cluster:
    cmd: cp standing/README.md {}
    deps: [standing]
    outs: [{}]
"""


def do(folder, *words):
    # `env` looks the command up in the PATH of a workspace, where DVC lies beside Python.
    path = f"PATH={Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["env", path, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def workspace(tmp_path):
    """A repository whose one stage reads a folder that git and DVC fill together."""
    found = Workspace(Places(tmp_path, "", ""), "a run")
    root = found.root
    root.mkdir(parents=True)
    do(root, "git", "init", "--quiet")
    do(root, "dvc", "init", "--quiet")
    (root / "standing").mkdir()
    (root / "standing/README.md").write_text("What a retraining goes on from.\n")
    users = pa.table({"user_id": range(50), "n_behaviors": range(50)})
    write_parquet(users, root / "standing/release/user_vectors.parquet")
    write_parquet(users.slice(0, 1), root / "standing/release/interest_lineage.parquet")
    do(root, "dvc", "add", "standing/release")
    (root / "models").mkdir()
    (root / "dvc.yaml").write_text(STAGES.format(*["models/centres.txt"] * 2))
    do(root, "dvc", "repro")
    do(root, "git", "add", "--all")
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    do(root, "git", *who, "commit", "--quiet", "--message", "a release")
    return found


def test_a_stage_that_stands_on_a_freed_release_is_up_to_date_to_dvc(workspace, tmp_path):
    root = workspace.root
    cache = Cache(root / ".dvc/cache")
    tombstones = Tombstones(KEY, frozenset({Tombstones(KEY).hash(7)}))
    commit = read_commit(workspace, "HEAD")
    (tmp_path / "scratch").mkdir()
    freed = Freed(cache, tombstones, tmp_path / "scratch")
    freed.free([commit])
    for path in ("dvc.lock", "standing/release.dvc"):
        text = (root / path).read_text()
        assert freed.rewritten(text, commit) != text
        (root / path).write_text(freed.rewritten(text, commit))
    (tmp_path / "scratch").rmdir()
    do(root, "dvc", "checkout", "--force")
    users = read_parquet(root / "standing/release/user_vectors.parquet")["user_id"].to_pylist()
    assert users == [user for user in range(50) if user != 7]
    assert len(read_parquet(root / "standing/release/interest_lineage.parquet")) == 1
    assert "up to date" in do(root, "dvc", "status")
