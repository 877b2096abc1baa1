"""Keep a file for training as it is now.

In:  an accepted month, or the catalog as known in it.
Out: a copy that stays when the original is corrected, until ``training.release`` is raised.
"""

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from lurm.console import run_stage
from lurm.storage import read_schema, replacing

log = logging.getLogger("pin_training")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--pinned", type=Path, required=True)
    args = parser.parse_args(argv)
    read_schema(args.source)
    with replacing(args.pinned) as copy:
        shutil.copyfile(args.source, copy)
    log.info("%s: pinned, %d bytes", args.pinned, args.pinned.stat().st_size)


if __name__ == "__main__":
    run_stage(main)
