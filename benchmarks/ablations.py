"""Every ablation of the scorecard as a DVC experiment of the whole pipeline: ``make ablations``.

    python -m benchmarks.ablations                      all that are not there yet
    python -m benchmarks.ablations --only month_only anchors_1
    dvc exp show --only-changed                         what they gave
    dvc plots diff month-only                           its ROC curves beside the standing ones

An experiment is a commit of its own beside the branch (`dvc exp apply` takes one over). It runs in a copy
of the workspace, so that nothing here changes; what does not hang on the change comes from the cache. It
scores all users, as the pipeline does; the scorecard scores the reported ones.
"""

import argparse
import json
import logging
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.methods import CHANGES
from lurm.console import run_stage
from lurm.params import load_params

log = logging.getLogger("ablations")


def overrides(changes: Mapping[str, Any], standing: Mapping[str, Any]) -> Iterator[str]:
    """The changes as arguments of ``dvc exp run --set-param``.

    >>> standing = {"smen": {"epochs": 20, "scales": {"month": 1, "year": 12}}}
    >>> list(overrides({"smen.epochs": 5, "smen.scales": {"month": 1, "week": 0}}, standing))
    ['smen.epochs=5', '~smen.scales.year', '+smen.scales.week=0']
    """
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if not isinstance(value, Mapping):
            yield f"{key}={json.dumps(value)}"
            continue
        before = standing[section][name]
        yield from (f"~{key}.{gone}" for gone in before.keys() - value.keys())
        for inner, number in value.items():
            if inner not in before:
                yield f"+{key}.{inner}={json.dumps(number)}"
            elif before[inner] != number:
                yield f"{key}.{inner}={json.dumps(number)}"


def _dvc(*words: str) -> str:
    return subprocess.run(["dvc", *words], check=True, text=True, stdout=subprocess.PIPE).stdout


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then show all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=CHANGES, metavar="ABLATION")
    args = parser.parse_args(argv)
    standing = load_params("params.yaml").model_dump()
    there = _dvc("exp", "list", "--name-only").split()
    for name in args.only or CHANGES:
        if name.replace("_", "-") in there:
            continue
        title, changes = CHANGES[name]
        log.info("%s: %s", name.replace("_", "-"), title)
        params = [
            word for change in overrides(changes, standing) for word in ("--set-param", change)
        ]
        _dvc("exp", "run", "--temp", "--name", name.replace("_", "-"), *params)
    paths = r"(data|models|reports|stages|lurm|standing)\b.*"
    shown = ("--only-changed", "--hide-workspace", "--drop", paths, "--sort-by", "mean_auc", "--md")
    print(_dvc("exp", "show", *shown))


if __name__ == "__main__":
    run_stage(main)
