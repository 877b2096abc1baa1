"""SMEN, the Self-supervised Multi-anchor Encoder Network (paper 2.2, eq. 5-9).

Letters: D interests, M anchors, H hidden size, K scales, n users (or views) in a batch, P periods of all
of them, N periods of one, E entries (non-zeros) of all bags.

Worth knowing before reading on:

- Bags stay sparse. Memory and time follow E, never D times the number of users.
- One table row per interest is gathered once for all anchors (:mod:`lurm.anchor_sum`), and with
  ``sparse_gradient`` only rows that were met get a gradient, so that no cost follows D.
- Sequences of different length are packed, not padded: no step is spent on a period that is not there.
- The multi-anchor module and the GRU are the same at every scale; the gates (eq. 7) are one per scale.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from lurm.anchor_sum import anchor_sum, distinct
from lurm.history import History
from lurm.projection import Projection, ProjectionSettings, load_projection
from lurm.storage import read_tensors
from lurm.timelines import Periods

PROJECTION = "projection."  # begins the names of the projection's tensors in the model's file
GATE_ROWS = {"cpu": 512}  # of a GRU at once: their gates fit the cache of a processor's core


@dataclass(frozen=True)
class SmenSettings:
    """What fixes the shape and the arithmetic of a SMEN.

    ``scales`` are spans in months, by name; the gates of eq. 7 follow their order. ``published_width`` is
    the width of the projection's vectors, 0 where all M * H numbers are published.
    """

    n_interests: int
    n_anchors: int
    width: int
    scales: dict[str, int]
    gate: str = "per_scale"
    empty_periods: str = "skip"
    aggregation: str = "gru"
    published_width: int = 0

    def __post_init__(self) -> None:
        if self.gate == "complement" and len(self.scales) != 2:
            raise ValueError(
                f"pretrain_smen.gate: 'complement' needs two scales, got {', '.join(self.scales)}; "
                "use 'per_scale'"
            )

    @property
    def n_published(self) -> int:
        """Numbers of a published vector."""
        return self.published_width or self.n_anchors * self.width

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object."""
        return asdict(self)


class MultiAnchor(nn.Module):
    """Bags to M vectors each: r_i = ReLU(sum_j alpha_ij b_j W^e_j) (paper eq. 5-6)."""

    sparse_gradient = False  # of W^e; :class:`lurm.lazy_adam.LazyAdam` takes it

    def __init__(self, n_interests: int, n_anchors: int, width: int) -> None:
        super().__init__()
        self.interests = nn.Parameter(torch.empty(n_interests, width))  # W^e
        self.anchors = nn.Parameter(torch.empty(n_anchors, width))  # W^a
        self.key = nn.Linear(width, width, bias=False)  # W^b
        nn.init.normal_(self.interests, std=0.02)
        nn.init.normal_(self.anchors)

    def shares(self, rows: Tensor) -> Tensor:
        """alpha (., M): how each interest is shared out among the anchors; rows sum to 1 (eq. 6)."""
        queries = self.anchors @ self.key.weight  # (M, H): W^a_i . W^b x is (W^a_i W^b) . x
        return functional.softmax(functional.relu(rows) @ queries.T, dim=1)

    def forward(self, offsets: Tensor, interests: Tensor, counts: Tensor) -> Tensor:
        """r (P, M, H) of P bags of counts in CSR form; a bag's value is log(1 + count) (eq. 4).

        Bags come on the CPU, sums are where the weights are.
        """
        device = self.interests.device
        met, places = distinct(interests.to(device), len(self.interests))
        rows = functional.embedding(met, self.interests, sparse=self.sparse_gradient)  # (met, H)
        values, offsets = counts.to(device, rows.dtype).log1p(), offsets.to(device)
        if torch.is_autocast_enabled(device.type):  # which knows nothing of our sum
            rows = rows.to(torch.get_autocast_dtype(device.type))
        shares = self.shares(rows).to(rows.dtype)
        return functional.relu(anchor_sum(rows, shares, places, values, offsets))


class Smen(nn.Module):
    """The encoder, and the contrastive head that only training uses."""

    turn: Tensor | None  # (k, k), and `offset` (k,): into an older space (:mod:`lurm.alignment`)
    offset: Tensor | None

    def __init__(self, settings: SmenSettings) -> None:
        super().__init__()
        self.settings = settings
        m, h, n_scales = settings.n_anchors, settings.width, len(settings.scales)
        self.multi_anchor = MultiAnchor(settings.n_interests, m, h)
        self.gru = nn.GRU(h, h)
        n_gates = n_scales if settings.gate == "per_scale" else 1
        self.gates = nn.ModuleList(nn.Linear(n_scales * h, h) for _ in range(n_gates))  # s of eq. 7
        self.head_anchor = nn.Parameter(torch.empty(m, h, h))  # W^h1_i of eq. 8
        self.head_mix = nn.Parameter(torch.empty(m, m))  # W^h3 of eq. 9
        self.head_out = nn.Linear(m * h, m * h, bias=False)  # W^h2 of eq. 8
        nn.init.normal_(self.head_anchor, std=h**-0.5)
        nn.init.normal_(self.head_mix, std=m**-0.5)
        # In a tuple, for it is no submodule: it stays on the CPU, and its tensors have files' names of
        # their own.
        self._projection: tuple[Projection, ...] = ()
        self.register_buffer("turn", None)  # absent from the state until there is one
        self.register_buffer("offset", None)

    # ---- time aggregation ----------------------------------------------------------------------

    def aggregate(self, r: Tensor, lengths: Tensor, start: Tensor, steps: Tensor) -> Tensor:
        """The state (n, M, H) of each anchor after its sequence; all anchors share one GRU.

        ``r`` (P, M, H) holds the n sequences one after the other, ``lengths`` (n,) periods each. They
        go on from ``start`` (n, M, H), reached after ``steps`` (n,) earlier periods; zeros and no steps
        at the start of a life. With ``aggregation: mean`` the state is the mean over all periods.
        """
        m, r = r.shape[1], r.to(start.dtype)
        if self.settings.aggregation == "mean":
            sequence = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
            total = (start * steps.to(r)[:, None, None]).index_add(0, sequence.to(r.device), r)
            return total / (steps + lengths).clamp(min=1).to(r)[:, None, None]
        if not torch.is_grad_enabled() and len(lengths) and bool((lengths == 1).all()):
            # As nearly every month of encoding: nothing to put in order, and in less time.
            size = GATE_ROWS.get(r.device.type, len(r) * m)
            blocks = zip(r.flatten(0, 1).split(size), start.flatten(0, 1).split(size), strict=True)
            after = [torch.gru_cell(x, h, *self.gru.all_weights[0]) for x, h in blocks]
            return torch.cat(after).unflatten(0, (-1, m))
        longest_first = torch.argsort(lengths, descending=True, stable=True)
        ordered = lengths[longest_first]
        running = ordered[ordered > 0]
        if len(running) == 0:
            return start
        # Time-major order of the packed sequence: all first periods, all second periods, ...
        first = (lengths.cumsum(0) - lengths)[longest_first]
        time = torch.arange(int(running[0]))
        there = time[:, None] < running[None, :]  # (N, running)
        packed = (first[: len(running)][None, :] + time[:, None])[there].to(r.device)
        batch_sizes = there.sum(1) * m
        moving = longest_first[: len(running)].to(r.device)
        with torch.autocast(r.device.type, enabled=False):  # it would run a GRU in float16
            _, last = self.gru(
                PackedSequence(r[packed].flatten(0, 1), batch_sizes),
                start[moving].flatten(0, 1).unsqueeze(0),
            )
        return start.index_copy(0, moving, last.squeeze(0).unflatten(0, (-1, m)))

    # ---- multi-scale aggregation ---------------------------------------------------------------

    def merge(self, scales: list[Tensor]) -> Tensor:
        """r^ (n, M, H), the scales' states (n, M, H) each, gated and added up (paper eq. 7)."""
        together = torch.cat(scales, dim=2)  # (n, M, K * H)
        gates = [torch.sigmoid(gate(together)) for gate in self.gates]
        if self.settings.gate == "complement":
            gates.append(1 - gates[0])
        return torch.stack([gate * r for gate, r in zip(gates, scales, strict=True)]).sum(0)

    def advance(self, periods: Periods, start: Tensor, steps: Tensor) -> Tensor:
        """The states (n, M, H) of one scale after ``periods``; see :meth:`aggregate`."""
        r = self.multi_anchor(
            torch.from_numpy(periods.offsets),
            torch.from_numpy(periods.interests),
            torch.from_numpy(periods.counts),
        )
        return self.aggregate(r, torch.from_numpy(periods.lengths), start, steps)

    def forward(self, scales: list[Periods]) -> Tensor:
        """User vectors [r^_1, ..., r^_M] (n, M, H) of n sequences, given once per scale."""
        n = len(scales[0].lengths)
        start = self.head_mix.new_zeros(n, self.settings.n_anchors, self.settings.width)
        steps = torch.zeros(n, dtype=torch.int64)
        return self.merge([self.advance(periods, start, steps) for periods in scales])

    @property
    def projection(self) -> Projection | None:
        """What makes published vectors of histories and of this encoder's numbers; None publishes these."""
        return self._projection[0] if self._projection else None

    def attach(self, projection: Projection) -> None:
        """Publish vectors of that projection from now on."""
        self._projection = (projection,)

    def publish(self, users: Tensor, history: History | None = None) -> Tensor:
        """The published vectors (n, k) of the encoder's numbers (n, M, H) and of the users' histories.

        All M * H numbers where there is no projection. If an older space is kept, they are turned into it.

        Raises:
            ValueError: there is a projection, and no history.
        """
        published = users.flatten(1)
        if self.projection is not None:
            if history is None:
                raise ValueError(
                    "publish: expected the users' histories, which the projection reads, got None"
                )
            published = self.projection(history, published.cpu()).to(published.device)
        if self.turn is not None and self.offset is not None:
            published = published @ self.turn + self.offset
        return published

    # ---- contrastive head ----------------------------------------------------------------------

    def project(self, users: Tensor) -> Tensor:
        """h(v) (n, M * H) of user vectors (n, M, H), where the loss compares (paper eq. 8-9)."""
        v = functional.relu(torch.einsum("nmh,mgh->nmg", users, self.head_anchor))
        mixed = torch.einsum("lm,nmh->nlh", self.head_mix, v)  # mat(v) is (M, H)
        return self.head_out(functional.relu(v + mixed).flatten(1))


class Version(NamedTuple):
    """Which model made vectors, and in which space they lie: the model's own, or an older one's."""

    model: str
    space: str


def load_smen(path: Path) -> tuple[Smen, Version]:
    """The encoder of a safetensors file, ready to encode, and its version.

    A file that names no ``space_version`` is in the space of its own model.
    """
    tensors, settings = read_tensors(path)
    model = settings.pop("model_version")
    version = Version(model, settings.pop("space_version", model))
    projection = settings.pop("projection", None)
    of_projection = {
        name.removeprefix(PROJECTION): tensors.pop(name)
        for name in [name for name in tensors if name.startswith(PROJECTION)]
    }
    smen = Smen(SmenSettings(**settings))
    if projection is not None:
        projection = ProjectionSettings.from_json(projection)
        smen.attach(load_projection(projection, of_projection).eval())
    for name in ("turn", "offset"):
        if name in tensors:
            smen.register_buffer(name, torch.empty_like(tensors[name]))
    smen.load_state_dict(tensors)
    return smen.eval(), version


def model_tensors(smen: Smen) -> dict[str, Tensor]:
    """All tensors of the encoder and of its projection, by their names in the model's file."""
    tensors = dict(smen.state_dict())
    if smen.projection is not None:
        tensors |= {PROJECTION + name: t for name, t in smen.projection.tensors().items()}
    return tensors


def model_settings(smen: Smen) -> dict[str, Any]:
    """The settings that :func:`load_smen` reads back, as a JSON object."""
    settings = smen.settings.to_json()
    if smen.projection is not None:
        settings["projection"] = smen.projection.settings.to_json()
    return settings
