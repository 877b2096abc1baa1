"""Encoding month by month against the literal loop over the whole life."""

import itertools
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lurm.encoding import encode_month, no_users, user_vectors
from lurm.months import month_name
from lurm.smen import Smen, SmenSettings, Version
from lurm.states import (
    all_rows,
    growing_states,
    load_states,
    load_users,
    load_vectors,
    parts,
    save_states,
)
from lurm.storage import file_hash, shard_folder
from lurm.tables import user_vectors_schema
from tests import reference

D, M, H = 5, 2, 3
FIRST = 2016 * 12 + 9  # October, so that years and quarters change early
OPTIONS = [
    {"empty_periods": empty_periods, "aggregation": aggregation, "gate": gate, "scales": scales}
    for empty_periods, aggregation in itertools.product(("skip", "zeros"), ("gru", "mean"))
    for gate, scales in [
        ("per_scale", {"year": 12, "quarter": 3, "month": 1}),
        ("complement", {"month": 1, "year": 12}),
    ]
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make(**options):
    """A small SMEN with weights far from zero, so that every part of it shows in the vectors."""
    torch.manual_seed(0)
    options = {"scales": {"month": 1, "year": 12}} | options
    smen = Smen(SmenSettings(n_interests=D, n_anchors=M, width=H, **options))
    torch.nn.init.normal_(smen.multi_anchor.interests)
    return smen.eval()


def encode_months(smen, lives, months, states=None):
    """The states and vectors after each of the months."""
    states = states or no_users(smen.settings, pa.array(list(lives)).type)
    for month in months:
        states, vectors = encode_month(smen, states, reference.boi_table(lives, month), month)
        yield month, states, vectors


def check_against_loop(smen, lives, months):
    """After every month, every user known by then has the vector of a loop over his life so far."""
    w = reference.weights(smen)
    for month, states, vectors in encode_months(smen, lives, months):
        so_far = {
            user: {m: bag for m, bag in life.items() if m <= month}
            for user, life in sorted(lives.items())
            if min(life) <= month
        }
        assert states.users.to_pylist() == list(so_far)
        expected = [
            reference.user_vector(life, smen.settings, w, until=month).ravel()
            for life in so_far.values()
        ]
        np.testing.assert_allclose(vectors, np.reshape(expected, vectors.shape), atol=1e-5)
        assert states.first_month.tolist() == [min(life) for life in so_far.values()]
        assert states.last_month.tolist() == [max(life) for life in so_far.values()]
        totals = [sum(sum(bag.values()) for bag in life.values()) for life in so_far.values()]
        np.testing.assert_allclose(states.n_behaviors, totals)


@pytest.mark.parametrize("options", OPTIONS)
def test_months_one_by_one_give_the_vectors_of_the_whole_life(options):
    lives = reference.random_lives(8, np.random.default_rng(0), D, FIRST, n_months=20)
    lives |= {100: {FIRST + 19: {0: 1.0}}, 101: {FIRST: {4: 2.0}}}  # one comes last, one acts once
    check_against_loop(make(**options), lives, range(FIRST, FIRST + 20))


bags = st.dictionaries(st.integers(0, D - 1), st.sampled_from([0.25, 1.0, 6.0]), min_size=1)
lives_of = st.dictionaries(st.integers(FIRST, FIRST + 15), bags, min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), lives_of, min_size=1, max_size=4),
    st.sampled_from(OPTIONS),
)
def test_any_lives_of_users_with_any_names_give_the_vectors_of_the_whole_life(lives, options):
    check_against_loop(make(**options), lives, reference.months_of(lives))


@pytest.mark.parametrize("aggregation", ["gru", "mean"])
def test_users_who_pause_keep_their_vector_if_empty_periods_are_skipped(aggregation):
    lives = {1: {FIRST: {0: 2.0}}, 2: {FIRST: {1: 1.0}, FIRST + 5: {2: 1.0}}}
    months = range(FIRST, FIRST + 16)
    for empty_periods, keeps in (("skip", True), ("zeros", False)):
        smen = make(empty_periods=empty_periods, aggregation=aggregation)
        of_first = [vectors[0] for _, _, vectors in encode_months(smen, lives, months)]
        assert all(np.array_equal(of_first[0], vector) for vector in of_first) == keeps


def test_a_user_has_the_same_vector_alone_and_among_others_however_rows_are_ordered():
    smen = make()
    lives = reference.random_lives(6, np.random.default_rng(1), D, FIRST, n_months=8)
    months = range(FIRST, FIRST + 8)
    *_, (_, states, together) = encode_months(smen, lives, months)
    for user, vector in zip(states.users.to_pylist(), together, strict=True):
        *_, (_, _, alone) = encode_months(smen, {user: lives[user]}, months)
        np.testing.assert_allclose(alone[0], vector, atol=1e-6)

    shuffled = no_users(smen.settings, pa.int64())
    for month in months:
        table = reference.boi_table(lives, month)
        table = table.take(np.random.default_rng(month).permutation(len(table)))
        shuffled, vectors = encode_month(smen, shuffled, table, month)
    np.testing.assert_allclose(vectors, together, atol=1e-6)


def test_users_are_encoded_the_same_in_chunks_of_any_size(monkeypatch):
    smen = make(empty_periods="zeros")
    lives = reference.random_lives(9, np.random.default_rng(2), D, FIRST, n_months=8)
    months = range(FIRST, FIRST + 8)
    *_, (_, _, whole) = encode_months(smen, lives, months)
    monkeypatch.setattr("lurm.encoding.CHUNK", 2)
    *_, (_, _, parts) = encode_months(smen, lives, months)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_a_month_leaves_the_states_before_it_as_they_were():
    smen = make()
    lives = {1: {FIRST: {0: 1.0}, FIRST + 1: {1: 1.0}}}
    (_, before, _), (_, after, _) = encode_months(smen, lives, [FIRST, FIRST + 1])
    assert before.scales["month"].period.tolist() == [FIRST]
    assert before.scales["year"].open_counts.toarray().tolist() == [[1, 0, 0, 0, 0]]
    for states in (before, after):  # a month is over when it is in
        assert states.scales["month"].open_counts.nnz == 0
    assert not np.array_equal(before.vectors, after.vectors)
    assert after.scales["year"].open_counts.toarray().tolist() == [[1, 1, 0, 0, 0]]


@pytest.mark.parametrize("aggregation", ["gru", "mean"])
def test_nothing_is_computed_for_users_who_pause_if_empty_periods_are_skipped(
    aggregation, monkeypatch
):
    smen = make(aggregation=aggregation)
    lives = {user: {FIRST: {0: 2.0}} for user in range(5)}
    lives[5] = {FIRST + t: {1: 1.0} for t in range(6)}
    n_sequences = []
    monkeypatch.setattr(
        smen,
        "advance",
        lambda periods, *state: (
            n_sequences.append(len(periods.lengths)) or Smen.advance(smen, periods, *state)
        ),
    )
    for month, _, _ in encode_months(smen, lives, range(FIRST, FIRST + 6)):
        allowed = 6 if month == FIRST else 1
        assert set(n_sequences) == {allowed}
        n_sequences.clear()


def test_a_month_without_anybody_changes_no_vector_and_a_first_one_gives_none():
    smen = make()
    lives = {1: {FIRST + 1: {0: 1.0}}}
    steps = list(encode_months(smen, lives, [FIRST, FIRST + 1, FIRST + 2]))
    assert steps[0][2].shape == (0, M * H)
    np.testing.assert_array_equal(steps[1][2], steps[2][2])


# ---- states on disk ----------------------------------------------------------------------------


@pytest.mark.parametrize("users", [[5, -2, 9], ["b", "Ä", ""]])
def test_states_come_back_from_disk_and_go_on_as_if_they_had_stayed(users, tmp_path):
    smen = make(empty_periods="zeros")
    lives = reference.random_lives(3, np.random.default_rng(3), D, FIRST, n_months=6)
    lives = dict(zip(users, lives.values(), strict=True))
    states = no_users(smen.settings, pa.array(users).type)
    for month, _, expected in encode_months(smen, lives, range(FIRST, FIRST + 6)):
        save_states(states, tmp_path / str(month), "v1")
        states = load_states(tmp_path / str(month), "v1")
        states, vectors = encode_month(smen, states, reference.boi_table(lives, month), month)
        np.testing.assert_array_equal(vectors, expected)


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize("users", [range(20), [f"u{n}" for n in range(20)]])
def test_encoded_in_parts_and_shards_of_any_size_users_have_the_same_states_and_vectors(
    users, size, tmp_path
):
    smen = make(empty_periods="zeros")
    lives = reference.random_lives(20, np.random.default_rng(3), D, FIRST, n_months=6)
    lives = dict(zip(users, lives.values(), strict=True))
    before = no_users(smen.settings, pa.array(list(users)).type)
    save_states(before, tmp_path / str(FIRST - 1), "v1")
    for month, whole, expected in encode_months(smen, lives, range(FIRST, FIRST + 6)):
        boi, previous = reference.boi_table(lives, month), tmp_path / str(month - 1)
        ids = boi["user_id"].combine_chunks()
        for number, (rows, bags) in enumerate(
            parts(load_users(all_rows(previous)), ids, size, Path("boi"))
        ):
            states = load_states(previous, "v1", rows)
            states, _ = encode_month(smen, states, boi[bags], month)
            assert len(states.users) <= size
            shard = shard_folder(tmp_path / str(month), number)
            with growing_states(shard, before.scales, "v1") as append:
                append(states)
        found = load_states(tmp_path / str(month), "v1")
        assert found.users.equals(whole.users)
        pieces = all_rows(tmp_path / str(month))
        assert load_users(pieces).equals(whole.users)
        np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
        np.testing.assert_array_equal(load_vectors(pieces), found.vectors)
        for name, scale in whole.scales.items():
            np.testing.assert_allclose(found.scales[name].hidden, scale.hidden, atol=1e-6)
            assert (found.scales[name].open_counts != scale.open_counts).nnz == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(0, 20), st.integers(0, 20))
def test_any_rows_of_states_in_shards_are_those_of_the_whole(sizes, first, last):
    first, last = sorted((first, last))
    smen = make()
    lives = reference.random_lives(20, np.random.default_rng(3), D, FIRST, n_months=2)
    *_, (_, whole, _) = encode_months(smen, lives, [FIRST, FIRST + 1])
    with tempfile.TemporaryDirectory() as name:
        save_states(whole, Path(name, "whole"), "v1")
        start = 0
        for number, size in enumerate([*sizes, 20]):
            shard = shard_folder(Path(name, "shards"), number)
            with growing_states(shard, whole.scales, "v1") as append:
                append(load_states(Path(name, "whole"), "v1", slice(start, start + size)))
            start += size
        found = load_states(Path(name, "shards"), "v1", slice(first, last))
        assert found.users.equals(whole.users[first:last])
        np.testing.assert_array_equal(found.vectors, whole.vectors[first:last])
        for scale, there in whole.scales.items():
            here = found.scales[scale]
            np.testing.assert_array_equal(here.period, there.period[first:last])
            np.testing.assert_array_equal(
                here.open_counts.toarray(), there.open_counts.toarray()[first:last]
            )


@pytest.mark.parametrize("change", ["missing", "stray"])
def test_states_of_which_a_shard_is_missing_or_strange_are_refused(change, tmp_path):
    for number in range(3):
        with growing_states(shard_folder(tmp_path, number), [], "v1") as append:
            append(replace(no_users(make().settings, pa.int64()), scales={}))
    if change == "missing":
        shutil.rmtree(shard_folder(tmp_path, 1))
    else:
        shutil.copytree(shard_folder(tmp_path, 1), tmp_path / "00001.bak")
    with pytest.raises(ValueError, match=r"expected shards 00000, 00001, ... and nothing else, fo"):
        load_states(tmp_path, "v1")


@pytest.mark.parametrize("ids", [[2, 1], [1, None]])
def test_bags_that_are_not_sorted_by_user_are_not_cut_into_parts(ids):
    with pytest.raises(ValueError, match=r"^boi\.parquet: expected rows sorted by user"):
        list(parts(pa.array([1, 2]), pa.array(ids), 2, Path("boi.parquet")))


def test_the_same_states_give_the_same_bytes(tmp_path):
    smen, lives = make(), reference.random_lives(3, np.random.default_rng(3), D, FIRST, n_months=4)
    for folder in ("one", "other"):
        *_, (_, states, _) = encode_months(smen, lives, range(FIRST, FIRST + 4))
        save_states(states, tmp_path / folder, "v1")
    one, other = (shard_folder(tmp_path / name, 0) for name in ("one", "other"))
    names = sorted(path.name for path in one.iterdir())
    assert {"about.json", "users.parquet", "vectors.npy", "month_hidden.npy"} < set(names)
    for name in names:
        assert file_hash(one / name) == file_hash(other / name)


def test_states_of_another_model_are_refused(tmp_path):
    save_states(no_users(make().settings, pa.int64()), tmp_path, "v1")
    with pytest.raises(ValueError, match="expected the states of model v2, found those of v1"):
        load_states(tmp_path, "v2")


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("interest", [-1, D])
def test_an_interest_that_the_model_does_not_know_is_refused(interest):
    smen, lives = make(), {1: {FIRST: {interest: 1.0}}}
    with pytest.raises(
        ValueError, match=rf"knows interests 0\.\.{D - 1}, the bags hold {interest}"
    ):
        list(encode_months(smen, lives, [FIRST]))


def test_user_ids_of_another_type_than_before_are_refused():
    smen = make()
    *_, (_, states, _) = encode_months(smen, {1: {FIRST: {0: 1.0}}}, [FIRST])
    with pytest.raises(
        ValueError, match="expected user ids of type int64 as in earlier months, found string"
    ):
        list(encode_months(smen, {"1": {FIRST + 1: {0: 1.0}}}, [FIRST + 1], states))


@pytest.mark.parametrize("count", [0.0, -1.0, np.nan, np.inf])
def test_a_count_that_is_not_above_zero_is_refused(count):
    with pytest.raises(ValueError, match="expected counts above zero in the bags"):
        list(encode_months(make(), {1: {FIRST: {0: count}}}, [FIRST]))


@pytest.mark.parametrize("month", [FIRST, FIRST - 1])
def test_a_month_that_does_not_come_after_the_states_is_refused(month):
    smen, lives = make(), {1: {FIRST: {0: 1.0}}}
    *_, (_, states, _) = encode_months(smen, lives, [FIRST])
    with pytest.raises(ValueError, match="states already hold 2016-10; encode the months in order"):
        list(encode_months(smen, lives, [month], states))


# ---- the published table -----------------------------------------------------------------------


def test_published_vectors_say_whose_they_are_and_how_they_came_about():
    smen = make()
    lives = {"ü": {FIRST: {0: 2.0}, FIRST + 2: {1: 0.25, 2: 0.75}}, "a": {FIRST + 2: {3: 1.0}}}
    *_, (_, states, vectors) = encode_months(smen, lives, range(FIRST, FIRST + 3))
    confidence = np.array([0.1, 0.3], np.float32)
    table = user_vectors(states, vectors, confidence, Version("v2", "v1"))
    assert table.schema == user_vectors_schema(M * H, pa.string())
    rows = table.to_pylist()
    assert [row["user_id"] for row in rows] == ["a", "ü"]
    assert [row["n_behaviors"] for row in rows] == [1, 3]
    assert table["confidence"].to_numpy().tolist() == pytest.approx([0.1, 0.3])
    assert {(row["model_version"], row["space_version"]) for row in rows} == {("v2", "v1")}
    assert rows[1]["first_month"] == month_name(FIRST)
    assert {row["last_month"] for row in rows} == {month_name(FIRST + 2)}
    np.testing.assert_array_equal([row["vector"] for row in rows], vectors)


def test_a_narrower_vector_is_the_whole_one_in_the_directions_of_the_model():
    lives = reference.random_lives(6, np.random.default_rng(0), D, FIRST, n_months=3)
    whole, narrow = make(), make(published_width=4)
    narrow.load_state_dict(whole.state_dict(), strict=False)
    torch.nn.init.normal_(narrow.directions)
    months = range(FIRST, FIRST + 3)
    for (_, _, every), (_, _, few) in zip(
        encode_months(whole, lives, months), encode_months(narrow, lives, months), strict=True
    ):
        assert few.shape == (len(every), 4)
        np.testing.assert_allclose(few, every @ narrow.directions.numpy(), atol=1e-5)
