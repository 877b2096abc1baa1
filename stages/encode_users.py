"""Encode all users as of a month, going on from the states of the month before (paper 2.2).

In:  the month's bags, the states of the month before, SMEN, its measured confidence.
Out: the states after the month; one row per user: vector, behaviors, confidence, first and last month,
     model, space; the note that the month is encoded.

The note says the same under one model whatever the month holds: the heads wait for it, and do not
train again when a month is corrected. Shards of users are encoded here, or on Spark's workers
(`encode_users.engine`), to the same bytes.
"""

import argparse
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from lurm.confidence import Confidence
from lurm.console import progress, run_stage
from lurm.distributed import check_device
from lurm.encoding import (
    SHARD,
    all_rows,
    cut,
    encode_month,
    growing_states,
    load_pieces,
    load_users,
    parts,
    shard_folder,
    user_vectors,
)
from lurm.months import month_number
from lurm.params import load_params
from lurm.smen import load_smen
from lurm.spark import on_workers, spark
from lurm.storage import (
    filling,
    growing_parquet,
    read_json,
    read_rows,
    read_runs,
    read_schema,
    row_count,
    row_groups,
    write_json,
)
from lurm.tables import BOI, check_columns, user_vectors_schema

log = logging.getLogger("encode_users")
ROWS = 65_536  # of a group of the published table; in small groups parquet spends more on floats


@dataclass(frozen=True)
class Shard:
    """Users next to each other: their rows in the states of the month before, and in the month's bags."""

    number: int
    states: slice
    bags: slice


def encode_shard(args: argparse.Namespace, scratch: Path, shard: Shard) -> None:
    """Write the shard's states where they belong, and its rows of the published table to ``scratch``."""
    torch.set_num_threads(1)  # the last digits depend on the number of threads
    torch.backends.cudnn.allow_tf32 = False  # a GRU's default on a GPU, 1e-5 away
    smen, version = load_smen(args.smen)
    smen.to(args.device)
    known = Confidence.from_json(read_json(args.confidence))
    boi = read_rows(args.boi, shard.bags)
    ids = boi["user_id"].combine_chunks()
    pieces = cut(all_rows(args.previous), shard.states)
    schema = user_vectors_schema(smen.settings.n_published, ids.type)
    month = month_number(args.month)
    with (
        growing_states(
            shard_folder(args.state, shard.number), smen.settings.scales, version.model
        ) as append_states,
        growing_parquet(vectors_of(scratch, shard), schema) as append_vectors,
    ):
        for rows, bags in parts(load_users(pieces), ids):
            states = load_pieces(cut(pieces, rows), version.model)
            after, vectors = encode_month(smen, states, boi[bags], month)
            append_states(after)
            append_vectors(user_vectors(after, vectors, known.of(after.n_behaviors), version))


def vectors_of(scratch: Path, shard: Shard) -> Path:
    """Where a shard's rows of the published table wait for the others."""
    return scratch / f"{shard.number:05}.parquet"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("boi", "previous", "smen", "confidence", "state", "vectors", "encoded"):
        # Absolute, since Spark's workers start elsewhere.
        parser.add_argument(f"--{name}", type=lambda text: Path(text).absolute(), required=True)
    parser.add_argument("--month", required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args(argv)
    check_device(args.device)
    settings = load_params("params.yaml").encode_users

    smen, version = load_smen(args.smen)
    measured = read_json(args.confidence)
    if measured["model_version"] != version.model:
        raise ValueError(
            f"{args.confidence}: expected the confidence in model {version.model}, found that in "
            f"{measured['model_version']}; run measure_confidence"
        )
    month_number(args.month)
    check_columns(read_schema(args.boi), BOI, str(args.boi))
    if args.state == args.previous:
        raise ValueError(
            f"--state: expected another folder than --previous, got {args.state} for both"
        )
    before, (ids, first_rows) = load_users(all_rows(args.previous)), read_runs(args.boi, "user_id")
    shards = [
        Shard(number, states, slice(int(first_rows[runs.start]), int(first_rows[runs.stop])))
        for number, (states, runs) in enumerate(parts(before, ids, SHARD))
    ]
    args.vectors.parent.mkdir(parents=True, exist_ok=True)
    schema = user_vectors_schema(smen.settings.n_published, ids.type)
    with (
        filling(args.state),
        tempfile.TemporaryDirectory(
            dir=args.vectors.parent,
            prefix=".shards-",
            suffix=".tmp",  # which DVC ignores, if it stays
        ) as folder,
    ):
        work = partial(encode_shard, args, Path(folder))
        if settings.engine == "spark":
            with spark("encode_users", settings.spark_master) as session:
                on_workers(session, work, shards)
        else:
            for shard in progress(shards, "encode_users: shards"):
                work(shard)
        with growing_parquet(args.vectors, schema) as append:
            for shard in shards:
                for rows in row_groups(vectors_of(Path(folder), shard), ROWS):
                    append(rows)
    write_json({"month": args.month, "model_version": version.model}, args.encoded)
    log.info(
        "%s: %d users before, %d rows of bags in, %d users out, model %s, space %s",
        *(args.vectors, len(before), first_rows[-1], row_count(args.vectors), *version),
    )


if __name__ == "__main__":
    run_stage(main)
