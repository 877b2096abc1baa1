"""Generated logs: the skew that was promised, and the same bytes again."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import logs
from lurm.storage import file_hash
from lurm.tables import BEHAVIORS, ITEM_INTERESTS, check_columns

WORLD = logs.World(n_behaviors=60_000, n_users=2000, n_months=4, n_items=5000, n_interests=500)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "ROWS", 4000)  # several blocks of users
    logs.write_logs(WORLD, tmp_path / "one")
    return tmp_path / "one"


def months(folder):
    return [pq.read_table(path) for path in sorted((folder / "behaviors").iterdir())]


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(folder, tmp_path):
    logs.write_logs(WORLD, tmp_path / "again")
    other = logs.World(**(WORLD.__dict__ | {"seed": 1}))
    logs.write_logs(other, tmp_path / "other")
    for path in folder.rglob("*.parquet"):
        name = path.relative_to(folder)
        assert file_hash(path) == file_hash(tmp_path / "again" / name)
        assert "item_interests" in path.name or file_hash(path) != file_hash(
            tmp_path / "other" / name
        )


@pytest.mark.parametrize("wrong", [{"n_users": 0}, {"n_behaviors": 0}, {"n_items": 10}])
def test_a_world_without_users_or_with_fewer_items_than_interests_is_refused(wrong):
    with pytest.raises(ValueError, match="expected one or more behaviors, users"):
        logs.World(**(WORLD.__dict__ | wrong))


def test_months_are_tables_of_behaviors_sorted_by_user_then_time(folder):
    for path in (folder / "behaviors").iterdir():
        table = pq.read_table(path)
        check_columns(table.schema, BEHAVIORS, path.name)
        keys = [table["user_id"].to_numpy(), table["timestamp"].cast("int64").to_numpy()]
        assert np.array_equal(np.lexsort(keys[::-1]), np.arange(len(table)))
        assert {str(t)[:7] for t in table["timestamp"].to_pylist()} == {path.stem}


def test_there_are_about_as_many_behaviors_as_asked_for_whatever_the_blocks(folder):
    n = sum(map(len, months(folder)))
    assert n == pytest.approx(WORLD.n_behaviors, rel=0.15)


def test_few_users_make_most_behaviors_and_few_items_meet_most(folder):
    for column, top in (("user_id", 0.1), ("item_id", 0.1)):
        counts = np.bincount(np.concatenate([t[column].to_numpy() for t in months(folder)]))
        counts = np.sort(counts)[::-1]
        assert counts[: int(top * len(counts))].sum() > 0.45 * counts.sum()


def test_users_come_in_over_time_and_pause(folder):
    users = [set(table["user_id"].to_pylist()) for table in months(folder)]
    assert len(users[0]) < len(users[-1])
    assert users[0] - users[1]
    assert users[-1] - set.union(*users[:-1])


def test_every_item_has_an_interest(folder):
    known = pq.read_table(folder / "item_interests.parquet")
    check_columns(known.schema, ITEM_INTERESTS, "map")
    for table in months(folder):
        assert set(table["item_id"].to_pylist()) <= set(known["item_id"].to_pylist())


def test_ranks_follow_zipfs_law():
    ranks = logs.zipf((np.arange(100_000) + 0.5) / 100_000, 1000)
    assert (ranks.min(), ranks.max()) == (0, 999)
    counts = np.bincount(ranks)
    assert counts[9] / counts[99] == pytest.approx(10**logs.ZIPF, rel=0.1)
