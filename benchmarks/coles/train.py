"""CoLES by its authors' library, pytorch-lifestream, in the environment of the lock beside this file.

D. Babaev, N. Ovsov, I. Kireev, M. Ivanova, G. Gusev, I. Nazarov and A. Tuzhilin, "CoLES: Contrastive
Learning for Event Sequences with Self-Supervision", SIGMOD 2022 (https://arxiv.org/abs/2002.08232).
Slices of one user's life are drawn to each other and away from the nearest slices of other users.

In:  a table of events (`events.py`), sorted by user.
Out: user vectors (U, H) float32 as .npy, one for each user; zeros for a user without events.

Letters: U users, E events, H width, n slices of a batch, T events of the longest.
"""

import argparse
import logging
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from ptls.data_load.padded_batch import PaddedBatch
from ptls.data_load.utils import collate_feature_dict
from ptls.frames.coles import ColesDataset, CoLESModule
from ptls.frames.coles.split_strategy import SampleSlices
from ptls.nn import RnnEncoder, TrxEncoder
from ptls.nn.seq_encoder.containers import SeqEncoderContainer
from torch import Tensor
from torch.utils.data import DataLoader

GROUPS = 8  # of a batch
MOST_VALUES = 4096  # of a feature; rarer ones count as one
Life = dict[str, Tensor]  # of each feature the values in the order of time, (T,)


class GroupedEncoder(RnnEncoder):
    """The library's encoder over groups of like length: the same states (n, H), and little padding."""

    def forward(self, x: PaddedBatch, h_0: Tensor | None = None) -> Tensor:
        """x: features of events, padded, (n, T, features)."""
        order = x.seq_lens.argsort(stable=True)
        groups = order.tensor_split(min(GROUPS, len(order)))
        lengths = [x.seq_lens[group] for group in groups]
        parts = [
            super(GroupedEncoder, self).forward(PaddedBatch(x.payload[group, : n.max()], n))
            for group, n in zip(groups, lengths, strict=True)
        ]
        return torch.cat(parts)[order.argsort()]


def read_lives(path: Path, n_users: int) -> tuple[list[Life], dict[str, int]]:
    """The users' lives, and how many values each categorical feature has, 0 for padding counted."""
    events = pq.read_table(path)
    first = np.searchsorted(events["user"].to_numpy(), np.arange(1, n_users))
    features = {
        name: torch.from_numpy(events[name].to_numpy().copy()).tensor_split(first.tolist())
        for name in events.column_names
        if name != "user"
    }
    sizes = {
        name: 1 + int(events[name].to_numpy().max())
        for name in features
        if events[name].type == "int64"
    }
    names = list(features)
    return [
        dict(zip(names, life, strict=True)) for life in zip(*features.values(), strict=True)
    ], sizes


def encode(encoder: SeqEncoderContainer, lives: Sequence[Life], batch_size: int) -> np.ndarray:
    """The vectors (U, H) of whole lives; those of like length are read together."""
    encoder.eval()
    lengths = np.array([len(life["event_time"]) for life in lives])
    order = np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]
    vectors = np.zeros((len(lives), encoder.embedding_size), dtype=np.float32)
    with torch.inference_mode():
        for part in np.array_split(order, max(1, -(-len(order) // batch_size))):
            vectors[part] = encoder(collate_feature_dict([lives[u] for u in part])).numpy()
    return vectors


def main(argv: Sequence[str] | None = None) -> None:
    """Train, encode, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    for name in ("users", "epochs", "width", "slices", "shortest", "longest", "batch-size", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args(argv)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    pl.seed_everything(args.seed, verbose=False)

    lives, sizes = read_lives(args.events, args.users)
    features = TrxEncoder(
        embeddings={
            name: {"in": min(max(size, 3), MOST_VALUES), "out": 16} for name, size in sizes.items()
        },
        numeric_values={"gap": "identity"},
        embeddings_noise=0.003,
        use_batch_norm_with_lens=True,  # else padding is part of the batch norm of `gap`
    )
    model = CoLESModule(
        SeqEncoderContainer(features, GroupedEncoder, None, {"hidden_size": args.width}),
        optimizer_partial=partial(torch.optim.Adam, lr=1e-3),
        lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=30, gamma=0.9),
    )
    slices = ColesDataset(
        [life for life in lives if len(life["event_time"]) >= 4],
        SampleSlices(args.slices, args.shortest, args.longest, short_seq_crop_rate=0.5),
    )
    batches = DataLoader(slices, args.batch_size, shuffle=True, collate_fn=slices.collate_fn)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, batches)
    np.save(args.out, encode(model.seq_encoder, lives, args.batch_size))


if __name__ == "__main__":
    main()
