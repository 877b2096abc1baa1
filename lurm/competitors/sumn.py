"""SUMN: several hops of attention over a user's behaviors, trained to agree with what comes later.

J. Gu, F. Wang, Q. Sun, Z. Ye, X. Xu, J. Chen and J. Zhang, "Exploiting Behavioral Consistence for
Universal User Representation", AAAI 2021 (https://arxiv.org/abs/2012.06146).
Letters: U users, n users in a batch, T behaviors of a sequence, H width.
"""

import numpy as np
import torch
from torch import Tensor, nn

from lurm.competitors.lives import NOTHING, Lives, sequences
from lurm.competitors.ptum import encode
from lurm.contrastive import nt_xent


class Sumn(nn.Module):
    """User vectors (n, H): a question asked of the behaviors, refined hop by hop."""

    item_words: Tensor

    def __init__(self, words: Tensor, n_words: int, width: int, hops: int) -> None:
        super().__init__()
        self.register_buffer("item_words", words, persistent=False)  # (I, L)
        self.words = nn.EmbeddingBag(n_words, width, mode="mean", padding_idx=0)
        self.behavior = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.question = nn.Parameter(torch.randn(width) * width**-0.5)
        self.hops = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(hops))

    def forward(self, items: Tensor) -> Tensor:
        """items: (n, T), ``NOTHING`` where there is none."""
        met, place = items.clamp(min=0).unique(return_inverse=True)
        x = self.behavior(self.words(self.item_words[met]))[place]  # (n, T, H)
        nothing = items == NOTHING
        nothing = nothing & ~nothing.all(1, keepdim=True)  # a user without behaviors reads one
        user = self.question.expand(len(items), -1)
        for hop in self.hops:
            scores = torch.einsum("nh,nth->nt", user, x) / x.shape[2] ** 0.5
            found = torch.einsum(
                "nt,nth->nh", scores.masked_fill(nothing, -torch.inf).softmax(1), x
            )
            user = torch.tanh(hop(torch.cat([user, found], dim=1)))
        return user


def sumn(
    lives: Lives,
    *,
    longest: int = 200,
    width: int = 128,
    hops: int = 3,
    steps: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    temperature: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """User vectors (U, H) float32 of the last ``longest`` behaviors, pre-trained without labels.

    A life is cut at random; the vector of what came before and that of what came after should agree.
    Departure: agreement is told from that with other users of the batch by NT-Xent, the loss that LURM
    itself uses, in place of the paper's ranking loss.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = Sumn(torch.from_numpy(lives.words), lives.n_words, width, hops).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    lengths = np.diff(lives.first)
    several = np.flatnonzero(lengths > 1)
    for _ in range(steps):
        users = rng.choice(several, min(batch_size, len(several)), replace=False)
        cut = lives.first[users] + rng.integers(1, lengths[users])
        until = np.minimum(cut + longest, lives.first[users + 1])
        before = sequences(lives, users, longest, cut)
        after = sequences(lives, users, longest, until)
        after = keep_last(after, until - cut)
        loss = nt_xent(model(before.to(device)), model(after.to(device)), temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encode(model, lives, longest, device)


def keep_last(items: Tensor, wanted: np.ndarray) -> Tensor:
    """The sequences (n, T) with all but the last ``wanted`` (n,) behaviors of each hidden."""
    lengths = (items != NOTHING).sum(1)
    place = torch.arange(items.shape[1])
    hidden = place < (lengths - torch.from_numpy(wanted))[:, None]
    return items.masked_fill(hidden, NOTHING)
