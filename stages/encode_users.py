"""Encode all users as of a month, going on from the states of the month before (paper 2.2).

In:  the month's bags, the states of the month before, SMEN, its measured confidence.
Out: the states after the month; one row per user: vector, behaviors, confidence, first and last month,
     model, space; the note that the month is encoded.

The note says the same under one model whatever the month holds: the heads wait for it, and do not
train again when a month is corrected.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from lurm.confidence import Confidence
from lurm.console import run_stage
from lurm.encoding import encode_month, growing_states, load_states, parts, user_vectors
from lurm.months import month_number
from lurm.smen import load_smen
from lurm.storage import growing_parquet, read_json, read_parquet, write_json
from lurm.tables import BOI, check_columns, user_vectors_schema

log = logging.getLogger("encode_users")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("boi", "previous", "smen", "confidence", "state", "vectors", "encoded"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--month", required=True)
    args = parser.parse_args(argv)

    torch.set_num_threads(1)  # the last digits depend on the number of threads
    smen, version = load_smen(args.smen)
    measured = read_json(args.confidence)
    if measured["model_version"] != version.model:
        raise ValueError(
            f"{args.confidence}: expected the confidence in model {version.model}, found that in "
            f"{measured['model_version']}; run measure_confidence"
        )
    before = read_parquet(args.previous / "users.parquet", ["user_id"])["user_id"].combine_chunks()
    boi = read_parquet(args.boi)
    check_columns(boi.schema, BOI, str(args.boi))
    known = Confidence.from_json(measured)
    schema = user_vectors_schema(smen.settings.n_published, boi["user_id"].type)
    month, n_users = month_number(args.month), 0
    with (
        growing_states(args.state, smen.settings.scales, version.model) as append_states,
        growing_parquet(args.vectors, schema) as append_vectors,
    ):
        for rows, bags in parts(before, boi):
            states = load_states(args.previous, version.model, rows)
            after, vectors = encode_month(smen, states, bags, month)
            append_states(after)
            append_vectors(user_vectors(after, vectors, known.of(after.n_behaviors), version))
            n_users += len(after.users)
    write_json({"month": args.month, "model_version": version.model}, args.encoded)
    log.info(
        "%s: %d users before, %d rows of bags in, %d users out, model %s, space %s",
        *(args.vectors, len(before), len(boi), n_users, *version),
    )


if __name__ == "__main__":
    run_stage(main)
