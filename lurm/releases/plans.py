"""What a run is for: the refresh of one month, or a retraining.

The plan is made once, when the run opens its workspace, and kept as ``<run>/plan.json``; no later step
asks again which month it is.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from lurm.landing import delivered_months
from lurm.months import month_name, month_number
from lurm.params import Month, Section
from lurm.releases.standing import stand_on
from lurm.releases.workspaces import BRANCH, RELEASE_MODEL, Workspace, land
from lurm.storage import read_json, replacing, write_json, write_text

# Stages that make models; a refresh must find them as the release left them.
TRAINING = (
    *("pin_training", "pin_catalog", "embed_items", "cluster_interests", "build_timelines"),
    *("pretrain_smen", "collect_labels", "train_heads", "open_drift"),
    *("measure_confidence", "map_interests"),
)


class Refresh(Section):
    """The run for one month: brings it in, and what hangs on it up to date, under the standing models."""

    kind: Literal["refresh"] = "refresh"
    month: Month

    @property
    def title(self) -> str:
        """For the published commit."""
        return f"refresh {self.month}"

    def prepare(self, workspace: Workspace) -> None:
        """Land the month, as it lies there now, and those before it that are not in yet.

        Raises:
            ValueError: there is no release to refresh, or its models no longer belong to the code and
                the settings.
        """
        if RELEASE_MODEL not in workspace.outputs():
            raise ValueError(
                f"{self.month}: expected a release on branch {BRANCH} of "
                f"{workspace.places.repository}, found none; trigger lurm_retrain first"
            )
        known = list(workspace.params()["months"])
        stale = workspace.do("dvc", "status", "--json", *TRAINING).strip().splitlines()[-1]
        if stale != "{}":
            raise ValueError(
                f"{self.month}: a refresh leaves models as they are, but code or settings of training "
                f"stages have changed: {stale}; trigger lurm_retrain"
            )
        land(workspace, months_to_land(known, self.month), users=False)

    def targets(self, workspace: Workspace, stage: str) -> list[str]:
        """What DVC is to bring up to date: of a monthly stage, the month and those after it."""
        if not is_monthly(workspace, stage):
            return [stage]
        return [f"{stage}@{month}" for month in workspace.params()["months"] if month >= self.month]

    def everything(self, workspace: Workspace) -> list[str]:
        """What DVC is to bring up to date before publishing: all but the models."""
        monthly = [name for name in stages(workspace) if is_monthly(workspace, name)]
        return [*monthly, "compare_months", "report", "cards", "explore"]

    def tags(self, workspace: Workspace) -> list[str]:
        """The new names of what is to be published: one for each month whose vectors are new.

        The month itself gets one if it has none that holds its vectors as they are now; a later
        month, which a correction reaches too, if it has been published before.
        """
        now, names = workspace.outputs(), []
        for month in workspace.params()["months"]:
            tags = workspace.ask("tag", "--list", f"refresh/{month}/r*").split()
            taken = max(map(revision, tags), default=0)  # erasure leaves gaps
            vectors = f"data/user_vectors/{month}.parquet"
            if month < self.month or (month > self.month and not taken):
                continue
            newest = f"refresh/{month}/r{taken}"
            if not taken or workspace.outputs(newest).get(vectors) != now[vectors]:
                names.append(f"refresh/{month}/r{taken + 1}")
        return names


class Retrain(Section):
    """The run that trains all models anew, on the months through ``through``."""

    kind: Literal["retrain"] = "retrain"
    first: Month
    last: Month
    through: Month
    label_months: Annotated[tuple[Month, ...], Field(strict=False)]

    @property
    def title(self) -> str:
        """For the published commit."""
        return f"retrain through {self.through}"

    def prepare(self, workspace: Workspace) -> None:
        """Land the months that are not in yet, with the users file, and order the training.

        Raises:
            ValueError: there is a release to go on from, which has not encoded ``through``.
        """
        stand_on(workspace, self.through)
        known = list(workspace.params()["months"])
        span = months_between(self.first, self.last)
        land(workspace, [m for m in span if m not in known] or known[-1:], users=True)
        order_training(workspace.root / "params.yaml", self, next_release(workspace))
        workspace.do("lurm", "check")
        drop_retired_stages(workspace)

    def targets(self, workspace: Workspace, stage: str) -> list[str]:
        """What DVC is to bring up to date: all of the stage."""
        return [stage]

    def everything(self, workspace: Workspace) -> list[str]:
        """What DVC is to bring up to date before publishing: all there is."""
        return list(stages(workspace))

    def tags(self, workspace: Workspace) -> list[str]:
        """The new name of what is to be published."""
        return [f"release/{workspace.params()['training']['release']}"]


Plan = Refresh | Retrain


def revision(tag: str) -> int:
    """The number of a month's revision.

    >>> revision("refresh/2017-08/r12")
    12
    """
    return int(tag.rpartition("/r")[2])


def write_plan(plan: Plan, folder: Path) -> None:
    """Keep the plan with its run."""
    write_json(plan.model_dump(), folder / "plan.json")


def read_plan(folder: Path) -> Plan:
    """The plan of the run.

    Raises:
        FileNotFoundError: the run has not opened its workspace.
    """
    path = folder / "plan.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder}: expected an open run; run its first step again")
    plan: Plan = TypeAdapter(Plan).validate_python(read_json(path))
    return plan


def plan_retraining(workspace: Workspace, first: str | None, through: str | None) -> Retrain:
    """The retraining through a month, with as long a label window as the settings have.

    Args:
        workspace: on the published branch.
        first: where the users' lives begin; the first month that is in or, before any is, delivered.
        through: the last month to learn from; if not given, the latest whose label months are
            delivered or in.

    Raises:
        ValueError: the months that it takes are neither in nor delivered.
    """
    settings = workspace.params()
    as_of, labels = settings["evaluation"]["as_of"], settings["evaluation"]["label_months"]
    gap = month_number(labels[0]) - month_number(as_of) if labels else 1
    known = list(settings["months"])
    there = sorted({*known, *delivered_months(workspace.places.landing)})
    if not there:
        raise ValueError(
            f"{workspace.places.landing}: expected behaviors/<month>.parquet, found none"
        )
    first = first or (known or there)[0]
    if through is None:
        latest = month_number(first)
        while month_name(latest + 1) in there:
            latest += 1
        through = month_name(latest - len(labels) - gap + 1)
    start = month_number(through) + gap
    label_months = [month_name(start + n) for n in range(len(labels))]
    needed = months_between(first, label_months[-1] if labels else through)
    absent = [month for month in needed if month not in there]
    if absent or month_number(through) < month_number(first):
        raise ValueError(
            f"retraining on {first}..{through} with labels of {', '.join(label_months) or 'no month'}: "
            "expected all these months to be in or delivered, missing "
            f"{', '.join(absent) or 'months to learn from'}; deliver them, or choose an earlier month"
        )
    last = max(needed[-1], known[-1]) if known else needed[-1]
    return Retrain(first=first, last=last, through=through, label_months=tuple(label_months))


def next_release(workspace: Workspace) -> int:
    """The number after that of every release there was: also of one that was rolled back."""
    names = workspace.ask("tag", "--list", "release/*").split()
    numbered = (re.fullmatch(r"release/(\d+)(-r\d+)?", name) for name in names)
    taken = [int(found[1]) for found in numbered if found]
    if RELEASE_MODEL in workspace.outputs():
        taken.append(workspace.params()["training"]["release"])
    return 1 + max(taken, default=0)


def order_training(params: Path, plan: Retrain, release: int) -> None:
    """Write into the settings what to train on and to evaluate; comments and layout stay."""
    parser = YAML()
    parser.width = 1000
    parser.preserve_quotes = True
    settings = parser.load(params)
    training, evaluation = settings["training"], settings["evaluation"]
    training["release"] = release
    training["through"] = evaluation["as_of"] = plan.through
    training["months"] = _in_one_line(months_between(plan.first, plan.through))
    evaluation["label_months"] = _in_one_line(plan.label_months)
    with replacing(params) as temporary:
        parser.dump(settings, temporary)


def drop_retired_stages(workspace: Workspace) -> None:
    """Drop, from ``dvc.lock`` and from the disk, what stages made that the settings no longer name.

    DVC leaves both where they are: labels of months that heads no longer learn from, say. What depends on
    their folder would be recorded with them, and be out of date in a clone, which has only what is named;
    and erasure could not tell which of them the folder had.
    """
    named = set(workspace.do("dvc", "stage", "list", "--name-only").split())
    recorded = workspace.stages()
    retired = recorded.keys() - named
    if not retired:
        return
    kept = {out["path"] for name in recorded.keys() & named for out in recorded[name]["outs"]}
    for path in {out["path"] for name in retired for out in recorded[name]["outs"]} - kept:
        made = workspace.root / path
        if made.is_dir():
            shutil.rmtree(made)
        else:
            made.unlink(missing_ok=True)
    lock = workspace.root / "dvc.lock"
    head, *stages = re.split(r"^(?=  \S)", lock.read_text("utf-8"), flags=re.MULTILINE)
    left = [stage for stage in stages if retired.isdisjoint(yaml.safe_load(stage))]
    write_text(head + "".join(left), lock)


def _in_one_line(values: Sequence[str]) -> CommentedSeq:
    line = CommentedSeq(values)
    line.fa.set_flow_style()
    return line


def is_monthly(workspace: Workspace, stage: str) -> bool:
    """Whether the stage runs once a month.

    Raises:
        ValueError: there is no such stage.
    """
    known = stages(workspace)
    if stage not in known:
        raise ValueError(f"expected a stage of dvc.yaml, one of {', '.join(known)}, got {stage}")
    return known[stage].get("foreach") == "${months}"


def stages(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """The stages of ``dvc.yaml``, as written there."""
    text = (workspace.root / "dvc.yaml").read_text("utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["stages"]
    return found


def months_to_land(known: Sequence[str], month: str) -> list[str]:
    """The months a run for ``month`` brings in: itself, and those before it that are not in yet.

    >>> months_to_land(["2017-01", "2017-02"], "2017-04")
    ['2017-03', '2017-04']
    >>> months_to_land(["2017-01", "2017-02"], "2017-01")
    ['2017-01']
    """
    following = month_name(month_number(known[-1]) + 1) if known else month
    return months_between(min(following, month), month)


def months_between(first: str, last: str) -> list[str]:
    """All months from the first to the last.

    >>> months_between("2017-11", "2018-01")
    ['2017-11', '2017-12', '2018-01']
    """
    return [month_name(n) for n in range(month_number(first), month_number(last) + 1)]
