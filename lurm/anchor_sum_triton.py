"""The multi-anchor sum on a GPU: one warp per bag, every row read once for all anchors.

A bag's M sums stay in registers while its rows pass by. The backward pass holds the bag's gradient there
instead, and adds each entry's part to its interest's. Numbers are read and written as float32 or bfloat16,
and added up in float32.

The parts of an interest are added in the order in which bags come by, so that gradients repeat to rounding
and not to the bit. A bag is one warp's work, however long; products by tensor cores were tried, and spend
more on bringing numbers into their order than they save.

Letters as in :mod:`lurm.anchor_sum`, which imports this module only where there is a GPU.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

DTYPES = (torch.float32, torch.bfloat16)


@triton.jit
def _sum(
    rows: tl.tensor,
    shares: tl.tensor,
    places: tl.tensor,
    values: tl.tensor,
    offsets: tl.tensor,
    out: tl.tensor,
    n_anchors: tl.constexpr,
    width: tl.constexpr,
    first_up: tl.constexpr,
    rest_up: tl.constexpr,
    width_up: tl.constexpr,
) -> None:
    bag = tl.program_id(0).to(tl.int64)
    h, first, rest = tl.arange(0, width_up), tl.arange(0, first_up), tl.arange(0, rest_up)
    rest += first_up
    total, more = (
        tl.zeros((first_up, width_up), tl.float32),
        tl.zeros((rest_up, width_up), tl.float32),
    )
    for entry in range(tl.load(offsets + bag), tl.load(offsets + bag + 1)):
        place, value = tl.load(places + entry), tl.load(values + entry)
        x = tl.load(rows + place * width + h, mask=h < width, other=0.0).to(tl.float32)
        share = tl.load(shares + place * n_anchors + first).to(tl.float32)
        total += (share * value)[:, None] * x[None, :]
        share = tl.load(shares + place * n_anchors + rest, mask=rest < n_anchors, other=0.0)
        more += (share.to(tl.float32) * value)[:, None] * x[None, :]
    of_bag, there = out + bag * n_anchors * width + h[None, :], (h < width)[None, :]
    tl.store(of_bag + first[:, None] * width, total, mask=there)
    tl.store(of_bag + rest[:, None] * width, more, mask=there & (rest < n_anchors)[:, None])


@triton.jit
def _gradients(
    rows: tl.tensor,
    shares: tl.tensor,
    places: tl.tensor,
    values: tl.tensor,
    offsets: tl.tensor,
    gradient: tl.tensor,
    for_rows: tl.tensor,
    for_shares: tl.tensor,
    n_anchors: tl.constexpr,
    width: tl.constexpr,
    anchors_up: tl.constexpr,
    width_up: tl.constexpr,
) -> None:
    bag = tl.program_id(0).to(tl.int64)
    m, h = tl.arange(0, anchors_up), tl.arange(0, width_up)
    where = (bag * n_anchors + m[:, None]) * width + h[None, :]
    there = (m < n_anchors)[:, None] & (h < width)[None, :]
    g = tl.load(gradient + where, mask=there, other=0.0).to(tl.float32)
    for entry in range(tl.load(offsets + bag), tl.load(offsets + bag + 1)):
        place, value = tl.load(places + entry), tl.load(values + entry)
        at_row, at_share = place * width + h, place * n_anchors + m
        x = tl.load(rows + at_row, mask=h < width, other=0.0).to(tl.float32)
        share = tl.load(shares + at_share, mask=m < n_anchors, other=0.0)
        weight = share.to(tl.float32) * value
        part = tl.sum(g * weight[:, None], 0)
        tl.atomic_add(for_rows + at_row, part, mask=h < width, sem="relaxed")
        part = tl.sum(g * x[None, :], 1) * value
        tl.atomic_add(for_shares + at_share, part, mask=m < n_anchors, sem="relaxed")


def _sizes(rows: Tensor, shares: Tensor) -> dict[str, int]:
    """M and H, and the power of two that H is filled up to; one warp."""
    n_anchors, width = shares.shape[1], rows.shape[1]
    width_up = triton.next_power_of_2(width)
    return {"n_anchors": n_anchors, "width": width, "width_up": width_up, "num_warps": 1}


def _in_two(n_anchors: int) -> dict[str, int]:
    """Two powers of two that hold M with less to spare than one, 8 and 2 for 10.

    That makes the forward pass a quarter faster. The backward would add up the shares of each part by
    itself, which takes longer.
    """
    first = triton.next_power_of_2(n_anchors + 1) // 2
    return {"first_up": first, "rest_up": triton.next_power_of_2(max(1, n_anchors - first))}


class FusedAnchorSum(torch.autograd.Function):
    """:func:`lurm.anchor_sum.anchor_sum` as one kernel forward and one backward."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
    ) -> Tensor:
        """The sums (P, M, H), of the type of ``rows``."""
        inputs = [x.contiguous() for x in (rows, shares, places, values, offsets)]
        n_bags = len(offsets) - 1
        out = rows.new_empty(n_bags, shares.shape[1], rows.shape[1])
        if n_bags:
            _sum[(n_bags,)](*inputs, out, **_sizes(rows, shares), **_in_two(shares.shape[1]))
        ctx.save_for_backward(*inputs)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Those for ``rows`` (J, H) and ``shares`` (J, M)."""
        rows, shares, *_ = inputs = ctx.saved_tensors
        for_rows = torch.zeros_like(rows, dtype=torch.float32)
        for_shares = torch.zeros_like(shares, dtype=torch.float32)
        if n_bags := len(gradient):
            sizes = _sizes(rows, shares)
            sizes["anchors_up"] = triton.next_power_of_2(sizes["n_anchors"])
            _gradients[(n_bags,)](*inputs, gradient.contiguous(), for_rows, for_shares, **sizes)
        return for_rows.to(rows.dtype), for_shares.to(shares.dtype), None, None, None
