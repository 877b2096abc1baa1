import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lurm.interests import assignment
from lurm.interests.assignment import (
    assign,
    merge_maps,
    nearest,
    nearest_of,
    softmax_weights,
    split_catalog,
)


def unit(rng, n, width=16):
    rows = rng.normal(size=(n, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def ids(n):
    return pa.chunked_array([np.arange(n)])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 6, 7, 8, 21, 50])
@pytest.mark.parametrize("k", [1, 3, 9])
def test_the_nearest_centres_are_those_of_brute_force_across_chunk_borders(rng, monkeypatch, n, k):
    monkeypatch.setattr(assignment, "CHUNK", 7)
    vectors, centres = unit(rng, n), unit(rng, 9)
    found, cosines = nearest(vectors, centres, k)
    for row in range(n):
        every = [float(np.dot(vectors[row].astype(float), c.astype(float))) for c in centres]
        expected = sorted(range(9), key=lambda d: (-every[d], d))[:k]
        assert found[row].tolist() == expected
        np.testing.assert_allclose(cosines[row], [every[d] for d in expected], atol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_torch_s_products_propose_the_candidates_that_numpy_s_do(rng, k):
    vectors, centres = unit(rng, 50), unit(rng, 9)
    vectors[7] = 0
    row, centre, _ = assignment._on_gpu(centres, k, "cpu")(vectors)
    expected_row, expected, _ = assignment._near(vectors, centres, k)
    assert (row.tolist(), centre.tolist()) == (expected_row.tolist(), expected.tolist())


def test_no_items_give_an_empty_map(rng):
    table = assign(ids(0), unit(rng, 0), unit(rng, 4), 2, 0.1)
    assert len(table) == 0
    assert len(nearest_of(table)) == 0


def test_ties_go_to_the_lowest_interest(rng):
    centres = unit(rng, 5)[[0, 1, 1, 2, 1]]
    found, _ = nearest(unit(rng, 200), centres)
    assert not np.isin(found, [2, 4]).any()


@pytest.mark.parametrize("limit", [8, 1000], ids=["by cells", "among all"])
def test_a_vector_of_zeros_lies_as_near_to_all_and_goes_to_the_lowest(rng, monkeypatch, limit):
    monkeypatch.setattr(assignment, "EXACT_UP_TO", limit)
    found, cosines = nearest(np.zeros((3, 16), np.float32), unit(rng, 400), 20)
    assert found.tolist() == [list(range(20))] * 3
    assert (cosines == 0).all()


def test_an_item_s_interest_depends_neither_on_order_nor_on_its_neighbours(rng):
    vectors, centres = unit(rng, 3000, 64), unit(rng, 300, 64)
    order = rng.permutation(len(vectors))
    found, cosines = nearest(vectors, centres, 2)
    mixed, mixed_cosines = nearest(vectors[order], centres, 2)
    np.testing.assert_array_equal(mixed, found[order])
    np.testing.assert_array_equal(mixed_cosines, cosines[order])
    np.testing.assert_array_equal(nearest(vectors[5:18], centres, 2)[1], cosines[5:18])


@pytest.mark.parametrize("look", [assignment._near, lambda *args: on_torch(*args)])
def test_the_nearest_is_found_however_many_lower_ones_tie_for_the_last_place(look):
    ties = np.repeat(np.eye(4, dtype=np.float32)[1:2], 100, axis=0)
    centres = np.concatenate([ties, np.eye(4, dtype=np.float32)[:1]])
    vector = np.array([[0.9, np.sqrt(1 - 0.81), 0, 0]], np.float32)
    row, centre, _ = look(vector, centres, 2)
    assert 100 in centre
    assert 0 in centre
    assert len(row) < 100


def on_torch(rows, centres, k):
    return assignment._on_gpu(centres, k, "cpu")(rows)


@pytest.fixture
def clustered(rng):
    """Items around 3,000 centres, which lie around 30 topics."""
    topics = unit(rng, 30, 64)[rng.integers(0, 30, 3000)]
    centres = topics + 0.8 * unit(rng, 3000, 64)
    centres = (centres / np.linalg.norm(centres, axis=1, keepdims=True)).astype(np.float32)
    items = centres[rng.integers(0, 3000, 5000)] + 0.6 * unit(rng, 5000, 64)
    return (items / np.linalg.norm(items, axis=1, keepdims=True)).astype(np.float32), centres


def test_among_many_centres_more_than_99_in_100_items_find_their_nearest(clustered, monkeypatch):
    vectors, centres = clustered
    exact, cosines = nearest(vectors, centres)
    monkeypatch.setattr(assignment, "EXACT_UP_TO", 500)
    found, found_cosines = nearest(vectors, centres)
    assert (found == exact).mean() > 0.99
    np.testing.assert_array_equal(found_cosines[found == exact], cosines[found == exact])


def test_among_many_centres_an_item_depends_on_no_other(clustered, rng, monkeypatch):
    monkeypatch.setattr(assignment, "EXACT_UP_TO", 500)
    vectors, centres = clustered
    found, cosines = nearest(vectors, centres, 2)
    order = rng.permutation(len(vectors))
    mixed, mixed_cosines = nearest(vectors[order], centres, 2)
    np.testing.assert_array_equal(mixed, found[order])
    np.testing.assert_array_equal(mixed_cosines, cosines[order])


def test_an_item_on_the_border_of_the_last_cell_depends_on_no_other(rng, monkeypatch):
    monkeypatch.setattr(assignment, "EXACT_UP_TO", 500)
    monkeypatch.setattr(assignment, "PROBES", 3)
    centres = unit(rng, 2000, 32)
    cells = assignment._cells(centres).astype(np.float64)
    items = unit(rng, 400, 32).astype(np.float64)
    for _ in range(6):  # each halfway between its third and its fourth cell
        third, fourth = np.argsort(-(items @ cells.T), axis=1)[:, 2:4].T
        apart = cells[third] - cells[fourth]
        items -= apart * ((apart * items).sum(1) / (apart**2).sum(1))[:, None]
        items /= np.linalg.norm(items, axis=1, keepdims=True)
    items = items.astype(np.float32)
    among_others, _ = nearest(items, centres)
    alone = [nearest(items[i : i + 1], centres)[0][0, 0] for i in range(len(items))]
    assert among_others[:, 0].tolist() == alone


def test_items_whose_cells_hold_too_few_centres_still_get_real_ones(rng, monkeypatch):
    monkeypatch.setattr(assignment, "EXACT_UP_TO", 8)
    monkeypatch.setattr(assignment, "PROBES", 1)
    vectors, centres = unit(rng, 50), unit(rng, 9)
    found, cosines = nearest(vectors, centres, 9)
    assert (np.sort(found) == np.arange(9)).all()
    np.testing.assert_allclose(
        cosines, np.take_along_axis(vectors @ centres.T, found, 1), atol=1e-6
    )


def test_hard_assignment_is_soft_assignment_with_one_interest(rng):
    vectors, centres = unit(rng, 300), unit(rng, 20)
    hard = assign(ids(300), vectors, centres, 1, 0.1)
    soft = assign(ids(300), vectors, centres, 4, 0.1)
    assert hard["weight"].to_pylist() == [1.0] * 300
    assert nearest_of(soft).drop(["weight"]).equals(hard.drop(["weight"]))
    assert nearest_of(hard).equals(hard)


@pytest.mark.parametrize(("noise", "told"), [(0.1, False), (30.0, True)])
def test_a_search_by_cells_that_misses_the_nearest_says_so(noise, told, monkeypatch, caplog):
    monkeypatch.setattr(assignment, "EXACT_UP_TO", 500)
    monkeypatch.setattr(assignment, "PROBES", 2)
    rng = np.random.default_rng(0)
    centres = unit(rng, 1000, 32)
    vectors = centres[rng.integers(0, 1000, 3000)] + noise * unit(rng, 3000, 32)
    nearest(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), centres)
    assert ("of 300 items looked at was missed" in caplog.text) == told


def test_an_interest_of_next_to_no_weight_is_left_out():
    centres = np.eye(3, dtype=np.float32)
    vectors = np.array([[1, 0, 0], [0.6, 0.8, 0]], np.float32)
    table = assign(pa.chunked_array([[7, 8]]), vectors, centres, 2, 0.02)
    rows = list(zip(table["item_id"].to_pylist(), table["interest"].to_pylist(), strict=True))
    assert rows == [(7, 0), (8, 0), (8, 1)]
    assert table["weight"].to_pylist()[0] == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8),
    st.floats(1e-4, 10),
)
def test_weights_sum_to_one_and_follow_the_cosines(cosines, temperature):
    weights = softmax_weights(np.array([cosines]), temperature)[0]
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert (np.diff(weights[np.argsort(cosines)]) >= 0).all()


def test_the_map_is_sorted_by_item_then_interest_and_keeps_the_type_of_the_ids(rng):
    table = assign(pa.chunked_array([["b", "a", "ü"]]), unit(rng, 3), unit(rng, 5), 2, 0.1)
    rows = list(zip(table["item_id"].to_pylist(), table["interest"].to_pylist(), strict=True))
    assert rows == sorted(rows)
    assert table.schema.field("item_id").type == pa.string()
    sums = table.group_by("item_id").aggregate([("weight", "sum")])["weight_sum"]
    np.testing.assert_allclose(sums, 1, atol=1e-6)


def test_impossible_requests_say_what_to_do(rng):
    with pytest.raises(ValueError, match=r"6 interests per item.*of 5.*interests_per_item"):
        nearest(unit(rng, 3), unit(rng, 5), 6)
    with pytest.raises(ValueError, match="width 16, centres 8"):
        nearest(unit(rng, 3), unit(rng, 5, 8))
    with pytest.raises(ValueError, match="2 item ids came with 3"):
        assign(ids(2), unit(rng, 3), unit(rng, 5), 1, 0.1)


def test_new_items_never_change_the_interests_of_the_old(rng):
    vectors, centres = unit(rng, 60), unit(rng, 8)
    standing = assign(ids(40), vectors[:40], centres, 2, 0.1)
    catalog = pa.table({"item_id": np.arange(60)[::-1]})
    kept, new = split_catalog(catalog, standing)
    assert sorted(new["item_id"].to_pylist()) == list(range(40, 60))
    fresh = assign(new["item_id"], vectors[new["item_id"].to_numpy()], centres, 2, 0.1)
    merged = merge_maps(kept, fresh)
    assert merged.slice(0, 80).equals(standing)
    assert merged.equals(assign(ids(60), vectors, centres, 2, 0.1))


def test_items_not_yet_in_the_catalog_are_not_in_its_map(rng):
    standing = assign(ids(10), unit(rng, 10), unit(rng, 3), 1, 0.1)
    kept, new = split_catalog(pa.table({"item_id": [1, 4]}), standing)
    assert kept["item_id"].to_pylist() == [1, 4]
    assert len(new) == 0


def test_ids_of_another_type_are_refused(rng):
    standing = assign(ids(3), unit(rng, 3), unit(rng, 2), 1, 0.1)
    with pytest.raises(ValueError, match="string in the catalog but int64 in the standing map"):
        split_catalog(pa.table({"item_id": ["1"]}), standing)
