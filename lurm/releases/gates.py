"""The gate of a retraining: new models replace the standing ones only if they are as good.

Both are judged on the same labels, users and folds: heads are trained anew on the vectors of either, as
of the new cut-off, which neither has seen beyond. If the new vectors keep the space of the standing ones,
the heads of these are tried on them too, and must lose next to nothing against heads trained anew; and
interests that went on from the standing ones must hold their items as closely as after a cold start.
"""

import logging
from collections.abc import Mapping
from typing import Any

from lurm.metrics import paired_interval
from lurm.params import Params, load_params
from lurm.releases.workspaces import RELEASE_MODEL, Workspace
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
    if "cold_start" in interests:
        found["cosine_loss"] = cosine_loss(interests)
        if found["cosine_loss"] > limits.max_cosine_loss:
            faults.append(
                f"the mean cosine of items to their interests is {found['cosine_loss']:.1%} below that of "
                f"a cold start, at most {limits.max_cosine_loss:.1%} are allowed (gate.max_cosine_loss); "
                "set cluster_interests.start to anew"
            )
    if RELEASE_MODEL in workspace.outputs(workspace.published()):
        compared, at_fault = _compare(workspace, settings)
        found |= compared
        faults += at_fault
    write_json(
        found | {"passed": not faults, "faults": faults}, workspace.root / "reports/gate.json"
    )
    if faults:
        raise ValueError(f"the standing release stays: {'; '.join(faults)}")
    write_text(workspace.published(), workspace.folder / PASSED)
    return found


def cosine_loss(interests: Mapping[str, Any]) -> float:
    """By what share the mean cosine is below that of a cold start; by items or behaviors, what is worse.

    >>> now, cold = {"mean_cosine": 0.9}, {"mean_cosine": 0.92}
    >>> cosine_loss({"items": now, "behaviors": cold, "cold_start": {"items": cold, "behaviors": cold}})
    0.021739
    """
    cold = interests["cold_start"]
    losses = (
        1 - interests[by]["mean_cosine"] / cold[by]["mean_cosine"] for by in ("items", "behaviors")
    )
    return round(max(losses), 6)


def _compare(workspace: Workspace, settings: Params) -> tuple[dict[str, Any], list[str]]:
    """The new models beside the standing ones, and what is too bad to pass."""
    evaluation, limits, results = settings.evaluation, settings.gate, {}
    for task in settings.tasks:
        result = read_json(workspace.root / f"reports/heads/{task}.json")
        if "skipped" not in result:
            results[task] = [fold["auc"] for fold in result["folds"]]
    old = standing_scores(workspace, evaluation.as_of, list(results))
    tasks = [task for task in results if "skipped" not in old[task]]
    if not tasks:
        return {"tasks": {}}, []
    scores = {task: {"new": results[task], **old[task]} for task in tasks}

    def difference(of: str, to: str) -> dict[str, float]:
        """AUC of the one minus the other: mean over tasks and folds, and its interval."""
        paired = [
            sum(score[of][fold] - score[to][fold] for score in scores.values()) / len(tasks)
            for fold in range(evaluation.folds * evaluation.repeats)
        ]
        ends = paired_interval(paired, 1 / evaluation.folds, limits.confidence)
        return dict(zip(("mean", "low", "high"), ends, strict=True))

    def in_words(change: Mapping[str, float], sign: int) -> str:
        low, high = sorted(sign * 100 * change[end] for end in ("low", "high"))
        return (
            f"by {abs(100 * change['mean']):.1f} points ({limits.confidence:.0%} interval "
            f"{low:.1f} to {high:.1f})"
        )

    found: dict[str, Any] = {
        "auc_difference": difference("new", "standing"),
        "tasks": {
            task: {name: _mean(values) for name, values in score.items()}
            for task, score in scores.items()
        },
    }
    faults = []
    change = found["auc_difference"]
    if change["mean"] < -limits.max_auc_loss and change["high"] < 0:
        faults.append(
            f"the mean AUC over {len(tasks)} tasks falls {in_words(change, 1)}, at most "
            f"{100 * limits.max_auc_loss:.1f} are allowed (gate.max_auc_loss)"
        )
    if any("carried" not in score for score in scores.values()):  # vectors of another width
        return found, faults
    found["head_loss"] = lost = difference("new", "carried")
    if any("unaligned" not in score for score in scores.values()):  # a new space
        return found, faults
    found["head_loss_unaligned"] = difference("raw", "unaligned")
    found["alignment_loss"] = difference("raw", "new")
    if lost["mean"] > limits.max_head_loss and lost["low"] > 0:
        faults.append(
            f"heads of the standing release lose against heads trained anew on the new vectors "
            f"{in_words(lost, 1)}, at most {100 * limits.max_head_loss:.1f} are allowed "
            "(gate.max_head_loss); set pretrain_smen.space to new, and have heads trained anew"
        )
    return found, faults


def has_passed(workspace: Workspace) -> bool:
    """Whether the gate let the new models pass against what is published now."""
    mark = workspace.folder / PASSED
    return mark.exists() and mark.read_text("utf-8") == workspace.published()


def standing_scores(
    workspace: Workspace, as_of: str, tasks: list[str]
) -> dict[str, dict[str, list[float]]]:
    """AUC of every fold by task and by what ``stages/carry_heads.py`` tells apart.

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
            "python", "-m", "stages.carry_heads", "--task", task, "--labels", labels[task]["labels"],
            "--standing", str(vectors), "--vectors", path, "--bags", "data/boi", "--smen", RELEASE_MODEL,
            "--result", str(place / f"{task}.json"),
        )  # fmt: skip
    return {task: read_json(place / f"{task}.json") for task in tasks}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
