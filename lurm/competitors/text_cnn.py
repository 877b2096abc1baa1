"""TextCNN: convolutions over the words of a user's behaviors, trained for each task.

Y. Kim, "Convolutional Neural Networks for Sentence Classification", EMNLP 2014
(https://arxiv.org/abs/1408.5882).
Letters: n users in a batch, T behaviors, L words of an item, H width of a word, C classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lurm.competitors.lives import NOTHING


class TextCNN(nn.Module):
    """Logits (n, C) of users whose words, one behavior after the other, are read as one text."""

    item_words: Tensor

    def __init__(
        self,
        words: Tensor,
        n_words: int,
        n_classes: int,
        width: int = 128,
        filters: int = 100,
        windows: tuple[int, ...] = (3, 4, 5),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.register_buffer("item_words", words, persistent=False)  # (I, L)
        self.embedding = nn.Embedding(n_words, width, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, filters, size) for size in windows)
        self.windows = windows
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(filters * len(windows), n_classes)

    def forward(self, items: Tensor) -> Tensor:
        """items: (n, T) rows of items, ``NOTHING`` where there is none.

        Every window within the text counts and none beyond its end, so padding changes nothing.
        """
        words = self.item_words[items.clamp(min=0)]  # (n, T, L)
        words = (words * (items != NOTHING).unsqueeze(2)).flatten(1)
        kept = words != 0
        order = torch.argsort((~kept).to(torch.int8), dim=1, stable=True)
        lengths = kept.sum(1)
        text = words.gather(1, order)[:, : max(int(lengths.max()), 1)]  # words to the front
        text = functional.pad(text, (0, max(self.windows)))
        x = self.embedding(text).transpose(1, 2)  # (n, H, T * L)
        pooled = []
        for window, convolution in zip(self.windows, self.convolutions, strict=True):
            y = functional.relu(convolution(x))
            inside = torch.arange(y.shape[2], device=y.device) < (
                lengths.clamp(min=window)[:, None] - window + 1
            )
            pooled.append((y * inside.unsqueeze(1)).amax(2))
        return self.out(self.dropout(torch.cat(pooled, dim=1)))
