import faiss
import numpy as np
import pytest

from lurm.use.index import (
    build_index,
    measure,
    read_index,
    recall,
    true_neighbors,
    write_index,
)
from lurm.use.lookalike import from_the_mean
from tests.use.worlds import grouped

EXACT = {"exact_up_to": 10**6, "min_recall": 0.9, "n_queries": 50, "seed": 0}
CELLS = EXACT | {"exact_up_to": 100}


@pytest.fixture(autouse=True)
def one_thread():
    faiss.omp_set_num_threads(1)


def test_a_search_takes_vectors_as_they_are_and_tells_rows_and_cosines_from_the_mean():
    x, _ = grouped(200, 5)
    index, found = build_index(x, **EXACT)
    cosines, rows = index.search(x[:9], 10)
    unit = from_the_mean(x)
    every = unit[:9] @ unit.T
    assert rows[:, 0].tolist() == list(range(9))
    np.testing.assert_allclose(cosines, -np.sort(-every, axis=1)[:, :10], atol=1e-5)
    assert (found["kind"], found["recall_at_10"], found["probes"]) == ("exact", 1.0, 0)


def test_above_the_size_cells_are_looked_into_until_the_recall_is_reached():
    x, _ = grouped(3000, 40, width=16)
    least = build_index(x, **CELLS | {"min_recall": 0.0})[1]
    index, found = build_index(x, **CELLS | {"min_recall": 0.97})
    assert found["kind"] == "inverted_file"
    assert found["cells"] == 55
    assert least["probes"] == 1 < found["probes"] <= 55
    assert least["recall_at_10"] < 0.97 <= found["recall_at_10"]
    _, rows = index.search(x[:200], 10)
    unit = from_the_mean(x)
    true = np.argsort(-unit[:200] @ unit.T, axis=1)[:, :10]
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, true, strict=True)])
    assert share > 0.93


def test_equally_near_neighbors_count_as_found():
    x = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)  # twenty users at each of three places
    index, found = build_index(x, **EXACT)
    assert found["recall_at_10"] == 1.0
    rows = np.arange(60)
    assert recall(index, x, rows, true_neighbors(x, rows)) == 1.0


@pytest.mark.parametrize("n_cosines", [1, 3000, 10**6])
def test_few_cosines_in_memory_at_once_find_the_same_neighbors(n_cosines, monkeypatch):
    x, _ = grouped(1000, 9)
    rows = np.arange(0, 1000, 7)
    expected = np.sort(from_the_mean(x)[rows] @ from_the_mean(x).T, axis=1)[:, -10]
    monkeypatch.setattr("lurm.use.index.COSINES", n_cosines)
    np.testing.assert_allclose(true_neighbors(x, rows), expected, atol=1e-6)


@pytest.mark.parametrize("how", [EXACT, CELLS])
def test_the_same_vectors_give_the_same_bytes(how, tmp_path):
    x, _ = grouped(1500, 9)
    for name in "ab":
        write_index(build_index(x, **how)[0], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    back = read_index(tmp_path / "a")
    np.testing.assert_array_equal(
        back.search(x[:5], 10)[1], build_index(x, **how)[0].search(x[:5], 10)[1]
    )


def test_fewer_users_than_neighbors_are_all_found():
    x, _ = grouped(4, 2)
    index, found = build_index(x, **EXACT)
    assert found["recall_at_10"] == 1.0
    assert measure(index, x, 10, 0)["queries"] == 4


def test_what_is_measured_tells_recall_and_milliseconds():
    x, _ = grouped(300, 3)
    found = measure(build_index(x, **EXACT)[0], x, 20, 0)
    assert found["recall_at_10"] == 1.0
    assert 0 < found["milliseconds"] < 1000 > found["milliseconds_comparing_all"] > 0


def test_an_index_of_other_vectors_is_refused():
    x, _ = grouped(30, 3)
    with pytest.raises(
        ValueError, match="expected an index of 20 vectors of width 8, found one of 30"
    ):
        measure(build_index(x, **EXACT)[0], x[:20], 5, 0)


@pytest.mark.parametrize("how", [EXACT, CELLS])
def test_an_index_of_as_many_vectors_of_another_space_is_refused(how):
    x, _ = grouped(1500, 3)
    index, _ = build_index(x, **how)
    measure(index, x, 20, 0)
    with pytest.raises(ValueError, match="found one of others: of another month, model or space"):
        measure(index, np.roll(x, 1, axis=1), 20, 0)


def test_a_missing_or_damaged_index_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.faiss: expected a faiss index, found none"):
        read_index(tmp_path / "no.faiss")
    (tmp_path / "half.faiss").write_bytes(b"IxPT")
    with pytest.raises(ValueError, match=r"half\.faiss: expected a whole faiss index"):
        read_index(tmp_path / "half.faiss")
