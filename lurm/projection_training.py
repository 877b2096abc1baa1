"""Training of the projection (:mod:`lurm.projection` explains its four steps).

Letters: n users of an example, D interests, C values of a source, d block numbers, T targets, P targets of
the pair model, k numbers of the published vector.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from lurm.history import History
from lurm.projection import (
    INTEREST,
    KINDS,
    Block,
    Projection,
    ProjectionSettings,
    projected,
)

FEW_VALUES = 1_000  # up to so many values a source has blocks of all kinds and is a target
MOST_TARGETS = 2_000  # interests regressed on, those of most users
PAIR_INTERESTS = 300  # of these, interests of the pair model
LEAST_SHARE = {INTEREST: 0.01, "": 0.002}  # of examples that choose a target of the pair model
LEAST_SPREAD = 0.02  # standard deviation of a target that is regressed on
RIDGES = (3.0, 10.0, 30.0)  # tried, in mean variances of a block number
PAIR_ROWS = 24_000  # rows of examples that the pair model learns from
EPOCHS, BATCH, RATE = 4, 64, 2e-3  # of the pair model
# Shares of the basis: log odds of column values, all log odds, linear scores.
MIX = (0.4, 0.3, 0.3)


class Example(NamedTuple):
    """Histories as of one moment, and what the same users chose afterwards."""

    users: NDArray[np.int64]  # (n,) row numbers of the users, equal over all examples
    history: History
    smen: Tensor  # (n, M * H) float32
    chosen: sparse.csr_matrix  # (n, D) counts of interests afterwards


def fit_projection(
    examples: Iterable[Example],
    current: Example,
    compositions: Mapping[str, sparse.csr_matrix],
    *,
    width: int,
    block_width: int,
    n_users: int,
    n_examples: int,
    seed: int,
) -> tuple[Projection, dict[str, Any]]:
    """The trained projection, and its figures for the report.

    Args:
        examples: histories cut at the ends of months, or with behaviors hidden; read once.
        current: the users as of the end of training; what they chose is not read.
        compositions: for each catalog column (or the words), the share of an interest's behaviors whose
            items have each value, (D, C).
        width: k, numbers of the published vector.
        block_width: leading directions kept of each block, at most.
        n_users: number of users, the bound of ``Example.users``.
        n_examples: number of examples, at most.
        seed: of the folds, the directions and the pair model.

    Returns:
        The projection, and a JSON object: ``explained``, the share of the targets' variance explained on
        held-out users by ridge, ``ridge``, the chosen one, ``pair_loss`` and ``base_loss``, the mean binary
        cross-entropy of held-out users by the pair model and by the targets' shares alone, and numbers of
        inputs, targets and examples.

    Raises:
        ValueError: no example has users, or nothing that users choose varies.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    projection = _with_axes(current, compositions, width, block_width, seed)
    targets = _candidates(projection, current.history)
    fold = rng.integers(0, 2, n_users)
    chance = rng.random(n_users)
    most_rows = PAIR_ROWS // n_examples
    sums, kept = _accumulate(examples, projection, targets, fold, chance, most_rows)
    ridge, explained, weights = _choose_ridge(sums)
    total = _added(sums)
    columns = _pair_columns(targets, total)
    both = _solved(total, ridge)
    scores = torch.stack([_solved(s, ridge)[:, columns] for s in reversed(sums)])  # out of fold
    projection = _for_targets(projection, targets, columns, total)
    spread = total.spread[columns]
    projection.score.copy_(both[:, columns] / spread)
    counts = projection.all_counts(current.history)
    x = projection.inputs(current.history, counts, current.smen)
    projection.score_bias.copy_(-(x.mean(0) @ projection.score))
    losses = _train_pair_model(projection, kept, scores / spread, columns, fold, chance, seed)
    linear = _linear_map(total, both * weights, width)
    _choose_basis(projection, current.history, x, linear, total.share[columns])
    return projection.eval(), {
        "ridge": ridge,
        "explained": explained,
        **losses,
        "n_inputs": len(both),
        "n_targets": int((weights > 0).sum()),
        "n_pair_targets": len(columns),
        "n_examples": total.n,
    }


# ---- blocks --------------------------------------------------------------------------------------


def _with_axes(
    current: Example,
    compositions: Mapping[str, sparse.csr_matrix],
    width: int,
    block_width: int,
    seed: int,
) -> Projection:
    """A projection with its blocks' axes, and no targets yet."""
    sizes = {INTEREST: current.history.total.shape[1]}
    sizes |= {source: table.shape[1] for source, table in compositions.items()}
    blocks = [Block(kind, INTEREST) for kind in KINDS]
    for source in compositions:
        kinds = KINDS if sizes[source] <= FEW_VALUES else KINDS[:1]
        blocks += [Block(kind, source) for kind in kinds]
    blocks += [Block("activity"), Block("smen")]
    smen_width = current.smen.shape[1]
    draft = Projection(ProjectionSettings(width, smen_width, sizes, blocks))
    draft.compositions = dict(compositions)
    axes = []
    counts = draft.all_counts(current.history)
    for number, values in enumerate(draft.block_values(current.history, counts, current.smen)):
        directions = leading_directions(values, block_width, seed + number)
        numbers = torch.from_numpy(projected(values, directions)).double()
        scale = float(numbers.var(0, correction=0).sum().clamp(min=1e-9).rsqrt())
        axes.append((directions * np.float32(scale)).astype(np.float32))
    blocks = [
        Block(block.kind, block.source, a.shape[1]) for block, a in zip(blocks, axes, strict=True)
    ]
    out = Projection(ProjectionSettings(width, smen_width, sizes, blocks))
    out.compositions, out.axes = draft.compositions, axes
    return out


def leading_directions(
    values: sparse.csr_matrix | NDArray[np.float32], width: int, seed: int
) -> NDArray[np.float32]:
    """The leading principal directions (C, k) of rows (n, C), k at most ``width``; centred without a copy.

    Randomized subspace iteration (Halko, Martinsson and Tropp, SIAM Review, 2011,
    https://doi.org/10.1137/090771806). With C at most ``width`` it is the identity.
    """
    n, size = values.shape
    if size <= width:
        return np.eye(size, dtype=np.float32)
    width = min(width, n)
    mean = torch.from_numpy(np.asarray(values.mean(axis=0), dtype=np.float32).ravel())
    back = sparse.csr_matrix(values.T) if sparse.issparse(values) else values.T
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(size, min(width + 20, size), generator=generator)
    for _ in range(4):
        basis, _ = torch.linalg.qr(basis)
        image = torch.from_numpy(projected(values, basis.numpy())) - mean @ basis
        image, _ = torch.linalg.qr(image)
        basis = torch.from_numpy(projected(back, image.numpy())) - torch.outer(mean, image.sum(0))
    left, _, _ = torch.linalg.svd(basis, full_matrices=False)
    return left[:, :width].contiguous().numpy()


# ---- linear scores -------------------------------------------------------------------------------


class _Sums(NamedTuple):
    """Sums over the rows of one fold: inputs and targets are centred within each example."""

    n: int
    inputs: Tensor  # (d, d)
    across: Tensor  # (d, T)
    variance: Tensor  # (T,)
    ones: Tensor  # (T,) rows that choose the target

    @property
    def spread(self) -> Tensor:
        """Standard deviation of each target, (T,)."""
        return (self.variance / self.n).clamp(min=1e-12).sqrt().float()

    @property
    def share(self) -> Tensor:
        """Share of rows that choose each target, (T,)."""
        return (self.ones / self.n).float()


class _Rows(NamedTuple):
    """Rows of an example that the pair model learns from."""

    users: NDArray[np.int64]
    inputs: Tensor  # (n, d), centred
    history: History
    chosen: sparse.csr_matrix  # (n, T) ones


def _candidates(projection: Projection, history: History) -> dict[str, NDArray[np.int64]]:
    """The values of each source that are regressed on: all of a column, interests of most users."""
    out = {}
    for source, size in projection.settings.sizes.items():
        if source != INTEREST and size > FEW_VALUES:
            continue
        values = np.arange(size)
        if source == INTEREST and size > MOST_TARGETS:
            n_users = np.diff(sparse.csc_matrix(history.total).indptr)
            values = np.sort(np.argsort(-n_users, kind="stable")[:MOST_TARGETS])
        out[source] = values
    return out


def _chosen(
    projection: Projection, targets: Mapping[str, NDArray[np.int64]], chosen: sparse.csr_matrix
) -> sparse.csr_matrix:
    """Which targets were chosen, (n, T) ones and zeros: an expected count of a half or more."""
    parts = []
    for source, values in targets.items():
        counts = projection.counts(source, chosen)[:, values].tocsr()
        counts.data = (counts.data >= 0.5).astype(np.float64)
        parts.append(counts)
    out = sparse.csr_matrix(sparse.hstack(parts))
    out.eliminate_zeros()
    return out


def _accumulate(
    examples: Iterable[Example],
    projection: Projection,
    targets: Mapping[str, NDArray[np.int64]],
    fold: NDArray[np.int64],
    chance: NDArray[np.float64],
    most_rows: int,
) -> tuple[list[_Sums], list[_Rows]]:
    """The sums of both folds, and at most so many rows of each for the pair model, by users' ``chance``."""
    sums: list[_Sums | None] = [None, None]
    kept: list[_Rows] = []
    for example in examples:
        if not len(example.users):
            continue
        counts = projection.all_counts(example.history)
        inputs = projection.inputs(example.history, counts, example.smen)
        inputs -= inputs.mean(0)
        chosen = _chosen(projection, targets, example.chosen)
        share = torch.from_numpy(np.asarray(chosen.mean(axis=0)).ravel())
        for number in (0, 1):
            rows = np.flatnonzero(fold[example.users] == number)
            x, y = inputs[rows].double(), chosen[rows]
            ones = torch.from_numpy(np.asarray(y.sum(axis=0)).ravel())
            across = torch.from_numpy(np.asarray(y.T @ x.numpy())).T
            of_fold = _Sums(
                n=len(rows),
                inputs=x.T @ x,
                across=across - torch.outer(x.sum(0), share),
                variance=ones * (1 - 2 * share) + len(rows) * share**2,
                ones=ones,
            )
            before = sums[number]
            sums[number] = of_fold if before is None else _added([before, of_fold])
        drawn = np.sort(np.argsort(chance[example.users], kind="stable")[:most_rows])
        history = example.history.take(drawn)
        kept.append(_Rows(example.users[drawn], inputs[drawn], history, chosen[drawn]))
    out = [s for s in sums if s is not None and s.n]
    if len(out) < 2:
        raise ValueError(
            "pretrain_smen.published_width: expected users with behaviors before the last month of "
            "training, found fewer than two; land more months, or set it to 0 to publish SMEN's numbers"
        )
    return out, kept


def _added(sums: Sequence[_Sums]) -> _Sums:
    return _Sums(*(sum(values[1:], values[0]) for values in zip(*sums, strict=True)))


def _solved(sums: _Sums, ridge: float) -> Tensor:
    """The ridge regression's coefficients (d, T) float32."""
    d = len(sums.inputs)
    shift = ridge * sums.inputs.trace() / d + 1e-12
    factor = torch.linalg.cholesky(sums.inputs + shift * torch.eye(d, dtype=torch.float64))
    return torch.cholesky_solve(sums.across, factor).float()


def _choose_ridge(sums: Sequence[_Sums]) -> tuple[float, dict[str, float], Tensor]:
    """The ridge that explains most of held-out users, what each explains, and the targets' weights (T,).

    A target weighs the inverse root of its spread; one that hardly varies weighs nothing.
    """
    total = _added(sums)
    weights = torch.where(total.spread > LEAST_SPREAD, total.spread**-0.5, 0)
    if not (weights > 0).any():
        raise ValueError(
            "pretrain_smen.published_width: nothing that users choose varies among them; land more users "
            "or months, or set it to 0 to publish SMEN's numbers"
        )
    explained = {}
    for ridge in RIDGES:
        gain, variance = 0.0, 0.0
        for own, other in (sums, tuple(reversed(sums))):
            b = _solved(other, ridge).double() * weights
            gain += float(2 * (b * own.across * weights).sum() - (own.inputs @ b * b).sum())
            variance += float((own.variance * weights**2).sum())
        explained[f"{ridge:g}"] = round(gain / variance, 6)
    best = max(RIDGES, key=lambda ridge: explained[f"{ridge:g}"])
    return best, explained, weights


def _linear_map(sums: _Sums, weighted: Tensor, width: int) -> Tensor:
    """The leading directions (d, k) of the weighted scores: reduced-rank regression."""
    d = len(sums.inputs)
    inputs = sums.inputs / sums.n
    jitter = 1e-9 * inputs.trace() / d + 1e-12
    root = torch.linalg.cholesky(inputs + jitter * torch.eye(d, dtype=torch.float64))
    scores = (root.T @ weighted.double()).float()
    axes = leading_directions(scores.numpy(), width, 0)
    return weighted @ torch.from_numpy(axes)


# ---- the pair model ------------------------------------------------------------------------------


def _pair_columns(targets: Mapping[str, NDArray[np.int64]], sums: _Sums) -> Tensor:
    """The targets (P,) of the pair model among all (T,)."""
    out, first = [], 0
    for source, values in targets.items():
        share = sums.share[first : first + len(values)]
        enough = torch.nonzero(share > LEAST_SHARE.get(source, LEAST_SHARE[""]))[:, 0]
        if source == INTEREST:
            most = torch.argsort(share[enough], descending=True, stable=True)[:PAIR_INTERESTS]
            enough = enough[most].sort().values
        out.append(enough + first)
        first += len(values)
    columns = torch.cat(out)
    if not len(columns):  # a shop whose users hardly ever come back: the most frequent target
        columns = sums.share.argmax()[None]
    return columns


def _for_targets(
    draft: Projection, targets: Mapping[str, NDArray[np.int64]], columns: Tensor, sums: _Sums
) -> Projection:
    """The projection with room for its pair targets, whose biases start at their log odds."""
    source_of = np.repeat(np.arange(len(targets)), [len(values) for values in targets.values()])
    values = np.concatenate(list(targets.values()))
    rows = {
        source: values[columns.numpy()][source_of[columns.numpy()] == number]
        for number, source in enumerate(targets)
    }
    rows = {source: chosen for source, chosen in rows.items() if len(chosen)}
    settings = ProjectionSettings(
        draft.settings.width,
        draft.settings.smen_width,
        draft.settings.sizes,
        draft.settings.blocks,
        {source: len(chosen) for source, chosen in rows.items()},
    )
    out = Projection(settings)
    out.compositions, out.axes, out.rows = draft.compositions, draft.axes, rows
    with torch.no_grad():
        out.pair_model.bias.copy_(sums.share[columns].clamp(1e-3, 1 - 1e-3).logit())
    return out


def _train_pair_model(
    projection: Projection,
    kept: Sequence[_Rows],
    scores: Tensor,
    columns: Tensor,
    fold: NDArray[np.int64],
    chance: NDArray[np.float64],
    seed: int,
) -> dict[str, float]:
    """Train the pair model; its loss on a tenth of the users, who are held out, and that of shares alone.

    scores: (2, d, P), for each fold those of the regression on the other one.
    """
    model, pairs, users, chosen, held_out = projection.pair_model, [], [], [], []
    order = np.argsort(np.argsort(chance)) % 10  # a tenth of the users
    for rows in kept:
        if not len(rows.users):
            continue
        own = torch.from_numpy(fold[rows.users])
        score = torch.where(own[:, None] == 0, rows.inputs @ scores[0], rows.inputs @ scores[1])[
            ..., None
        ]
        counts = projection.pair_counts(projection.all_counts(rows.history))
        pairs.append(torch.cat([score, counts], dim=2))
        users.append(torch.from_numpy(rows.history.activity()))
        chosen.append(torch.from_numpy(rows.chosen[:, columns.numpy()].toarray()).to(torch.uint8))
        held_out.append(torch.from_numpy(order[rows.users] == 0))
    if not pairs:
        return {}
    x, u, y = torch.cat(pairs), torch.cat(users), torch.cat(chosen)
    aside = torch.cat(held_out)
    flat = x.flatten(0, 1)
    model.pair_mean.copy_(flat.mean(0))
    model.pair_scale.copy_(flat.std(0, correction=0) + 1e-6)
    model.user_mean.copy_(u.mean(0))
    model.user_scale.copy_(u.std(0, correction=0) + 1e-6)
    train = torch.nonzero(~aside)[:, 0]
    if not len(train):
        train = torch.arange(len(x))
    generator = torch.Generator().manual_seed(seed)
    n_steps = EPOCHS * -(-len(train) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=n_steps)
    for _ in range(EPOCHS):
        for batch in train[torch.randperm(len(train), generator=generator)].split(BATCH):
            log_odds = model(x[batch], u[batch])
            loss = functional.binary_cross_entropy_with_logits(log_odds, y[batch].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.requires_grad_(False)
    tested = torch.nonzero(aside)[:, 0]
    if not len(tested):
        return {}
    with torch.inference_mode():
        answers = torch.cat([model(x[r], u[r]) for r in tested.split(512)])
        share = y[train].float().mean(0).clamp(1e-4, 1 - 1e-4)
        base = share.logit().expand_as(answers)
        losses = {
            name: float(functional.binary_cross_entropy_with_logits(guess, y[tested].float()))
            for name, guess in (("pair_loss", answers), ("base_loss", base))
        }
    return {name: round(loss, 6) for name, loss in losses.items()}


# ---- the basis -----------------------------------------------------------------------------------


def _choose_basis(
    projection: Projection, history: History, inputs: Tensor, linear: Tensor, share: Tensor
) -> None:
    """Fill the maps from block numbers and log odds to the published vector."""
    k = projection.settings.width
    parts = [
        projection.log_odds(
            inputs[rows], history.take(rows), projection.all_counts(history.take(rows))
        )
        for rows in (slice(start, start + 256) for start in range(0, len(history), 256))
    ]
    log_odds = torch.cat(parts)
    scores = inputs @ linear
    n_interests = projection.settings.targets.get(INTEREST, 0)
    of_columns = torch.zeros(log_odds.shape[1])
    of_columns[n_interests:] = 1
    if n_interests == log_odds.shape[1]:  # no column: interests take its place
        of_columns[:] = 1
    by_spread = (share * (1 - share)).clamp(min=1e-6) ** 0.25
    z, s = log_odds - log_odds.mean(0), scores - scores.mean(0)

    def unit(values: Tensor) -> Tensor:
        return values.square().sum(1).mean().sqrt().clamp(min=1e-9)

    first, second, third = MIX
    columns = torch.nonzero(of_columns)[:, 0]
    to_columns = torch.eye(len(of_columns))[:, columns] * (first / unit(z[:, columns]))
    to_all = torch.diag(by_spread) * (second / unit(z * by_spread))
    from_pairs = torch.cat([to_columns, to_all, torch.zeros(len(of_columns), s.shape[1])], dim=1)
    to_scores = torch.eye(s.shape[1]) * (third / unit(s))
    from_scores = torch.cat(
        [torch.zeros(s.shape[1], from_pairs.shape[1] - s.shape[1]), to_scores], dim=1
    )
    mixed = (z @ from_pairs + s @ from_scores).double()
    width = min(k, mixed.shape[1])
    _, axes = torch.linalg.eigh(mixed.T @ mixed)
    axes = axes.flip(1)[:, :width]
    axes = axes @ _aligned(mixed @ axes, (z[:, columns] / unit(z[:, columns])).double())
    axes = axes.float()
    projection.pair_out[:, :width] = from_pairs @ axes
    projection.linear_out[:, :width] = linear @ from_scores @ axes
    projection.offset[:width] = (
        -(log_odds.mean(0) @ from_pairs + scores.mean(0) @ from_scores) @ axes
    )


def _aligned(vectors: Tensor, targets: Tensor) -> Tensor:
    """The rotation (k, k) after which each number lies as close as possible to one target's log odds.

    Orthogonal Procrustes on the targets that vary most; with fewer targets than numbers the rest of the
    rotation is any.
    """
    k = vectors.shape[1]
    most = torch.argsort(targets.var(0, correction=0), descending=True, stable=True)[:k]
    left, _, right = torch.linalg.svd(vectors.T @ targets[:, most], full_matrices=True)
    rotation = left.clone()
    rotation[:, : len(most)] = left[:, : len(most)] @ right
    return rotation
