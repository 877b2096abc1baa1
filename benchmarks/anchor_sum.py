"""The multi-anchor sum against plain torch, and a training step as the number of interests grows.

    python -m benchmarks.anchor_sum [--device cuda]

*sum*: forward and backward of eq. 5, given the rows and shares of the interests met, on the bags of a
batch. The rivals are the honest plain formulations: an indexed add per anchor, a sparse-matrix product per
anchor, a gather with a batched matrix product over bags filled up to the longest, a weighted embedding bag
per anchor; and LURM's own former one, an embedding bag over rows of width M * H.

*step*: the multi-anchor module and its optimizer, forward to moved weights, with the same interests met
whatever D is, in another batch every time, so that rows are late and have to catch up. The rival is the
plain module: an indexed add per anchor, a dense gradient, torch's fused Adam.

*smen*: a whole step of pre-training with 256 users, views drawn and all.

CPU seconds of one thread, on a GPU wall seconds; the median of the repeats; ``ratio`` is the rival's over
LURM's. ``of_copy`` is the share of a plain copy's speed at which the bytes move that must
(:func:`bytes_to_move`) if each entry's row comes from memory; ``of_copy_cached`` if a cache holds all rows.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.logs import whole, zipf
from benchmarks.measure import measure, now, result_path, slope, table
from lurm.anchor_sum import anchor_sum
from lurm.console import run_stage
from lurm.distributed import check_device
from lurm.lazy_adam import LazyAdam
from lurm.pretraining import pretrain
from lurm.smen import MultiAnchor, SmenSettings
from lurm.storage import write_json
from lurm.timelines import Timelines

M, H = 10, 128
MET = 20_000  # interests that bags draw from
LONGEST = 400  # entries of a bag
LEADING = 5  # steps before those that are timed, which leave rows behind that will be late
MONTHS, BATCH = 24, 256  # of a life; users of a batch
Sum = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def indexed_add(
    rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
) -> Tensor:
    """An indexed add per anchor."""
    bag = torch.arange(len(offsets) - 1, device=rows.device).repeat_interleave(offsets.diff())
    x, weights = rows[places], shares[places] * values[:, None]
    zeros = rows.new_zeros(len(offsets) - 1, rows.shape[1])
    of_anchors = [zeros.index_add(0, bag, x * weights[:, m : m + 1]) for m in range(M)]
    return torch.stack(of_anchors, 1)


def sparse_product(
    rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
) -> Tensor:
    """A sparse-matrix product per anchor; torch differentiates COO matrices at the cost of entries."""
    bag = torch.arange(len(offsets) - 1, device=rows.device).repeat_interleave(offsets.diff())
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
    steps = torch.arange(int(lengths.max()), device=rows.device)
    filled = steps < lengths[:, None]
    entries = (offsets[:-1, None] + steps).clamp(max=len(places) - 1)
    at = places[entries]
    weights = shares[at] * (values[entries] * filled)[:, :, None]  # (P, e, M)
    return torch.bmm(weights.transpose(1, 2), rows[at])


def embedding_bags(
    rows: Tensor, shares: Tensor, places: Tensor, values: Tensor, offsets: Tensor
) -> Tensor:
    """A weighted embedding bag per anchor."""
    weights = shares[places] * values[:, None]
    of_anchors = [
        functional.embedding_bag(
            places,
            rows,
            offsets,
            mode="sum",
            per_sample_weights=weights[:, m].contiguous(),
            include_last_offset=True,
        )
        for m in range(M)
    ]
    return torch.stack(of_anchors, 1)


def wide_embedding_bag(
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
    "embedding bags": embedding_bags,
    "wide embedding bag": wide_embedding_bag,
}


def draw_bags(n_bags: int, n_met: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets, interests below ``n_met`` and counts of bags: lengths by Pareto, interests by Zipf."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(8 * (1 + rng.pareto(1.3, n_bags)), LONGEST).astype(np.int64)
    bag = np.repeat(np.arange(n_bags), lengths)
    entries = np.unique(bag * n_met + zipf(rng.random(len(bag)), n_met))
    offsets = np.searchsorted(entries // n_met, np.arange(n_bags + 1))
    counts = 1 + rng.poisson(1, len(entries)).astype(np.float32)
    return torch.from_numpy(offsets), torch.from_numpy(entries % n_met), torch.from_numpy(counts)


def value_and_peak(
    device: str, prepare: Callable[..., Callable[[], Any]], *arguments: Any
) -> tuple[Any, float]:
    """What the work gives, and its peak MB: of a process of its own; on a GPU, what tensors take there."""
    if device == "cpu":
        run = measure(prepare, *arguments)
        return run.value, run.peak_mb
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    value = prepare(*arguments)()
    return value, torch.cuda.max_memory_allocated() / 1e6


def time_copy(device: str, size: int) -> Callable[[], Any]:
    """Bytes per second that a copy within memory reads and writes, the best of ten."""
    torch.set_num_threads(1)
    x = torch.rand(size, device=device)

    def work() -> float:
        y, seconds = torch.empty_like(x), []
        for _ in range(10):
            start = now(device)
            y.copy_(x)
            seconds.append(now(device) - start)
        return 2 * x.nbytes / min(seconds)

    return work


def bytes_to_move(n_bags: int, n_entries: int, n_rows: int, size: int) -> int:
    """What forward and backward must read and write, with rows of numbers of ``size`` bytes.

    Each of ``n_rows`` row reads: an interest's row and shares, in both directions, and in the backward
    their gradients written in float32. Per entry its place and value, in both directions. Per bag its sum
    written, and its gradient read. With an entry's rows read anew ``n_rows`` is ``n_entries``; with a cache
    that holds all of them, the interests met.
    """
    return n_rows * (H + M) * (2 * size + 4) + n_entries * 2 * (8 + 4) + n_bags * 2 * M * H * size


def time_sum(
    name: str, n_bags: int, n_met: int, repeats: int, device: str, dtype: str
) -> Callable[[], Any]:
    """Seconds of every repeat, entries, interests, norms of the sum and its gradients."""
    torch.set_num_threads(1)
    torch.sparse.check_sparse_tensor_invariants.disable()  # says that it was meant, and stops a warning
    torch.manual_seed(0)
    offsets, interests, counts = (x.to(device) for x in draw_bags(n_bags, n_met))
    met, places = interests.unique(return_inverse=True)
    kind = {"device": device, "dtype": getattr(torch, dtype)}
    rows = torch.randn(len(met), H).to(**kind).requires_grad_()
    shares = torch.randn(len(met), M).softmax(1).to(**kind).requires_grad_()
    gradient = torch.randn(n_bags, M, H).to(**kind)
    values = counts.log1p()

    def work() -> Any:
        seconds = []
        for _ in range(repeats + 1):
            rows.grad = shares.grad = None
            start = now(device)
            out = SUMS[name](rows, shares, places, values, offsets)
            out.backward(gradient)
            seconds.append(now(device) - start)
        parts = [p.detach() for p in (out, rows.grad, shares.grad) if p is not None]
        norms = [float(part.norm(dtype=torch.float64)) for part in parts]
        return seconds[1:], len(places), len(met), norms

    return work


class PlainMultiAnchor(MultiAnchor):
    """The module by its formula: an indexed add per anchor, dense gradients."""

    def forward(self, offsets: Tensor, interests: Tensor, counts: Tensor) -> Tensor:
        """R (P, M, H)."""
        met, places = interests.unique(return_inverse=True)
        rows = self.interests[met]
        sums = indexed_add(rows, self.shares(rows), places, counts.log1p(), offsets)
        return functional.relu(sums)


def time_step(
    name: str, n_bags: int, n_interests: int, repeats: int, device: str
) -> Callable[[], Any]:
    """Seconds of every training step of the multi-anchor module, and entries of the first."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n_met = min(MET, n_interests)
    batches = []
    for seed in range(LEADING + repeats):
        offsets, interests, counts = draw_bags(n_bags, n_met, seed)
        interests = interests * (n_interests // n_met)  # the same rows, spread over the table
        batches.append([x.to(device) for x in (offsets, interests, counts)])
    fast = name == "lurm"
    module = (MultiAnchor if fast else PlainMultiAnchor)(n_interests, M, H).to(device)
    module.sparse_gradient = fast
    lazy = LazyAdam(module.interests, 1e-3) if fast else None
    weights = [module.anchors, module.key.weight] if fast else list(module.parameters())
    adam = torch.optim.Adam(weights, lr=1e-3, fused=True)
    gradient = torch.randn(n_bags, M, H).to(device)

    def work() -> Any:
        seconds = []
        for offsets, interests, counts in batches:
            start = now(device)
            if lazy:
                lazy.catch_up(interests)
            out = module(offsets, interests, counts)
            adam.zero_grad()
            out.backward(gradient)
            adam.step()
            if lazy:
                lazy.step()
            seconds.append(now(device) - start)
        return seconds[LEADING:], len(batches[0][1])

    return work


def draw_lives(n_users: int, n_interests: int) -> Timelines:
    """Two years of a bag a month for each user."""
    offsets, interests, counts = draw_bags(n_users * MONTHS, n_interests)
    return Timelines(
        users=pa.array(np.arange(n_users)),
        first_bag=np.arange(n_users + 1) * MONTHS,
        months=np.tile(np.arange(24200, 24200 + MONTHS, dtype=np.int32), n_users),
        first_entry=offsets.numpy(),
        interests=interests.numpy().astype(np.int32),
        counts=counts.numpy(),
    )


def time_smen(precision: str, n_batches: int, n_interests: int, device: str) -> Callable[[], Any]:
    """Seconds of a step of pre-training, views drawn and all, and the entries of all lives.

    An epoch of twice as many batches takes longer by that many steps.
    """
    torch.set_num_threads(1)
    lives = [draw_lives(n * BATCH, n_interests) for n in (1, n_batches, 2 * n_batches)]
    settings = SmenSettings(n_interests, M, H, {"month": 1, "year": 12})

    def train(lives: Timelines) -> float:
        start = now(device)
        pretrain(
            lives, settings, temperature=0.1, batch_size=BATCH, epochs=1, learning_rate=1e-3,
            min_view_share=0.1, max_view_share=0.4, min_kept_share=0.5, seed=0,
            device=device, precision=precision,
        )  # fmt: skip
        return now(device) - start

    def work() -> Any:
        _, once, twice = (train(part) for part in lives)  # the first compiles kernels
        return [(twice - once) / n_batches], len(lives[-1].interests)

    return work


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--bags", type=whole, help="default: 3,000, on a GPU 100,000")
    parser.add_argument("--interests", type=whole, nargs="+", default=[20_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it runs")
    parser.add_argument(
        "--result", type=Path, help="default: reports/benchmarks/anchor_sum[_cuda].json"
    )
    args = parser.parse_args(argv)
    check_device(args.device)
    cuda = args.device == "cuda"
    n_bags, sizes, repeats = args.bags or (100_000 if cuda else 3000), args.interests, args.repeats
    n_batches, copied, mets = 20 if cuda else 4, 2**30 if cuda else 2**26, [MET]
    if cuda:
        mets.append(1_000_000)  # more rows than its cache holds
    if args.tiny:
        n_bags, sizes, repeats, n_batches, copied, mets = 50, [100, 1000], 1, 1, 2**20, [MET]

    rows: list[dict[str, Any]] = []

    def add(
        work: str, by: str, n_met: int, n_entries: int, seconds: Any, mb: float, **more: Any
    ) -> None:
        second = float(np.median(seconds))
        ours = next((r for r in rows if (r["work"], r["interests"]) == (work, n_met)), None)
        rows.append(
            {
                "work": work,
                "by": by,
                "interests": n_met,
                "entries": n_entries,
                "seconds": second,
                "ratio": second / (ours["seconds"] if ours else second),
                "peak_mb": mb,
                "of_copy": "",
                "of_copy_cached": "",
                **more,
            }
        )

    copy, _ = value_and_peak(args.device, time_copy, args.device, copied)
    for n_met in mets:
        norms: dict[str, Any] = {}
        kinds = [(name, "float32") for name in SUMS]
        for name, dtype in [*kinds, ("lurm", "bfloat16")] if cuda else kinds:
            sums = (time_sum, name, n_bags, n_met, repeats, args.device, dtype)
            try:
                value, mb = value_and_peak(args.device, *sums)
            except torch.OutOfMemoryError as error:
                print(f"{name} of {n_met:,} interests: {error}")
                continue
            seconds, n_entries, n_rows, norms[f"{name}, {dtype}"] = value
            size, second = (4 if dtype == "float32" else 2), float(np.median(seconds))
            moved = [bytes_to_move(n_bags, n_entries, n, size) for n in (n_entries, n_rows)]
            add(
                "sum",
                name if dtype == "float32" else f"{name}, {dtype}",
                n_met,
                n_entries,
                seconds,
                mb,
                of_copy=moved[0] / second / copy,
                of_copy_cached=moved[1] / second / copy,
            )
        for name, found in norms.items():
            if not np.allclose(found, norms["lurm, float32"], rtol=1e-3):
                raise ValueError(f"{name}: other sums or gradients than LURM's")
    for size in sizes:
        for name in ("lurm", "plain"):
            work = (time_step, name, n_bags, size, repeats, args.device)
            (seconds, n_entries), mb = value_and_peak(args.device, *work)
            add("step", name, size, n_entries, seconds, mb)
    for precision in ("float32", "bfloat16") if cuda else ("float32",):
        smen = (time_smen, precision, n_batches, sizes[len(sizes) // 2], args.device)
        (seconds, n_entries), mb = value_and_peak(args.device, *smen)
        add("smen", precision, sizes[len(sizes) // 2], n_entries, seconds, mb)
    print(table(rows))
    print(f"a copy within memory moves {copy / 1e9:,.0f} GB/s, read and written")
    steps = [row for row in rows if row["work"] == "step" and row["by"] == "lurm"]
    slopes = slope([row["interests"] for row in steps], [row["seconds"] for row in steps])
    print(f"slope of LURM's step in the interests: {slopes}")
    name = torch.cuda.get_device_name() if cuda else "CPU, one thread"
    record = {"device": name, "copy_gb_per_second": copy / 1e9, "rows": rows, "slope": slopes}
    write_json(record, result_path(f"anchor_sum{'_cuda' if cuda else ''}", parser, args))


if __name__ == "__main__":
    run_stage(main)
