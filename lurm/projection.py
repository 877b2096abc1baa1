"""The published user embedding: rich bags and SMEN's numbers, projected onto what users do next.

SMEN summarizes a history in M x H numbers and loses what is cheap to keep: how recent, how much, of what
catalog category. The projection keeps it. It is trained on bags alone, no downstream task has a say:

1. **Blocks.** Bags of interests, and of the catalog columns and words that interests stand for, as
   log(1 + count), as seen or not, as shares, and as logs of the last month and the last three; activity;
   SMEN's numbers. Each block is cut to its leading directions (a truncated SVD) and scaled to one total
   variance.
2. **Linear scores.** Histories are cut at the ends of months; which targets (interests, column values) a
   user chooses in the next two months is regressed on the blocks with a ridge. Hidden examples are added:
   30 % of a history's behaviors are removed and predicted from the rest. The ridge is chosen by the
   variance explained on held-out users.
3. **Pair model.** One small network for all targets turns a linear score, the user's own counts of the
   target and the user's activity into the log odds that the user chooses the target next. Its linear scores
   are out of fold, so that it learns how far to trust them.
4. **Basis.** The leading directions of the log odds and of the linear scores, at most k, are rotated so
   that each number lies as close as possible to the log odds of one target: a head can find a target in one
   number, and trees can split on it.

Reduced-rank regression: A. Izenman, "Reduced-rank regression for the multivariate linear model", Journal of
Multivariate Analysis, 1975, https://doi.org/10.1016/0047-259X(75)90042-1.

Departure: the paper publishes the M x H numbers. `pretrain_smen.published_width: 0` does too.

The algebra is torch's, on one thread, and scipy's sparse products, which give the same bytes in a container
and outside; numpy's chooses its kernels by the environment.

Letters: n users, D interests, C values of a source, d block numbers, T targets, P targets of the pair
model, k numbers of the published vector.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from lurm.history import N_ACTIVITY, History

INTEREST = "interest"  # the source whose values are the interests themselves
KINDS = ("log", "seen", "share", "month", "window")  # of a source's bags
CHUNK = 256  # users whose pairs are in memory at once


@dataclass(frozen=True)
class Block:
    """Numbers of one kind: a source's bags, or ``activity`` or ``smen``, which have no source."""

    kind: str  # one of KINDS, or activity, or smen
    source: str = ""
    width: int = 0  # numbers kept


@dataclass(frozen=True)
class ProjectionSettings:
    """What fixes the shape of a projection; as JSON it lies in the model's file."""

    width: int  # k
    smen_width: int  # M * H
    sizes: dict[str, int]  # values of each source; INTEREST has D
    blocks: list[Block] = field(default_factory=list)
    targets: dict[str, int] = field(default_factory=dict)  # pair targets of each source, in order
    hidden: int = 32
    embedding: int = 8

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ProjectionSettings":
        """The settings that :meth:`to_json` wrote."""
        return cls(**{**value, "blocks": [Block(**block) for block in value["blocks"]]})


Counts = dict[tuple[str, str], sparse.csr_matrix]  # (n, C) by source and window


def window_of(kind: str) -> str:
    """The window whose counts a kind of block starts from: total, month or window."""
    return kind if kind in ("month", "window") else "total"


def transformed(kind: str, counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """The block's values for counts (n, C); zeros stay zeros.

    ``seen`` is the count up to 1, since a source's counts are expectations (:class:`Projection`); ``share``
    is the root of the share; the others are log(1 + count).
    """
    out = counts.copy()
    if kind == "seen":
        out.data = np.minimum(out.data, 1)
    elif kind == "share":
        total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
        out.data = np.sqrt(out.data / np.repeat(total, np.diff(out.indptr)))
    else:
        out.data = np.log1p(out.data)
    return out


class PairModel(nn.Module):
    """Log odds that a user chooses a target next, from few numbers of the pair; one network for all.

    Inputs of a pair: the linear score, log(1 + count) in all, in the month and in the window. Inputs of a
    user: :meth:`lurm.history.History.activity`. A target has a bias and a small embedding.
    """

    def __init__(self, n_targets: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.target = nn.Parameter(torch.empty(n_targets, embedding))
        self.bias = nn.Parameter(torch.zeros(n_targets))
        self.slope = nn.Parameter(torch.ones(n_targets))
        self.of_pair = nn.Linear(4, hidden)
        self.of_user = nn.Linear(N_ACTIVITY, hidden, bias=False)
        self.of_target = nn.Linear(embedding, hidden, bias=False)
        self.middle = nn.Linear(hidden, hidden // 2)
        self.out = nn.Linear(hidden // 2, 1)
        nn.init.normal_(self.target, std=0.1)
        for name, shape in (("pair", 4), ("user", N_ACTIVITY)):
            self.register_buffer(f"{name}_mean", torch.zeros(shape))
            self.register_buffer(f"{name}_scale", torch.ones(shape))

    pair_mean: Tensor
    pair_scale: Tensor
    user_mean: Tensor
    user_scale: Tensor

    def forward(self, pairs: Tensor, users: Tensor) -> Tensor:
        """Log odds (n, P) of pair inputs (n, P, 4) and user inputs (n, 6)."""
        pairs = (pairs - self.pair_mean) / self.pair_scale
        users = (users - self.user_mean) / self.user_scale
        hidden = self.of_pair(pairs) + self.of_user(users)[:, None] + self.of_target(self.target)
        hidden = functional.relu(self.middle(functional.relu(hidden)))
        return self.out(hidden)[..., 0] + self.bias + self.slope * pairs[..., 0]


class Projection(nn.Module):
    """Published vectors (n, k) of histories and SMEN's numbers; made by :func:`fit_projection`.

    A catalog column's bag is the expectation of its counts given the interests' counts: an interest
    contributes the share of its behaviors whose items have that value (its *composition*). So a user's
    state needs no more than counts of interests.
    """

    def __init__(self, settings: ProjectionSettings) -> None:
        super().__init__()
        self.settings = settings
        self.compositions: dict[str, sparse.csr_matrix] = {}
        self.axes: list[NDArray[np.float32]] = []  # (C, width) of each block, scaled
        d, k = sum(block.width for block in settings.blocks), settings.width
        n_targets = sum(settings.targets.values())
        self.pair_model = PairModel(n_targets, settings.hidden, settings.embedding)
        self.rows: dict[str, NDArray[np.int64]] = {}  # the pair targets' values of each source
        self.register_buffer("score", torch.zeros(d, n_targets))
        self.register_buffer("score_bias", torch.zeros(n_targets))
        self.register_buffer("linear_out", torch.zeros(d, k))
        self.register_buffer("pair_out", torch.zeros(n_targets, k))
        self.register_buffer("offset", torch.zeros(k))

    score: Tensor
    score_bias: Tensor
    linear_out: Tensor
    pair_out: Tensor
    offset: Tensor

    # ---- inputs ----------------------------------------------------------------------------------

    def counts(self, source: str, of_interests: sparse.csr_matrix) -> sparse.csr_matrix:
        """Expected counts of a source's values, (n, C) float32, given those of interests (n, D)."""
        if source == INTEREST:
            return of_interests
        return sparse.csr_matrix(of_interests @ self.compositions[source], dtype=np.float32)

    def all_counts(self, history: History) -> Counts:
        """Expected counts by source and window, of those that blocks and pairs read."""
        windows = {"total": history.total, "month": history.month, "window": history.window}
        wanted = {(b.source, window_of(b.kind)) for b in self.settings.blocks if b.source}
        wanted |= {(source, window) for source in self.rows for window in windows}
        return {key: self.counts(key[0], windows[key[1]]) for key in sorted(wanted)}

    def block_values(
        self, history: History, counts: Counts, smen: Tensor
    ) -> list[sparse.csr_matrix | NDArray[np.float32]]:
        """The blocks before they are cut to their directions, in the order of the settings."""
        values: list[sparse.csr_matrix | NDArray[np.float32]] = []
        for block in self.settings.blocks:
            if block.kind == "activity":
                values.append(history.activity())
            elif block.kind == "smen":
                values.append(smen.numpy())
            else:
                of_source = counts[block.source, window_of(block.kind)]
                values.append(transformed(block.kind, of_source))
        return values

    def inputs(self, history: History, counts: Counts, smen: Tensor) -> Tensor:
        """The block numbers (n, d) float32 of histories and SMEN's numbers (n, M * H)."""
        blocks = self.block_values(history, counts, smen)
        parts = [projected(values, axes) for values, axes in zip(blocks, self.axes, strict=True)]
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def pair_counts(self, counts: Counts) -> Tensor:
        """log(1 + count) of every pair in all, in the month and in the window, (n, P, 3) float32."""
        parts = [
            np.stack(
                [counts[source, w][:, rows].toarray() for w in ("total", "month", "window")], axis=2
            )
            for source, rows in self.rows.items()
        ]
        return torch.from_numpy(np.log1p(np.concatenate(parts, axis=1)))

    # ---- outputs ---------------------------------------------------------------------------------

    def log_odds(self, inputs: Tensor, history: History, counts: Counts) -> Tensor:
        """The pair model's log odds (n, P)."""
        scores = (inputs @ self.score + self.score_bias)[..., None]
        pairs = torch.cat([scores, self.pair_counts(counts)], dim=2)
        return self.pair_model(pairs, torch.from_numpy(history.activity()))

    def forward(self, history: History, smen: Tensor) -> Tensor:
        """Published vectors (n, k) float32. history: of n users; smen: (n, M * H) float32, on the CPU."""
        out = [torch.zeros(0, self.settings.width)]
        for start in range(0, len(history), CHUNK):
            rows = slice(start, start + CHUNK)
            part = history.take(rows)
            counts = self.all_counts(part)
            inputs = self.inputs(part, counts, smen[rows])
            log_odds = self.log_odds(inputs, part, counts)
            out.append(inputs @ self.linear_out + log_odds @ self.pair_out + self.offset)
        return torch.cat(out)

    # ---- files -----------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Everything that :func:`load_projection` needs beside the settings, by name."""
        out = dict(self.state_dict())
        for source, composition in self.compositions.items():
            for name in ("indptr", "indices", "data"):
                array = getattr(composition, name)
                kind = np.float32 if name == "data" else np.int32
                out[f"composition.{source}.{name}"] = torch.from_numpy(array.astype(kind))
        for number, axes in enumerate(self.axes):
            out[f"axes.{number}"] = torch.from_numpy(axes)
        for source, rows in self.rows.items():
            out[f"targets.{source}"] = torch.from_numpy(rows)
        return out


def load_projection(settings: ProjectionSettings, tensors: Mapping[str, Tensor]) -> Projection:
    """The projection of those settings and of the tensors of :meth:`Projection.tensors`."""
    projection = Projection(settings)
    own = projection.state_dict().keys()
    projection.load_state_dict({name: tensors[name] for name in own})
    for source in settings.sizes:
        if source != INTEREST:
            parts = [
                tensors[f"composition.{source}.{name}"].numpy()
                for name in ("data", "indices", "indptr")
            ]
            shape = (settings.sizes[INTEREST], settings.sizes[source])
            projection.compositions[source] = sparse.csr_matrix(tuple(parts), shape=shape)
    projection.axes = [tensors[f"axes.{n}"].numpy() for n in range(len(settings.blocks))]
    projection.rows = {source: tensors[f"targets.{source}"].numpy() for source in settings.targets}
    return projection


def projected(
    values: sparse.csr_matrix | NDArray[np.float32], axes: NDArray[np.float32]
) -> NDArray[np.float32]:
    """``values @ axes`` in float32, by scipy's loops if sparse, else torch's product."""
    if sparse.issparse(values):
        return np.asarray(values.astype(np.float32) @ axes, dtype=np.float32)
    return (torch.from_numpy(np.asarray(values, dtype=np.float32)) @ torch.from_numpy(axes)).numpy()
