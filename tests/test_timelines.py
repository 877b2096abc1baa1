"""Timelines and their periods against dictionaries of counts."""

import math
import resource
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lurm.storage import write_array
from lurm.timelines import (
    ShardedTimelines,
    build_timelines,
    cut_periods,
    finish,
    load_shard,
    ranges,
    save_shard,
    shards_of,
    write_timelines,
)
from tests import reference

FIRST = 2016 * 12 + 9  # a life that begins in October crosses years and quarters
bags = st.dictionaries(st.integers(0, 4), st.sampled_from([0.5, 1.0, 2.0, 7.0]), min_size=1)
lives_of = st.dictionaries(st.integers(FIRST, FIRST + 30), bags, min_size=1, max_size=6)
many_lives = st.dictionaries(st.integers(-5, 5), lives_of, min_size=1, max_size=5)


def as_lives(timelines):
    """The timelines read back one entry at a time."""
    lives = {}
    for u, user in enumerate(timelines.users.to_pylist()):
        life = lives[user] = {}
        for b in range(timelines.first_bag[u], timelines.first_bag[u + 1]):
            bag = life[int(timelines.months[b])] = {}
            for e in range(timelines.first_entry[b], timelines.first_entry[b + 1]):
                bag[int(timelines.interests[e])] = float(timelines.counts[e])
    return lives


def as_bags(periods):
    """One list of bags per sequence."""
    every = [
        dict(
            zip(
                periods.interests[first:last].tolist(),
                periods.counts[first:last].tolist(),
                strict=True,
            )
        )
        for first, last in zip(periods.offsets, periods.offsets[1:], strict=False)
    ]
    assert sum(periods.lengths) == len(every)
    ends = np.cumsum(periods.lengths)
    return [every[end - n : end] for n, end in zip(periods.lengths, ends, strict=True)]


@settings(max_examples=50, deadline=None)
@given(many_lives)
def test_no_count_is_lost_and_users_and_months_are_in_order(lives):
    timelines = build_timelines(reference.boi_tables(lives))
    assert as_lives(timelines) == lives
    assert timelines.users.to_pylist() == sorted(lives)
    for life in as_lives(timelines).values():
        assert list(life) == sorted(life)
        assert all(list(bag) == sorted(bag) for bag in life.values())


@settings(max_examples=50, deadline=None)
@given(many_lives, st.integers(1, 7))
def test_written_in_batches_of_any_size_the_bytes_are_the_same(lives, size):
    rows = rows_of(lives)
    with tempfile.TemporaryDirectory() as folder:
        whole, batches = Path(folder, "whole"), Path(folder, "batches")
        timelines = build_timelines(reference.boi_tables(lives))
        finish(whole, [save_shard(timelines, whole / "00000")])
        numbers = write_timelines(in_batches(rows, size), batches)
        assert numbers == (len(timelines), timelines.n_bags, len(timelines.counts))
        assert files(batches) == files(whole)


@settings(max_examples=50, deadline=None)
@given(many_lives, st.integers(1, 7), st.integers(1, 3))
def test_in_shards_of_any_size_every_user_has_the_own_life_in_one_of_them(lives, size, of_shard):
    timelines = build_timelines(reference.boi_tables(lives))
    with tempfile.TemporaryDirectory() as folder:
        numbers = write_timelines(in_batches(rows_of(lives), size), Path(folder), of_shard)
        assert numbers == (len(timelines), timelines.n_bags, len(timelines.counts))
        shards = [load_shard(shard) for shard in shards_of(Path(folder))]
        *full, last = map(len, shards)
        assert set(full) <= {of_shard}
        assert 0 < last <= of_shard
        found = {}
        for shard in shards:
            assert not found.keys() & as_lives(shard).keys()
            found |= as_lives(shard)
        assert found == lives
        sharded = ShardedTimelines(Path(folder))
        assert len(sharded) == len(timelines)
        assert sharded.users.equals(timelines.users)
        assert sharded.id_type == timelines.users.type
        assert (sharded.n_bags, sharded.last_interest) == (
            timelines.n_bags,
            timelines.last_interest,
        )


@settings(max_examples=50, deadline=None)
@given(many_lives, st.integers(1, 3), st.data())
def test_lives_are_taken_in_the_order_asked_for_from_memory_and_from_shards(lives, of_shard, data):
    timelines = build_timelines(reference.boi_tables(lives))
    rows = np.array(data.draw(st.lists(st.integers(0, len(lives) - 1), max_size=8)), dtype=np.int64)
    with tempfile.TemporaryDirectory() as folder:
        write_timelines(in_batches(rows_of(lives), 3), Path(folder), of_shard)
        for taken in (timelines.take(rows), ShardedTimelines(Path(folder)).take(rows)):
            assert len(taken) == len(rows)
            named = replace(taken, users=pa.array([str(place) for place in range(len(rows))]))
            expected = {
                str(place): lives[timelines.users[row].as_py()] for place, row in enumerate(rows)
            }
            assert as_lives(named) == expected


@pytest.mark.parametrize("lost", ["00001", "00002"])
def test_timelines_of_which_a_shard_is_missing_are_refused(lost, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found none; run build_timelines"):
        ShardedTimelines(tmp_path)
    lives = {user: {FIRST: {0: 1.0}} for user in range(3)}
    write_timelines(in_batches(rows_of(lives), 3), tmp_path, 1)
    shutil.rmtree(tmp_path / lost)
    with pytest.raises(
        ValueError, match=r"expected 3 shards, 00000 and so on, and nothing else, fo"
    ):
        ShardedTimelines(tmp_path)


@pytest.mark.parametrize("name", ["first_bag", "months", "first_entry", "interests", "counts"])
def test_a_shard_whose_arrays_do_not_fit_is_refused_by_name(name, tmp_path):
    lives = {user: {FIRST: {0: 1.0}, FIRST + 1: {1: 2.0}} for user in range(3)}
    write_timelines(in_batches(rows_of(lives), 3), tmp_path, 2)
    path = tmp_path / "00001" / f"{name}.npy"
    write_array(np.load(path)[:-1], path)
    sharded = ShardedTimelines(tmp_path)
    assert len(sharded.take(np.array([0]))) == 1
    with pytest.raises(ValueError, match=r"00001: expected arrays of 1 users and 2 bags"):
        sharded.take(np.array([2]))


def test_more_shards_than_a_process_may_open_files_for_are_read(tmp_path):
    lives = {user: {FIRST: {0: 1.0}} for user in range(80)}
    write_timelines(in_batches(rows_of(lives), 80), tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        assert len(ShardedTimelines(tmp_path).take(np.arange(80))) == 80
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_shards_than_the_system_lets_anybody_open_are_refused_at_the_start(
    tmp_path, monkeypatch
):
    write_timelines(in_batches(rows_of({1: {FIRST: {0: 1.0}}}), 80), tmp_path, 1)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (200, 250))
    with pytest.raises(ValueError, match=r"allowed 261 open files, the hard limit is 250.*ulimit"):
        ShardedTimelines(tmp_path)


def rows_of(lives):
    """The lives as sorted rows of user, month, interest and count."""
    tables = [
        table.append_column("month", pa.array([month] * len(table), pa.int32()))
        for month, table in reference.boi_tables(lives).items()
    ]
    order = [(name, "ascending") for name in ("user_id", "month", "interest")]
    return pa.concat_tables(tables).sort_by(order)


def in_batches(rows, size):
    for k in range(0, len(rows), size):
        yield from rows[k : k + size].combine_chunks().to_batches()


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@settings(max_examples=50, deadline=None)
@given(many_lives)
def test_neither_the_order_of_months_nor_that_of_rows_changes_anything(lives):
    tables = reference.boi_tables(lives)
    backwards = {month: table[::-1] for month, table in reversed(tables.items())}
    one, other = build_timelines(tables), build_timelines(backwards)
    assert one.users.equals(other.users)
    for name in ("first_bag", "months", "first_entry", "interests", "counts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@settings(max_examples=100, deadline=None)
@given(many_lives, st.sampled_from([1, 3, 12]), st.sampled_from(["skip", "zeros"]), st.data())
def test_periods_are_those_of_a_slow_loop_at_every_scale(lives, span, empty_periods, data):
    timelines = build_timelines(reference.boi_tables(lives))
    stretches, expected = [], []
    for _ in range(data.draw(st.integers(1, 4))):
        u = data.draw(st.integers(0, len(lives) - 1))
        life = lives[timelines.users[u].as_py()]
        first = data.draw(st.integers(0, len(life)))
        last = data.draw(st.integers(first, len(life)))
        stretches.append(timelines.first_bag[u] + np.array([first, last]))
        part = {month: life[month] for month in sorted(life)[first:last]}
        expected.append(reference.periods(part, span, empty_periods) if part else [])
    first, last = np.array(stretches).T
    options = {"span": span, "empty_periods": empty_periods, "n_interests": 5}
    assert as_bags(cut_periods(timelines, first, last, **options)) == expected


@pytest.mark.parametrize(("span", "n_periods"), [(1, 4), (3, 2), (12, 2), (24, 1), (1000, 1)])
def test_a_bag_is_the_logarithm_of_summed_counts_and_no_sum_of_logarithms(span, n_periods):
    months = [FIRST, FIRST + 1, FIRST + 3, FIRST + 4]  # 2016-10, 2016-11, 2017-01, 2017-02
    timelines = build_timelines(reference.boi_tables({0: {m: {0: 3.0} for m in months}}))
    options = {"span": span, "empty_periods": "skip", "n_interests": 1}
    periods = cut_periods(timelines, np.array([0]), np.array([4]), **options)
    assert np.log1p(periods.counts) == pytest.approx([math.log(1 + 12 / n_periods)] * n_periods)


def test_no_month_at_all_gives_no_sequence_and_no_user_no_timeline():
    none = np.zeros(0, dtype=np.int64)
    timelines = build_timelines({FIRST: reference.boi_table({}, FIRST, pa.string())})
    assert len(timelines.users) == 0
    options = {"span": 12, "empty_periods": "zeros", "n_interests": 5}
    assert as_bags(cut_periods(timelines, none, none, **options)) == []


@pytest.mark.parametrize("users", [[3, -1], ["b", "Ä"]])
def test_timelines_come_back_from_disk_mapped_and_not_read(users, tmp_path):
    lives = {user: {FIRST + i: {i: 1.5}} for i, user in enumerate(users)}
    timelines = build_timelines(reference.boi_tables(lives))
    save_shard(timelines, tmp_path)
    loaded = load_shard(tmp_path)
    assert as_lives(loaded) == lives
    assert loaded.users.equals(timelines.users)
    assert isinstance(loaded.counts, np.memmap)


def test_months_whose_user_ids_differ_in_type_are_refused():
    tables = reference.boi_tables({1: {FIRST: {0: 1.0}}})
    tables |= reference.boi_tables({"1": {FIRST + 1: {0: 1.0}}})
    with pytest.raises(ValueError, match="user_id"):
        build_timelines(tables)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=6))
def test_ranges_are_laid_end_to_end(pairs):
    first = np.array([start for start, _ in pairs], dtype=np.int64)
    last = first + np.array([n for _, n in pairs], dtype=np.int64)
    assert ranges(first, last).tolist() == [
        number for a, b in zip(first, last, strict=True) for number in range(a, b)
    ]
