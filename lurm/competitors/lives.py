"""A user's life as a sequence of items, for the rivals that read one behavior after the other.

Letters: U users, I items, B behaviors, L words of an item, n users in a batch, T behaviors of a sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from lurm.item_embedding import build_vocabulary, word_ids

NOTHING = -1  # the item of a place in a batch where there is no behavior


@dataclass(frozen=True)
class Lives:
    """Behaviors sorted by user, then time; those of user u are rows ``first[u]:first[u + 1]``."""

    first: np.ndarray  # (U + 1,) int64
    items: np.ndarray  # (B,) int64 row numbers of items
    days: np.ndarray  # (B,) float64 days since the first behavior of all
    words: np.ndarray  # (I, L) int64 word ids, 0 where there is no word
    n_words: int  # ids are below this


def read_lives(
    behaviors: pa.Table, catalog: pa.Table, user_ids: pa.Array, text_columns: Sequence[str]
) -> Lives:
    """The lives of the users in the order of ``user_ids``; words as LURM's own item embedding has them.

    Behaviors of other users or with items that the catalog lacks are left out.
    """
    vocabulary = build_vocabulary(catalog, text_columns, min_word_count=2, covered_items=0.95)
    table = pa.table(
        {
            "user": pc.index_in(behaviors["user_id"], value_set=user_ids),
            "time": behaviors["timestamp"].cast(pa.int64()),
            "item": pc.index_in(
                behaviors["item_id"], value_set=catalog["item_id"].combine_chunks()
            ),
        }
    ).drop_null()
    user, time, item = (table[name].to_numpy().astype(np.int64) for name in table.column_names)
    order = np.lexsort((item, time, user))
    return Lives(
        first=np.searchsorted(user[order], np.arange(len(user_ids) + 1)),
        items=item[order],
        days=(time[order] - time.min(initial=time[0] if len(time) else 0)) / 86_400_000_000,
        words=word_ids(catalog, vocabulary),
        n_words=len(vocabulary),
    )


def last_days(lives: Lives, days: float) -> Lives:
    """The lives cut to the last ``days`` before the last behavior of all."""
    kept = lives.days > lives.days.max() - days
    before = np.append(0, np.cumsum(kept))
    return Lives(
        before[lives.first], lives.items[kept], lives.days[kept], lives.words, lives.n_words
    )


def sequences(
    lives: Lives, users: np.ndarray, longest: int, end: np.ndarray | None = None
) -> torch.Tensor:
    """The last ``longest`` items of each user before row ``end`` (n,), (n, T) int64.

    T is the length of the longest sequence, at least 1; shorter ones end in ``NOTHING``. Without
    ``end`` lives are read to their end.
    """
    stop = lives.first[users + 1] if end is None else end
    start = np.maximum(lives.first[users], stop - longest)
    length = stop - start
    place = np.arange(max(int(length.max(initial=0)), 1))
    there = place < length[:, None]
    rows = np.where(there, start[:, None] + place, 0)
    return torch.from_numpy(
        np.where(there, lives.items[rows] if len(lives.items) else NOTHING, NOTHING)
    )
