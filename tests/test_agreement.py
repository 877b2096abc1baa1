"""Directions in which halves of lives agree, on planted habits and noise."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lurm.agreement import agreeing_directions


def lives(n=4000, noise=1.0, seed=0):
    """Both halves of n lives in six numbers: two habits, loud and soft, and noise louder than they are."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    habits = rng.standard_normal((n, 2)) * [2.0, 1.0]
    halves = []
    for _ in range(2):
        numbers = noise * rng.standard_normal((n, 6))
        numbers[:, :2] += habits
        numbers[:, 5] *= 5  # the loudest of all, and different in each half
        halves.append((numbers @ basis.T).astype(np.float32))
    return *halves, basis


def test_habits_are_found_under_louder_noise_and_shrunk_by_how_far_halves_agree():
    one, other, basis = lives()
    found = agreeing_directions([(one, other)], 2)
    lengths = np.linalg.norm(found, axis=0)
    # Correlation of halves: variance of the habit over that of habit and noise.
    np.testing.assert_allclose(lengths, [4 / 5, 1 / 2], atol=0.06)
    assert np.abs((found / lengths).T @ basis[:, :2]).max(axis=1).min() > 0.99


def literal(one, other, width):
    """The same, word by word in float64."""
    a, b = (half - half.mean(axis=0) for half in (one.astype(float), other.astype(float)))
    c = (a.T @ b + b.T @ a) / 2 / len(a)
    values, vectors = np.linalg.eig(c)
    columns = []
    for i in np.argsort(-values.real)[:width]:
        v = vectors[:, i].real
        v = v * np.sign(v[np.abs(v).argmax()])
        shrunk = max(v @ c @ v, 0) / (np.std(a @ v) * np.std(b @ v))
        columns.append(v * min(shrunk, 1))
    return np.stack(columns, axis=1)


@given(st.integers(0, 20), st.integers(1, 4), st.integers(1, 3))
def test_the_map_is_that_of_the_formula_however_users_are_parted(seed, width, parts):
    one, other, _ = lives(n=60, seed=seed)
    cut = zip(np.array_split(one, parts), np.array_split(other, parts), strict=True)
    found = agreeing_directions(cut, width)
    assert found.shape == (6, width)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, literal(one, other, width), atol=1e-4)


def test_the_halves_may_be_exchanged_and_their_means_do_not_matter():
    one, other, _ = lives(n=200)
    found = agreeing_directions([(one, other)], 3)
    np.testing.assert_allclose(agreeing_directions([(other, one)], 3), found, atol=1e-5)
    np.testing.assert_allclose(agreeing_directions([(one + 7, other - 3)], 3), found, atol=1e-3)


def test_what_does_not_agree_is_left_out():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((500, 4)).astype(np.float32)
    found = agreeing_directions([(one, -one)], 4)
    assert not found.any()


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_users_of_two_months_are_refused(n):
    half = np.ones((n, 3), dtype=np.float32)
    with pytest.raises(ValueError, match=f"found {n}; land more months, or set it to 0"):
        agreeing_directions([(half, half)] if n else [], 2)


def test_more_directions_than_numbers_are_refused():
    half = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=r"at most n_anchors x width \(3\), got 4"):
        agreeing_directions([(half, half)], 4)


BYTES = """
import numpy as np, torch
from lurm.agreement import agreeing_directions
from lurm.pretraining import rows_from_centres
torch.set_num_threads(1)
rng = np.random.default_rng(0)
one = rng.standard_normal((300, 48)).astype(np.float32)
other = (one + rng.standard_normal((300, 48))).astype(np.float32)
print(agreeing_directions([(one, other)], 20).tobytes().hex())
print(rows_from_centres(one[:30], 16, 0).tobytes().hex())
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
