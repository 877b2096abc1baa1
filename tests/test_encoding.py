"""Encoding month by month against the literal loop over the whole life."""

import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lurm.encoding import (
    CHUNKS,
    encode_month,
    no_users,
    still_moves,
    user_vectors,
    with_others,
)
from lurm.months import month_name
from lurm.pretraining import encode_timelines
from lurm.smen import Smen, SmenSettings, Version
from lurm.states import (
    finish_month,
    growing_states,
    last_month_before,
    load_shard,
    load_states,
    parts,
    shard_of,
)
from lurm.storage import file_hash
from lurm.tables import user_vectors_schema
from lurm.timelines import build_timelines
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
        assert all(np.allclose(of_first[0], vector, atol=1e-6) for vector in of_first) == keeps


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
    monkeypatch.setitem(CHUNKS, "cpu", 2)
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
    assert after.scales["year"].open_counts.toarray().tolist() == [[1, 1, 0, 0, 0]]


def test_users_who_were_not_active_need_not_be_there_if_empty_periods_are_skipped():
    smen = make()
    lives = reference.random_lives(8, np.random.default_rng(4), D, FIRST, n_months=14)
    for month, states, _ in encode_months(smen, lives, range(FIRST, FIRST + 13)):
        bags = reference.boi_table(lives, month + 1)
        active = np.isin(states.users.to_numpy(), bags["user_id"].to_numpy())
        own = states.take(np.flatnonzero(active))
        after, vectors = encode_month(smen, own, bags, month + 1)
        everybody, expected = encode_month(smen, states, bags, month + 1)
        rows = np.isin(everybody.users.to_numpy(), after.users.to_numpy())
        np.testing.assert_allclose(vectors, expected[rows], atol=1e-6)
        assert after.users.to_pylist() == sorted(bags["user_id"].unique().to_pylist())


def test_a_month_without_anybody_changes_no_vector_and_a_first_one_gives_none():
    smen = make()
    lives = {1: {FIRST + 1: {0: 1.0}}}
    steps = list(encode_months(smen, lives, [FIRST, FIRST + 1, FIRST + 2]))
    assert steps[0][2].shape == (0, M * H)
    np.testing.assert_allclose(steps[1][2], steps[2][2], atol=1e-6)


# ---- states on disk ----------------------------------------------------------------------------


def keep(folder, states, month, n_shards=1, model="v1"):
    """Write the states of the users active in the month, spread over that many shards."""
    rows = np.flatnonzero(states.last_month == month)
    for number, of_shard in enumerate(np.array_split(rows, n_shards)):
        with growing_states(shard_of(folder / month_name(month), number), states.scales) as add:
            for part in np.array_split(of_shard, 2):  # one after the other
                add(states.take(part))
    finish_month(
        folder / month_name(month),
        n_shards,
        month=month_name(month),
        model_version=model,
        n_interests=D,
        scales=states.scales,
    )


def check_same(found, expected):
    assert found.users.equals(expected.users)
    for name in ("n_behaviors", "first_month", "last_month"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert list(found.scales) == list(expected.scales)
    for name, scale in expected.scales.items():
        for field in ("hidden", "n_closed", "period"):
            np.testing.assert_array_equal(getattr(found.scales[name], field), getattr(scale, field))
        here, there = found.scales[name].open_counts, scale.open_counts
        np.testing.assert_array_equal(here.toarray(), there.toarray())


NAMES = st.one_of(
    st.lists(st.text(max_size=3), min_size=12, max_size=12, unique=True),
    st.lists(st.integers(-9, 99), min_size=12, max_size=12, unique=True),
)


@settings(max_examples=25, deadline=None)
@given(NAMES, st.integers(1, 4), st.sets(st.integers(0, 11), min_size=1))
def test_every_user_is_found_as_his_last_month_left_him(users, n_shards, asked):
    lives = reference.random_lives(12, np.random.default_rng(3), D, FIRST, n_months=6)
    lives = dict(zip(users, lives.values(), strict=True))
    with tempfile.TemporaryDirectory() as name:
        for month, states, _ in encode_months(make(), lives, range(FIRST, FIRST + 6)):
            keep(Path(name), states, month, n_shards)
        some = states.take(np.array([row for row in sorted(asked) if row < len(states.users)], int))
        if len(some.users):
            found = load_states(Path(name), "v1")(some.users, some.last_month)
            check_same(found, some)


def test_states_from_disk_go_on_as_if_they_had_stayed(tmp_path):
    smen = make(empty_periods="zeros")
    lives = reference.random_lives(5, np.random.default_rng(3), D, FIRST, n_months=6)
    states = no_users(smen.settings, pa.int64())
    for month, _, expected in encode_months(smen, lives, range(FIRST, FIRST + 6)):
        if len(states.users):
            states = load_states(tmp_path, "v1")(states.users, states.last_month)
        states, vectors = encode_month(smen, states, reference.boi_table(lives, month), month)
        keep(tmp_path, states, month, n_shards=2)
        np.testing.assert_array_equal(vectors, expected)


@pytest.fixture
def kept(tmp_path):
    """States of two months in two shards each, and what they are of the users of the second."""
    lives = {user: {FIRST: {0: 1.0}, FIRST + 1: {user % D: 2.0}} for user in range(8)}
    for month, states, _ in encode_months(make(), lives, [FIRST, FIRST + 1]):
        keep(tmp_path, states, month, n_shards=2)
    return tmp_path, states


def load(kept):
    folder, states = kept
    return load_states(folder, "v1")(states.users, states.last_month)


def test_a_shard_whose_users_are_gone_is_read_and_written_as_any_other(kept):
    folder, states = kept[0] / month_name(FIRST + 1), kept[1]
    for _ in range(2):
        nobody = next(load_shard(folder, 0)).take(np.array([], int))
        with growing_states(shard_of(folder, 0), states.scales) as append:
            append(nobody)
        assert [len(of.users) for of in load_shard(folder, 0)] == [0]


def test_a_shard_that_nothing_was_appended_to_is_not_left_behind(tmp_path):
    with (
        pytest.raises(ValueError, match="expected states, if of nobody"),
        growing_states(tmp_path / "00000.arrow", ["month"]),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [0, 1])
def test_a_lost_shard_is_noticed_be_it_the_last(kept, number):
    check_same(load(kept), kept[1])
    shard_of(kept[0] / month_name(FIRST + 1), number).unlink()
    with pytest.raises(FileNotFoundError, match=rf"0000{number}.arrow: expected a memory-mapped"):
        load(kept)


def test_a_shard_of_other_users_in_the_place_of_another_is_noticed(kept):
    month = kept[0] / month_name(FIRST + 1)
    shutil.copyfile(shard_of(month, 0), shard_of(month, 1))
    with pytest.raises(
        ValueError, match=r"2016-11: expected the states of all .* none of 4 of the 8"
    ):
        load(kept)


def test_states_of_another_month_are_noticed(kept):
    shutil.rmtree(kept[0] / month_name(FIRST + 1))
    shutil.copytree(kept[0] / month_name(FIRST), kept[0] / month_name(FIRST + 1))
    with pytest.raises(
        ValueError, match="expected the states after 2016-11, found those after 2016-1"
    ):
        load(kept)


def test_a_shard_that_is_not_whole_is_noticed(kept):
    path = shard_of(kept[0] / month_name(FIRST + 1), 1)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"00001.arrow: expected a complete memory-mapped Arrow"):
        load(kept)


def test_states_that_are_not_finite_are_noticed(tmp_path):
    lives = {user: {FIRST: {0: 1.0}} for user in range(4)}
    *_, (_, states, _) = encode_months(make(), lives, [FIRST])
    states.scales["year"].hidden[2, 0, 1] = np.nan
    keep(tmp_path, states, FIRST)
    with pytest.raises(ValueError, match=r"2016-10: expected finite states, got others in 'year'"):
        load((tmp_path, states))


def test_states_of_another_model_are_refused(kept):
    folder, states = kept
    with pytest.raises(ValueError, match="expected the states of model v2, found those of v1"):
        load_states(folder, "v2")(states.users, states.last_month)
    assert last_month_before(folder, month_name(FIRST + 1), "v1") == month_name(FIRST)
    assert last_month_before(folder, month_name(FIRST + 9), "v1") == month_name(FIRST + 1)
    assert last_month_before(folder, month_name(FIRST), "v1") is None
    assert last_month_before(folder, month_name(FIRST + 9), "v2") is None


def test_the_same_states_give_the_same_bytes(tmp_path):
    smen, lives = make(), reference.random_lives(3, np.random.default_rng(3), D, FIRST, n_months=4)
    for folder in ("one", "other"):
        *_, (month, states, _) = encode_months(smen, lives, range(FIRST, FIRST + 4))
        keep(tmp_path / folder, states, month)
    names = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*")]
    assert {name.name for name in names} == {"about.json", "00000.arrow"}
    for name in names:
        assert file_hash(tmp_path / "one" / name) == file_hash(tmp_path / "other" / name)


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize("users", [range(20), [f"u{n}" for n in range(20)]])
def test_users_in_parts_of_any_size_have_the_same_vectors(users, size):
    smen = make(empty_periods="zeros")
    lives = reference.random_lives(20, np.random.default_rng(3), D, FIRST, n_months=6)
    lives = dict(zip(users, lives.values(), strict=True))
    before = no_users(smen.settings, pa.array(list(users)).type)
    for month, whole, expected in encode_months(smen, lives, range(FIRST, FIRST + 6)):
        boi = reference.boi_table(lives, month)
        ids, found = boi["user_id"].combine_chunks(), []
        for known, bags in parts(before.users, ids, size, Path("boi")):
            states = before.take(np.arange(known.start, known.stop))
            states, vectors = encode_month(smen, states, boi[bags], month)
            assert len(states.users) <= size
            found.append((states.users, vectors))
        assert pa.concat_arrays([users for users, _ in found]).equals(whole.users)
        np.testing.assert_allclose(
            np.concatenate([vectors for _, vectors in found]), expected, atol=1e-6
        )
        before = whole


@pytest.mark.parametrize("ids", [[2, 1], [1, None], [None], [None, None]])
def test_bags_that_are_not_sorted_by_user_are_not_cut_into_parts(ids):
    with pytest.raises(ValueError, match=r"^boi\.parquet: expected rows sorted by user"):
        list(parts(pa.array([1, 2]), pa.array(ids, pa.int64()), 2, Path("boi.parquet")))


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


def test_an_interest_that_a_user_has_twice_in_a_month_is_refused():
    boi = reference.boi_table({1: {FIRST: {0: 1.0, 2: 3.0}}}, FIRST)
    smen, twice = make(), pa.concat_tables([boi, boi[1:]])
    with pytest.raises(ValueError, match=r"each interest of a user once .* found 1 again"):
        encode_month(smen, no_users(smen.settings, pa.int64()), twice, FIRST)


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


def test_tables_of_different_users_become_one_sorted_by_user():
    smen, lives = make(), {"ü": {FIRST: {0: 2.0}}, "a": {FIRST: {1: 1.0}}, "z": {FIRST: {3: 1.0}}}
    *_, (_, states, vectors) = encode_months(smen, lives, [FIRST])
    table = user_vectors(states, vectors, np.zeros(3, np.float32), Version("v", "v"))
    assert table["user_id"].to_pylist() == ["a", "z", "ü"]
    for mask in itertools.product([True, False], repeat=3):
        some, others = (table.filter(pa.array(np.array(mask) == kept)) for kept in (True, False))
        assert with_others(some, others).equals(table)


@pytest.mark.parametrize("aggregation", ["gru", "mean"])
def test_encode_month_gives_the_projection_of_the_whole_history(aggregation):
    """Users who pause for one month, for two, and for many, and one who comes last."""
    lives = reference.random_lives(8, np.random.default_rng(0), D, FIRST, n_months=14)
    lives |= {100: {FIRST + 13: {0: 1.0}}, 101: {FIRST: {4: 2.0}, FIRST + 2: {3: 1.0}}}
    lives |= {102: {FIRST + m: {m % D: 1.5, 3: 0.5} for m in (0, 1, 4, 5, 6, 13)}}
    smen = make(published_width=4, aggregation=aggregation)
    smen.attach(reference.random_projection(D, M * H, 4))
    w = reference.weights(smen)
    for month, states, vectors in encode_months(smen, lives, range(FIRST, FIRST + 14)):
        expected = []
        for user in states.users.to_pylist():
            life = {m: bag for m, bag in lives[user].items() if m <= month}
            numbers = reference.user_vector(life, smen.settings, w, until=month).ravel()
            expected.append(reference.projection_vector(life, month, smen.projection, numbers))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(vectors / scale, np.array(expected) / scale, atol=1e-5)


def test_still_moves_marks_users_until_their_windows_are_empty():
    lives = {1: {FIRST: {0: 2.0}}, 2: {FIRST: {1: 1.0}, FIRST + 9: {2: 1.0}}}
    smen = make(published_width=4)
    smen.attach(reference.random_projection(D, M * H, 4))
    before = None
    for month, states, vectors in encode_months(smen, lives, range(FIRST, FIRST + 8)):
        if before is not None:
            moves = still_moves(smen, states.last_month, month)
            assert (np.abs(vectors - before).max(axis=1) > 0).tolist() == moves.tolist()
            assert moves.all() == (month <= FIRST + 3)
        before = vectors


def test_encode_timelines_gives_what_encoding_month_by_month_gives():
    lives = reference.random_lives(8, np.random.default_rng(2), D, FIRST, n_months=9)
    smen = make(published_width=4)
    smen.attach(reference.random_projection(D, M * H, 4))
    *_, (month, states, vectors) = encode_months(smen, lives, range(FIRST, FIRST + 9))
    timelines = build_timelines(reference.boi_tables(lives))
    assert timelines.users.equals(states.users)
    slow = encode_timelines(smen, timelines, month)
    np.testing.assert_allclose(vectors, slow, atol=1e-5 * np.abs(slow).max())
