"""Somebody else, elsewhere, goes on from what was pushed."""

import pytest

from tests.pipeline.workspaces import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def clone(workspace, tmp_path):
    """A clone that has nothing but git and the remote, pulled."""
    workspace.do("dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    workspace.do("dvc", "push")
    workspace.commit("a remote")
    (tmp_path / "elsewhere").mkdir()
    clone = Workspace(tmp_path / "elsewhere/workspace")
    workspace.do("git", "clone", "--quiet", ".", str(clone.root))
    clone.do("dvc", "pull")
    return clone


def test_a_clone_goes_on_from_what_was_pushed_and_runs_only_what_a_setting_touches(
    clone, workspace
):
    assert clone.repro() == []
    clone.set(evaluation={"head": "mlp"})
    told = {
        f"{stage}@{month}"
        for stage in ("apply_heads", "watch_drift")
        for month in ("2017-01", "2017-02", "2017-03")
    }
    trained = {"train_heads@coffee", "train_heads@age"}
    assert set(clone.repro()) == {*trained, *told, "report", "cards", "explore"}
    before, after = workspace.hashes(), clone.hashes()
    changed = {path for path in before if before[path] != after[path]}
    assert {path.split("/")[1] for path in changed} <= {
        "heads",
        "predictions",
        "roc",
        "drift",
        "report.html",
        "explorer.html",
        "scores.json",
        "model_card.md",
    }
