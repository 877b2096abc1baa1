from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lurm.tables import BEHAVIORS, LABELS, TIMESTAMP
from lurm.tasks import (
    attribute_labels,
    category_labels,
    collect_labels,
    task_labels,
    unknown_categories,
)

CATALOG = pa.table(
    {
        "item_id": [1, 2, 3, 4],
        "aisle": ["COFFEE", "TEA", None, "COFFEE"],
        "brand": ["own", "own", "other", "other"],
    }
)
INT = pa.int64()
LABEL_SCHEMA = pa.schema({**LABELS, "user_id": INT})


def behaviors(pairs, id_type=INT):
    users, items = zip(*pairs, strict=True) if pairs else ((), ())
    when = [datetime(2017, 11, 5, tzinfo=UTC)] * len(pairs)
    types = {**BEHAVIORS, "user_id": id_type, "item_id": pa.int64(), "timestamp": TIMESTAMP}
    return pa.table([users, items, when], schema=pa.schema(types))


def labels(rows):
    return pa.Table.from_pylist(
        [dict(zip(LABELS, row, strict=True)) for row in rows], schema=LABEL_SCHEMA
    )


def ids(values):
    return pa.chunked_array([values])


# ---- collect_labels ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=30))
def test_labels_agree_with_a_loop_over_behaviors(pairs):
    categories = [("aisle", "COFFEE"), ("brand", "other"), ("aisle", "TEA")]
    items = {row["item_id"]: row for row in CATALOG.to_pylist()}
    expected = {
        (user, column, value)
        for user, item in pairs
        for column, value in categories
        if items[item][column] == value
    }
    found = collect_labels(behaviors(pairs), CATALOG, categories)
    assert [tuple(row.values()) for row in found.to_pylist()] == sorted(expected)
    assert found.schema == LABEL_SCHEMA


def test_labels_keep_text_ids_and_quoted_columns():
    catalog = CATALOG.rename_columns(["item_id", 'the "aisle"', "brand"])
    found = collect_labels(
        behaviors([("Ü1", 1)], pa.string()), catalog, [('the "aisle"', "COFFEE")]
    )
    assert found.to_pylist() == [{"user_id": "Ü1", "column": 'the "aisle"', "value": "COFFEE"}]


def test_the_catalog_may_have_a_column_of_the_behaviors_name():
    catalog = CATALOG.append_column("user_id", pa.array(["seller"] * 4))
    found = collect_labels(
        behaviors([(5, 1)]), catalog, [("aisle", "COFFEE"), ("user_id", "seller")]
    )
    assert found["user_id"].to_pylist() == [5, 5]


def test_a_category_that_no_item_has_gives_no_labels_and_is_told_with_the_nearest_one():
    categories = [("aisle", "COFFE"), ("aisle", "COFFEE")]
    assert collect_labels(behaviors([(1, 1)]), CATALOG, categories)[
        "value"
    ].unique().to_pylist() == ["COFFEE"]
    assert unknown_categories(CATALOG, categories) == [
        "no item of the catalog has aisle 'COFFE'; did you mean 'COFFEE'?"
    ]


def test_a_column_that_the_catalog_lacks_is_refused_with_those_it_has():
    with pytest.raises(ValueError, match="no column 'shelf'; it has aisle, brand"):
        collect_labels(behaviors([(1, 1)]), CATALOG, [("shelf", "COFFEE")])


# ---- category tasks ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", [pa.array, ids])
def test_a_category_task_holds_every_user_with_a_vector_in_the_order_of_ids(form):
    bought = labels(
        [(7, "aisle", "TEA"), (3, "aisle", "TEA"), (3, "aisle", "COFFEE"), (9, "aisle", "TEA")]
    )
    task = category_labels(form([7, 5, 3, 4]), bought, "aisle", "TEA", folds=2)
    assert task.rows.tolist() == [2, 3, 1, 0]  # users 3, 4, 5, 7; user 9 has no vector
    assert task.y.tolist() == [1, 0, 0, 1]
    assert task.counts == {"no": 2, "yes": 2}


def test_a_task_with_one_class_is_refused():
    nobody = labels([(1, "aisle", "TEA")])
    with pytest.raises(ValueError, match="aisle 'COFFEE' has a single class among 3 users"):
        category_labels(ids([1, 2, 3]), nobody, "aisle", "COFFEE", folds=2)


def test_a_class_smaller_than_the_folds_is_refused():
    with pytest.raises(ValueError, match=r"class of 1 users \('yes'\), too few for 2 folds"):
        category_labels(ids([1, 2, 3]), labels([(1, "aisle", "TEA")]), "aisle", "TEA", folds=2)


def test_a_user_with_two_vectors_is_refused():
    with pytest.raises(ValueError, match="several rows; expected one row each"):
        category_labels(ids([1, 1]), labels([]), "aisle", "TEA", folds=2)


def test_ids_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="labels: user_id should be string"):
        category_labels(ids(["1", "2"]), labels([(1, "aisle", "TEA")]), "aisle", "TEA", folds=2)


# ---- attribute tasks ---------------------------------------------------------------------------


def users(values, attribute="band"):
    return pa.table({"user_id": list(values), attribute: list(values.values())})


@pytest.mark.parametrize("form", [pa.array, ids])
def test_users_without_the_attribute_or_without_a_vector_are_left_out(form):
    known = users({1: "b", 2: None, 3: "a", 4: "a", 6: "b", 9: "a"})
    task = attribute_labels(form([4, 3, 2, 1, 5, 6]), known, "band", min_class_size=1, folds=2)
    assert task.rows.tolist() == [3, 1, 0, 5]  # users 1, 3, 4, 6
    assert task.y.tolist() == [1, 0, 0, 1]
    assert task.classes == ("a", "b")


def test_small_classes_are_merged_into_one():
    known = users(dict(enumerate(["a"] * 5 + ["b", "b"] + ["c"] * 3 + ["d"] * 4)))
    task = attribute_labels(ids(range(14)), known, "band", min_class_size=4, folds=2)
    assert task.counts == {"a": 5, "b | c": 5, "d": 4}
    assert [task.classes[c] for c in task.y[5:10]] == ["b | c"] * 5


def test_classes_that_merge_into_a_single_one_are_refused():
    with pytest.raises(ValueError, match="band has a single class among 4 users"):
        attribute_labels(ids(range(4)), users(dict(enumerate("aabb"))), "band", 3, folds=2)


def test_an_attribute_of_numbers_is_a_class_per_number():
    known = users(dict(enumerate([0, 1, 0, 1])))
    assert attribute_labels(ids(range(4)), known, "band", 1, folds=2).classes == ("0", "1")


def test_an_unknown_attribute_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no attribute 'bnad'; it has band"):
        attribute_labels(ids([1]), users({1: "a"}), "bnad", 1, folds=2)


def test_a_user_with_two_rows_is_refused():
    twice = pa.table({"user_id": [1, 1, 2], "band": ["a", "b", "b"]})
    with pytest.raises(ValueError, match="several rows with 'band'"):
        attribute_labels(ids([1, 2]), twice, "band", 1, folds=2)


def test_a_users_file_without_any_user_of_the_vectors_is_refused():
    with pytest.raises(ValueError, match="single class among 0 users"):
        attribute_labels(ids([1, 2]), users({8: "a", 9: "b"}), "band", 1, folds=2)


# ---- both --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "TEA"])
def test_the_order_of_users_does_not_change_the_task(value):
    rng = np.random.default_rng(0)
    user_ids = np.arange(40)
    source = (
        users(
            dict(zip(user_ids.tolist(), rng.choice(["x", "y"], 40).tolist(), strict=True)), "aisle"
        )
        if value is None
        else labels([(int(user), "aisle", "TEA") for user in rng.choice(40, 15, replace=False)])
    )
    settings = {"min_class_size": 1, "folds": 2}
    plain = task_labels(ids(user_ids), source, "aisle", value, **settings)
    mixed = rng.permutation(user_ids)
    other = task_labels(ids(mixed), source, "aisle", value, **settings)
    assert (user_ids[plain.rows] == mixed[other.rows]).all()
    assert (plain.y == other.y).all()


@pytest.mark.parametrize("n_found", [0, 1])
def test_a_class_too_rare_for_the_users_drawn_is_refused_with_what_to_raise(n_found):
    bought = labels([(user, "aisle", "TEA") for user in range(4)])
    seed = next(
        seed
        for seed in range(100)
        if np.isin(np.random.default_rng(seed).permutation(100)[:10], range(4)).sum() == n_found
    )
    with pytest.raises(ValueError, match=r"drawn from 100: .* raise evaluation\.most_users"):
        category_labels(ids(range(100)), bought, "aisle", "TEA", 2, most_users=10, seed=seed)


@pytest.mark.parametrize("value", [None, "TEA"])
def test_of_very_many_users_of_a_task_some_are_drawn_the_same_each_time(value):
    user_ids = list(range(0, 400, 2))
    known = {user: "ab"[user % 4 // 2] for user in range(100, 400)}
    source = labels([(u, "band", "TEA") for u in user_ids[::3]])
    if value is None:
        source = users(known)
    options = {"min_class_size": 1, "folds": 2}
    whole = task_labels(ids(user_ids), source, "band", value, **options)
    some = task_labels(ids(user_ids), source, "band", value, **options, most_users=40, seed=1)
    again = task_labels(ids(user_ids), source, "band", value, **options, most_users=40, seed=1)
    other = task_labels(ids(user_ids), source, "band", value, **options, most_users=40, seed=2)
    assert len(some.rows) == 40
    assert sorted(set(some.rows)) == some.rows.tolist() == again.rows.tolist()
    assert some.rows.tolist() != other.rows.tolist()
    class_of = dict(zip(whole.rows, whole.y, strict=True))
    assert [class_of[row] for row in some.rows] == some.y.tolist()
    all_of_them = task_labels(ids(user_ids), source, "band", value, **options, most_users=200)
    assert all_of_them.rows.tolist() == whole.rows.tolist()
