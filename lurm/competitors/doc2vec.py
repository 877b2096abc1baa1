"""Doc2Vec: a user is a document of the words of the items taken, in the order of time.

Q. Le and T. Mikolov, "Distributed Representations of Sentences and Documents", ICML 2014
(https://arxiv.org/abs/1405.4053), in the form of a distributed bag of words (PV-DBOW), by gensim.
Letters: U users, d width.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from gensim.models.doc2vec import Doc2Vec, TaggedDocument

from lurm.item_embedding import item_words

DOCUMENT = (
    10_000  # words of a document beyond these are ignored by gensim, so users are cut into several
)


def doc2vec(
    behaviors: pa.Table,
    catalog: pa.Table,
    user_ids: pa.Array,
    text_columns: Sequence[str],
    width: int = 128,
    epochs: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Document vectors, (U, d) float32; the same seed gives the same vectors.

    Negative sampling (5), words with fewer than 5 occurrences dropped, one thread since gensim's
    result depends on the timing of its threads.
    """
    words = item_words(catalog, text_columns)
    ordered = behaviors.sort_by([(name, "ascending") for name in ("timestamp", "item_id")])
    items = pc.index_in(ordered["item_id"], value_set=catalog["item_id"].combine_chunks())
    users = pc.index_in(ordered["user_id"], value_set=user_ids)
    text: list[list[str]] = [[] for _ in range(len(user_ids))]
    for user, item in zip(users.to_pylist(), items.to_pylist(), strict=True):
        if user is not None and item is not None:
            text[user].extend(words[item])
    documents = [
        TaggedDocument(document[start : start + DOCUMENT], [user])
        for user, document in enumerate(text)
        for start in range(0, max(len(document), 1), DOCUMENT)
    ]
    model = Doc2Vec(
        documents, dm=0, vector_size=width, epochs=epochs, min_count=5, workers=1, seed=seed
    )
    return model.dv.vectors
