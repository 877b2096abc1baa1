"""The whole pipeline on generated logs of any size: seconds and peak memory of every stage.

    python -m benchmarks.whole    a million users, before them a hundredth and a tenth; 48 minutes
    python -m benchmarks.whole --grow 1 --behaviors 1e7 --users 1e5 --months 24    that size alone

Logs are those of :mod:`benchmarks.logs`, with a catalog of five texts for each of their interests. The
workspace is a clone of this project with its settings, but for names, months, D and what ``SETTINGS`` says;
the pipeline's commands run in DVC's order, each in a process of its own. Slopes are those of CPU seconds.

States take several kB per active user and month. Twice a year those that no later month can read are left
out of all months; the sizes that are told are those of the last month.
"""

import argparse
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from benchmarks.logs import FIRST, World, whole, write_logs
from benchmarks.measure import result_path, slope, table
from benchmarks.stages import measure_all
from lurm.console import run_stage
from lurm.months import month_name, month_number
from lurm.states import finish_month, growing_states, load_shard, shard_of
from lurm.storage import read_json, read_parquet, row_count, write_json, write_parquet, write_text

log = logging.getLogger("whole")
BRANDS, KIND = 5, 20  # texts of an interest, interests of a kind
# One pass over the users, who are many; one task, scored once.
SETTINGS: dict[str, dict[str, Any]] = {
    "pretrain_smen": {"epochs": 1, "columns": "auto"},
    "evaluation": {"folds": 2, "repeats": 1},
}


def catalog(world: World) -> pa.Table:
    """Items of one interest share two words, items of one kind one."""
    items = np.arange(world.n_items)
    interest, rank = items % world.n_interests, items // world.n_interests
    return pa.table(
        {
            "item_id": items,
            "kind": [f"kind{n}" for n in interest // KIND],
            "thing": [f"thing{n}" for n in interest],
            "brand": [f"brand{n}" for n in rank % BRANDS],
        }
    )


def settings(world: World, n_interests: int) -> dict[str, Any]:
    """The project's settings for this world: trained through the last month but one, labels of the last."""
    chosen: dict[str, Any] = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    months = [month_name(FIRST + k) for k in range(world.n_months)]
    before = ["start", *months[:-1]]
    chosen["calendar"] = {"timezone": "UTC"}
    chosen["months"] = {
        month: {"previous": previous, "items": "data/landing/items.parquet"}
        for month, previous in zip(months, before, strict=True)
    }
    chosen["training"] |= {"release": 1, "through": months[-2], "months": months[:-1]}
    chosen["evaluation"] |= {"as_of": months[-2], "label_months": months[-1:]}
    chosen["embed_items"] |= {"text_columns": ["kind", "thing", "brand"]}
    chosen["cluster_interests"] |= {"n_interests": n_interests}
    chosen["compare_months"] |= {"mix_column": "kind"}
    chosen["tasks"] = {"kind": {"labels": "data/labels", "column": "kind", "value": "kind1"}}
    for section, changes in SETTINGS.items():
        chosen[section] |= changes
    return chosen


@contextmanager
def workspace(world: World, n_interests: int, folder: Path) -> Iterator[None]:
    """Works in a clone of the project with these logs landed; ends where it began."""
    before = Path.cwd()
    shutil.rmtree(folder, ignore_errors=True)  # that of a smaller size
    subprocess.run(["git", "clone", "--quiet", ".", str(folder)], check=True)
    chosen = settings(world, n_interests)
    write_text(yaml.safe_dump(chosen, sort_keys=False), folder / "params.yaml")
    (folder / "data/landing.dvc").unlink(missing_ok=True)
    write_logs(world, folder / "data/landing")
    (folder / "data/landing/item_interests.parquet").unlink()
    write_parquet(catalog(world), folder / "data/landing/items.parquet")
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def cut_down_states(stage: str) -> None:
    """Twice a year, after ``encode_users@<month>``, leave of all states those that a later month may read.

    A pipeline keeps the others for months that are corrected; there is no room for them here.
    """
    name, _, month = stage.partition("@")
    if name != "encode_users" or month_number(month) % 6 != 5:
        return
    last_months = read_parquet(f"data/user_vectors/{month}.parquet", ["user_id", "last_month"])
    for folder in Path("data/states").iterdir():
        of_month = last_months.filter(pc.equal(last_months["last_month"], folder.name))
        current, about = of_month["user_id"], read_json(folder / "about.json")
        numbers = range(len(about.pop("shards")))
        for number in numbers:
            with growing_states(shard_of(folder, number), about["scales"]) as append:
                for states in load_shard(folder, number):
                    read = pc.is_in(states.users, value_set=current.combine_chunks())
                    append(states.take(np.flatnonzero(read.to_numpy(zero_copy_only=False))))
        finish_month(folder, len(numbers), **about)


def sizes() -> dict[str, int]:
    """Bytes of the last month of each kind of data, or of all of it where it has no months."""
    month = max(path.name for path in Path("data/states").iterdir())
    found = {}
    for folder in sorted(Path("data").iterdir()):
        of_month = list(folder.glob(f"{month}*")) or [folder]
        files = [file for path in of_month for file in (path, *path.rglob("*")) if file.is_file()]
        found[folder.name] = sum(file.stat().st_size for file in files)
    return found


def run(
    world: World, n_interests: int, folder: Path
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """One row for every stage at this size, in the pipeline's order, and :func:`sizes`."""
    with workspace(world, n_interests, folder):
        rows = sum(map(row_count, Path("data/landing/behaviors").glob("*.parquet")))
        log.info("%s: %d behaviors of %d users", folder, rows, world.n_users)
        size = {"users": world.n_users, "behaviors": rows}
        figures = measure_all(cut_down_states)
        return [{"stage": stage, **size, **found} for stage, found in figures.items()], sizes()


def main(argv: Sequence[str] | None = None) -> None:
    """Run every size, write the figures and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {
        "behaviors": 1e8,
        "users": 1e6,
        "months": 24,
        "items": 1e5,
        "interests": 1e4,
    }.items():
        parser.add_argument(f"--{name}", type=whole, default=int(default))
    parser.add_argument("--grow", type=int, default=3, help="sizes, each ten times the one before")
    parser.add_argument("--folder", type=Path, default=Path("runs/whole"))
    parser.add_argument("--result", type=Path, help="default: reports/benchmarks/whole.json")
    args = parser.parse_args(argv)
    if args.months < 3 or args.interests < 4 or args.grow < 1:
        raise ValueError(
            "benchmarks.whole: expected three months or more, four interests or more and a --grow of 1 or "
            f"more, got {args.months}, {args.interests} and {args.grow}"
        )
    result = result_path("whole", parser, args)
    if args.folder.exists():
        raise ValueError(
            f"--folder: expected one that is not there yet, found {args.folder}; remove it or name another"
        )
    rows: list[dict[str, Any]] = []
    stored: list[dict[str, int]] = []
    for step in range(args.grow):
        part = 10 ** (args.grow - 1 - step)
        world = World(
            args.behaviors // part, args.users // part, args.months, args.items, args.interests
        )
        of_size, bytes_of_size = run(world, args.interests // 2, args.folder.resolve())
        rows += of_size
        stored.append({"users": world.n_users, **bytes_of_size})
        write_json({"rows": rows, "bytes": stored}, result)
    names = dict.fromkeys(row["stage"] for row in rows)
    by_stage = {name: [row for row in rows if row["stage"] == name] for name in names}
    slopes = {
        name: slope([row["users"] for row in found], [row["cpu_seconds"] for row in found])
        for name, found in by_stage.items()
    }
    write_json({"rows": rows, "bytes": stored, "slopes": slopes}, result)
    print(table(rows))
    if args.grow > 1:
        print(
            table(
                [
                    {"stage": name, "slopes": " ".join(map(str, found))}
                    for name, found in slopes.items()
                ]
            )
        )


if __name__ == "__main__":
    run_stage(main)
