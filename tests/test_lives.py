import duckdb
import numpy as np
import pyarrow as pa
import pytest

from lurm.lives import bags_of_users, example_users, famous_items, masses_by_month
from lurm.storage import write_parquet
from tests import reference, small_world


@pytest.fixture
def months(tmp_path):
    """Bags of three months: user 1 was always there, users 2 to 9 in two, user 10 once."""
    lives = {1: {0: {0: 1.0, 2: 2.5}, 1: {0: 4.0}, 2: {1: 1.0}}, 10: {1: {3: 7.0}}}
    lives |= {user: {0: {1: 1.0}, 2: {user % 4: 2.0}} for user in range(2, 10)}
    files = {}
    for month, table in reference.boi_tables(lives).items():
        files[f"2017-{month + 1:02d}"] = tmp_path / f"{month}.parquet"
        write_parquet(table, files[f"2017-{month + 1:02d}"])
    return files


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        yield connection


def test_masses_are_the_sums_of_all_bags(months, connection):
    found = masses_by_month(connection, months, 5)
    assert found.tolist() == [[1, 4, 4], [8, 0, 5], [2.5, 0, 4], [0, 7, 4], [0, 0, 0]]


def test_examples_were_there_in_half_of_the_months_and_depend_on_the_seed_alone(months, connection):
    found = example_users(connection, months, 20, seed=0)
    assert sorted(found) == list(range(1, 10))
    assert example_users(connection, months, 3, seed=0) == found[:3]
    assert example_users(connection, months, 20, seed=1) != found


def test_a_life_is_every_bag_of_the_user(months, connection):
    assert bags_of_users(connection, months, [10, 1]) == [
        {"2017-02": {3: 7.0}},
        {"2017-01": {0: 1.0, 2: 2.5}, "2017-02": {0: 4.0}, "2017-03": {1: 1.0}},
    ]


def test_items_with_one_text_are_one_and_the_most_met_come_first(tmp_path, monkeypatch, connection):
    monkeypatch.chdir(tmp_path)
    small_world.write_behaviors("2017-01")
    path = tmp_path / "training/behaviors/2017-01.parquet"
    write_parquet(
        pa.table({"item_id": range(20), "interest": np.int32([i % 2 for i in range(20)]),
                  "weight": np.ones(20, np.float32)}),
        "interests.parquet",
    )  # fmt: skip
    texts = pa.table({"item_id": range(20), "text": ["", "tea"] * 10})
    found = famous_items(connection, [path], tmp_path / "interests.parquet", texts, 5).to_pylist()
    assert found == [{"text": "tea", "interest": 1, "n_behaviors": 36}]
