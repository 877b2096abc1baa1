"""What came out of the clustering: figures, and a table in which every interest can be recognised.

An item counts for its nearest interest here, also where soft assignment shares it among several.

I items, D interests, k interests per item.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer

from lurm.database import database

# Words and items shown for an interest.
N_WORDS, N_ITEMS = 8, 5


def spread(
    interests: np.ndarray, cosines: np.ndarray, masses: np.ndarray, n_interests: int
) -> dict[str, float]:
    """How well the interests hold their items: figures that compare runs.

    - ``share_empty``: interests that hold nothing;
    - ``imbalance``: D * sum(n_i^2) / (sum n_i)^2, the factor of faiss: 1 when all are of one size,
      D when one holds everything;
    - ``mean_cosine``: of an item to the centre of its interest.

    Args:
        interests: (I,) interest of every item.
        cosines: (I,) to the centre of that interest.
        masses: (I,) what an item counts: 1, or its behaviors.
        n_interests: D.

    >>> spread(np.array([0, 0, 1]), np.array([1.0, 0.5, 0.6]), np.array([1, 1, 2]), 4)
    {'share_empty': 0.5, 'imbalance': 2.0, 'mean_cosine': 0.675}
    """
    sizes = np.bincount(interests, weights=masses, minlength=n_interests)
    total = max(sizes.sum(), 1)
    return {
        "share_empty": round(float((sizes == 0).mean()), 6),
        "imbalance": round(float(n_interests * (sizes / total) @ (sizes / total)), 6),
        "mean_cosine": round(float(np.asarray(cosines, np.float64) @ masses / total), 6),
    }


def count_behaviors(
    behaviors: Sequence[Path], nearest: pa.Table, n_interests: int, memory_limit: str
) -> tuple[np.ndarray, np.ndarray]:
    """Behaviors of every item (I,) and different users of every interest (D,), int64.

    ``behaviors`` are parquet files of ``tables.BEHAVIORS``; ``nearest`` has one row per item.
    Behaviors of other items are not counted.
    """
    items = nearest.select(["item_id", "interest"]).append_column("row", [np.arange(len(nearest))])
    with database(memory_limit, behaviors[0].parent) as connection:
        connection.read_parquet([str(path) for path in behaviors]).create_view("behaviors")
        connection.register("items", items)
        of_items = connection.execute(
            "SELECT row, count(*) AS n FROM behaviors JOIN items USING (item_id) GROUP BY row"
        ).fetchnumpy()
        of_interests = connection.execute(
            "SELECT interest, count(DISTINCT user_id) AS n "
            "FROM behaviors JOIN items USING (item_id) GROUP BY interest"
        ).fetchnumpy()
    n_behaviors, n_users = np.zeros(len(items), np.int64), np.zeros(n_interests, np.int64)
    n_behaviors[of_items["row"]] = of_items["n"]
    n_users[of_interests["interest"]] = of_interests["n"]
    return n_behaviors, n_users


def top_words(texts: Sequence[str], interests: np.ndarray, n_interests: int) -> list[list[str]]:
    """The most distinctive words of every interest, by class-based TF-IDF, the highest first.

    c-TF-IDF = tf * log(1 + A / f), with tf the word's count in the interest's items, f its count in
    all items, A the mean number of words of an interest (Grootendorst, *BERTopic*,
    https://arxiv.org/abs/2203.05794, section 3.3). Equal scores come in alphabetical order.
    """
    vectorizer = CountVectorizer(preprocessor=str.casefold, token_pattern=r"\w+")
    try:
        counts = vectorizer.fit_transform(texts)
    except ValueError:  # not one word in any text
        return [[] for _ in range(n_interests)]
    shape = (n_interests, len(texts))
    members = csr_array((np.ones(len(texts)), (interests, np.arange(len(texts)))), shape=shape)
    scores = csr_array(members @ counts)  # (D, words)
    mean_words = scores.sum() / n_interests
    idf = np.log1p(mean_words / scores.sum(axis=0))
    words = vectorizer.get_feature_names_out()
    tops = []
    for start, end in zip(scores.indptr, scores.indptr[1:], strict=False):
        columns, tf = scores.indices[start:end], scores.data[start:end]
        best = np.lexsort((columns, -tf * idf[columns]))[:N_WORDS]
        tops.append(words[columns[best]].tolist())
    return tops


def describe(
    nearest: pa.Table,
    texts: Sequence[str],
    n_behaviors: np.ndarray,
    n_users: np.ndarray,
) -> pa.Table:
    """One row per interest: its size, its distinctive words, and its items with the most behaviors.

    Items with one text are shown once. ``mean_cosine`` is null where an interest is empty.

    Args:
        nearest: one row of ``tables.ITEM_INTERESTS`` per item.
        texts: (I,) the items' texts.
        n_behaviors: (I,) the items' behaviors.
        n_users: (D,) users with a behavior in each interest.
    """
    n_interests = len(n_users)
    frame = pd.DataFrame(
        {
            "item_id": nearest["item_id"].to_numpy(),
            "interest": nearest["interest"].to_numpy(),
            "cosine": nearest["cosine"].to_numpy().astype(np.float64),
            "n_behaviors": n_behaviors,
            "text": texts,
        }
    )
    every = range(n_interests)
    groups = frame.groupby("interest")
    shown = (
        frame.sort_values(["interest", "n_behaviors"], ascending=[True, False], kind="stable")
        .drop_duplicates(["interest", "text"])
        .groupby("interest")
        .head(N_ITEMS)
        .groupby("interest")[["item_id", "text"]]
        .agg(list)
        .reindex(every)
    )
    lists = {
        name: [value if isinstance(value, list) else [] for value in shown[name]]
        for name in ("item_id", "text")
    }
    id_type = nearest.schema.field("item_id").type
    return pa.table(
        {
            "interest": pa.array(every, pa.int32()),
            "n_items": pa.array(groups.size().reindex(every, fill_value=0), pa.int64()),
            "n_behaviors": pa.array(
                groups["n_behaviors"].sum().reindex(every, fill_value=0), pa.int64()
            ),
            "n_users": pa.array(n_users, pa.int64()),
            "mean_cosine": pa.array(
                groups["cosine"].mean().reindex(every), pa.float32(), from_pandas=True
            ),
            "top_words": pa.array(
                top_words(texts, frame["interest"].to_numpy(), n_interests), pa.list_(pa.string())
            ),
            "top_item_ids": pa.array(lists["item_id"], pa.list_(id_type)),
            "top_items": pa.array(lists["text"], pa.list_(pa.string())),
        }
    )
