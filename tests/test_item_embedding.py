"""Words, pairs and the item encoder (paper eq. 1-3) against loops that list everything."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lurm.database import database
from lurm.item_embedding import (
    DAY,
    PAD,
    UNKNOWN,
    ItemEncoder,
    PairSampler,
    Vocabulary,
    build_vocabulary,
    embed_catalog,
    lives_of_some,
    random_words,
    split_words,
    train_item_encoder,
    word_ids,
)
from lurm.storage import write_parquet
from tests import reference


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def catalog(*texts):
    return pa.table({"item_id": range(len(texts)), "name": pa.array(texts, pa.string())})


# ---- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Kaffee-Röstung 500g", ["kaffee", "röstung", "500g"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("Чай чёрный", ["чай", "чёрный"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),
        ("قهوة عربية", ["قهوة", "عربية"]),
        ("日本語 緑茶", ["日本語", "緑茶"]),
        ("ＤＶＤ ２", ["dvd", "2"]),
        ("cafe\u0301 caf\u00e9", ["café", "café"]),
        ("—!? \u0301 \ufe0f", []),
        ("", []),
    ],
)
def test_words_of_any_script_stay_whole(text, words):
    assert split_words(text) == words


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=9), min_size=1, max_size=40),
    st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]),
)
def test_the_length_covers_the_asked_share_of_items_and_one_less_does_not(items, share):
    vocabulary = build_vocabulary(catalog("a", *map(" ".join, items)), ["name"], 1, share)
    lengths = [1, *map(len, items)]

    def covered(length):
        return sum(n <= length for n in lengths) / len(lengths)

    length = vocabulary.n_words_per_item
    assert covered(length) >= share
    assert length == 1 or covered(length - 1) < share


def test_words_are_kept_by_the_number_of_items_that_hold_them_and_ties_go_by_the_alphabet():
    texts = ["tea tea tea", "zeta milk", "milk zeta", "milk rare"]
    assert build_vocabulary(catalog(*texts), ["name"], 2, 1.0).words == ("milk", "zeta")
    assert build_vocabulary(catalog(*texts[::-1]), ["name"], 1, 1.0).words == (
        *("milk", "zeta", "rare", "tea"),
    )


def test_text_columns_are_read_in_the_order_asked_for_and_gaps_are_skipped():
    table = pa.table({"item_id": [1, 2], "b": ["two", None], "a": ["one", "one"]})
    vocabulary = build_vocabulary(table, ["a", "b"], 1, 1.0)
    assert vocabulary.words == ("one", "two")
    assert word_ids(table, vocabulary).tolist() == [[2, 3], [2, PAD]]


def test_items_without_a_known_word_read_as_one_unknown():
    table = catalog("tea", None, "", "never", "tea never")
    ids = word_ids(table, Vocabulary(("tea",), 2, ("name",)))
    assert ids.tolist() == [[2, PAD], [UNKNOWN, PAD], [UNKNOWN, PAD], [UNKNOWN, PAD], [2, PAD]]


def test_words_beyond_the_truncation_length_are_not_read():
    assert word_ids(catalog("a b c"), Vocabulary(("a", "b", "c"), 2, ("name",))).tolist() == [
        [2, 3]
    ]


def test_the_vocabulary_comes_back_from_json():
    vocabulary = build_vocabulary(catalog("чай tea", "tea"), ["name"], 1, 1.0)
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    assert len(vocabulary) == len(vocabulary.words) + 2


@pytest.mark.parametrize("texts", [(), (None, ""), ("once", "never")])
def test_a_catalog_without_a_frequent_word_is_refused(texts):
    with pytest.raises(ValueError, match=r"none of \d words occurs in 2 items or more"):
        build_vocabulary(catalog(*texts), ["name"], 2, 0.95)


def test_a_text_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ValueError, match=r"no column title; it has item_id, name"):
        build_vocabulary(catalog("a"), ["name", "title"], 1, 0.95)


# ---- the encoder, eq. 1 ------------------------------------------------------------------------


def encoder(n_words=9, width=4, seed=0):
    torch.manual_seed(seed)
    return ItemEncoder(n_words, width).double()


def test_an_item_is_the_literal_loop_of_its_words_however_it_is_padded():
    model = encoder()
    items = [[2, 3, 4], [5], [6, 6, 2, 8], [UNKNOWN]]
    expected = [reference.item_vector(words, reference.weights(model)) for words in items]
    for length in (4, 9):
        ids = torch.tensor([words + [PAD] * (length - len(words)) for words in items])
        np.testing.assert_allclose(model(ids).detach(), expected, atol=1e-12)


def test_item_vectors_have_length_one_and_do_not_depend_on_the_order_of_words():
    model = encoder()
    vectors = model(torch.tensor([[2, 3, 4], [4, 2, 3]])).detach()
    np.testing.assert_allclose(vectors.norm(dim=1), 1)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-12)


def test_gradients_of_the_encoder_are_those_of_finite_differences():
    model = encoder(n_words=5, width=3)
    ids = torch.tensor([[2, 3, PAD], [4, 2, 2], [UNKNOWN, PAD, PAD]])
    assert torch.autograd.gradcheck(lambda *_: model(ids), tuple(model.parameters()))


def test_a_catalog_is_embedded_the_same_in_chunks_of_any_size_and_an_empty_one_too():
    vocabulary = Vocabulary(("tea", "milk"), 2, ("name",))
    model, table = encoder(len(vocabulary)).float(), catalog("tea", "milk tea", None, "milk", "x")
    whole = embed_catalog(model, vocabulary, table)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(embed_catalog(model, vocabulary, table, chunk=2), whole, atol=1e-6)
    assert embed_catalog(model, vocabulary, table.slice(0, 0)).shape == (0, 4)


@pytest.mark.parametrize("text_width", [0, 3])
def test_an_encoder_comes_back_from_its_tensors(text_width):
    model = ItemEncoder(9, 4, text_width)
    model.text.normal_()
    ids = torch.tensor([[2, 3]])
    assert torch.equal(ItemEncoder.from_tensors(model.state_dict())(ids), model(ids))


def test_words_as_they_are_stand_behind_the_learned_numbers_with_the_same_length():
    torch.manual_seed(0)
    model = ItemEncoder(9, 4, 3).double()
    model.text.copy_(torch.randn(9, 3))
    model.text[[PAD, UNKNOWN]] = 0
    found = model(torch.tensor([[2, 3, 3, PAD], [UNKNOWN, PAD, PAD, PAD]])).detach().numpy()
    words = model.text[2] + 2 * model.text[3]
    learned = model.learned(torch.tensor([[2, 3, 3, PAD]])).detach().numpy()[0]
    np.testing.assert_allclose(found[0], np.append(learned, words / words.norm()) / 2**0.5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert not found[1, 4:].any()  # without a known word there is what was learned


def test_items_of_the_same_words_are_close_and_rare_words_count_for_more():
    ids = np.array([[2, 3], [2, 4], [2, 5], [5, PAD], [UNKNOWN, PAD]])
    rows = random_words(ids, 6, 4000, 0)
    assert rows.shape == (6, 4000)
    assert rows.dtype == np.float32
    assert not rows[[PAD, UNKNOWN]].any()
    lengths = np.linalg.norm(rows[2:], axis=1)
    np.testing.assert_allclose(lengths, np.log(5 / np.array([3, 1, 1, 2])), rtol=0.05)
    cosines = (rows[2:] @ rows[2:].T) / np.outer(lengths, lengths)
    np.testing.assert_allclose(cosines, np.eye(4), atol=0.08)


def test_a_word_that_an_item_repeats_counts_as_one_item_for_its_rarity():
    ids = np.array([[2, 2, 2], [3, PAD, PAD], [3, 2, 2], [4, 4, 3]])
    lengths = np.linalg.norm(random_words(ids, 5, 4000, 0), axis=1)
    np.testing.assert_allclose(lengths[2:], np.log(4 / np.array([2, 3, 1])), rtol=0.05)


# ---- positive pairs ----------------------------------------------------------------------------

TIMES = [0, 1, 2 * DAY, 5 * DAY - 1, 5 * DAY, 7 * DAY, 7 * DAY + 1, 400 * DAY]
behaviors = st.lists(
    st.tuples(st.integers(-2, 2), st.sampled_from(TIMES), st.integers(0, 3)), max_size=12
).map(sorted)


def columns(rows):
    return (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))


def possible_pairs(rows, beta):
    """Every pair of behaviors that may be drawn, by listing them all."""
    return {
        (i, j)
        for i, (user, time, item) in enumerate(rows)
        for j, (other, moment, partner) in enumerate(rows)
        if user == other and abs(time - moment) < beta and item != partner
    }


@settings(max_examples=40, deadline=None)
@given(behaviors)
def test_the_pairs_that_are_drawn_are_exactly_those_that_a_list_of_all_pairs_allows(rows):
    rows = [row for row in rows if sum(row[0] == other[0] for other in rows) <= 4]
    if not any(rows[i][0] == rows[i + 1][0] for i in range(len(rows) - 1)):
        return
    user, time, item = columns(rows)
    # Behaviors are told apart by handing over their row numbers along with the items.
    sampler = PairSampler(user, time, np.arange(len(rows)), beta_days=5)
    rng = np.random.default_rng(0)
    drawn = {
        (int(i), int(j)) for _ in range(500) for i, j in zip(*sampler.draw(9, rng), strict=True)
    }
    assert {(i, j) for i, j in drawn if item[i] != item[j]} == possible_pairs(rows, 5 * DAY)

    by_item = PairSampler(user, time, item, beta_days=5)
    drawn = {
        (int(x), int(y)) for _ in range(500) for x, y in zip(*by_item.draw(9, rng), strict=True)
    }
    assert drawn == {(item[i], item[j]) for i, j in possible_pairs(rows, 5 * DAY)}


def test_a_user_gives_one_pair_to_a_batch_and_a_lone_behavior_none():
    rows = [(1, 0, 0), (1, 1, 1), (2, 0, 2), (3, 0, 3), (3, 1, 4), (3, 2, 5)]
    sampler = PairSampler(*columns(rows), beta_days=1)
    for seed in range(50):
        x, y = sampler.draw(100, np.random.default_rng(seed))
        assert len(set(np.minimum(x, 3))) == len(x) <= 2
        assert 2 not in {*x, *y}


def test_many_users_over_many_years_do_not_run_into_each_other():
    n = 400_000
    rng = np.random.default_rng(0)
    time = np.sort(rng.integers(0, 25 * 365 * DAY, (n, 2)), axis=1)
    time[::2, 1] = time[::2, 0] + DAY
    sampler = PairSampler(np.repeat(np.arange(n), 2), time.ravel(), np.arange(2 * n), beta_days=5)
    x, y = sampler.draw(5000, rng)
    assert len(x) > 1000
    assert (x // 2 == y // 2).all()
    assert (np.abs(time.ravel()[x] - time.ravel()[y]) < 5 * DAY).all()


def test_behaviors_out_of_order_are_refused():
    for rows in ([(1, 5, 0), (1, 2, 1)], [(2, 0, 0), (1, 0, 1), (2, 1, 2)]):
        with pytest.raises(ValueError, match="sorted by user, then time"):
            PairSampler(*columns(rows), beta_days=5)


@pytest.mark.parametrize("n", [0, 3])
def test_users_with_one_behavior_each_have_no_pairs_and_are_refused(n):
    with pytest.raises(ValueError, match=f"none of {n} users has two behaviors"):
        PairSampler(np.arange(n), np.arange(n), np.arange(n), beta_days=5)


# ---- training ----------------------------------------------------------------------------------


def planted(seed=0, steps=200):
    """Forty users who each take items of one of two kinds, whose words are all different."""
    rng = np.random.default_rng(7)
    user = np.repeat(np.arange(40), 6)
    item = rng.integers(0, 10, 240) * 2 + user % 2
    ids = np.arange(2, 22)[:, None]
    pairs = PairSampler(user, np.tile(np.arange(6), 40) * DAY // 8, item, beta_days=5)
    options = {
        "n_words": 22,
        "width": 8,
        "text_width": 4,
        "temperature": 0.1,
        "batch_size": 16,
        "steps": steps,
    }
    return ids, *train_item_encoder(ids, pairs, **options, learning_rate=0.01, seed=seed)


def test_items_taken_together_come_closer_and_the_loss_falls():
    ids, model, losses = planted()
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.3
    cosines = (vectors := model(torch.from_numpy(ids)).detach().numpy()) @ vectors.T
    same = np.equal.outer(np.arange(20) % 2, np.arange(20) % 2)
    assert cosines[same].mean() > cosines[~same].mean() + 0.3
    assert all(math.isfinite(loss) for loss in losses)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, again, other = (planted(seed, steps=5)[1].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["words.weight"], other["words.weight"])


def test_behaviors_that_never_pair_two_items_are_refused():
    pairs = PairSampler(np.repeat([1, 2], 2), np.arange(4), np.zeros(4, dtype=int), beta_days=5)
    options = {
        "n_words": 3,
        "width": 2,
        "text_width": 0,
        "temperature": 0.1,
        "batch_size": 4,
        "steps": 3,
    }
    with pytest.raises(ValueError, match="no batch held two pairs"):
        train_item_encoder(np.array([[2]]), pairs, **options, learning_rate=0.01, seed=0)


# ---- whose lives -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_of_too_many_behaviors_some_users_stay_with_their_whole_lives(kind, tmp_path):
    user = np.random.default_rng(0).integers(0, 1000, 6000)
    behaviors = pa.table(
        {
            "user_id": pa.array(user).cast(kind),
            "item_id": pa.array(range(6000)),
            "timestamp": pa.array(range(6000), pa.timestamp("us")),
        }
    )
    files = [tmp_path / f"{month}.parquet" for month in range(3)]
    for month, path in enumerate(files):
        write_parquet(behaviors[month * 2000 : (month + 1) * 2000], path)
    with database("100MB", files[0]) as connection:
        assert lives_of_some(connection, files, 6000).equals(behaviors)
        some = lives_of_some(connection, files, 1500)
        fewer = lives_of_some(connection, files, 500)
    assert some.schema == behaviors.schema
    assert 1300 < len(some) < 1700
    whole = behaviors.filter(pc.is_in(behaviors["user_id"], some["user_id"].combine_chunks()))
    assert some.equals(whole)
    assert set(fewer["user_id"].to_pylist()) < set(some["user_id"].to_pylist())
