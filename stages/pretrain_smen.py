"""Pre-train SMEN on two views of every user's life (paper 2.2, eq. 5-9).

In:  the training timelines; the interests' centres; the pinned catalog and behaviors and the items'
     interests, for what interests consist of; the users' vectors of the standing release, if there is one,
     as of the last training month.
Out: the encoder with its settings and version, how its anchors share out the interests, the published
     table before the first month (of nobody), the loss curve, JSON figures.

With a standing release the encoder's vectors are turned into its space (lurm/alignment.py). Several
processes share the work under torchrun (lurm/distributed.py); the first writes. The bytes above are
those of one process on a CPU with float32; other choices give other roundings.
"""

import argparse
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lurm.alignment import align, check_panel, panel
from lurm.console import run_stage
from lurm.distributed import processes
from lurm.interests.composition import WORDS, compositions, count_items
from lurm.months import month_number
from lurm.params import load_params
from lurm.pretraining import add_projection, pretrain, published
from lurm.smen import SmenSettings, model_settings, model_tensors
from lurm.storage import (
    month_files,
    read_array,
    read_json,
    read_parquet,
    read_taken,
    write_array,
    write_csv,
    write_json,
    write_parquet,
    write_tensors,
)
from lurm.tables import user_vectors_schema
from lurm.timelines import ShardedTimelines
from lurm.vectors import vector_matrix, vector_space

log = logging.getLogger("pretrain_smen")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in (
        *("timelines", "centres", "training", "item-interests", "standing"),
        *("smen", "anchor-shares", "start", "result", "plot"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # the last digits depend on the number of threads
    params = load_params("params.yaml")
    chosen = params.pretrain_smen

    timelines = ShardedTimelines(args.timelines)
    centres, n_interests = read_array(args.centres), params.cluster_interests.n_interests
    settings = SmenSettings(
        n_interests=len(centres) if n_interests == "auto" else n_interests,
        n_anchors=chosen.n_anchors,
        width=chosen.width,
        scales=chosen.scales,
        gate=chosen.gate,
        empty_periods=chosen.empty_periods,
        aggregation=chosen.aggregation,
        published_width=chosen.published_width,
    )
    standing = None
    if chosen.space != "new":  # before the training, which may take hours
        through = params.training.through
        standing = read_standing(args.standing, through, timelines, settings.n_published)
    month, composition = month_number(params.training.through), None
    if chosen.published_width:  # before the training, which may take hours
        text_columns = params.embed_items.text_columns
        composition = compositions(
            (*text_columns, WORDS) if chosen.columns == "auto" else chosen.columns,
            read_parquet(args.training / "catalog.parquet"),
            read_parquet(args.item_interests),
            count_items(month_files(args.training / "behaviors", list(params.training.months))),
            text_columns=text_columns,
            n_interests=settings.n_interests,
        )
    with processes(args.device) as writes:
        smen, losses = pretrain(
            timelines,
            settings,
            temperature=chosen.temperature,
            batch_size=chosen.batch_size,
            epochs=chosen.epochs,
            learning_rate=chosen.learning_rate,
            min_view_share=chosen.min_view_share,
            max_view_share=chosen.max_view_share,
            min_kept_share=chosen.min_kept_share,
            seed=chosen.seed,
            centres=centres if chosen.interest_start == "centres" else None,
            device=args.device,
            precision=args.precision,
        )
    if not writes:
        return
    projection = {}
    if composition is not None:
        projection = add_projection(
            smen,
            timelines,
            composition,
            month=month,
            block_width=chosen.block_width,
            seed=chosen.seed,
        )
    space, alignment = {}, {}
    if standing is not None:
        aligned = align(published(smen, timelines, standing.rows, month), standing.vectors)
        smen.turn, smen.offset = aligned.turn, aligned.offset
        space["space_version"] = standing.space
        figures = {"n_users": len(standing.rows), "explained": round(aligned.explained, 6)}
        alignment["alignment"] = figures
    weights = hashlib.sha256()
    tensors = model_tensors(smen)
    for tensor in tensors.values():
        weights.update(tensor.numpy().tobytes())
    version = f"{params.training.through}-r{params.training.release}-{weights.hexdigest()[:8]}"
    about = {"model_version": version, **space}
    write_tensors(tensors, args.smen, {**about, **model_settings(smen)})
    with torch.inference_mode():
        shares = smen.multi_anchor.shares(smen.multi_anchor.interests)
    write_array(shares.numpy(), args.anchor_shares)
    nobody = user_vectors_schema(settings.n_published, timelines.id_type).empty_table()
    write_parquet(nobody, args.start)
    write_csv({"epoch": range(1, len(losses) + 1), "loss": losses}, args.plot)
    result = {
        **about,
        "n_users": len(timelines),
        "n_bags": timelines.n_bags,
        "n_weights": sum(tensor.numel() for tensor in smen.parameters()),
        "loss": losses[-1],
        **alignment,
        "projection": projection,
    }
    write_json(result, args.result)
    log.info("%s: %s", args.smen, result)


class Standing(NamedTuple):
    """The standing vectors of the users of the panel."""

    rows: NDArray[np.int64]  # (n,) of the users in the timelines
    vectors: NDArray[np.float32]  # (n, d)
    space: str


def read_standing(
    folder: Path, through: str, timelines: ShardedTimelines, width: int
) -> Standing | None:
    """The standing release's vectors as of the month, which vectors of ``width`` numbers can be aligned to.

    None before there is a release.

    Raises:
        ValueError: they are as of another month, or nothing could be aligned to them.
    """
    release = folder / "release"
    if not release.exists():
        return None
    about = read_json(release / "about.json")
    if about["month"] != through:
        raise ValueError(
            f"{release}: expected the standing vectors as of training.through ({through}), found those "
            f"as of {about['month']}; let lurm_retrain order the training"
        )
    published_there = release / "user_vectors.parquet"
    ids = read_parquet(published_there, ["user_id"])["user_id"].combine_chunks()
    here, there = panel(timelines.users, ids)
    table = read_taken(published_there, there)
    vectors = vector_matrix(table)
    check_panel(len(here), width, vectors.shape[1])
    return Standing(here, vectors, vector_space(table))


if __name__ == "__main__":
    run_stage(main)
