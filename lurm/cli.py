"""The command ``lurm``: bringing data in, and the steps of a monthly run. DVC runs the stages.

A command is a function of its parsed arguments, announced to the parser by an ``_add_`` function.
What it needs is imported when it runs, so that ``lurm --help`` answers at once.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lurm.console import run_stage
from lurm.erasure.commands import add_forget
from lurm.months import month_number
from lurm.releases.commands import add_release
from lurm.use.commands import add_use

if TYPE_CHECKING:
    from lurm.examples.monthly import Landed

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command named in ``argv``; errors end in one message and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="lurm", description="General-purpose user vectors from behavior logs."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        *(_add_check, _add_land, _add_land_example),
        *(add_release, add_forget, add_use, _add_airflow),
    ):
        add(commands)
    args = parser.parse_args(argv)
    for chatty in ("aiobotocore", "botocore", "faiss"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    run_stage(partial(args.run, args))


# ---- check: the settings ------------------------------------------------------------------------


def _add_check(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "check",
        help="check the settings",
        description="Check params.yaml whole: stages that are up to date do not read it, and DVC "
        "looks for files before any stage can say what is wrong.",
    )
    parser.add_argument("--params", default="params.yaml", metavar="FILE", help="the settings")
    parser.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> None:
    from lurm.params import load_params

    log.info("%s: %d months, all settings hold", args.params, len(load_params(args.params).months))


# ---- land: one month of one's own ---------------------------------------------------------------


def _add_land(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "land",
        help="bring in one month of logs",
        description="Bring in one month of logs and add it to params.yaml; then run `dvc repro`.",
        epilog="docs/your-own-logs.md says what the files must hold.",
    )
    parser.add_argument("month", type=_month, metavar="MONTH", help="such as 2018-01")
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="PLACE",
        help="folder or s3:// address where the deliveries lie",
    )
    parser.add_argument(
        "--keep-users",
        action="store_true",
        help="leave the users file as it is, and with it the heads that are trained on it",
    )
    parser.add_argument(
        "--tombstones",
        type=Path,
        metavar="FILE",
        help="leave out the users that were forgotten; needs LURM_ERASURE_KEY",
    )
    _add_landing(parser)
    parser.add_argument(
        "--params", default="params.yaml", metavar="FILE", help="settings (default: %(default)s)"
    )
    parser.set_defaults(run=_land)


def _land(args: argparse.Namespace) -> None:
    from lurm.erasure.tombstones import erasure_key, read_tombstones
    from lurm.landing import land_month

    tombstones = None
    if args.tombstones:
        tombstones = read_tombstones(args.tombstones.read_text("utf-8"), erasure_key(os.environ))
    land_month(
        args.month, args.source, args.landing, args.params,
        users=not args.keep_users, tombstones=tombstones,
    )  # fmt: skip
    # What is in now awaits its own verdict; DVC may take that from an earlier run, and run nothing.
    Path("reports", "refused", f"{args.month}.html").unlink(missing_ok=True)


# ---- land-example: public data ------------------------------------------------------------------


def _add_land_example(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "land-example",
        help="turn a public data set into monthly deliveries",
        description="Turn a public data set into monthly deliveries, as a customer's would arrive.",
    )
    examples = parser.add_subparsers(title="data sets", metavar="DATASET", required=True)
    for name, run, text in (
        ("complete-journey", _land_complete_journey, "a grocer's purchases of 2017 (installed)"),
        ("ta-feng", _land_ta_feng, "a Taiwanese grocer's, 2000-11 to 2001-02 (installed)"),
        ("amazon-2018", partial(_land_amazon, "2018"), "Amazon reviews, edition of 2018"),
        ("amazon-2023", partial(_land_amazon, "2023"), "Amazon reviews, edition of 2023"),
    ):
        example = examples.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        _add_landing(example)
        for option, which in (("--since", "first"), ("--through", "last")):
            example.add_argument(
                option, type=_month, metavar="MONTH", help=f"{which} month to land"
            )
        if name.startswith("amazon"):
            for option in ("--reviews", "--meta"):
                example.add_argument(
                    option, nargs="+", required=True, metavar="FILE", help="JSON lines, .gz or not"
                )
        example.set_defaults(run=run)


def _land_complete_journey(args: argparse.Namespace) -> None:
    from lurm.examples import complete_journey

    _tell(complete_journey.land(args.landing, args.since, args.through))


def _land_ta_feng(args: argparse.Namespace) -> None:
    from lurm.examples import ta_feng

    _tell(ta_feng.land(args.landing, args.since, args.through))


def _land_amazon(edition: Literal["2018", "2023"], args: argparse.Namespace) -> None:
    from lurm.examples import amazon_reviews

    _tell(
        amazon_reviews.land(
            edition, args.reviews, args.meta, args.landing, args.since, args.through
        )
    )


def _tell(landed: "Landed") -> None:
    for line in landed.lines():
        log.info(line)


# ---- airflow: one on this machine ---------------------------------------------------------------


def _add_airflow(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "airflow",
        help="an Airflow on this machine",
        description="Run Airflow on this machine, with the monthly refresh in it.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, run, text in (
        ("up", _airflow_up, "start it and wait until it is healthy"),
        ("down", _airflow_down, "stop it"),
        ("do", _airflow_do, "call its command line, such as `backfill create`"),
        ("deliver", _airflow_deliver, "put months into its landing place, and say so"),
    ):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument("--folder", type=Path, default=Path("var"), help="where all of it lies")
        if name == "do":
            action.add_argument(
                "words", nargs=argparse.REMAINDER, metavar="...", help="to `airflow`"
            )
        if name != "down":
            action.add_argument("--port", type=int, default=8080)
        if name == "deliver":
            action.add_argument("months", nargs="+", type=_month, metavar="MONTH")
            action.add_argument("--silently", action="store_true", help="let Airflow find it")
            action.add_argument("--from", dest="source", type=Path, required=True, metavar="FOLDER")
        action.set_defaults(run=run)


def _airflow_up(args: argparse.Namespace) -> None:
    from lurm.local_airflow import up

    up(Path(), args.folder, args.port)


def _airflow_down(args: argparse.Namespace) -> None:
    from lurm.local_airflow import down

    down(args.folder)


def _airflow_do(args: argparse.Namespace) -> None:
    from lurm.local_airflow import call

    sys.exit(call(Path(), args.folder, args.port, args.words))


def _airflow_deliver(args: argparse.Namespace) -> None:
    from lurm.local_airflow import deliver

    deliver(args.folder, args.source, args.months, args.port, tell=not args.silently)


# ---- arguments of several commands --------------------------------------------------------------


def _month(text: str) -> str:
    try:
        month_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _add_landing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--landing",
        default="data/landing",
        metavar="FOLDER",
        help="the workspace's landing place (default: %(default)s)",
    )
