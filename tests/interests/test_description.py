from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lurm.interests.description import count_behaviors, describe, spread, top_words
from lurm.storage import write_parquet
from lurm.tables import TIMESTAMP

NEAREST = pa.table(
    {
        "item_id": ["a", "b", "c", "d"],
        "interest": pa.array([2, 0, 2, 2], pa.int32()),
        "weight": pa.array([1, 1, 1, 1], pa.float32()),
        "cosine": pa.array([0.9, 0.8, 0.7, 0.5], pa.float32()),
    }
)
TEXTS = ["dark coffee", "dog food", "dark coffee", "mild coffee"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 50)), min_size=1))
def test_the_figures_are_those_of_a_slow_loop(rows):
    interests, masses = (np.array(column) for column in zip(*rows, strict=True))
    figures = spread(interests, np.ones(len(rows)), masses, 7)
    sizes = [sum(mass for interest, mass in rows if interest == d) for d in range(7)]
    assert figures["share_empty"] == pytest.approx(sizes.count(0) / 7, abs=1e-6)
    if total := sum(sizes):
        assert figures["imbalance"] == pytest.approx(
            7 * sum(size**2 for size in sizes) / total**2, abs=1e-6
        )
        assert figures["mean_cosine"] == 1


def test_behaviors_are_counted_by_item_and_users_once_per_interest(tmp_path):
    for month, rows in {
        "2017-01": [(1, "a"), (1, "a"), (1, "c")],
        "2017-02": [(1, "b"), (2, "d"), (2, "gone")],
    }.items():
        users, items = zip(*rows, strict=True)
        when = pa.array([datetime(2017, 1, 1, tzinfo=UTC)] * len(rows), TIMESTAMP)
        table = pa.table({"user_id": users, "item_id": items, "timestamp": when})
        write_parquet(table, tmp_path / f"{month}.parquet")
    n_behaviors, n_users = count_behaviors(sorted(tmp_path.iterdir()), NEAREST, 4, "100MB")
    assert n_behaviors.tolist() == [2, 1, 1, 1]
    assert n_users.tolist() == [1, 0, 2, 0]


def test_words_of_an_interest_are_those_that_set_it_apart():
    texts = [
        "shop coffee dark",
        "shop coffee mild",
        "shop DOG food",
        "shop dog bone",
        "ショップ 茶",
    ]
    words = top_words(texts, np.array([0, 0, 1, 1, 3]), 4)
    assert words[0][0] == "coffee"
    assert words[1][0] == "dog"
    assert words[2] == []
    assert words[3] == ["ショップ", "茶"]
    assert set(words[0]) == {"coffee", "dark", "mild", "shop"}


def test_items_without_a_word_leave_interests_without_words():
    assert top_words(["", ""], np.array([0, 1]), 2) == [[], []]


def test_the_table_has_a_row_for_every_interest_and_shows_each_text_once():
    table = describe(NEAREST, TEXTS, np.array([1, 7, 4, 9]), np.array([3, 0, 5, 0]))
    assert table["interest"].to_pylist() == [0, 1, 2, 3]
    assert table["n_items"].to_pylist() == [1, 0, 3, 0]
    assert table["n_behaviors"].to_pylist() == [7, 0, 14, 0]
    assert table["n_users"].to_pylist() == [3, 0, 5, 0]
    assert table["mean_cosine"].to_pylist() == [pytest.approx(0.8), None, pytest.approx(0.7), None]
    assert table["top_item_ids"].to_pylist() == [["b"], [], ["d", "c"], []]
    assert table["top_items"].to_pylist() == [["dog food"], [], ["mild coffee", "dark coffee"], []]
    assert table["top_words"].to_pylist()[2][0] == "coffee"
