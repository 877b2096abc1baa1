"""A month's users encoded shard by shard, each by itself: here, or on one of Spark's workers.

Workers take this module from the project that is installed there. A function of the stage's script would be
sent to them with all that it refers to.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from lurm.confidence import Confidence
from lurm.encoding import encode_month, user_vectors
from lurm.months import month_number
from lurm.smen import load_smen
from lurm.states import PART, all_rows, cut, growing_states, load_pieces, load_users, parts
from lurm.storage import growing_parquet, read_json, read_rows, shard_folder
from lurm.tables import user_vectors_schema


@dataclass(frozen=True)
class Month:
    """A month to encode: its files and folders, absolute where Spark's workers are to find them."""

    month: str
    boi: Path
    previous: Path  # folder of the states of the month before
    smen: Path
    confidence: Path
    state: Path  # folder of the states after the month
    scratch: Path  # folder where the rows of the published table wait for each other
    device: str  # cpu | cuda


@dataclass(frozen=True)
class Shard:
    """Users next to each other: their rows in the states of the month before, and in the month's bags."""

    number: int
    states: slice
    bags: slice


def encode_shard(month: Month, shard: Shard) -> None:
    """Write the shard's states where they belong, and its rows of the published table to ``scratch``.

    Raises:
        FileNotFoundError, ValueError: as :func:`lurm.encoding.encode_month`, or a file is damaged.
        OSError: a file cannot be written.
    """
    torch.set_num_threads(1)  # the last digits depend on the number of threads
    torch.backends.cudnn.allow_tf32 = False  # a GRU's default on a GPU, 1e-5 away
    smen, version = load_smen(month.smen)
    smen.to(month.device)
    known = Confidence.from_json(read_json(month.confidence))
    boi = read_rows(month.boi, shard.bags)
    ids = boi["user_id"].combine_chunks()
    pieces = cut(all_rows(month.previous), shard.states)
    schema = user_vectors_schema(smen.settings.n_published, ids.type)
    number = month_number(month.month)
    with (
        growing_states(
            shard_folder(month.state, shard.number), smen.settings.scales, version.model
        ) as append_states,
        growing_parquet(vectors_of(month, shard), schema) as append_vectors,
    ):
        for rows, bags in parts(load_users(pieces), ids, PART, month.boi):
            states = load_pieces(cut(pieces, rows), version.model)
            after, vectors = encode_month(smen, states, boi[bags], number)
            append_states(after)
            append_vectors(user_vectors(after, vectors, known.of(after.n_behaviors), version))


def vectors_of(month: Month, shard: Shard) -> Path:
    """Where a shard's rows of the published table wait for the others."""
    return month.scratch / f"{shard.number:05}.parquet"
