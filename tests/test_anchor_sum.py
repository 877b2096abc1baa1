"""The multi-anchor sum, in blocks and in kernels, against the formula; gradients by finite differences."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lurm import anchor_sum as fast
from lurm.anchor_sum import anchor_sum, anchor_sum_by_definition, distinct, lay_out

M, H = 3, 5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":  # there kernels run, slowly, in Triton's interpreter
    os.environ.setdefault("TRITON_INTERPRET", "1")
needs_kernels = pytest.mark.skipif(not fast.TRITON, reason="no Triton here; run `make extras`")
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="no GPU here")


def problem(lengths, n_met=7, seed=0, dtype=torch.float64):
    """Rows, shares, places, values and offsets of bags of these lengths."""
    rng = np.random.default_rng(seed)
    n = int(np.sum(lengths))
    rows, shares = rng.standard_normal((n_met, H)), rng.random((n_met, M))
    return (
        torch.tensor(rows, dtype=dtype, requires_grad=True),
        torch.tensor(shares, dtype=dtype, requires_grad=True),
        torch.from_numpy(rng.integers(0, n_met, n)),
        torch.tensor(rng.random(n), dtype=dtype),
        torch.from_numpy(np.cumsum([0, *lengths])),
    )


def sum_and_gradients(function, inputs):
    out = function(*inputs)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), inputs[:2])]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 60))
def test_sums_and_gradients_are_those_of_the_formula_whatever_the_bags_and_blocks(lengths, block):
    inputs = problem(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "BLOCK", block)
        found = sum_and_gradients(anchor_sum, inputs)
    expected = sum_and_gradients(anchor_sum_by_definition, inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    rows, shares, *rest = problem([3, 0, 1, 6, 5])
    assert torch.autograd.gradcheck(lambda r, s: anchor_sum(r, s, *rest), (rows, shares))


def test_single_precision_stays_near_double():
    lengths = np.random.default_rng(0).integers(0, 200, 50)
    double, single = (
        sum_and_gradients(anchor_sum, problem(lengths, dtype=dtype))
        for dtype in (torch.float64, torch.float32)
    )
    for a, b in zip(single, double, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-3)


def test_the_same_input_gives_the_same_bytes():
    inputs = problem(np.random.default_rng(1).integers(0, 90, 40), dtype=torch.float32)
    first, again = (sum_and_gradients(anchor_sum, inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def on(inputs, device, dtype=torch.float32):
    """The inputs there; rows and shares in this type, values in float32."""
    rows, shares, places, values, offsets = (x.detach().to(device) for x in inputs)
    leaves = [x.to(dtype).requires_grad_() for x in (rows, shares)]
    return *leaves, places, values.float(), offsets


@needs_kernels
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(("m", "h"), [(1, 4), (3, 5), (10, 128), (17, 20)])
def test_kernels_give_the_sums_and_gradients_of_the_formula(m, h, dtype, within, monkeypatch):
    from lurm.anchor_sum_triton import FusedAnchorSum

    monkeypatch.setitem(globals(), "M", m)
    monkeypatch.setitem(globals(), "H", h)
    inputs = problem([3, 0, 40, 1, 17, 0])
    expected = sum_and_gradients(anchor_sum_by_definition, inputs)
    found = sum_and_gradients(FusedAnchorSum.apply, on(inputs, DEVICE, dtype))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        assert (a.double().cpu() - b).norm() <= within * b.norm()


@needs_kernels
@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_kernels_of_no_entries_give_zeros(lengths):
    from lurm.anchor_sum_triton import FusedAnchorSum

    for part in sum_and_gradients(FusedAnchorSum.apply, on(problem(lengths), DEVICE)):
        assert not part.any()


@needs_gpu
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_gpu_gives_the_sums_of_the_cpu_and_the_same_bytes_where_asked_for(deterministic):
    inputs = on(problem(np.random.default_rng(1).integers(0, 90, 40)), "cuda")
    torch.use_deterministic_algorithms(deterministic)
    try:
        first, again = (sum_and_gradients(anchor_sum, inputs) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    expected = sum_and_gradients(anchor_sum, on(inputs, "cpu"))
    for a, b, c in zip(first, again, expected, strict=True):
        torch.testing.assert_close(a.cpu(), c, rtol=1e-4, atol=1e-4)
        assert torch.equal(a, b) or not deterministic


@pytest.mark.parametrize("tail", [1.1, 3.0])
def test_less_than_a_tenth_of_the_rows_is_filled_up_and_every_entry_is_there_once(tail):
    lengths = (20 * np.random.default_rng(0).pareto(tail, 3000)).astype(np.int64)
    layout = lay_out(np.cumsum([0, *lengths]))
    assert layout.filled_up.mean() < fast.PADDING
    entries = layout.entries[~layout.filled_up]
    assert np.array_equal(np.sort(entries), np.arange(lengths.sum()))
    assert np.array_equal(np.sort(layout.bags), np.flatnonzero(lengths))
    for bags, rows, width in layout.blocks():
        assert lengths[layout.bags[bags]].max() == width
        assert rows.stop - rows.start <= max(fast.BLOCK, width)


@given(st.lists(st.integers(0, 9), max_size=50))
def test_distinct_interests_are_each_there_once_and_entries_find_theirs(interests):
    ids = torch.tensor(interests, dtype=torch.int64)
    met, places = distinct(ids, 10)
    assert sorted(met.tolist()) == sorted(set(interests))
    assert met[places].tolist() == interests
