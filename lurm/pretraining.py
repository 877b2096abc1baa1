"""Pre-training of SMEN: two views of each user, contrasted within the batch (paper 2.2.4).

Letters: U users, n users in a batch, D interests, H hidden size.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from lurm.console import progress
from lurm.contrastive import nt_xent
from lurm.distributed import add_up_gradients, gathered, own_slice
from lurm.foresight import foretelling_directions
from lurm.lazy_adam import LazyAdam
from lurm.smen import Smen, SmenSettings
from lurm.timelines import Periods, ShardedTimelines, Timelines, cut_periods, ranges
from lurm.views import draw_view, thinned

CHUNK = 4096  # users encoded at once
CUTS, AFTER = 12, 2  # months at whose end lives are cut at most, and months looked at after each
LIVES = 50_000  # lives cut at most
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
    ridge: float,
    seed: int,
    centres: NDArray[np.float32] | None = None,
    groups: NDArray[np.int32] | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> tuple[Smen, list[float]]:
    """SMEN trained with NT-Xent (paper eq. 2-3 on eq. 8), and its mean loss per epoch.

    The directions that it publishes (:mod:`lurm.foresight`) are found at the end. With ``centres``
    (D, H'), the interests' centres in the space of items, W^e starts from them
    (:func:`rows_from_centres`). With ``groups`` (D,), the directions also foretell which groups of
    interests a life meets: each member may be too rare to be foretold. The same seed gives the same
    bytes on the same machine with the same number of threads; on a ``device`` "cuda" only nearly, as
    sums there are added up in any order.

    With ``precision`` "bfloat16" vectors are kept and multiplied in it, added up in float32; weights, GRU
    and loss stay in float32. Of several processes (:mod:`lurm.distributed`) each encodes a part of every
    batch; all return the same model, on the CPU.

    Raises:
        ValueError: fewer than two users, so that nobody is a negative; an interest beyond the settings;
            another number of centres than interests; too few users of two months to find directions.
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
    if settings.published_width:
        cuts = _cuts(smen, timelines, groups, rng)
        directions = foretelling_directions(cuts, settings.published_width, ridge)
        smen.directions.copy_(torch.from_numpy(directions))
    return smen.cpu().eval(), losses


def published(
    smen: Smen, timelines: Timelines | ShardedTimelines, users: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The published vectors (n, k) of the users' whole lives; users: (n,) row numbers."""
    vectors = [np.zeros((0, smen.settings.n_published), dtype=np.float32)]
    for part in np.split(users, range(CHUNK, len(users), CHUNK)):
        lives = timelines.take(part)
        first, last = lives.first_bag[:-1], lives.first_bag[1:]
        with torch.no_grad():
            encoded = smen(view_periods(lives, first, last, smen.settings))
            vectors.append(smen.publish(encoded).numpy())
    return np.concatenate(vectors)


def _cuts(
    smen: Smen,
    timelines: Timelines | ShardedTimelines,
    groups: NDArray[np.int32] | None,
    rng: np.random.Generator,
) -> Iterator[tuple[NDArray[np.float32], sparse.csr_matrix]]:
    """For each of the last months but the very last: vectors of lives until then, and what they met after.

    Of very many lives a sample is cut, so that time and memory do not follow their number, but for the
    order in which the sample is drawn (8 bytes a user).
    """
    lives = timelines.take(np.sort(rng.permutation(len(timelines))[:LIVES]))
    first, last = lives.first_bag[:-1], lives.first_bag[1:]
    owner = np.repeat(np.arange(len(first)), last - first)
    for month in np.unique(lives.months)[:-1][-CUTS:]:
        until = first + np.bincount(owner[lives.months <= month], minlength=len(first))
        soon = first + np.bincount(owner[lives.months <= month + AFTER], minlength=len(first))
        users = np.flatnonzero(until > first)
        if not len(users):
            continue
        vectors = []
        for part in np.split(users, range(CHUNK, len(users), CHUNK)):
            with torch.no_grad():
                encoded = smen(view_periods(lives, first[part], until[part], smen.settings))
            vectors.append(encoded.flatten(1).cpu().numpy())
        met = _interests_met(lives, until[users], soon[users], smen.settings.n_interests)
        if groups is not None:
            of_group = sparse.csr_matrix((np.ones(len(groups)), (np.arange(len(groups)), groups)))
            met = sparse.csr_matrix(sparse.hstack([met, (met @ of_group).minimum(1)]))
        yield np.concatenate(vectors), met


def _interests_met(
    timelines: Timelines, first: NDArray[np.int64], last: NDArray[np.int64], n_interests: int
) -> sparse.csr_matrix:
    """Which interests are in the bags ``first[i]:last[i]``, (n, D), ones and zeros."""
    begin, end = timelines.first_entry[first], timelines.first_entry[last]
    interests = timelines.interests[ranges(begin, end)]
    met = sparse.csr_matrix(
        (np.ones(len(interests)), interests, np.concatenate([[0], np.cumsum(end - begin)])),
        shape=(len(first), n_interests),
    )
    met.sum_duplicates()
    met.data[:] = 1
    return met


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
