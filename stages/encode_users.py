"""Encode all users as of a month, going on from where the months before left them (paper 2.2).

In:  the month's bags, the vectors of the month before, the states of the month's users, each from the last
     month he was active in; SMEN, its measured confidence.
Out: the states after the month of the users active in it; one row per user: vector, behaviors, confidence,
     first and last month, model, space; the note that the month is encoded.

The note says the same under one model whatever the month holds: the heads wait for it, and do not
train again when a month is corrected. Shards of users are encoded here, or on Spark's workers
(`encode_users.engine`), to the same bytes.
"""

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lurm.console import progress, run_stage
from lurm.distributed import check_device
from lurm.months import month_number
from lurm.params import load_params
from lurm.shards import Month, divide, encode_shard, finish
from lurm.smen import load_smen
from lurm.spark import on_workers, spark
from lurm.states import SHARD, check_month, last_month_before
from lurm.storage import filling, read_json, read_schema, row_count, scratch, write_json
from lurm.tables import BOI, USER_VECTORS, check_columns

log = logging.getLogger("encode_users")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("boi", "previous", "states", "smen", "confidence", "state", "vectors", "encoded"):
        # Absolute, since Spark's workers start elsewhere.
        parser.add_argument(f"--{name}", type=lambda text: Path(text).absolute(), required=True)
    parser.add_argument("--month", required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args(argv)
    check_device(args.device)
    settings = load_params("params.yaml").encode_users

    _, version = load_smen(args.smen)
    measured = read_json(args.confidence)
    if measured["model_version"] != version.model:
        raise ValueError(
            f"{args.confidence}: expected the confidence in model {version.model}, found that in "
            f"{measured['model_version']}; run measure_confidence"
        )
    month_number(args.month)
    check_columns(read_schema(args.boi), BOI, str(args.boi))
    check_columns(read_schema(args.previous), USER_VECTORS, str(args.previous))
    for name in ("boi", "state", "vectors", "encoded"):
        path = getattr(args, name)
        if path.stem != args.month:
            raise ValueError(
                f"--{name}: expected a file of --month, named {args.month}{path.suffix}, got {path}"
            )
    if row_count(args.previous):
        check_month(args.states / args.previous.stem, version.model)
    before = last_month_before(args.states, args.month, version.model)
    if before and args.previous.stem != before:
        raise ValueError(
            f"--previous: expected the vectors of {before}, the last month before {args.month} with "
            f"states in {args.states}, got {args.previous}; name those, or remove the states of a month "
            "that is no longer there"
        )
    with (
        filling(args.state),
        scratch(args.vectors.parent, f".shards-{args.month}-") as waiting,
    ):
        month = Month(
            args.month,
            *(args.boi, args.previous, args.states, args.smen, args.confidence, args.state),
            *(waiting, args.device),
        )
        shards = divide(month, SHARD)
        work = partial(encode_shard, month)
        if settings.engine == "spark":
            with spark("encode_users", settings.spark_master) as session:
                on_workers(session, work, shards)
        else:
            for shard in progress(shards, "encode_users: shards"):
                work(shard)
        finish(month, shards, args.vectors)
    write_json({"month": args.month, "model_version": version.model}, args.encoded)
    log.info(
        "%s: %d users before, %d rows of bags in, %d users out, model %s, space %s",
        *(args.vectors, row_count(args.previous), row_count(args.boi), row_count(args.vectors)),
        *version,
    )


if __name__ == "__main__":
    run_stage(main)
