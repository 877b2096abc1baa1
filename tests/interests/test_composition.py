"""What interests consist of, against a loop over items."""

import numpy as np
import pyarrow as pa
import pytest

from lurm.interests.composition import UNSEEN, compositions, count_items
from lurm.storage import write_parquet

CATALOG = pa.table(
    {
        "item_id": ["a", "b", "c", "d", "e"],
        "kind": ["tea", " ", "tea", "milk", None],
        "name": ["green tea", "pot", "black tea", "milk", None],
    }
)
ITEM_INTERESTS = pa.table(
    {
        "item_id": ["a", "b", "c", "c", "d", "e"],
        "interest": pa.array([0, 0, 0, 1, 1, 2], pa.int32()),
        "weight": pa.array([1, 1, 0.5, 0.5, 1, 1], pa.float32()),
    }
)
COUNTS = pa.table({"item_id": ["a", "b", "c"], "n": pa.array([6, 2, 4], pa.int64())})


def composed(columns, **changes):
    tables = {
        "catalog": CATALOG,
        "item_interests": ITEM_INTERESTS,
        "item_counts": COUNTS,
    } | changes
    return compositions(columns, **tables, text_columns=["name"], n_interests=4)


def test_compositions_weigh_items_by_their_behaviors_and_leave_out_missing_values():
    kind = composed(["kind"])["kind"].toarray()
    a, b, c, d = 6 + UNSEEN, 2 + UNSEEN, 4 + UNSEEN, UNSEEN
    expected = np.zeros((4, 2))  # milk, tea
    expected[0, 1] = (a + c / 2) / (a + b + c / 2)  # the pot has no kind
    expected[1] = np.array([d, c / 2]) / (d + c / 2)
    np.testing.assert_allclose(kind, expected, rtol=1e-6)


def test_compositions_of_words_are_mean_counts_of_words_that_several_items_have():
    words = composed(["words"])["words"].toarray()
    a, b, c = 6 + UNSEEN, 2 + UNSEEN, 4 + UNSEEN
    assert words.shape == (4, 1)  # tea
    assert words[0, 0] == pytest.approx((a + c / 2) / (a + b + c / 2), rel=1e-6)


def test_compositions_keep_the_values_of_most_behaviors_where_there_are_very_many(monkeypatch):
    monkeypatch.setattr("lurm.interests.composition.MOST_VALUES", 1)
    kind = composed(["kind"])["kind"].toarray()
    assert kind.shape == (4, 1)  # tea
    assert kind[0, 0] > 0


def test_compositions_refuse_columns_that_are_absent_or_empty():
    with pytest.raises(ValueError, match="expected columns of the catalog or 'words', got 'brand'"):
        composed(["brand"])
    nothing = CATALOG.set_column(1, "kind", pa.nulls(5, pa.string()))
    with pytest.raises(ValueError, match="expected values in 'kind', the catalog has none"):
        composed(["kind"], catalog=nothing)


def test_count_items_counts_over_all_files(tmp_path):
    for number, items in enumerate((["a", "b", "a"], ["c", "a"])):
        write_parquet(pa.table({"item_id": items}), tmp_path / f"{number}.parquet")
    counts = count_items([tmp_path / "0.parquet", tmp_path / "1.parquet"])
    assert counts.to_pydict() == {"item_id": ["a", "b", "c"], "n": [3, 1, 1]}
