"""ICL: behaviors gathered by a dictionary of interests, trained by contrast of two stretches of a history.

Q. Sun, J. Gu, B. Yang, X. Xu, R. Xu, S. Gao, H. Liu and H. Xu, "Interest-oriented Universal User
Representation via Contrastive Learning", 2021 (https://arxiv.org/abs/2109.08865); LURM's paper compares
with it in 3.8 and says that it reads 320 behaviors.
Letters: U users, n users in a batch, T behaviors of a sequence, M dictionary entries, H width.
"""

import numpy as np
import torch
from torch import Tensor, nn

from lurm.competitors.lives import NOTHING, Lives, sequences
from lurm.competitors.ptum import encode
from lurm.contrastive import nt_xent


class Icl(nn.Module):
    """User vectors (n, K * H): behaviors gathered around the K dictionary entries nearest to the user."""

    item_words: Tensor

    def __init__(
        self, words: Tensor, n_words: int, width: int, n_entries: int, n_chosen: int
    ) -> None:
        super().__init__()
        self.register_buffer("item_words", words, persistent=False)  # (I, L)
        self.words = nn.EmbeddingBag(n_words, width, mode="mean", padding_idx=0)
        self.behavior = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.dictionary = nn.Parameter(torch.randn(n_entries, width) * width**-0.5)
        self.n_chosen = n_chosen
        self.output = nn.Linear(width, width)

    def interests(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (n, M, H) of a user around each entry, and the entries' weights (n, M)."""
        present, inverse = items.clamp(min=0).unique(return_inverse=True)
        x = self.behavior(self.words(self.item_words[present]))[inverse]  # (n, T, H)
        mask = (items != NOTHING).unsqueeze(2)
        scores = torch.einsum("nth,mh->ntm", x, self.dictionary) / x.shape[2] ** 0.5
        shares = scores.softmax(2) * mask  # each behavior is divided among the entries
        weights = shares.sum(1)  # (n, M)
        gathered = torch.einsum("ntm,nth->nmh", shares, x) / (weights.unsqueeze(2) + 1e-6)
        return self.output(gathered), weights / mask.sum(1).clamp(min=1)

    def summary(self, items: Tensor) -> Tensor:
        """The principal interests of each user, weighted by their share, (n, H)."""
        gathered, weights = self.interests(items)
        top, index = weights.topk(self.n_chosen, dim=1)
        chosen = gathered.gather(1, index.unsqueeze(2).expand(-1, -1, gathered.shape[2]))
        return (top.unsqueeze(2) * chosen).sum(1) / (top.sum(1, keepdim=True) + 1e-6)

    def forward(self, items: Tensor) -> Tensor:
        """items: (n, T), ``NOTHING`` as padding. All entries by their share, (n, M * H).

        A frozen vector needs a fixed place for each entry, so that a head can read it.
        """
        gathered, weights = self.interests(items)
        return (gathered * weights.unsqueeze(2)).flatten(1)


def icl(
    lives: Lives,
    *,
    longest: int = 320,
    width: int = 32,
    n_entries: int = 16,
    n_chosen: int = 4,
    steps: int = 600,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    temperature: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """User vectors (U, M * H) float32 of the last ``longest`` behaviors, pre-trained without labels.

    Two random stretches of a user's history should agree, against those of other users. The same seed
    gives the same bytes on one thread.

    Departure: the description of the paper leaves open how long a stretch is (here a tenth to a half of
    the history) and how the vector is published (here all dictionary entries side by side, by their share).
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    words = torch.from_numpy(lives.words)
    model = Icl(words, lives.n_words, width, n_entries, n_chosen).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    several = np.flatnonzero(np.diff(lives.first) > 1)
    for _ in range(steps):
        users = rng.choice(several, min(batch_size, len(several)), replace=False)
        one, two = (stretch(lives, users, longest, rng).to(device) for _ in range(2))
        loss = nt_xent(model.summary(one), model.summary(two), temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encode(model, lives, longest, device)


def stretch(lives: Lives, users: np.ndarray, longest: int, rng: np.random.Generator) -> Tensor:
    """A random stretch of each user's history, a tenth to a half of it, at most ``longest``, (n, T)."""
    first, length = lives.first[users], np.diff(lives.first)[users]
    wanted = np.maximum(1, (length * rng.uniform(0.1, 0.5, len(users))).astype(np.int64))
    wanted = np.minimum(wanted, longest)
    end = first + rng.integers(wanted, length + 1)
    items = sequences(lives, users, longest, end)
    position = torch.arange(items.shape[1])
    lengths = (items != NOTHING).sum(1, keepdim=True)
    start = lengths - torch.from_numpy(wanted)[:, None]
    width = int(wanted.max())
    kept = (position >= start) & (position < lengths)
    # the stretch moves to the front, so that padding is at the end
    index = (start.clamp(min=0) + torch.arange(width)).clamp(max=items.shape[1] - 1)
    inside = torch.arange(width) < kept.sum(1, keepdim=True)
    return torch.where(inside, items.gather(1, index), NOTHING)
