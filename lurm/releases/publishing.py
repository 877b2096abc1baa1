"""Publishing: what a run made becomes visible in one step, or not at all.

First the files go to the DVC store; then commit, tags and branches to the repository, in one atomic
push. A tag never moves: ``refresh/2017-08/r1``, and after a correction ``refresh/2017-08/r2``. The branch
``refresh/2017-08`` points to the newest of them, and ``release/2`` to the second set of models.
"""

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from lurm.releases.gates import gate, has_passed
from lurm.releases.locks import locked
from lurm.releases.plans import Plan, Refresh, Retrain, read_plan
from lurm.releases.workspaces import (
    BRANCH,
    RELEASE_MODEL,
    CommandError,
    Workspace,
    bring_up_to_date,
)
from lurm.storage import read_json, read_settings, write_json

ATTEMPTS = 5  # against runs that publish from other machines, which the lock does not hold off

log = logging.getLogger(__name__)


def publish(workspace: Workspace) -> dict[str, Any]:
    """Publish what the run made, on top of what is published by then; returns commit and names.

    Nothing new under an existing name leaves everything as it is.

    Raises:
        CommandError: a stage fails on top of what was published meanwhile, the store or the
            repository cannot be reached, or others published all the time.
        ValueError: something in the workspace is not up to date, or new models do not pass the gate.
    """
    plan = read_plan(workspace.folder)
    with locked(workspace.places.home / "publish.lock") as lock:
        alone = Workspace(workspace.places, workspace.run, (*workspace.keeps, lock))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _publish(alone, plan)
            except CommandError as error:
                if "[rejected]" not in error.output or attempt == ATTEMPTS:
                    raise
                log.info("somebody else published first; once more, on top of that")
    raise AssertionError("unreachable")


def _publish(workspace: Workspace, plan: Plan) -> dict[str, Any]:
    bring_up_to_date(workspace, plan.prepare)
    workspace.do("git", "reset", "--quiet", workspace.published())  # a commit of a killed attempt
    workspace.do("dvc", "repro", *plan.everything(workspace))
    _check_up_to_date(workspace)
    if isinstance(plan, Retrain) and not has_passed(workspace):
        gate(workspace)
    tags = plan.tags(workspace)
    changed = workspace.outputs() != workspace.outputs(workspace.published())
    if not tags and not changed:
        return {"commit": workspace.published(), "published": []}
    if changed:
        workspace.do("dvc", "push")
        write_json(_record(workspace, plan, tags), workspace.root / "reports/release.json")
        workspace.do("git", "add", "--all")
        workspace.do("git", "commit", "--quiet", "--message", plan.title)
    head = workspace.ask("rev-parse", "HEAD")
    names = [f"{head}:refs/tags/{tag}" for tag in tags]
    if isinstance(plan, Refresh):
        names += [f"+{head}:refs/heads/{tag.rpartition('/')[0]}" for tag in tags]
    workspace.do(
        "git", "push", "--quiet", "--atomic", "origin", f"{head}:refs/heads/{BRANCH}", *names
    )
    return {"commit": head, "published": tags}


def _check_up_to_date(workspace: Workspace) -> None:
    stale = workspace.do("dvc", "status", "--json").strip().splitlines()[-1]
    if stale != "{}":
        raise ValueError(
            f"expected every stage to be up to date before publishing, found {stale}; a refresh leaves "
            "models as they are: if code or settings of a training stage have changed, run lurm_retrain"
        )


def _record(workspace: Workspace, plan: Plan, tags: list[str]) -> dict[str, Any]:
    """What a release says of itself: whose vectors in which space, what for, from what, by which images."""
    steps = sorted((workspace.folder / "steps").glob("*.json"))
    images = {path.stem: read_json(path).get("image") for path in steps}
    before = workspace.ask("show", f"{workspace.published()}:reports/release.json")
    return {
        **compatibility(
            read_settings(workspace.root / RELEASE_MODEL), json.loads(before) if before else {}
        ),
        "plan": plan.model_dump(),
        "names": tags,
        "on_top_of": workspace.published(),
        "runner": os.environ.get("LURM_RUNNER", "process"),
        "images": {step: image for step, image in images.items() if image},
    }


def compatibility(about: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Model and space version, and the models published before whose vectors and heads share the space.

    Args:
        about: the settings in the header of the encoder that is published.
        before: what the publication before said of itself; empty before there was one.

    >>> first = compatibility({"model_version": "a"}, {})
    >>> first
    {'model_version': 'a', 'space_version': 'a', 'compatible_with': []}
    >>> compatibility({"model_version": "b", "space_version": "a"}, first)["compatible_with"]
    ['a']
    >>> compatibility({"model_version": "c"}, first)["compatible_with"]
    []
    """
    model = about["model_version"]
    space = about.get("space_version", model)
    earlier: list[str] = []
    if before.get("space_version", before.get("model_version")) == space:
        earlier = [*before.get("compatible_with", []), before["model_version"]]
    return {
        "model_version": model,
        "space_version": space,
        "compatible_with": [name for name in dict.fromkeys(earlier) if name != model],
    }
