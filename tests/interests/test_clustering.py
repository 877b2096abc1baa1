import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from lurm.interests import clustering
from lurm.interests.assignment import nearest
from lurm.interests.clustering import (
    batch_bounds,
    cluster,
    distinct_points,
    hdsc,
    sample_items,
    step,
)

SETTINGS = {"rounds": 25, "sparsity": 0.01, "seed": 0}
FINDERS = ["hdsc", "kmeans", "two_level_kmeans"]


def planted(n, n_clusters, heavy_tailed=False, noise=1.0, width=32, seed=0):
    """Unit vectors around planted directions, and the direction of each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_clusters, width))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    shares = 1 / np.arange(1, n_clusters + 1) if heavy_tailed else np.ones(n_clusters)
    labels = rng.choice(n_clusters, n, p=shares / shares.sum())
    rows = centres[labels] + noise / np.sqrt(width) * rng.normal(size=(n, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def purity(found, planted_labels):
    """Share of points in the majority of their found cluster."""
    table = np.zeros((found.max() + 1, planted_labels.max() + 1))
    np.add.at(table, (found, planted_labels), 1)
    return table.max(axis=1).sum() / len(found)


# ---- planted clusters --------------------------------------------------------------------------


@pytest.mark.parametrize("heavy_tailed", [False, True])
def test_hdsc_recovers_planted_clusters_as_well_as_25_rounds_of_kmeans(heavy_tailed):
    vectors, labels = planted(12_000, 50, heavy_tailed, noise=0.7)
    found = cluster(vectors, 50, "hdsc", **SETTINGS)
    interests, cosines = nearest(vectors, found.centres)
    _, reference = nearest(vectors, cluster(vectors, 50, "kmeans", **SETTINGS).centres)
    assert cosines.mean() > 0.98 * reference.mean()
    assert purity(interests[:, 0], labels) > 0.95
    assert len(np.unique(interests)) == 50
    assert sum(figures["points"] for figures in found.history) == 12_000  # each is visited once


def test_hdsc_comes_close_to_kmeans_from_the_two_level_start_of_large_d(monkeypatch):
    monkeypatch.setattr(clustering, "HIERARCHICAL_LIMIT", 0)
    vectors, _ = planted(12_000, 50, noise=0.7)
    _, cosines = nearest(vectors, cluster(vectors, 50, "hdsc", **SETTINGS).centres)
    _, reference = nearest(vectors, cluster(vectors, 50, "kmeans", **SETTINGS).centres)
    assert cosines.mean() > 0.97 * reference.mean()


def test_two_levels_stay_within_three_percent_of_one():
    vectors, _ = planted(6_000, 100)
    one, two = (
        nearest(vectors, cluster(vectors, 100, method, **SETTINGS).centres)[1].mean()
        for method in ("kmeans", "two_level_kmeans")
    )
    assert two > 0.97 * one


# ---- one step against a literal loop -----------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.05])
def test_a_step_is_that_of_a_literal_loop(threshold):
    vectors, _ = planted(400, 10)
    weights = np.random.default_rng(1).integers(1, 5, 400).astype(np.float32)
    centres = vectors[:10]
    moved, labels, figures = step(vectors, weights, centres, threshold, np.random.default_rng(0))

    sums, sizes, total = np.zeros((10, 32)), np.zeros(10), 0.0
    for x, weight, label in zip(vectors.astype(float), weights, labels, strict=True):
        products = [float(np.dot(c, x)) for c in centres.astype(float)]
        assert label == int(np.argmax(products))
        sums[label] += weight * x
        sizes[label] += weight
        total += weight * max(products)
    assert (sizes > 0).all()
    for k in range(10):
        mean = [s / sizes[k] for s in sums[k]]
        mean = [np.sign(m) * max(abs(m) - threshold, 0.0) for m in mean]
        np.testing.assert_allclose(moved[k], mean / np.linalg.norm(mean), atol=2e-6)
    assert figures["mean_cosine"] == pytest.approx(total / weights.sum(), abs=2e-6)
    assert figures["reseeded"] == 0


def test_a_centre_without_points_moves_onto_a_point_far_from_its_own():
    vectors = np.float32([[1, 0, 0], [0.999, 0.0447, 0], [0, 0, 1], [0.6, 0.8, 0]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centres = np.float32([[1, 0, 0], [0, 0, 1], [-1, 0, 0]])
    moved, labels, figures = step(vectors, np.ones(4), centres, 0.0, np.random.default_rng(0))
    assert labels.tolist() == [0, 0, 1, 0]
    assert figures["reseeded"] == 1
    np.testing.assert_allclose(moved[2], vectors[3])
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-6)


def test_thresholds_fall_by_the_square_root_of_two_as_batches_double(monkeypatch):
    seen = []

    def record(points, weights, centres, threshold, rng, device):
        seen.append((len(points), threshold))
        return step(points, weights, centres, threshold, rng, device)

    monkeypatch.setattr(clustering, "step", record)
    vectors, _ = planted(1000, 10)
    hdsc(vectors, np.ones(1000), 10, 5, 0.02, np.random.default_rng(0))
    assert [points for points, _ in seen] == [142, 284, 574]
    np.testing.assert_allclose([t for _, t in seen], [0.01, 0.01 / 2**0.5, 0.005])


def test_a_threshold_above_every_coordinate_is_refused():
    vectors, _ = planted(500, 5)
    with pytest.raises(ValueError, match="lower cluster_interests"):
        cluster(vectors, 5, "hdsc", rounds=5, sparsity=4.0, seed=0)


# ---- batches and samples -----------------------------------------------------------------------


@given(st.integers(1, 10**9), st.integers(1, 10**5))
def test_batches_double_and_the_first_holds_several_points_per_interest(n_points, n_interests):
    bounds = batch_bounds(n_points, n_interests)
    sizes = np.diff(bounds)
    assert sizes.sum() == n_points
    assert (sizes[1:-1] == 2 * sizes[:-2]).all()
    if len(sizes) > 1:
        assert sizes[0] >= clustering.FIRST_BATCH * n_interests
        assert sizes[-1] >= 2 * sizes[-2]


def test_the_sample_is_sorted_distinct_and_follows_the_seed():
    sample = sample_items(1000, 100, seed=1)
    assert len(np.unique(sample)) == 100
    assert (np.diff(sample) > 0).all()
    assert (sample == sample_items(1000, 100, seed=1)).all()
    assert (sample != sample_items(1000, 100, seed=2)).any()
    assert sample_items(50, 100, seed=1).tolist() == list(range(50))


# ---- items that share a vector -----------------------------------------------------------------


def test_equal_rows_become_one_point_of_their_weight():
    points, weights = distinct_points(np.float32([[0, 1], [1, 0], [-0.0, 1], [0, 1]]))
    assert dict(zip(map(tuple, points.tolist()), weights.tolist(), strict=True)) == {
        (0.0, 1.0): 3.0,
        (1.0, 0.0): 1.0,
    }


@pytest.mark.parametrize("method", FINDERS)
def test_copies_of_items_make_neither_equal_centres_nor_empty_interests(method):
    vectors, _ = planted(120, 40)
    copies = vectors[np.random.default_rng(0).integers(0, 12, 5000)]
    every = np.concatenate([vectors, copies])
    found = cluster(every, 60, method, **SETTINGS)
    assert len(np.unique(found.centres, axis=0)) == 60
    interests, _ = nearest(every, found.centres)
    assert len(np.unique(interests)) >= 59


@pytest.mark.parametrize("method", FINDERS)
def test_the_order_of_items_does_not_change_the_centres(method):
    vectors, _ = planted(600, 10)
    shuffled = np.random.default_rng(5).permutation(vectors)
    one, two = (cluster(v, 10, method, **SETTINGS).centres for v in (vectors, shuffled))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("method", FINDERS)
def test_as_many_interests_as_distinct_vectors_gives_each_its_own(method):
    vectors, _ = planted(30, 30)
    found = cluster(np.repeat(vectors, 3, axis=0), 30, method, **SETTINGS)
    interests, cosines = nearest(vectors, found.centres)
    assert len(np.unique(interests)) == 30
    np.testing.assert_allclose(cosines, 1, atol=1e-3)  # hdsc: sparsity


# ---- requests ----------------------------------------------------------------------------------


def test_more_interests_than_distinct_vectors_says_what_to_do():
    vectors = np.repeat(np.eye(8, dtype=np.float32), 100, axis=0)
    with pytest.raises(ValueError, match=r"9 interests.*800 items.*8 distinct.*n_interests"):
        cluster(vectors, 9, "auto", **SETTINGS)


def test_vectors_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        cluster(np.full((10, 4), np.nan, np.float32), 2, "auto", **SETTINGS)


def test_an_unknown_method_lists_those_that_are_known():
    with pytest.raises(ValueError, match="hdsc, kmeans, two_level_kmeans, got 'dbscan'"):
        cluster(np.eye(4, dtype=np.float32), 2, "dbscan", **SETTINGS)


@pytest.mark.parametrize(("n", "method"), [(300, "hdsc"), (100, "two_level_kmeans")])
def test_auto_takes_hdsc_where_points_suffice_and_says_so(caplog, n, method):
    caplog.set_level("INFO")
    vectors, _ = planted(n, 10)
    assert cluster(vectors, 10, "auto", **SETTINGS).method == method
    assert f"{method}, since {n} distinct vectors make {n / 10:.1f} per interest" in caplog.text


@pytest.mark.parametrize("method", FINDERS)
def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads(method):
    vectors, _ = planted(3000, 60, width=64)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            centres = cluster(vectors, 60, method, rounds=3, sparsity=0.01, seed=3).centres
            found.append((centres.tobytes(), nearest(vectors, centres)[1].tobytes()))
    assert found[0] == found[1]
