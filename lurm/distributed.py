"""Several processes train one model: each takes its slice of every batch, all take the same steps.

    torchrun --nproc-per-node 2 -- stages/pretrain_smen.py ...

Every process draws the whole batch by the same seed, encodes the users of its slice, and gets the others'
vectors for the loss, which all compute in full: everybody's negatives are those of one process with the
same batch. Gradients are added up, so that weights stay equal everywhere, and only what is met of W^e
travels. Without torchrun every function here gives back what it was given.

Letters: n users in the batch, H width, D rows of a table.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def check_device(device: str) -> None:
    """Return if there is what ``--device`` asks for.

    Raises:
        ValueError: it is "cuda", and there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda: torch finds no GPU here; use cpu, or torch's build for CUDA"
        )


@contextmanager
def processes(device: str = "cpu") -> Iterator[bool]:
    """Joins the processes that torchrun started, if it did; gives whether this one is to write results.

    With ``device`` "cuda" each process takes the GPU of its number on its machine.

    Raises:
        ValueError: there is no GPU.
    """
    check_device(device)
    if "LOCAL_RANK" not in os.environ:
        yield True
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield dist.get_rank() == 0
    finally:
        dist.destroy_process_group()


def own_slice(n: int) -> slice:
    """The slice of n users that is this process's; slices differ by one user at most, and may be empty."""
    if not dist.is_initialized():
        return slice(0, n)
    rank, size = dist.get_rank(), dist.get_world_size()
    return slice(n * rank // size, n * (rank + 1) // size)


def gathered(x: Tensor) -> Tensor:
    """The rows (n, H) of all processes, from those of each; gradients go back to each one's own.

    That is the whole gradient where all processes compute the same from the rows.
    """
    return _Gathered.apply(x) if dist.is_initialized() else x


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = _all(x)
        sizes = [len(part) for part in parts]
        first = sum(sizes[: dist.get_rank()])
        ctx.own = slice(first, first + len(x))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[ctx.own]


def _all(x: Tensor) -> list[Tensor]:
    """Every process's tensor, which may differ in length."""
    lengths = [x.new_empty(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, lengths[0].new_tensor([len(x)]))
    filled = x.new_zeros(int(max(lengths)), *x.shape[1:])
    filled[: len(x)] = x
    parts = [torch.empty_like(filled) for _ in lengths]
    dist.all_gather(parts, filled)
    return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]


def add_up_gradients(weights: Iterable[torch.nn.Parameter], table: torch.nn.Parameter) -> None:
    """Makes every gradient the sum of all processes'; that of ``table`` (D, H) is sparse."""
    if not dist.is_initialized():
        return
    weights = list(weights)
    # A process with an empty slice has no gradients.
    own = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    together = torch.cat([gradient.flatten() for gradient in own])
    dist.all_reduce(together)
    for weight, part in zip(weights, together.split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight)
    rows, values = (
        torch.zeros(0, dtype=torch.int64, device=table.device),
        table.new_zeros(0, table.shape[1]),
    )
    if table.grad is not None:
        met = table.grad.coalesce()
        rows, values = met.indices()[0], met.values()
    rows, values = torch.cat(_all(rows)), torch.cat(_all(values))
    table.grad = torch.sparse_coo_tensor(rows[None], values, table.shape, check_invariants=False)
