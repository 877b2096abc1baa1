"""Runs stages as processes of their own, forked from this one, which holds the slow libraries already.

One request a line on standard input: a JSON object with

    root      folder to run in
    command   script and arguments
    log       file for what the stage writes to standard output and error
    kill_at   die by SIGKILL just before the rename with this number, counted from 1; 0 for never
    limit     bytes beyond which a file cannot grow; 0 for no limit
    fatal     die at that limit in the middle of writing; otherwise the write fails

One answer a line on standard output: the exit status, or minus the number of the signal that ended it.
"""

import json
import os
import resource
import runpy
import signal
import sys
import traceback
from typing import Any

import duckdb  # noqa: F401
import faiss  # noqa: F401
import great_expectations  # noqa: F401
import sklearn.model_selection  # noqa: F401
import torch._dynamo  # noqa: F401 (which Adam would import at its first step)


def run_stage(request: dict[str, Any]) -> int:
    """The exit status of the stage, run in this process."""
    os.chdir(request["root"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request["limit"]:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], request["limit"]))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if request["fatal"] else signal.SIG_IGN)
    renames = 0

    def count_renames(event: str, _: Any) -> None:
        nonlocal renames
        if event == "os.rename":
            renames += 1
            if renames == request["kill_at"]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count_renames)
    sys.argv = request["command"]
    status = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def main() -> None:
    """Answer requests until standard input ends."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(run_stage(json.loads(line)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
