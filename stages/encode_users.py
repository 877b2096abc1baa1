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
from functools import partial
from pathlib import Path

from lurm.console import progress, run_stage
from lurm.distributed import check_device
from lurm.months import month_number
from lurm.params import load_params
from lurm.shards import Month, Shard, encode_shard, vectors_of
from lurm.smen import load_smen
from lurm.spark import on_workers, spark
from lurm.states import SHARD, all_rows, load_users, parts
from lurm.storage import (
    filling,
    growing_parquet,
    read_json,
    read_runs,
    read_schema,
    row_count,
    row_groups,
    write_json,
)
from lurm.tables import BOI, check_columns, user_vectors_schema

log = logging.getLogger("encode_users")
ROWS = 65_536  # of a group of the published table; in small groups parquet spends more on floats


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
        for number, (states, runs) in enumerate(parts(before, ids, SHARD, args.boi))
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
        month = Month(
            args.month,
            *(args.boi, args.previous, args.smen, args.confidence, args.state, Path(folder)),
            args.device,
        )
        work = partial(encode_shard, month)
        if settings.engine == "spark":
            with spark("encode_users", settings.spark_master) as session:
                on_workers(session, work, shards)
        else:
            for shard in progress(shards, "encode_users: shards"):
                work(shard)
        with growing_parquet(args.vectors, schema) as append:
            for shard in shards:
                for rows in row_groups(vectors_of(month, shard), ROWS):
                    append(rows)
    write_json({"month": args.month, "model_version": version.model}, args.encoded)
    log.info(
        "%s: %d users before, %d rows of bags in, %d users out, model %s, space %s",
        *(args.vectors, len(before), first_rows[-1], row_count(args.vectors), *version),
    )


if __name__ == "__main__":
    run_stage(main)
