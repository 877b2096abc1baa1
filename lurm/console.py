"""What a person at the terminal sees of a stage: log lines, progress, and errors in one line."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
MACHINE = 70  # exit status of what the machine could not do: a full disk, a store out of reach
log = logging.getLogger(__name__)


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's ``main``; what a user can cause ends in one message and exit status 1.

    So does what the machine could not do, with :data:`MACHINE`: there, trying again may help. SIGTERM, by
    which Airflow and Kubernetes end what they run, lets it clean up.
    """
    # torchrun ends its workers itself: they may wait for each other where no handler runs.
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        logging.getLogger("lurm").error("error: %s", error)
        lasting = (ValueError, FileNotFoundError, ModuleNotFoundError)
        sys.exit(1 if isinstance(error, lasting) else MACHINE)


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """The items, with a bar when a person is watching and a log line every ten seconds when not."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, leave=False)
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    told = time.monotonic()
    for done, item in enumerate(items):
        yield item
        if time.monotonic() - told > 10:
            told = time.monotonic()
            log.info("%s: %d%s", label, done + 1, f" of {total}" if total else "")
