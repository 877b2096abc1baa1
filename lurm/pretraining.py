"""Pre-training of SMEN: two views of each user, contrasted within the batch (paper 2.2.4).

Letters: U users, n users in a batch, D interests, H hidden size.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from lurm.console import progress
from lurm.contrastive import nt_xent
from lurm.distributed import add_up_gradients, gathered, own_slice
from lurm.history import History, timeline_history
from lurm.lazy_adam import LazyAdam
from lurm.projection_training import Example, fit_projection
from lurm.smen import Smen, SmenSettings
from lurm.timelines import Periods, ShardedTimelines, Timelines, cut_periods
from lurm.views import draw_view, split, thinned

CHUNK = 4096  # users encoded at once
CUTS, AFTER = (
    12,
    2,
)  # months at whose end histories are cut at most, and months looked at after each
USERS = 50_000  # users whose histories are cut, at most
KEPT_SHARE = 0.7  # of the behaviors of a hidden example
T = TypeVar("T")


def view_periods(
    timelines: Timelines,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    settings: SmenSettings,
) -> list[Periods]:
    """The bags ``first[i]:last[i]`` as sequences, once per scale of the settings."""
    return [
        cut_periods(
            timelines,
            first,
            last,
            span=span,
            empty_periods=settings.empty_periods,
            n_interests=settings.n_interests,
        )
        for span in settings.scales.values()
    ]


def rows_from_centres(centres: NDArray[np.float32], width: int, seed: int) -> NDArray[np.float32]:
    """Rows of W^e (D, H) that lie to each other as the interests' centres (D, H') do.

    Where H is H' they are the centres. Otherwise a random orthonormal map, drawn by ``seed``, takes
    them to the other width: it keeps inner products if H is larger, nearly so if it is smaller (Johnson
    and Lindenstrauss, 1984).

    Departure: the paper does not say how W^e starts. Interests that mean alike begin alike here, which
    a few thousand users would not teach from random rows.
    """
    given = centres.shape[1]
    if given == width:
        return np.ascontiguousarray(centres)
    larger = max(given, width)
    # torch's algebra, as in `foresight`, for the same bytes in every environment.
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal((larger, larger)))
    turn, _ = torch.linalg.qr(drawn)
    return (torch.tensor(centres, dtype=torch.float64) @ turn[:given, :width]).float().numpy()


def pretrain(
    timelines: Timelines | ShardedTimelines,
    settings: SmenSettings,
    *,
    temperature: float,
    batch_size: int,
    epochs: int,
    learning_rate: float,
    min_view_share: float,
    max_view_share: float,
    min_kept_share: float,
    seed: int,
    centres: NDArray[np.float32] | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> tuple[Smen, list[float]]:
    """SMEN trained with NT-Xent (paper eq. 2-3 on eq. 8), and its mean loss per epoch.

    With ``centres`` (D, H'), the interests' centres in the space of items, W^e starts from them
    (:func:`rows_from_centres`). The same seed gives the same bytes on the same machine with the same
    number of threads; on a ``device`` "cuda" only nearly, as sums there are added up in any order. The
    projection is trained afterwards, by :func:`add_projection`.

    With ``precision`` "bfloat16" vectors are kept and multiplied in it, added up in float32; weights, GRU
    and loss stay in float32. Of several processes (:mod:`lurm.distributed`) each encodes a part of every
    batch; all return the same model, on the CPU.

    Raises:
        ValueError: fewer than two users, so that nobody is a negative; an interest beyond the settings;
            another number of centres than interests.
    """
    n_users = len(timelines)
    if n_users < 2:
        raise ValueError(
            f"pretrain_smen: a contrastive loss needs two users or more, the timelines hold {n_users}"
        )
    last_interest = timelines.last_interest
    if last_interest >= settings.n_interests:
        raise ValueError(
            f"pretrain_smen: cluster_interests.n_interests is {settings.n_interests}, the timelines hold "
            f"interest {last_interest}; rerun cluster_interests and build_timelines"
        )
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    smen = Smen(settings)
    if centres is not None:
        if len(centres) != settings.n_interests:
            raise ValueError(
                f"pretrain_smen: cluster_interests.n_interests is {settings.n_interests}, there are "
                f"{len(centres)} centres; rerun cluster_interests"
            )
        rows = torch.from_numpy(rows_from_centres(centres, settings.width, seed))
        with torch.no_grad():
            smen.multi_anchor.interests.copy_(rows)
    smen.multi_anchor.sparse_gradient = True
    smen.to(device)
    table = LazyAdam(smen.multi_anchor.interests, learning_rate)
    others = [weight for weight in smen.parameters() if weight is not table.table]
    optimizer = torch.optim.Adam(others, lr=learning_rate)

    def drawn() -> Iterator[tuple[list[list[Periods]], Tensor]]:
        """For each batch two views of this process's users, and the interests in all users' views."""
        for users in _batches(rng.permutation(n_users), batch_size):
            own = own_slice(len(users))
            lives = timelines.take(users)
            views, met = [], []
            for _ in range(2):
                stretch = draw_view(lives, min_view_share, max_view_share, rng)
                seen = thinned(lives, *stretch, min_kept_share, rng)
                first, last = seen.first_bag[:-1][own], seen.first_bag[1:][own]
                views.append(view_periods(seen, first, last, settings))
                met.append(seen.interests)
            yield views, torch.from_numpy(np.concatenate(met).astype(np.int64))

    losses = []
    for _ in progress(range(epochs), "pretrain_smen: epoch"):
        # Not a list: little tensors would stay between large ones, and memory grow with the steps.
        in_epoch = torch.zeros(-(-n_users // batch_size), device=device)
        for step, (views, met) in enumerate(_ahead(drawn())):
            table.catch_up(met)  # those of other processes too, so that tables stay equal
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                x, y = (gathered(smen.project(smen(view))) for view in views)
            loss = nt_xent(x.float(), y.float(), temperature)
            optimizer.zero_grad()
            loss.backward()
            add_up_gradients(others, table.table)
            optimizer.step()
            table.step()
            in_epoch[step] = loss.detach()
        losses.append(float(np.mean(in_epoch[: step + 1].tolist())))
    table.finish()
    smen.multi_anchor.sparse_gradient = False
    return smen.cpu().eval(), losses


def add_projection(
    smen: Smen,
    timelines: Timelines | ShardedTimelines,
    compositions: Mapping[str, sparse.csr_matrix],
    *,
    month: int,
    block_width: int,
    seed: int,
) -> dict[str, Any]:
    """Give a trained encoder its projection (:mod:`lurm.projection`); return figures for the report.

    Of very many users a sample is looked at, so that time and memory do not follow their number, but for
    the order in which the sample is drawn (8 bytes a user).

    Args:
        smen: the encoder, of a published width above 0.
        timelines: histories of the training users.
        compositions: for each catalog column what interests consist of (:mod:`lurm.interests.composition`).
        month: number of the last training month.
        block_width: leading directions kept of each block, at most.
        seed: of the sample, of hidden behaviors, folds, directions and the pair model.

    Raises:
        ValueError: too few users with behaviors before the last month, or nothing that they choose varies.
    """
    rng = np.random.default_rng(seed)
    sample = timelines.take(np.sort(rng.permutation(len(timelines))[:USERS]))
    everything = sample.first_bag[:-1], sample.first_bag[1:]
    current = _example(smen, sample, everything, everything[1], month, np.arange(len(sample)))
    cuts = np.unique(sample.months)[:-1][-CUTS:]
    projection, figures = fit_projection(
        _examples(smen, sample, cuts, month, rng),
        current,
        compositions,
        width=smen.settings.published_width,
        block_width=block_width,
        n_users=len(sample),
        n_examples=len(cuts) + 1,
        seed=seed,
    )
    smen.attach(projection)
    return figures


def _examples(
    smen: Smen,
    sample: Timelines,
    cuts: NDArray[np.int32],
    month: int,
    rng: np.random.Generator,
) -> Iterator[Example]:
    """Histories cut at the ends of months, then those with hidden behaviors."""
    first, last = sample.first_bag[:-1], sample.first_bag[1:]
    owner = np.repeat(np.arange(len(first)), last - first)
    for cut in progress(cuts, "pretrain_smen: cut"):
        until = first + np.bincount(owner[sample.months <= cut], minlength=len(first))
        after = first + np.bincount(owner[sample.months <= cut + AFTER], minlength=len(first))
        users = np.flatnonzero(until > first)
        yield _example(smen, sample, (first, until), after, int(cut), users)
    kept, hidden = split(sample, KEPT_SHARE, rng)
    users = np.flatnonzero(np.diff(kept.first_bag) > 0)
    bounds = kept.first_bag[:-1], kept.first_bag[1:]
    example = _example(smen, kept, bounds, bounds[1], month, users)
    rest = hidden.first_bag[:-1][users], hidden.first_bag[1:][users]
    chosen = timeline_history(hidden, *rest, month, smen.settings.n_interests).total
    yield example._replace(chosen=chosen)


def _example(
    smen: Smen,
    timelines: Timelines,
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]],
    after: NDArray[np.int64],
    month: int,
    users: NDArray[np.int64],
) -> Example:
    """The users' histories as of the month, bags ``bounds``, and what is in their bags up to ``after``."""
    first, last = bounds[0][users], bounds[1][users]
    n_interests = smen.settings.n_interests
    numbers = [torch.zeros(0, smen.settings.n_anchors * smen.settings.width)]
    for part in np.split(np.arange(len(users)), range(CHUNK, len(users), CHUNK)):
        with torch.no_grad():
            encoded = smen(view_periods(timelines, first[part], last[part], smen.settings))
        numbers.append(encoded.flatten(1).cpu())
    history = timeline_history(timelines, first, last, month, n_interests)
    until = int(timelines.months.max(initial=month))
    chosen = timeline_history(timelines, last, after[users], until, n_interests).total
    return Example(users, history, torch.cat(numbers), chosen)


def encode_timelines(
    smen: Smen,
    timelines: Timelines,
    month: int,
    first: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """The published vectors (n, k) of all users of the timelines as of a month, the slow way.

    Args:
        smen: the encoder with its projection, if it has one.
        timelines: bags up to the month, none of a later one.
        month: number of the month.
        first: (n,) the first bag of each user that is looked at; all of them unless given.
    """
    first = timelines.first_bag[:-1] if first is None else first
    last = timelines.first_bag[1:]
    vectors = [np.zeros((0, smen.settings.n_published), dtype=np.float32)]
    for part in np.split(np.arange(len(first)), range(CHUNK, len(first), CHUNK)):
        bounds = first[part], last[part]
        history: History | None = None
        if smen.projection is not None:
            history = timeline_history(timelines, *bounds, month, smen.settings.n_interests)
        with torch.no_grad():
            encoded = smen(view_periods(timelines, *bounds, smen.settings))
            vectors.append(smen.publish(encoded, history).numpy())
    return np.concatenate(vectors)


def published(
    smen: Smen, timelines: Timelines | ShardedTimelines, users: NDArray[np.int64], month: int
) -> NDArray[np.float32]:
    """The published vectors (n, k) of whole histories as of a month; users: (n,) row numbers."""
    vectors = [np.zeros((0, smen.settings.n_published), dtype=np.float32)]
    for part in np.split(users, range(CHUNK, len(users), CHUNK)):
        vectors.append(encode_timelines(smen, timelines.take(part), month))
    return np.concatenate(vectors)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made by another thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _batches(users: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """The users in batches of ``size``; a last batch of one user has no negative and joins another."""
    stops = list(range(size, len(users), size))
    if stops and len(users) - stops[-1] == 1:
        stops.pop()
    yield from np.split(users, stops)
