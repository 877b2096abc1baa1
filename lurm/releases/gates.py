"""The gate of a retraining: new models replace the standing ones only if they are as good.

Both are judged on the same labels, users and folds: heads are trained anew on the vectors of either, as
of the new cut-off, which neither has seen beyond.
"""

import logging
from pathlib import Path
from typing import Any

from lurm.metrics import paired_interval
from lurm.params import load_params
from lurm.releases.plans import RELEASE_MODEL
from lurm.releases.workspaces import Workspace
from lurm.storage import read_json, write_json, write_text

PASSED = "passed-against"  # file of a run: the published commit that its models were compared with

log = logging.getLogger(__name__)


def gate(workspace: Workspace) -> dict[str, Any]:
    """What the gate finds, also in ``reports/gate.json``.

    Raises:
        ValueError: the new models do not pass.
    """
    settings = load_params(workspace.root / "params.yaml")
    limits = settings.gate
    interests = read_json(workspace.root / "reports/cluster_interests.json")
    found: dict[str, Any] = {"empty_interests": interests["behaviors"]["share_empty"]}
    faults = []
    if found["empty_interests"] > limits.max_empty_interests:
        faults.append(
            f"{found['empty_interests']:.1%} of the interests hold no behavior, at most "
            f"{limits.max_empty_interests:.1%} are allowed (gate.max_empty_interests)"
        )
    if RELEASE_MODEL in workspace.outputs(workspace.published()):
        evaluation = settings.evaluation
        standing = standing_scores(workspace, evaluation.as_of, list(settings.tasks))
        new = {t: _auc(workspace.root / f"reports/heads/{t}.json") for t in settings.tasks}
        differences = [
            sum(new[t][fold] - standing[t][fold] for t in new) / len(new)
            for fold in range(evaluation.folds * evaluation.repeats)
        ]
        mean, low, high = paired_interval(differences, 1 / evaluation.folds, limits.confidence)
        found |= {
            "auc_difference": {"mean": mean, "low": low, "high": high},
            "tasks": {
                t: {"new": _mean(new[t]), "standing": _mean(standing[t])} for t in settings.tasks
            },
        }
        if mean < -limits.max_auc_loss and high < 0:
            faults.append(
                f"the mean AUC over {len(new)} tasks falls by {-100 * mean:.1f} points "
                f"({limits.confidence:.0%} interval {100 * low:.1f} to {100 * high:.1f}), at most "
                f"{100 * limits.max_auc_loss:.1f} are allowed (gate.max_auc_loss)"
            )
    write_json(
        found | {"passed": not faults, "faults": faults}, workspace.root / "reports/gate.json"
    )
    if faults:
        raise ValueError(f"the standing release stays: {'; '.join(faults)}")
    write_text(workspace.published(), workspace.folder / PASSED)
    return found


def has_passed(workspace: Workspace) -> bool:
    """Whether the gate let the new models pass against what is published now."""
    mark = workspace.folder / PASSED
    return mark.exists() and mark.read_text("utf-8") == workspace.published()


def standing_scores(workspace: Workspace, as_of: str, tasks: list[str]) -> dict[str, list[float]]:
    """AUC of every fold and task with heads trained on the published vectors as of a month.

    Raises:
        ValueError: the standing release has not encoded that month.
    """
    path, place = f"data/user_vectors/{as_of}.parquet", workspace.folder / "gate"
    if path not in workspace.outputs(workspace.published()):
        raise ValueError(
            f"expected the standing release's vectors as of {as_of}, to compare with, found none; "
            "let lurm_refresh publish that month first"
        )
    vectors = place / "vectors.parquet"
    vectors.unlink(missing_ok=True)  # a link into the cache, which DVC would write through
    workspace.do(
        "dvc", "get", "--force", ".", path, "--rev", workspace.published(),
        "--out", str(vectors),
    )  # fmt: skip
    labels = workspace.params()["tasks"]
    for task in tasks:
        workspace.do(
            "python", "stages/train_heads.py", "--task", task, "--labels", labels[task]["labels"],
            "--vectors", str(vectors), "--head", str(place / f"{task}.safetensors"),
            "--result", str(place / f"{task}.json"), "--roc", str(place / f"{task}.csv"),
        )  # fmt: skip
    return {task: _auc(place / f"{task}.json") for task in tasks}


def _auc(path: Path) -> list[float]:
    return [fold["auc"] for fold in read_json(path)["folds"]]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
