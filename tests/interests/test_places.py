import numpy as np

from lurm.interests import places
from lurm.interests.places import interest_map, neighbors


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def groups(n_groups, of, width=16, seed=0):
    """Centres in well separated groups, (n_groups * of, width), those of a group one after the other."""
    rng = np.random.default_rng(seed)
    middles = np.repeat(np.eye(width)[:n_groups], of, axis=0)
    return unit(middles + 0.05 * rng.standard_normal((n_groups * of, width)))


def own_group(found, of):
    """Share of interests whose nearest on the map is of their own group."""
    apart = ((found[:, None] - found[None]) ** 2).sum(2)
    np.fill_diagonal(apart, np.inf)
    return np.mean(apart.argmin(1) // of == np.arange(len(found)) // of)


def test_neighbors_are_those_of_largest_cosine_without_oneself():
    centres = unit(np.random.default_rng(1).standard_normal((40, 6)))
    cosines = centres @ centres.T
    np.fill_diagonal(cosines, -2)
    found, told = neighbors(centres, 5)
    assert (found == np.argsort(-cosines, axis=1)[:, :5]).all()
    np.testing.assert_allclose(told, np.sort(cosines, axis=1)[:, ::-1][:, :5], rtol=1e-5)


def test_interests_with_equal_centres_are_neighbors_and_few_have_few():
    centres = unit(np.ones((4, 3)))
    found, _ = neighbors(centres, 8)
    assert [sorted({*row, i}) for i, row in enumerate(found.tolist())] == [[0, 1, 2, 3]] * 4


def test_what_is_alike_lies_together_on_the_map():
    found = interest_map(groups(6, 20), seed=0)
    assert found.shape == (120, 2)
    assert found.dtype == np.float32
    assert found.min() == 0
    assert found.max() == 1
    assert own_group(found, 20) > 0.95


def test_of_many_interests_some_are_placed_and_the_others_beside_them(monkeypatch):
    monkeypatch.setattr(places, "LARGEST_MAP", 90)
    found = interest_map(groups(6, 50), seed=0)
    assert found.shape == (300, 2)
    assert own_group(found, 50) > 0.9


def test_the_same_seed_gives_the_same_map_and_few_interests_have_one():
    centres = groups(3, 10)
    assert (interest_map(centres, 1) == interest_map(centres, 1)).all()
    for n in (1, 2, 4):
        assert np.isfinite(interest_map(centres[:n], 0)).all()
