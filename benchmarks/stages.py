"""Seconds and peak memory of every stage of the pipeline, on whatever lies in this workspace.

Runs the command of each stage once more, in pipeline order, in a process of its own, and prints a table
by stage. Outputs are rewritten with the same bytes. DVC's own time is not in it. CPU seconds are those of
all cores together: what stays true on a machine that others use too.

    python benchmarks/stages.py
"""

import os
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from lurm.storage import write_json

# The system says of a process that it held at least what its parent did: a small one stands between.
LAUNCHER = """
import os, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[2:])
seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
os.write(int(sys.argv[1]), f"{seconds} {used.ru_utime + used.ru_stime} {used.ru_maxrss}".encode())
sys.exit(code)
"""


def commands() -> list[tuple[str, str]]:
    """Stage and command of everything ``dvc repro`` would run, in its order."""
    plan = subprocess.run(
        ["dvc", "repro", "--dry", "--force"], check=True, capture_output=True, text=True
    ).stdout
    lines = plan.splitlines()
    return [
        (lines[i - 1].split("'")[1], line[2:]) for i, line in enumerate(lines) if line[:2] == "> "
    ]


def measure(command: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident MB of the command.

    Raises:
        RuntimeError: the command failed.
    """
    receive, send = os.pipe()
    launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(send), *shlex.split(command)]
    run = subprocess.run(launch, pass_fds=[send], stderr=subprocess.PIPE, text=True)
    os.close(send)
    with open(receive) as told:
        figures = told.read().split()
    if run.returncode:
        raise RuntimeError(f"{command}\n{run.stderr}")
    seconds, cpu_seconds, peak_kb = map(float, figures)
    return seconds, cpu_seconds, peak_kb * 1024 / 1e6


def measure_all(
    after: Callable[[str], None] = lambda stage: None,
) -> dict[str, dict[str, float]]:
    """Runs, seconds, the longest run's, CPU seconds and peak MB of every stage, run here once more.

    ``after`` is called with the name of every stage that ended.
    """
    figures = defaultdict(list)
    for stage, command in commands():
        figures[stage.split("@")[0]].append(measure(command))
        after(stage)
        print(f"{stage}: {figures[stage.split('@')[0]][-1][0]:.1f} s", file=sys.stderr)
    return {
        stage: {
            "runs": len(runs),
            "seconds": round(sum(seconds for seconds, _, _ in runs), 1),
            "longest": round(max(seconds for seconds, _, _ in runs), 1),
            "cpu_seconds": round(sum(cpu for _, cpu, _ in runs), 1),
            "peak_mb": round(max(mb for _, _, mb in runs)),
        }
        for stage, runs in figures.items()
    }


def main() -> None:
    """Measure all stages and print the table."""
    rows = measure_all()
    print(f"{'stage':<20}{'runs':>6}{'seconds':>10}{'longest':>10}{'CPU':>10}{'peak MB':>10}")
    for stage, row in rows.items():
        print(f"{stage:<20}" + "".join(f"{value:>10}" for value in row.values())[4:])
    print(f"{'all':<26}{sum(row['seconds'] for row in rows.values()):>10.1f}")
    write_json(rows, Path("reports/stages.json"))


if __name__ == "__main__":
    main()
