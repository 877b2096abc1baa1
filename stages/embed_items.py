"""Learn item vectors from what one user takes within a few days (paper 2.1.1, eq. 1-3).

In:  the pinned training catalog and behaviors.
Out: the item encoder, its vocabulary, the items and their unit vectors (I, H) in the same order, the
     loss curve, JSON figures.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lurm.console import run_stage
from lurm.database import database
from lurm.item_embedding import (
    UNKNOWN,
    build_vocabulary,
    embed_catalog,
    lives_of_some,
    pairs_of,
    train_item_encoder,
    word_ids,
)
from lurm.params import load_params
from lurm.storage import (
    month_files,
    read_parquet,
    row_count,
    write_array,
    write_csv,
    write_json,
    write_parquet,
    write_tensors,
)

log = logging.getLogger("embed_items")
MEMORY = "1GB"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("training", "encoder", "vocabulary", "items", "vectors", "result", "plot"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # the last digits depend on the number of threads
    params = load_params("params.yaml")
    settings = params.embed_items

    catalog = read_parquet(args.training / "catalog.parquet")
    months = month_files(args.training / "behaviors", list(params.training.months))
    with database(MEMORY, months[0]) as connection:
        behaviors = lives_of_some(connection, months, settings.most_behaviors)
    log.info("learns from %d of %d behaviors", len(behaviors), sum(map(row_count, months)))
    vocabulary = build_vocabulary(
        catalog, settings.text_columns, settings.min_word_count, settings.covered_items
    )
    ids = word_ids(catalog, vocabulary)
    encoder, losses = train_item_encoder(
        ids,
        pairs_of(behaviors, catalog, settings.beta_days),
        n_words=len(vocabulary),
        width=settings.width,
        text_width=settings.text_width,
        temperature=settings.temperature,
        batch_size=settings.batch_size,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )
    result = {
        "n_items": len(catalog),
        "n_behaviors": len(behaviors),
        "n_words": len(vocabulary.words),
        "n_words_per_item": vocabulary.n_words_per_item,
        "n_texts": len(np.unique(ids, axis=0)),
        "items_without_known_word": int((ids[:, 0] == UNKNOWN).sum()),
        "loss": float(np.mean(losses[-100:])),
    }
    write_tensors(encoder.state_dict(), args.encoder)
    write_json(vocabulary.to_json(), args.vocabulary)
    write_parquet(catalog.select(["item_id"]), args.items)
    write_array(embed_catalog(encoder, vocabulary, catalog), args.vectors)
    write_csv({"step": np.arange(1, len(losses) + 1), "loss": losses}, args.plot)
    write_json(result, args.result)
    log.info("%s: %s", args.vectors, result)


if __name__ == "__main__":
    run_stage(main)
