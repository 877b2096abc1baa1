"""HAN: attention over the words of a behavior, then over the behaviors of a user, trained for each task.

Z. Yang et al., "Hierarchical Attention Networks for Document Classification", NAACL 2016
(https://aclanthology.org/N16-1174). A behavior takes the place of the sentence.
Letters: n users in a batch, T behaviors, L words of an item, H width of a word, C classes.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lurm.competitors.lives import NOTHING


class AttentivePool(nn.Module):
    """The states of a two-way GRU over a sequence, weighed by attention (eq. 5-7 of HAN)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=True)
        self.inner = nn.Linear(2 * hidden, 2 * hidden)
        self.context = nn.Parameter(torch.randn(2 * hidden) * (2 * hidden) ** -0.5)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(n, T, H) with ``lengths`` (n,) >= 1 places in use each -> (n, 2 * hidden)."""
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        scores = torch.tanh(self.inner(states)) @ self.context  # (n, T)
        there = torch.arange(states.shape[1], device=x.device) < lengths[:, None]
        weights = scores.masked_fill(~there, -torch.inf).softmax(1)
        return (weights.unsqueeze(2) * states).sum(1)


class HAN(nn.Module):
    """Logits (n, C) of users; each distinct item of the batch is read once."""

    item_words: Tensor

    def __init__(
        self, words: Tensor, n_words: int, n_classes: int, width: int = 128, hidden: int = 64
    ) -> None:
        super().__init__()
        self.register_buffer("item_words", words, persistent=False)  # (I, L)
        self.embedding = nn.Embedding(n_words, width, padding_idx=0)
        self.over_words = AttentivePool(width, hidden)
        self.over_behaviors = AttentivePool(2 * hidden, hidden)
        self.out = nn.Linear(2 * hidden, n_classes)

    def forward(self, items: Tensor) -> Tensor:
        """items: (n, T) rows of items, ``NOTHING`` where there is none."""
        met, place = items.clamp(min=0).unique(return_inverse=True)
        words = self.item_words[met]  # (met, L)
        each = self.over_words(self.embedding(words), (words != 0).sum(1).clamp(min=1))
        lengths = (items != NOTHING).sum(1).clamp(min=1)
        return self.out(self.over_behaviors(each[place], lengths))
