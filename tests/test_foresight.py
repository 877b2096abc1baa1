"""Directions by which lives foretell what comes next, on planted habits and noise."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from lurm.foresight import foretelling_directions


def lives(n=4000, seed=0, offset=0.0):
    """Vectors of six numbers: two habits that tell of twelve interests, and louder noise."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(9).standard_normal((6, 6)))[0]
    numbers = rng.standard_normal((n, 6))
    numbers[:, 5] *= 5
    pull = np.repeat([[1.5, 0], [0, 1.0]], [8, 4], axis=0)  # (interests, habits)
    chance = 1 / (1 + np.exp(2 - numbers[:, :2] @ pull.T))
    met = rng.random(chance.shape) < chance
    return (numbers @ basis.T + offset).astype(np.float32), sparse.csr_matrix(met * 1.0), basis


def literal(cuts, width, ridge):
    """The same, word by word, with the covariance of all predicted interests."""
    x = np.concatenate([one - one.mean(axis=0) for one, _ in cuts]).astype(float)
    y = np.concatenate([met.toarray() - met.toarray().mean(axis=0) for _, met in cuts])
    spread = y.std(axis=0)
    y = np.where(spread > 0, y / np.where(spread > 0, spread, 1), 0)
    s, c = x.T @ x / len(x), x.T @ y / len(x)
    b = np.linalg.inv(s + ridge * np.trace(s) / len(s) * np.eye(len(s))) @ c
    values, v = np.linalg.eigh(b.T @ s @ b)
    found = b @ v[:, np.argsort(-values)[:width]]
    return found * np.sign(found[np.abs(found).argmax(axis=0), range(width)])


def test_what_tells_of_the_future_is_found_under_louder_noise_the_stronger_first():
    x, met, basis = lives()
    found = foretelling_directions([(x, met)], 3, 0.1)
    lengths = np.linalg.norm(found, axis=0)
    cosines = np.abs((found / lengths).T @ basis)
    assert cosines[0, 0] > 0.98
    assert cosines[1, 1] > 0.98
    assert lengths[0] > 1.5 * lengths[1] > 3 * lengths[2]


@given(st.integers(0, 20), st.integers(1, 4), st.sampled_from([0.01, 1.0, 100.0]))
def test_the_map_is_that_of_the_formula_however_many_cuts(seed, width, ridge):
    cuts = [lives(n, seed + n, offset=n)[:2] for n in (40, 60)]
    found = foretelling_directions(cuts, width, ridge)
    assert found.shape == (6, width)
    assert found.dtype == np.float32
    expected = literal(cuts, width, ridge)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_many_lives_are_multiplied_in_parts_with_the_same_result(monkeypatch):
    x, met, _ = lives(300)
    whole = foretelling_directions([(x, met)], 3, 1)
    monkeypatch.setattr("lurm.foresight.CHUNK", 7)
    np.testing.assert_allclose(foretelling_directions([(x, met)], 3, 1), whole, atol=1e-6)


def test_interests_that_nobody_or_everybody_met_do_not_matter():
    x, met, _ = lives(200)
    more = sparse.hstack([met, np.zeros((200, 1)), np.ones((200, 1))]).tocsr()
    expected = foretelling_directions([(x, met)], 3, 1)
    np.testing.assert_allclose(foretelling_directions([(x, more)], 3, 1), expected, atol=1e-6)


@pytest.mark.parametrize("cuts", [[], [lives(1)[:2]]])
def test_too_few_lives_before_a_cut_are_refused(cuts):
    with pytest.raises(ValueError, match=f"found {len(cuts)}; land more months, or set it to 0"):
        foretelling_directions(cuts, 2, 1)


def test_more_directions_than_numbers_are_refused():
    with pytest.raises(ValueError, match=r"at most n_anchors x width \(6\), got 7"):
        foretelling_directions([lives(9)[:2]], 7, 1)


BYTES = """
import numpy as np, torch
from scipy import sparse
from lurm.foresight import foretelling_directions
from lurm.pretraining import rows_from_centres
torch.set_num_threads(1)
rng = np.random.default_rng(0)
x = rng.standard_normal((300, 48)).astype(np.float32)
met = sparse.csr_matrix((x[:, :30] + rng.standard_normal((300, 30)) > 1) * 1.0)
print(foretelling_directions([(x, met)], 20, 1).tobytes().hex())
print(rows_from_centres(x[:30], 16, 0).tobytes().hex())
"""


def test_the_environment_chooses_numpys_kernels_and_none_of_ours():
    made = [
        subprocess.run(
            [sys.executable, "-c", BYTES],
            env=os.environ | {"OPENBLAS_CORETYPE": kernels},
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
        for kernels in ("Haswell", "Prescott")
    ]
    assert made[0] == made[1]
