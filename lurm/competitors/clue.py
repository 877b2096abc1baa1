"""CLUE: a transformer over the words of items, then over items, trained by contrast like CLIP.

K. Shin, H. Kwak, S. Y. Kim, M. N. Ramström, J. Jeong, J.-W. Ha and K.-M. Kim, "Scaling Law for
Recommendation Models: Towards General-purpose User Representations", AAAI 2023
(https://arxiv.org/abs/2111.11294); LURM's paper compares with a model like it in 3.8.
Letters: U users, n users in a batch, I items of a batch, L words of an item, T behaviors, H width.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurm.competitors.icl import stretch
from lurm.competitors.lives import NOTHING, Lives
from lurm.competitors.ptum import encode


def transformer(width: int, layers: int) -> nn.TransformerEncoder:
    """A pre-norm transformer encoder without dropout, four times as wide inside."""
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the second axis of x (n, T, H) where mask (n, T) is true; zeros where it never is."""
    weights = mask.unsqueeze(2).to(x.dtype)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)


class Clue(nn.Module):
    """User vectors (n, H): mean of the last states of a transformer over item vectors."""

    item_words: Tensor

    def __init__(
        self, words: Tensor, n_words: int, width: int, longest: int, layers: int = 1
    ) -> None:
        super().__init__()
        self.register_buffer("item_words", words, persistent=False)  # (I, L)
        self.words = nn.Embedding(n_words, width, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.items = transformer(width, layers)
        self.history = transformer(width, layers)
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())  # CLIP's start

    def forward(self, items: Tensor) -> Tensor:
        """items: (n, T), ``NOTHING`` as padding."""
        present, inverse = items.clamp(min=0).unique(return_inverse=True)
        words = self.item_words[present]
        mask = words != 0
        mask[:, 0] = True  # an item without words reads one padding
        states = self.items(self.words(words), src_key_padding_mask=~mask)
        x = masked_mean(states, mask)[inverse] + self.positions[: items.shape[1]]
        present_mask = items != NOTHING
        readable = present_mask.clone()
        readable[:, 0] = True  # a user without behaviors reads one padding
        return masked_mean(self.history(x, src_key_padding_mask=~readable), readable)


def clue(
    lives: Lives,
    *,
    longest: int = 128,
    width: int = 64,
    steps: int = 200,
    batch_size: int = 128,
    learning_rate: float = 5e-4,
    seed: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """User vectors (U, H) float32 of the last ``longest`` behaviors, pre-trained without labels.

    The symmetric cross-entropy of CLIP over cosines with a learned temperature. The same seed gives the
    same bytes on one thread.

    Departure: the paper's two views are a user's histories in two services. A shop has one, so that the
    views are two random stretches of one history. One layer each, where the paper scales up to 160
    million parameters.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = Clue(torch.from_numpy(lives.words), lives.n_words, width, longest).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    several = np.flatnonzero(np.diff(lives.first) > 1)
    for _ in range(steps):
        users = rng.choice(several, min(batch_size, len(several)), replace=False)
        one, two = (
            functional.normalize(model(stretch(lives, users, longest, rng).to(device)), dim=1)
            for _ in range(2)
        )
        logits = model.log_scale.clamp(max=np.log(100)).exp() * one @ two.T
        target = torch.arange(len(users), device=device)
        loss = functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encode(model, lives, longest, device)
