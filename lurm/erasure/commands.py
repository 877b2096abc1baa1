"""The command ``lurm forget``: remove users from a published platform."""

import argparse
import json
import os
import sys


def add_forget(commands: argparse._SubParsersAction) -> None:
    """Announce the command."""
    parser = commands.add_parser(
        "forget",
        help="remove users from all that is published, for good",
        description="Remove users from every published month, the cache and the store; give the names "
        "that held them a new revision; keep them out of whatever is delivered later; write a "
        "certificate. Cannot be undone. Can be repeated, also after it was interrupted.",
        epilog="LURM_HOME, LURM_REPOSITORY and LURM_LANDING say where, LURM_ERASURE_KEY (or a file that "
        "LURM_ERASURE_KEY_FILE names) holds the key of the tombstones; see docs/every-month.md.",
    )
    parser.add_argument(
        "users",
        nargs="+",
        metavar="USER",
        help="ids of users; - reads them from standard input, one a line, out of sight of "
        "process lists and shell histories",
    )
    parser.set_defaults(run=_forget)


def _forget(args: argparse.Namespace) -> None:
    from lurm.erasure.forgetting import forget
    from lurm.erasure.tombstones import erasure_key
    from lurm.releases.places import Places
    from lurm.tables import ids_of_lines

    key = erasure_key(os.environ)  # before anything is read
    users = [user for user in args.users if user != "-"]
    if "-" in args.users:
        users += ids_of_lines(sys.stdin.read())
    if not users:
        raise ValueError("expected the ids of users, one a line, on standard input, got none")
    print(json.dumps(forget(Places.from_environment(os.environ), users, key)))
