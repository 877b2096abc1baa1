from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from lurm.competitors.als import als
from lurm.competitors.category_counts import category_counts
from lurm.competitors.counts import item_counts, word_counts
from lurm.competitors.doc2vec import doc2vec
from lurm.competitors.tf_idf import tf_idf

N_USERS, N_ITEMS = 20, 30
USER_IDS = pa.array([f"u{u:02d}" for u in range(N_USERS)])
KINDS = ["coffee beans", "coffee cups", "tea leaves"]
CATALOG = pa.table(
    {
        "item_id": range(N_ITEMS),
        "aisle": [None if i == 7 else ["A", "B", "C"][i % 3] for i in range(N_ITEMS)],
        "text": [f"{KINDS[i % 3]} size{i % 5}" for i in range(N_ITEMS)],
    }
)


@pytest.fixture
def behaviors():
    """Users of even number take mostly items of aisle A, the others mostly of aisle C."""
    rng = np.random.default_rng(0)
    user = rng.integers(0, N_USERS, 2000)
    favourite = np.where(user % 2 == 0, 0, 2)
    aisle = np.where(rng.random(2000) < 0.8, favourite, rng.integers(0, 3, 2000))
    item = 3 * rng.integers(0, N_ITEMS // 3, 2000) + aisle
    start = datetime(2017, 1, 1, tzinfo=UTC)
    when = [start + timedelta(minutes=int(m)) for m in rng.integers(0, 400_000, 2000)]
    return pa.table({"user_id": USER_IDS.take(pa.array(user)), "item_id": item, "timestamp": when})


MAKERS = {
    "category_counts": lambda b: category_counts(b, CATALOG, USER_IDS, "aisle"),
    "tf_idf": lambda b: tf_idf(b, CATALOG, USER_IDS, ["text"]),
    "doc2vec": lambda b: doc2vec(b, CATALOG, USER_IDS, ["text"], width=8, epochs=30),
    "als": lambda b: als(b, CATALOG, USER_IDS, width=8, iterations=5),
}
each_rival = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@each_rival
def test_there_is_a_finite_float_row_for_every_user(make, behaviors):
    x = make(behaviors)
    assert x.dtype == np.float32
    assert len(x) == N_USERS
    assert np.isfinite(x).all()


@each_rival
def test_users_of_the_same_taste_are_closer_than_others(make, behaviors):
    x = make(behaviors)
    x = (x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=1, keepdims=True)
    same = np.equal.outer(np.arange(N_USERS) % 2, np.arange(N_USERS) % 2)
    cosine = x @ x.T
    assert cosine[same].mean() > cosine[~same].mean() + 0.2


@each_rival
def test_a_rerun_gives_the_same_bytes(make, behaviors):
    assert make(behaviors).tobytes() == make(behaviors).tobytes()


@each_rival
def test_the_order_of_behaviors_does_not_matter(make, behaviors):
    mixed = behaviors.take(np.random.default_rng(1).permutation(len(behaviors)))
    assert make(mixed).tobytes() == make(behaviors).tobytes()


@each_rival
def test_other_users_and_unknown_items_change_nothing(make, behaviors):
    when = [datetime(2017, 3, 1, tzinfo=UTC)] * 2
    strangers = pa.table({"user_id": ["x", "u00"], "item_id": [0, 10**9], "timestamp": when})
    more = pa.concat_tables([behaviors, strangers.cast(behaviors.schema)])
    assert make(more).tobytes() == make(behaviors).tobytes()


@each_rival
def test_a_user_without_behaviors_gets_a_row_too(make, behaviors):
    fewer = behaviors.filter(pa.compute.not_equal(behaviors["user_id"], "u03"))
    assert np.isfinite(make(fewer)).all()


def test_category_counts_agree_with_a_loop(behaviors):
    aisles = dict(zip(range(N_ITEMS), CATALOG["aisle"].to_pylist(), strict=True))
    counts = Counter((row["user_id"], aisles[row["item_id"]]) for row in behaviors.to_pylist())
    expected = [[np.log1p(counts[user, a]) for a in "ABC"] for user in USER_IDS.to_pylist()]
    np.testing.assert_allclose(MAKERS["category_counts"](behaviors), expected, rtol=1e-6)


def test_word_counts_times_item_counts_count_the_words_of_a_user(behaviors):
    counts = (item_counts(behaviors, CATALOG, USER_IDS) @ word_counts(CATALOG, ["text"])).toarray()
    texts = CATALOG["text"].to_pylist()
    words = sorted({word for text in texts for word in text.split()})
    for user, row in zip(USER_IDS.to_pylist(), counts, strict=True):
        taken = [r["item_id"] for r in behaviors.to_pylist() if r["user_id"] == user]
        expected = Counter(word for item in taken for word in texts[item].split())
        assert dict(zip(words, row, strict=True)) == {word: expected[word] for word in words}


def test_tf_idf_leaves_out_words_of_few_users_and_scales_rows_to_unit_length(behaviors):
    rare = pa.table({"item_id": [99], "aisle": ["A"], "text": ["unheard"]})
    catalog = pa.concat_tables([CATALOG, rare.cast(CATALOG.schema)])
    once = pa.table({"user_id": ["u00"], "item_id": [99], "timestamp": behaviors["timestamp"][:1]})
    x = tf_idf(pa.concat_tables([behaviors, once]), catalog, USER_IDS, ["text"], min_user_share=0.1)
    assert x.shape[1] == len(
        {word for text in CATALOG["text"].to_pylist() for word in text.split()}
    )
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-6)


def test_doc2vec_reads_users_of_more_words_than_a_document_holds_to_the_end(behaviors, monkeypatch):
    whole = MAKERS["doc2vec"](behaviors)
    monkeypatch.setattr("lurm.competitors.doc2vec.DOCUMENT", 50)
    assert MAKERS["doc2vec"](behaviors).shape == whole.shape
