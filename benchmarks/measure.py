"""Seconds and peak memory of a piece of work in a process of its own, and the slope as it grows."""

import argparse
import importlib
import math
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measured:
    """What a piece of work took and gave."""

    seconds: float
    cpu_seconds: float  # of all threads: what stays true on a machine that others use too
    peak_mb: float  # of the process, libraries included; a MB is 1e6 bytes
    value: Any


def now(device: str) -> float:
    """CPU seconds of this process; on a GPU wall seconds, once it has done all it was given."""
    if device == "cpu":
        return time.process_time()
    import torch  # takes seconds, and not every process that is measured needs it

    torch.cuda.synchronize()
    return time.perf_counter()


def free_memory() -> int:
    """Bytes of memory that hold nothing."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def warm_memory(n_bytes: float) -> None:
    """So much memory is touched and given back, by another process, before a clock is started.

    A virtual machine gets memory from its host when it is first touched, a second or two a GB, and hands it
    back once it lies idle. That would be on the account of whoever comes first.
    """
    touch = f"b'x' * {int(n_bytes)}"
    subprocess.run([sys.executable, "-S", "-c", touch], check=True)


def measure(prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> Measured:
    """What ``prepare(*arguments)()`` takes in a fresh process; preparing (imports) is not timed.

    Raises:
        RuntimeError: the process ended without a result, as when memory runs out.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    name = f"{prepare.__module__}:{prepare.__name__}"
    if prepare.__module__ == "__main__":  # run with -m: the child imports it by its real name
        name = f"benchmarks.{Path(str(prepare.__code__.co_filename)).stem}:{prepare.__name__}"
    process = context.Process(target=_child, args=(send, name, arguments))
    process.start()
    send.close()
    try:
        result = receive.recv()
    except EOFError:
        result = None
    process.join()
    if result is None:
        raise RuntimeError(f"{name}{arguments}: ended with exit status {process.exitcode}")
    return Measured(*result)


def _child(send: Any, name: str, arguments: Sequence[Any]) -> None:
    module, function = name.split(":")
    work = getattr(importlib.import_module(module), function)(*arguments)
    start, cpu_start = time.perf_counter(), time.process_time()
    value = work()
    cpu_seconds, seconds = time.process_time() - cpu_start, time.perf_counter() - start
    send.send((seconds, cpu_seconds, peak_mb(), value))
    send.close()


def peak_mb() -> float:
    """Peak resident MB of this process.

    From /proc where there is one: what ``getrusage`` tells is at least what the parent held.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def result_path(name: str, parser: argparse.ArgumentParser, args: argparse.Namespace) -> Path:
    """Where a benchmark leaves its figures: ``--result``, or the record in git if all else is by default.

    Those of another size lie apart, so that they overwrite no record.
    """
    if args.result is not None:
        return Path(args.result)
    usual = all(
        value == parser.get_default(option)
        for option, value in vars(args).items()
        if option not in ("device", "folder")
    )
    return Path("reports/benchmarks", "" if usual else "other", f"{name}.json")


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """Exponents between neighboring sizes: 1 where twice the work takes twice the time.

    >>> slope([10, 100, 1000], [1, 10, 200])
    [1.0, 1.301]
    """
    return [
        round(math.log(seconds[i + 1] / seconds[i]) / math.log(sizes[i + 1] / sizes[i]), 3)
        for i in range(len(sizes) - 1)
        if sizes[i] != sizes[i + 1]
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a text table; numbers to three digits, columns in the first row's order."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    names = list(rows[0])
    cells = [names, *([text(row[name]) for name in names] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    return "\n".join(
        "  ".join(
            value.ljust(width) if i == 0 else value.rjust(width)
            for i, (value, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
