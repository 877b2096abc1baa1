"""Items to unit vectors, learned from which items one user takes within a few days (paper 2.1.1).

Letters: I items, L words of an item after truncation, V words in the vocabulary, H width, n users in a
batch, B behaviors.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lurm.console import progress
from lurm.contrastive import nt_xent
from lurm.database import literal
from lurm.storage import read_parquet, read_schema, row_count

PAD, UNKNOWN = 0, 1  # word ids before the first word of the vocabulary
DAY = 86_400_000_000  # microseconds


# ---- words -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """The words that are known, by falling count, and how an item's words are read."""

    words: tuple[str, ...]
    n_words_per_item: int
    text_columns: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words) + 2

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Vocabulary":
        """The vocabulary that :meth:`to_json` wrote."""
        return cls(tuple(value["words"]), value["n_words_per_item"], tuple(value["text_columns"]))


@cache
def _word() -> re.Pattern[str]:
    # Many scripts write vowels as combining marks, which Python's \w leaves out.
    marks = [c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M"]
    return re.compile(rf"\w[\w{''.join(marks)}]*")


def split_words(text: str) -> list[str]:
    """The words of a text, in order: runs of letters, digits and underscores of any script.

    Scripts that put no space between words (Chinese, Thai) give one word per run.

    >>> split_words("BREAD:ITALIAN/FRENCH 20 OZ")
    ['bread', 'italian', 'french', '20', 'oz']
    """
    return _word().findall(unicodedata.normalize("NFKC", text.casefold()))


def item_words(catalog: pa.Table, text_columns: Sequence[str]) -> list[list[str]]:
    """The words of every item of the catalog, its text columns read in the order given.

    Raises:
        ValueError: the catalog lacks one of the columns.
    """
    missing = [name for name in text_columns if name not in catalog.column_names]
    if missing:
        raise ValueError(
            f"embed_items.text_columns: the catalog has no column {', '.join(missing)}; "
            f"it has {', '.join(catalog.column_names)}"
        )
    columns = [catalog.column(name).to_pylist() for name in text_columns]
    return [
        split_words(" ".join(part for part in parts if part))
        for parts in zip(*columns, strict=True)
    ]


def build_vocabulary(
    catalog: pa.Table, text_columns: Sequence[str], min_word_count: int, covered_items: float
) -> Vocabulary:
    """The vocabulary of the catalog's words, with the truncation length found from the data.

    A word is kept if ``min_word_count`` items hold it or more. The length is the shortest that leaves
    a share ``covered_items`` of the items whole (the paper's 0.95 gave 35 for Amazon).

    Raises:
        ValueError: no word is frequent enough.
    """
    words = item_words(catalog, text_columns)
    counts = Counter(word for item in words for word in set(item))
    known = sorted((-count, word) for word, count in counts.items() if count >= min_word_count)
    if not known:
        raise ValueError(
            f"embed_items: none of {len(counts)} words occurs in {min_word_count} items or more; "
            "check text_columns or lower min_word_count"
        )
    lengths = np.array([len(item) for item in words])
    length = int(np.quantile(lengths, covered_items, method="inverted_cdf"))
    return Vocabulary(tuple(word for _, word in known), max(length, 1), tuple(text_columns))


def word_ids(catalog: pa.Table, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Word ids (I, L) of the catalog's items, padded with ``PAD``.

    An item without a known word reads as one ``UNKNOWN``.
    """
    words = item_words(catalog, vocabulary.text_columns)
    number = {word: n for n, word in enumerate(vocabulary.words, start=2)}
    ids = np.full((len(words), vocabulary.n_words_per_item), PAD, dtype=np.int64)
    for row, item in enumerate(words):
        known = [number[word] for word in item[: vocabulary.n_words_per_item] if word in number]
        known = known or [UNKNOWN]
        ids[row, : len(known)] = known
    return ids


# ---- the encoder, eq. 1 ------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """x + W2 ReLU(W1 x), the block of which the projection holds two."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(I, H) -> (I, H)."""
        return x + self.outer(functional.relu(self.inner(x)))


class ItemEncoder(nn.Module):
    """e_x = normalize(proj(mean of the item's word vectors)) (paper eq. 1), and the words themselves.

    Departure: behind the learned numbers stand ``text_width`` numbers that are not learned, of the same
    length: the sum of random vectors, one for each word, weighted by how rare it is. Pairs teach what is
    bought together, words tell what is of one kind, and interests need both. A random projection keeps
    inner products (Johnson and Lindenstrauss, 1984). 0 is the paper.
    """

    text: Tensor  # (V + 2, text_width)

    def __init__(self, n_words: int, width: int, text_width: int = 0) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(n_words, width, mode="mean", padding_idx=PAD)
        self.proj = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.register_buffer("text", torch.zeros(n_words, text_width))

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "ItemEncoder":
        """The encoder whose ``state_dict`` this is."""
        n_words, width = tensors["words.weight"].shape
        encoder = cls(n_words, width, tensors["text"].shape[1])
        encoder.load_state_dict(tensors)
        return encoder.eval()

    def learned(self, ids: Tensor) -> Tensor:
        """Unit vectors (I, H) of items with word ids (I, L), which the loss compares."""
        return functional.normalize(self.proj(self.words(ids)), dim=1)

    def forward(self, ids: Tensor) -> Tensor:
        """Unit vectors (I, H + text_width) of items with word ids (I, L)."""
        if not self.text.shape[1]:
            return self.learned(ids)
        text = functional.normalize(functional.embedding_bag(ids, self.text, mode="sum"), dim=1)
        return functional.normalize(torch.cat([self.learned(ids), text], dim=1), dim=1)


def random_words(
    ids: NDArray[np.int64], n_words: int, width: int, seed: int
) -> NDArray[np.float32]:
    """A random vector (V + 2, width) for every word, the longer the rarer it is among items ``ids`` (I, L).

    Its length is about log(I / items that hold the word); padding and the unknown word have none.
    """
    item = np.repeat(np.arange(len(ids)), ids.shape[1])
    held = np.unique(np.stack([item, ids.ravel()]), axis=1)[1]
    rarity = np.log(len(ids) / np.bincount(held, minlength=n_words).clip(1))
    rarity[[PAD, UNKNOWN]] = 0
    drawn = np.random.default_rng(seed).standard_normal((n_words, width)) / np.sqrt(width)
    return (drawn * rarity[:, None]).astype(np.float32)


# ---- positive pairs ----------------------------------------------------------------------------


class PairSampler:
    """Pairs of different items that one user took less than ``beta_days`` apart.

    Pairs are never listed: a behavior is drawn, then a partner from the window around it, which binary
    searches find. ``user`` (B,) and ``time`` (B,) in microseconds are sorted by user, then time;
    ``item`` (B,) holds row numbers of items.

    Raises:
        ValueError: the behaviors are not sorted, or no user has two.
    """

    def __init__(
        self,
        user: NDArray[np.int64],
        time: NDArray[np.int64],
        item: NDArray[np.int64],
        beta_days: float,
    ) -> None:
        self.time, self.item = time, item
        self.beta = int(beta_days * DAY)
        # One sorted axis for all users, of user and number of the moment: in microseconds it would
        # leave int64 with some hundred thousand users.
        users, first, self.user = np.unique(user, return_index=True, return_inverse=True)
        self.moments, moment = np.unique(time, return_inverse=True)
        self.axis = self.user * len(self.moments) + moment
        if (np.diff(self.axis) < 0).any():
            raise ValueError("embed_items: behaviors must be sorted by user, then time")
        last = np.append(first[1:], len(user))
        several = last - first > 1
        self.first, self.last = first[several], last[several]
        if not several.any():
            raise ValueError(
                f"embed_items: none of {len(users)} users has two behaviors, so there is no pair to "
                "learn from; land more months"
            )

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Up to ``n`` pairs of item rows, each of another user.

        A user whose draw holds the same item twice sits this batch out.
        """
        users = rng.choice(len(self.first), size=min(n, len(self.first)), replace=False)
        x = rng.integers(self.first[users], self.last[users])
        after = np.searchsorted(self.moments, self.time[x] - self.beta, side="right")
        until = np.searchsorted(self.moments, self.time[x] + self.beta, side="left")
        own = self.user[x] * len(self.moments)
        low, high = (np.searchsorted(self.axis, own + moment) for moment in (after, until))
        y = rng.integers(low, high)
        differ = self.item[x] != self.item[y]
        return self.item[x[differ]], self.item[y[differ]]


def lives_of_some(
    connection: duckdb.DuckDBPyConnection, files: Sequence[Path], most: int
) -> pa.Table:
    """The behaviors in the ``files``, or if they are more than ``most``, about so many, in whole lives.

    Users are then drawn by a hash of their ids, so that memory follows ``most`` and not the users. A
    training step takes one pair of each user in its batch, far fewer than there are.

    Departure: the paper does not say that it leaves users out here, as it does with items for clusters.
    """
    n = sum(map(row_count, files))
    if n <= most:
        return pa.concat_tables(read_parquet(path) for path in files)
    drawn = f"""
    SELECT * FROM read_parquet([{", ".join(map(literal, files))}])
    WHERE md5_number_lower(CAST(user_id AS VARCHAR)) < CAST({int(most / n * 2**64)} AS UBIGINT)
    """
    return connection.sql(drawn).to_arrow_table().cast(read_schema(files[0]))


def pairs_of(behaviors: pa.Table, catalog: pa.Table, beta_days: float) -> PairSampler:
    """The sampler of pairs over ``behaviors``, in any order; items are rows of ``catalog``.

    Raises:
        ValueError: behaviors are of items that the catalog does not hold, or no user has two.
    """
    behaviors = behaviors.sort_by([("user_id", "ascending"), ("timestamp", "ascending")])
    user = pc.rank(behaviors["user_id"], tiebreaker="dense").to_numpy()
    item = pc.index_in(behaviors["item_id"], catalog["item_id"])
    if item.null_count:
        raise ValueError(
            f"embed_items: {item.null_count:,} behaviors are of items that the pinned catalog does "
            "not hold; pin the catalog and the months of one release"
        )
    time = behaviors["timestamp"].cast(pa.int64()).to_numpy()
    return PairSampler(user.astype(np.int64), time, item.to_numpy(), beta_days)


# ---- training and use --------------------------------------------------------------------------


def train_item_encoder(
    ids: NDArray[np.int64],
    pairs: PairSampler,
    *,
    n_words: int,
    width: int,
    text_width: int,
    temperature: float,
    batch_size: int,
    steps: int,
    learning_rate: float,
    seed: int,
) -> tuple[ItemEncoder, list[float]]:
    """The item encoder trained with NT-Xent on pairs (paper eq. 2-3), and its loss at each step.

    ``ids`` (I, L) are the items' word ids. The same seed gives the same bytes on the same machine with
    the same number of threads.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    encoder = ItemEncoder(n_words, width, text_width)
    encoder.text.copy_(torch.from_numpy(random_words(ids, n_words, text_width, seed)))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=learning_rate)
    all_ids = torch.from_numpy(ids)
    losses: list[float] = []
    for _ in progress(range(steps), "embed_items: step"):
        x, y = pairs.draw(batch_size, rng)
        if len(x) < 2:
            continue
        both = encoder.learned(all_ids[np.concatenate([x, y])])
        loss = nt_xent(both[: len(x)], both[len(x) :], temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if not losses:
        raise ValueError(
            "embed_items: no batch held two pairs of different items within beta_days; "
            "raise beta_days or land more users"
        )
    return encoder.eval(), losses


def embed_catalog(
    encoder: ItemEncoder, vocabulary: Vocabulary, catalog: pa.Table, chunk: int = 65_536
) -> NDArray[np.float32]:
    """Unit vectors (I, H + text_width) of the catalog's items, in its order, computed in chunks."""
    ids = word_ids(catalog, vocabulary)
    with torch.inference_mode():
        parts = [
            encoder(torch.from_numpy(ids[start : start + chunk])).numpy()
            for start in range(0, max(len(ids), 1), chunk)
        ]
    return np.concatenate(parts)
