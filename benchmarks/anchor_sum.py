"""The multi-anchor sum against plain torch, and a training step as the number of interests grows.

    python -m benchmarks.anchor_sum

*sum*: forward and backward of eq. 5, given the rows and shares of the interests met, on the bags of a
batch. The rivals are the honest plain formulations: an indexed add per anchor, a sparse-matrix product per
anchor, a gather with a batched matrix product over bags filled up to the longest; and LURM's own former
one, an embedding bag over rows of width M * H.

*step*: the multi-anchor module and its optimizer, forward to moved weights, with the same interests met
whatever D is. The rival is the plain module: an indexed add per anchor, a dense gradient, torch's Adam.

CPU seconds of one thread, the median of the repeats; ``ratio`` is the rival's over LURM's.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.logs import whole, zipf
from benchmarks.measure import measure, slope, table
from lurm.anchor_sum import anchor_sum
from lurm.lazy_adam import LazyAdam
from lurm.smen import MultiAnchor
from lurm.storage import write_json

M, H = 10, 128
MET = 20_000  # interests that bags draw from
LONGEST = 400  # entries of a bag
Sum = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def indexed_add(
    rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
) -> Tensor:
    """An indexed add per anchor."""
    bag = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())
    x, weights = rows[places], shares[places] * values[:, None]
    zeros = rows.new_zeros(len(offsets) - 1, rows.shape[1])
    of_anchors = [zeros.index_add(0, bag, x * weights[:, m : m + 1]) for m in range(M)]
    return torch.stack(of_anchors, 1)


def sparse_product(
    rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
) -> Tensor:
    """A sparse-matrix product per anchor; torch differentiates COO matrices at the cost of entries."""
    bag = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())
    where, shape = torch.stack([bag, places]), (len(offsets) - 1, len(rows))
    weights = shares[places] * values[:, None]
    of_anchors = [
        torch.sparse.mm(torch.sparse_coo_tensor(where, weights[:, m], shape), rows)
        for m in range(M)
    ]
    return torch.stack(of_anchors, 1)


def gather_and_bmm(
    rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
) -> Tensor:
    """A gather with a batched matrix product, bags filled up to the longest."""
    lengths = offsets.diff()
    steps = torch.arange(int(lengths.max()))
    filled = steps < lengths[:, None]
    entries = (offsets[:-1, None] + steps).clamp(max=len(places) - 1)
    at = places[entries]
    weights = shares[at] * (values[entries] * filled)[:, :, None]  # (P, e, M)
    return torch.bmm(weights.transpose(1, 2), rows[at])


def embedding_bag(
    rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
) -> Tensor:
    """An embedding bag over the rows of all anchors side by side."""
    shared = shares.unsqueeze(2) * rows.unsqueeze(1)  # (J, M, H)
    bags = functional.embedding_bag(
        places,
        shared.flatten(1),
        offsets,
        mode="sum",
        per_sample_weights=values,
        include_last_offset=True,
    )
    return bags.unflatten(1, shared.shape[1:])


SUMS: dict[str, Sum] = {
    "lurm": anchor_sum,
    "indexed add": indexed_add,
    "sparse product": sparse_product,
    "gather and bmm": gather_and_bmm,
    "embedding bag": embedding_bag,
}


def draw_bags(n_bags: int, n_met: int) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets, interests below ``n_met`` and counts of bags: lengths by Pareto, interests by Zipf."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(8 * (1 + rng.pareto(1.3, n_bags)), LONGEST).astype(np.int64)
    bag = np.repeat(np.arange(n_bags), lengths)
    entries = np.unique(bag * n_met + zipf(rng.random(len(bag)), n_met))
    offsets = np.searchsorted(entries // n_met, np.arange(n_bags + 1))
    counts = 1 + rng.poisson(1, len(entries)).astype(np.float32)
    return torch.from_numpy(offsets), torch.from_numpy(entries % n_met), torch.from_numpy(counts)


def time_sum(name: str, n_bags: int, repeats: int) -> Callable[[], Any]:
    """CPU seconds of every repeat, and the sum and its gradients to compare."""
    torch.set_num_threads(1)
    torch.sparse.check_sparse_tensor_invariants.disable()  # says that it was meant, and stops a warning
    torch.manual_seed(0)
    offsets, interests, counts = draw_bags(n_bags, MET)
    met, places = interests.unique(return_inverse=True)
    rows = torch.randn(len(met), H, requires_grad=True)
    shares = torch.randn(len(met), M).softmax(1).requires_grad_()
    gradient = torch.randn(n_bags, M, H)

    def work() -> Any:
        seconds = []
        for _ in range(repeats + 1):
            rows.grad = shares.grad = None
            start = time.process_time()
            out = SUMS[name](rows, shares, places, counts.log1p(), offsets)
            out.backward(gradient)
            seconds.append(time.process_time() - start)
        parts = [p.detach().double() for p in (out, rows.grad, shares.grad) if p is not None]
        return seconds[1:], len(places), [float(part.norm()) for part in parts]

    return work


class PlainMultiAnchor(MultiAnchor):
    """The module by its formula: an indexed add per anchor, dense gradients."""

    def forward(self, offsets: Tensor, interests: Tensor, counts: Tensor) -> Tensor:
        """R (P, M, H)."""
        met, places = interests.unique(return_inverse=True)
        rows = self.interests[met]
        keys = functional.relu(rows) @ self.key.weight.T
        shares = functional.softmax(keys @ self.anchors.T, dim=1)
        return functional.relu(indexed_add(rows, shares, places, counts.log1p(), offsets))


def time_step(name: str, n_bags: int, n_interests: int, repeats: int) -> Callable[[], Any]:
    """CPU seconds of every training step of the multi-anchor module."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n_met = min(MET, n_interests)
    offsets, interests, counts = draw_bags(n_bags, n_met)
    interests = interests * (n_interests // n_met)  # the same rows, spread over the table
    fast = name == "lurm"
    module = (MultiAnchor if fast else PlainMultiAnchor)(n_interests, M, H)
    module.sparse_gradient = fast
    lazy = LazyAdam(module.interests, 1e-3) if fast else None
    weights = [module.anchors, module.key.weight] if fast else list(module.parameters())
    adam = torch.optim.Adam(weights, lr=1e-3)
    gradient = torch.randn(n_bags, M, H)

    def work() -> Any:
        seconds = []
        for _ in range(repeats + 1):
            start = time.process_time()
            if lazy:
                lazy.catch_up(interests.numpy())
            out = module(offsets, interests, counts)
            adam.zero_grad()
            out.backward(gradient)
            adam.step()
            if lazy:
                lazy.step()
            seconds.append(time.process_time() - start)
        return seconds[1:], len(interests)

    return work


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print both tables, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bags", type=whole, default=3000)
    parser.add_argument("--interests", type=whole, nargs="+", default=[20_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--result", type=Path, default=Path("reports/benchmarks/anchor_sum.json"))
    args = parser.parse_args(argv)
    n_bags, sizes, repeats = args.bags, args.interests, args.repeats
    if args.tiny:
        n_bags, sizes, repeats = 50, [100, 1000], 1

    rows: list[dict[str, Any]] = []
    norms = {}
    for name in SUMS:
        run = measure(time_sum, name, n_bags, repeats)
        seconds, n_entries, norms[name] = run.value
        rows.append(
            {
                "work": "sum",
                "by": name,
                "interests": MET,
                "entries": n_entries,
                "seconds": float(np.median(seconds)),
                "ratio": float(
                    np.median(seconds) / (rows[0]["seconds"] if rows else np.median(seconds))
                ),
                "peak_mb": run.peak_mb,
            }
        )
        if not np.allclose(norms[name], norms["lurm"], rtol=1e-3):
            raise ValueError(f"{name}: other sums or gradients than LURM's")
    for size in sizes:
        ours: float = 0
        for name in ("lurm", "plain"):
            run = measure(time_step, name, n_bags, size, repeats)
            seconds, n_entries = run.value
            second = float(np.median(seconds))
            ours = ours or second
            rows.append(
                {
                    "work": "step",
                    "by": name,
                    "interests": size,
                    "entries": n_entries,
                    "seconds": second,
                    "ratio": second / ours,
                    "peak_mb": run.peak_mb,
                }
            )
    print(table(rows))
    steps = [row for row in rows if row["work"] == "step" and row["by"] == "lurm"]
    slopes = slope([row["interests"] for row in steps], [row["seconds"] for row in steps])
    print(f"slope of LURM's step in the interests: {slopes}")
    write_json({"rows": rows, "slope": slopes}, args.result)


if __name__ == "__main__":
    main()
