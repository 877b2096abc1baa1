"""PTUM: a user model pre-trained to tell masked behaviors and the next K behaviors.

C. Wu, F. Wu, T. Qi, J. Lian, Y. Huang and X. Xie, "PTUM: Pre-training User Model from Unlabeled User
Behaviors via Self-supervision", Findings of EMNLP 2020 (https://arxiv.org/abs/2010.01494).
Letters: U users, n users in a batch, T behaviors of a sequence, H width, K next behaviors.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurm.competitors.lives import NOTHING, Lives, sequences

N_NEXT = 2  # K of the paper
N_NEGATIVES = 4  # P of the paper


class UserModel(nn.Module):
    """User vectors (n, H): words to behaviors, a transformer over these, pooled by attention."""

    item_words: Tensor

    def __init__(self, words: Tensor, n_words: int, width: int, longest: int) -> None:
        super().__init__()
        self.register_buffer("item_words", words, persistent=False)  # (I, L)
        self.words = nn.EmbeddingBag(n_words, width, mode="mean", padding_idx=0)
        self.behavior = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.places = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.mask = nn.Parameter(torch.randn(width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.attention = nn.Linear(width, 1)

    def items(self, items: Tensor) -> Tensor:
        """Vectors of behaviors (..., H) by the rows of their items (...)."""
        return self.behavior(self.words(self.item_words[items.flatten()])).unflatten(0, items.shape)

    def forward(self, items: Tensor, masked: Tensor | None = None) -> Tensor:
        """items: (n, T), ``NOTHING`` where there is none; masked: (n,) places that are hidden."""
        x = self.items(items.clamp(min=0))
        if masked is not None:
            hidden = torch.arange(items.shape[1], device=items.device) == masked[:, None]
            x = torch.where(hidden.unsqueeze(2), self.mask, x)
        nothing = items == NOTHING
        nothing = nothing & ~nothing.all(1, keepdim=True)  # a user without behaviors reads one
        x = self.transformer(x + self.places[: items.shape[1]], src_key_padding_mask=nothing)
        scores = self.attention(x).squeeze(2).masked_fill(nothing, -torch.inf)
        return (scores.softmax(1).unsqueeze(2) * x).sum(1)


def candidates_loss(model: UserModel, users: Tensor, true: Tensor, others: Tensor) -> Tensor:
    """Cross-entropy of the true behavior (n,) among itself and the ``others`` (n, P) by u . r."""
    r = model.items(torch.cat([true.unsqueeze(1), others], dim=1))  # (n, 1 + P, H)
    logits = torch.einsum("nh,nph->np", users, r) / users.shape[1] ** 0.5
    return functional.cross_entropy(
        logits, torch.zeros(len(true), dtype=torch.int64).to(true.device)
    )


def ptum(
    lives: Lives,
    *,
    longest: int = 200,
    width: int = 128,
    steps: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """User vectors (U, H) float32 of the last ``longest`` behaviors, pre-trained without labels.

    Masked Behavior Prediction hides one behavior of a stretch, Next K Behaviors Prediction the K after
    it; each is to be told from P behaviors of other users. The two losses are added up.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = UserModel(torch.from_numpy(lives.words), lives.n_words, width, longest).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    lengths = np.diff(lives.first)
    long_enough = np.flatnonzero(lengths > N_NEXT)

    def drawn(shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(lives.items[rng.integers(0, len(lives.items), shape)]).to(device)

    for _ in range(steps):
        users = rng.choice(long_enough, min(batch_size, len(long_enough)), replace=False)
        end = lives.first[users] + rng.integers(1, lengths[users] - N_NEXT + 1)
        items = sequences(lives, users, longest, end).to(device)
        masked = torch.from_numpy(rng.integers(0, (items != NOTHING).sum(1).cpu().numpy())).to(
            device
        )
        hidden = items.gather(1, masked.unsqueeze(1)).squeeze(1)
        loss = candidates_loss(
            model, model(items, masked), hidden, drawn((len(users), N_NEGATIVES))
        )
        past = model(items)
        for k in range(N_NEXT):
            following = torch.from_numpy(lives.items[end + k]).to(device)
            others = drawn((len(users), N_NEGATIVES))
            loss = loss + candidates_loss(model, past, following, others) / N_NEXT
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encode(model, lives, longest, device)


def encode(model: nn.Module, lives: Lives, longest: int, device: str) -> np.ndarray:
    """The vectors (U, H) of all users by ``model``."""
    model.eval()
    everyone = np.arange(len(lives.first) - 1)
    parts = np.array_split(everyone, max(1, -(-len(everyone) // 256)))
    with torch.no_grad():
        return np.concatenate(
            [model(sequences(lives, part, longest).to(device)).cpu().numpy() for part in parts]
        )
