"""The multi-anchor sum: every bag's rows gathered once for all anchors, forward and backward (eq. 5).

    s_pm = sum over entries e of bag p of  v_e * alpha_{j(e) m} * W_{j(e)}        (P, M, H)

A bag of e entries is one matrix product, (M, e) of weights times (e, H) of rows. Bags of like length go
through one batched product; zeros that fill them up stay under ``PADDING`` of the rows. Work is done
in blocks that fit a cache, so that neither (E, M * H) nor, in the backward pass, anything of its size is
ever there. Time and memory follow the entries and never D.

On a GPU fused kernels do it (:mod:`lurm.anchor_sum_triton`), if Triton is there, as it is beside torch for
CUDA. The blocks give the same numbers there too, slowly; and the same bytes at every run, for which
``torch.use_deterministic_algorithms`` chooses them.

Letters: D interests, M anchors, H hidden size, P bags, E entries of all bags, J distinct interests met.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

PADDING = 0.1  # of a batched product's rows, at most
BLOCK = 2048  # rows of a batched product, about
TRITON = find_spec("triton") is not None


def distinct(interests: Tensor, n_interests: int) -> tuple[Tensor, Tensor]:
    """The interests met (J,), each once, and where each entry's stands among them (E,); int64.

    As ``unique(return_inverse=True)`` in another order, in time linear in E: the table of D places is
    never filled, only read where it was written. On a GPU it is that ``unique``.

    >>> met, places = distinct(torch.tensor([7, 2, 7]), 10)
    >>> met[places].tolist(), len(met)
    ([7, 2, 7], 2)
    """
    if interests.is_cuda:
        met, places = interests.unique(return_inverse=True)
        return met, places
    ids = interests.numpy()
    numbers = np.arange(len(ids))
    place = np.empty(n_interests, dtype=np.int64)
    place[ids] = numbers
    last = place[ids]  # the last entry of the same interest
    is_last = last == numbers
    place = np.cumsum(is_last) - 1
    return torch.from_numpy(ids[is_last]), torch.from_numpy(place[last])


@dataclass(frozen=True)
class Layout:
    """Bags in order of length, those of like length filled up to the longest of their block.

    ``entries`` (E',) names the entry in every row, any of the same bag where it is filled up; ``filled_up``
    (E',) says where. Block k holds rows ``first_row[k]:first_row[k + 1]``, the same number for each of the
    bags ``bags[first_bag[k]:first_bag[k + 1]]``. Empty bags are in no block.
    """

    bags: NDArray[np.int64]
    entries: NDArray[np.int64]
    filled_up: NDArray[np.bool_]
    first_bag: list[int]
    first_row: list[int]

    def blocks(self) -> Iterator[tuple[slice, slice, int]]:
        """For each block its slice of the bags, its slice of the rows, and the rows of one bag."""
        for bags, rows in zip(pairwise(self.first_bag), pairwise(self.first_row), strict=True):
            yield slice(*bags), slice(*rows), (rows[1] - rows[0]) // (bags[1] - bags[0])


def lay_out(offsets: NDArray[np.int64]) -> Layout:
    """The layout of bags in CSR form; less than ``PADDING`` of a block's rows are filled up."""
    lengths = np.diff(offsets)
    order = np.argsort(lengths, kind="stable")
    order = order[np.searchsorted(lengths[order], 1) :]
    ordered = lengths[order]
    first_bag, first_row, widths = [0], [0], []
    while first_bag[-1] < len(order):
        start = first_bag[-1]
        # Bags up to 1 / (1 - PADDING) times as long as the block's shortest may join it.
        longest = int(ordered[start] / (1 - PADDING))
        stop = int(np.searchsorted(ordered, longest, side="right"))
        stop = min(stop, start + max(1, BLOCK // longest))
        widths.append(int(ordered[stop - 1]))
        first_bag.append(stop)
        first_row.append(first_row[-1] + (stop - start) * widths[-1])
    width = np.repeat(np.array(widths, np.int64), np.diff(first_bag))  # (bags,)
    step = np.arange(first_row[-1]) - np.repeat(np.cumsum(width) - width, width)
    last = np.repeat(ordered - 1, width)
    return Layout(
        bags=order,
        entries=np.repeat(offsets[order], width) + np.minimum(step, last),
        filled_up=step > last,
        first_bag=first_bag,
        first_row=first_row,
    )


def by_interest(places: NDArray[np.int64], n_met: int) -> tuple[Tensor, Tensor]:
    """The entries in order of interest (E,), and where each interest begins (J + 1,)."""
    n = len(places)
    # scipy's conversion is a counting sort.
    table = sparse.csr_array((np.ones(n, np.int8), places, np.arange(n + 1)), shape=(n, n_met))
    columns = table.tocsc()
    return (
        torch.from_numpy(columns.indices.astype(np.int64)),
        torch.from_numpy(columns.indptr.astype(np.int64)),
    )


class _AnchorSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
    ) -> Tensor:
        layout = lay_out(offsets.cpu().numpy())
        entries = torch.from_numpy(layout.entries).to(rows.device)
        at = places.index_select(0, entries)  # (E',)
        value = values.index_select(0, entries)
        value[torch.from_numpy(layout.filled_up).to(rows.device)] = 0
        weights = shares.index_select(0, at).mul_(value[:, None])  # (E', M)
        out = rows.new_zeros(len(offsets) - 1, shares.shape[1], rows.shape[1])
        bags = torch.from_numpy(layout.bags).to(rows.device)
        for of_bags, of_rows, width in layout.blocks():
            x = rows.index_select(0, at[of_rows]).unflatten(0, (-1, width))  # (n, e, H)
            w = weights[of_rows].unflatten(0, (-1, width))  # (n, e, M)
            out.index_copy_(0, bags[of_bags], torch.bmm(w.transpose(1, 2), x))
        ctx.layout = layout
        ctx.save_for_backward(rows, at, value, weights, places)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, at, value, weights, places = ctx.saved_tensors
        layout, bags = ctx.layout, torch.from_numpy(ctx.layout.bags).to(rows.device)
        for_rows = rows.new_empty(len(at), rows.shape[1])  # (E', H)
        for_shares = torch.empty_like(weights)  # (E', M)
        for of_bags, of_rows, width in layout.blocks():
            x = rows.index_select(0, at[of_rows]).unflatten(0, (-1, width))
            w = weights[of_rows].unflatten(0, (-1, width))
            g = gradient.index_select(0, bags[of_bags])  # (n, M, H)
            torch.bmm(w, g, out=for_rows[of_rows].unflatten(0, (-1, width)))
            torch.bmm(x, g.transpose(1, 2), out=for_shares[of_rows].unflatten(0, (-1, width)))
        for_shares.mul_(value[:, None])
        there = np.flatnonzero(~layout.filled_up)
        order, first = by_interest(places.cpu().numpy()[layout.entries[there]], len(rows))
        order, first = torch.from_numpy(there)[order].to(rows.device), first.to(rows.device)

        def summed(per_row: Tensor) -> Tensor:
            return functional.embedding_bag(
                order, per_row, first, mode="sum", include_last_offset=True
            )

        return summed(for_rows), summed(for_shares), None, None, None


def anchor_sum(
    rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
) -> Tensor:
    """The sums (P, M, H) of P bags in CSR form, with gradients for ``rows`` and ``shares``.

    ``rows`` (J, H) and ``shares`` (J, M) are those of the interests met, ``places`` (E,) says which of them
    each entry has, ``values`` (E,) is b_j, ``offsets`` (P + 1,). An empty bag is all zeros.
    """
    if rows.is_cuda and TRITON and not torch.are_deterministic_algorithms_enabled():
        from lurm.anchor_sum_triton import DTYPES, FusedAnchorSum

        if rows.dtype in DTYPES:
            return FusedAnchorSum.apply(rows, shares, places, values, offsets)
    return _AnchorSum.apply(rows, shares, places, values, offsets)


def anchor_sum_by_definition(
    rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
) -> Tensor:
    """:func:`anchor_sum`, read off the formula; the fast path is tested against it."""
    bag = torch.arange(len(offsets) - 1, device=rows.device).repeat_interleave(offsets.diff())
    weights = shares[places] * values[:, None]  # (E, M)
    terms = weights[:, :, None] * rows[places][:, None, :]  # (E, M, H)
    out = rows.new_zeros(len(offsets) - 1, *terms.shape[1:])
    return out.index_add(0, bag, terms)
