"""Lazy Adam against torch's Adam on the same gradients, dense."""

import numpy as np
import pytest
import torch

from lurm import lazy_adam
from lurm.lazy_adam import LazyAdam

D, H = 30, 4


def gradients(n_steps, rng, scale=1.0):
    """Gradients of rows met: common rows often, one only once, one never."""
    often = 1 / np.arange(1, D - 1)
    for t in range(n_steps):
        met = rng.random(D - 2) < often
        rows = np.append(np.flatnonzero(met), [D - 2] if t == 3 else []).astype(np.int64)
        yield rows, torch.from_numpy(scale * rng.standard_normal((len(rows), H)))


def run_both(n_steps, scale=1.0, atol=1e-9):
    """The tables of torch's Adam and of ours after the steps, compared on the rows met before each."""
    torch.manual_seed(0)
    dense = torch.nn.Parameter(torch.randn(D, H, dtype=torch.float64))
    table = torch.nn.Parameter(dense.detach().clone())
    adam, lazy = torch.optim.Adam([dense], lr=0.01), LazyAdam(table, 0.01)
    for rows, values in gradients(n_steps, np.random.default_rng(0), scale):
        lazy.catch_up(torch.from_numpy(rows))
        torch.testing.assert_close(table[rows], dense[rows], rtol=1e-7, atol=atol)
        dense.grad = torch.zeros_like(dense).index_add(0, torch.from_numpy(rows), values)
        adam.step()
        where = torch.from_numpy(rows)[None]
        table.grad = torch.sparse_coo_tensor(where, values, (D, H), check_invariants=True)
        lazy.step()
    return dense.detach(), table, lazy


def test_every_row_is_where_dense_adam_has_it_when_it_is_read_and_at_the_end():
    dense, table, lazy = run_both(300)
    lazy.finish()
    torch.testing.assert_close(table.detach(), dense, rtol=1e-7, atol=1e-9)


def test_small_gradients_where_eps_counts_stay_near_dense_adam():
    dense, table, lazy = run_both(200, scale=1e-5, atol=1e-3)
    lazy.finish()
    moved = (dense - run_both(0)[0]).abs().max()
    assert (table - dense).abs().max() < 2e-3 * moved


@pytest.mark.parametrize(
    ("met_at", "within"), [(range(0, 300, 30), 0.015), ([0], 0.05)], ids=["again", "once"]
)
def test_gradients_as_small_as_eps_stay_near_dense_adam(met_at, within):
    rng, rows = np.random.default_rng(0), torch.arange(D)
    dense = torch.nn.Parameter(torch.zeros(D, H, dtype=torch.float64))
    table = torch.nn.Parameter(dense.detach().clone())
    adam, lazy = torch.optim.Adam([dense], lr=0.01), LazyAdam(table, 0.01)
    for step in range(300):
        met = rows if step in met_at else rows[:0]
        values = torch.from_numpy(1e-8 * rng.standard_normal((len(met), H)))
        dense.grad = torch.zeros_like(dense).index_add(0, met, values)
        adam.step()
        table.grad = torch.sparse_coo_tensor(met[None], values, (D, H), check_invariants=True)
        lazy.step()
    lazy.finish()
    assert (table - dense).abs().max() < within * dense.abs().max()


def test_rows_that_were_not_met_are_not_touched_before_the_end():
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(D, H))
    before = table.detach().clone()
    lazy = LazyAdam(table, 0.1)
    for rows in ([1, 2], [2, 3], [3, 3]):
        where = torch.tensor([rows])
        table.grad = torch.sparse_coo_tensor(where, torch.ones(2, H), (D, H), check_invariants=True)
        lazy.step()
    moved = (table != before).any(1)
    assert moved.nonzero().ravel().tolist() == [1, 2, 3]
    after_its_step = table[1].detach().clone()
    lazy.finish()
    assert (table[1] != after_its_step).all()  # momentum, as in dense Adam
    assert torch.equal(table[10], before[10])


def test_rows_are_brought_up_to_date_in_chunks_of_any_size(monkeypatch):
    _, whole, lazy = run_both(50)
    lazy.finish()
    monkeypatch.setattr(lazy_adam, "CHUNK", 4)
    _, parts, lazy = run_both(50)
    lazy.finish()
    assert torch.equal(whole, parts)


def test_a_step_without_a_gradient_is_refused():
    with pytest.raises(ValueError, match="call backward first"):
        LazyAdam(torch.nn.Parameter(torch.zeros(2, 2)), 0.1).step()


@pytest.mark.parametrize("betas", [(0.95, 0.999), (0.9, 0.8), (0.9, 1.0), (-0.1, 0.999)])
def test_betas_for_which_the_closed_form_does_not_hold_are_refused(betas):
    with pytest.raises(ValueError, match="LazyAdam: expected betas with beta1"):
        LazyAdam(torch.nn.Parameter(torch.zeros(3, 2)), 0.1, betas)
