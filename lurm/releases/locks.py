"""Locks between processes, containers and pods that share a filesystem.

DVC's own lock notes process ids, which mean nothing across containers
(https://github.com/iterative/dvc/issues/3370). The kernel's lock on an open file does: it ends when the
last process that holds the file ends, however that comes about.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[int]:
    """Hold the lock at ``path``, alone or with others that hold it shared; waits until it is free.

    Yields the open file's descriptor. A child process that inherits it keeps the lock for as long as
    it lives, so that a retry does not run beside what a killed parent left behind.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s is held by another process; waiting for it", path)
            fcntl.flock(file, kind)
        os.set_inheritable(file.fileno(), True)
        yield file.fileno()
