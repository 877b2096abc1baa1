import numpy as np
import pytest

from lurm.metrics import binary_auc
from lurm.use.lookalike import audience, classifier_scores, from_the_mean, similarity
from tests.use.worlds import grouped, vectors_table

COLUMNS = ["rank", "user_id", "similarity", "classifier", "n_behaviors", "confidence"]


def test_similarity_is_the_cosine_to_the_seeds_mean_seen_from_the_mean_of_all():
    x, _ = grouped(60, 3)
    seeds = np.array([3, 7, 40])
    mean = np.mean([list(row) for row in x], axis=0)
    unit = [(row - mean) / np.linalg.norm(row - mean) for row in x]
    centre = sum(unit[row] for row in seeds) / 3
    due = [row @ centre / np.linalg.norm(centre) for row in unit]
    np.testing.assert_allclose(similarity(x, seeds), due, atol=1e-5)


def test_the_length_of_a_seeds_vector_and_what_all_share_do_not_count():
    x, _ = grouped(60, 3)
    np.testing.assert_allclose(from_the_mean(x + 100), from_the_mean(x), atol=1e-4)
    np.testing.assert_allclose(from_the_mean(7 * x), from_the_mean(x), atol=1e-5)
    assert not from_the_mean(np.ones((3, 2), dtype=np.float32)).any()


@pytest.mark.parametrize("measure", [similarity, classifier_scores])
@pytest.mark.parametrize("n_seeds", [1, 10, 60])
def test_both_measures_find_the_group_that_the_seeds_come_from(measure, n_seeds):
    x, group = grouped(600, 6)
    seeds = np.flatnonzero(group == 2)[:n_seeds]
    others = np.setdiff1d(np.arange(len(x)), seeds)
    assert binary_auc(group[others] == 2, measure(x, seeds)[others]) > 0.9


def test_users_like_the_seeds_are_not_held_for_others_because_nobody_named_them():
    x, group = grouped(600, 6)
    seeds = np.flatnonzero(group == 2)[:10]
    scores = classifier_scores(x, seeds)
    unnamed = np.setdiff1d(np.flatnonzero(group == 2), seeds)
    assert np.median(scores[unnamed]) > 0.5 > np.median(scores[group != 2])


def test_the_same_seeds_give_the_same_scores():
    x, _ = grouped(100, 4)
    np.testing.assert_array_equal(*(classifier_scores(x, np.array([1, 5])) for _ in range(2)))


@pytest.mark.parametrize("by", ["similarity", "classifier"])
def test_an_audience_is_ranked_without_its_seeds(by):
    x, _ = grouped(50, 5)
    table = vectors_table(x)
    found = audience(table, x, np.array([4, 9, 9]), by, None)
    assert found.column_names == COLUMNS
    assert found["rank"].to_pylist() == list(range(1, 49))
    assert {104, 109}.isdisjoint(found["user_id"].to_pylist())
    scores = found[by].to_numpy()
    assert (np.diff(scores) <= 0).all()
    assert found["n_behaviors"].to_pylist() == [u - 99 for u in found["user_id"].to_pylist()]
    assert audience(table, x, np.array([4, 9]), by, 5).equals(found.slice(0, 5))


@pytest.mark.parametrize("seeds", [[], range(4)])
def test_seeds_that_are_nobody_or_everybody_are_refused(seeds):
    x, _ = grouped(4, 2)
    with pytest.raises(ValueError, match=r"expected some of the 4 users as seeds"):
        audience(vectors_table(x), x, np.array(seeds, dtype=np.int64), "similarity", None)
