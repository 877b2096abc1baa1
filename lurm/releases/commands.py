"""The command ``lurm release``: the steps of a run, as Airflow or a person calls them.

Where the platform's places are comes from the environment (:mod:`lurm.releases.places`). The last line
on standard output is the step's result as JSON; the log is on standard error.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lurm.months import month_number

if TYPE_CHECKING:
    from lurm.releases.workspaces import Workspace

log = logging.getLogger(__name__)


def add_release(commands: argparse._SubParsersAction) -> None:
    """Announce the command and all its steps."""
    release = commands.add_parser(
        "release",
        help="the steps of a monthly run, and what is published",
        description="The steps of a run. Each can be repeated; Airflow calls them in order.",
        epilog="LURM_HOME, LURM_REPOSITORY and LURM_LANDING say where; see docs/every-month.md.",
    )
    steps = release.add_subparsers(title="steps", metavar="STEP", required=True)

    parser = steps.add_parser("found", help="make the repository of what is published")
    parser.add_argument("--project", type=Path, default=Path(), help="clone of this project")
    parser.add_argument("--store", required=True, help="folder or s3:// address for DVC's files")
    parser.add_argument("--endpoint", help="address of S3 storage that is not Amazon's")
    parser.set_defaults(run=_found)

    parser = _step(steps, "refresh", "open the run of a month: workspace, and the month landed")
    parser.add_argument("--month", required=True, type=_month)
    parser.set_defaults(run=partial(_do, "open", _refresh))

    parser = _step(steps, "retrain", "open a retraining")
    parser.add_argument("--first", type=_month, help="where lives begin (default: the first month)")
    parser.add_argument("--through", type=_month, help="last month to learn from (default: latest)")
    parser.set_defaults(run=partial(_do, "open", _retrain))

    parser = _step(steps, "run", "bring one stage of dvc.yaml up to date")
    parser.add_argument("stage", metavar="STAGE")
    parser.set_defaults(run=partial(_do, None, _run))

    parser = _step(steps, "gate", "compare new models with the standing ones")
    parser.set_defaults(run=partial(_do, "gate", _gate))

    parser = _step(steps, "publish", "let others see what the run made")
    parser.set_defaults(run=partial(_do, "publish", _publish))

    parser = steps.add_parser("prune", help="remove what no published name and no run needs")
    parser.add_argument("--days", type=float, default=30, help="after which a run is abandoned")
    parser.add_argument("--store", action="store_true", help="clean the DVC store too")
    parser.set_defaults(run=_prune)


def _step(steps: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = steps.add_parser(name, help=text, description=text)
    parser.add_argument("--run", dest="name", required=True, metavar="RUN", help="name of the run")
    return parser


def _month(text: str) -> str | None:
    if not text or text == "None":
        return None
    try:
        month_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _do(
    name: str | None,
    work: "Callable[[argparse.Namespace, Workspace], dict[str, Any]]",
    args: argparse.Namespace,
) -> None:
    from lurm.releases.places import Places
    from lurm.releases.steps import STATUS, StepError, step
    from lurm.storage import write_text

    try:
        result = step(
            Places.from_environment(os.environ), args.name, name or args.stage, partial(work, args)
        )
    except StepError as ended:
        log.error("error: %s", ended)
        sys.exit(STATUS[ended.status])
    line = json.dumps(result)
    if "LURM_RESULT_FILE" in os.environ:  # where a pod leaves it
        write_text(line, os.environ["LURM_RESULT_FILE"])
    print(line, flush=True)


def _refresh(args: argparse.Namespace, workspace: "Workspace") -> dict[str, Any]:
    from lurm.releases.steps import open_refresh

    return open_refresh(workspace, args.month)


def _retrain(args: argparse.Namespace, workspace: "Workspace") -> dict[str, Any]:
    from lurm.releases.steps import open_retraining

    return open_retraining(workspace, args.first, args.through)


def _run(args: argparse.Namespace, workspace: "Workspace") -> dict[str, Any]:
    from lurm.releases.steps import run_stage

    return run_stage(workspace, args.stage)


def _gate(_: argparse.Namespace, workspace: "Workspace") -> dict[str, Any]:
    from lurm.releases.gates import gate

    return gate(workspace)


def _publish(_: argparse.Namespace, workspace: "Workspace") -> dict[str, Any]:
    from lurm.releases.publishing import publish

    return publish(workspace)


def _found(args: argparse.Namespace) -> None:
    from lurm.releases.founding import found

    if not os.environ.get("LURM_REPOSITORY"):
        raise ValueError("LURM_REPOSITORY: expected where the repository is to be, found nothing")
    found(args.project, Path(os.environ["LURM_REPOSITORY"]), args.store, args.endpoint)


def _prune(args: argparse.Namespace) -> None:
    from lurm.releases.places import Places
    from lurm.releases.retention import prune

    print(json.dumps(prune(Places.from_environment(os.environ), args.days, store=args.store)))
