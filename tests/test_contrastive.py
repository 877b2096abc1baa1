"""The contrastive loss against a literal loop (paper eq. 2-3)."""

import numpy as np
import pytest
import torch

from lurm.contrastive import nt_xent
from tests import reference


def pairs(n, width=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, width)), rng.standard_normal((n, width))


def loss(x, y, temperature=0.1):
    return nt_xent(torch.from_numpy(x), torch.from_numpy(y), temperature).item()


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_is_that_of_the_literal_loop(n, temperature):
    x, y = pairs(n)
    assert loss(x, y, temperature) == pytest.approx(reference.nt_xent(x, y, temperature), rel=1e-12)


def test_a_pair_alone_has_no_negative_and_costs_nothing():
    assert loss(*pairs(1)) == pytest.approx(0, abs=1e-12)


def test_the_two_sides_may_be_swapped():
    x, y = pairs(6)
    assert loss(x, y) == pytest.approx(loss(y, x), rel=1e-12)


def test_the_order_of_pairs_does_not_matter_but_who_is_paired_does():
    x, y = pairs(6)
    order = np.random.default_rng(1).permutation(6)
    assert loss(x[order], y[order]) == pytest.approx(loss(x, y), rel=1e-12)
    assert loss(x, np.roll(y, 1, axis=0)) != pytest.approx(loss(x, y), rel=1e-3)


def test_only_directions_count_since_similarity_is_the_cosine():
    x, y = pairs(5)
    assert loss(x * np.arange(1, 6)[:, None], y * 7) == pytest.approx(loss(x, y), rel=1e-12)


def test_gradients_are_those_of_finite_differences():
    x, y = (torch.from_numpy(part).requires_grad_() for part in pairs(3))
    assert torch.autograd.gradcheck(lambda x, y: nt_xent(x, y, 0.1), (x, y))


def test_a_small_temperature_neither_overflows_nor_loses_the_gradient():
    x, y = (torch.from_numpy(part).float().requires_grad_() for part in pairs(64))
    value = nt_xent(x, y, 0.005)
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()
