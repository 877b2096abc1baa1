"""One space over many releases: new vectors are turned into the space of those that stand.

A model trained anew tells the same of a user in other numbers, so that a head of the release before
reads noise. On a panel of users, who have a vector of either model as of the same month, the linear map is
found that brings the new vectors closest to the old ones among those that give them the old ones'
covariance. Measured on the example, a month apart, in points of mean AUC over the tasks: heads of the old
release on new vectors, against heads trained anew on them, lose

- as the vectors come, 16.2;
- rotated (orthogonal Procrustes, which keeps their own covariance), 0.3 (-0.2 to +0.7), but 0.7 (0.2 to
  1.1) against heads trained anew on the raw vectors: 91 % of the old vectors' variance is explained;
- by regression, 0.1 (-0.2 to +0.3), and 96 % explained; but numbers that are told badly shrink to a third
  of their variance, and with every further release again, until nothing is left of them;
- by this map 0.1 (-0.2 to +0.4), and 95 % explained; nothing shrinks, and heads trained anew on the turned
  vectors score as on the raw ones (74.2 and 74.1).

Where all M x H numbers are published, the anchors of one model have no order that the other knows; a
permutation of anchors is a linear map too, and is found with the rest.

The algebra is torch's, as in :mod:`lurm.foresight`.

Letters: U users, n of the panel, k numbers of a published vector.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

PANEL = 20_000  # users, at most
PART = 65_536  # users whose ids are Python's at once
FLOOR = 1e-3  # mean variances that a direction of the new vectors is taken to have at least


class Alignment(NamedTuple):
    """``x @ turn + offset`` brings new vectors (n, k) into the old space; ``explained`` says how close.

    That is the share of the old vectors' variance over the panel that the turned ones account for.
    """

    turn: torch.Tensor  # (k, k) float32
    offset: torch.Tensor  # (k,) float32
    explained: float


def panel(users: pa.Array, standing: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (n,) of the users of the panel, here and among the standing vectors.

    The panel is fixed: a user belongs to it by the hash of the id, so that from release to release it
    loses those who are gone and wins those who are new, and no others. Of at most ``PANEL`` users, all.

    Raises:
        ValueError: the two identify users by different types.
    """
    if users.type != standing.type:
        raise ValueError(
            f"user_id is {users.type} in the timelines but {standing.type} in the standing vectors; "
            "deliver users with one type, or set pretrain_smen.space to new"
        )
    place = pc.index_in(users, standing)
    here = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
    if len(here) > PANEL:
        parts = np.split(here, range(PART, len(here), PART))
        marks = np.concatenate([_marks(users.take(pa.array(part))) for part in parts])
        here = np.sort(here[np.argsort(marks, kind="stable")[:PANEL]])
    return here, place.take(pa.array(here)).to_numpy().astype(np.int64)


def _marks(users: pa.Array) -> NDArray[np.uint64]:
    """A number (n,) for each user, drawn by the hash of the id."""
    digests = b"".join(
        hashlib.blake2b(str(user).encode(), digest_size=8, person=b"panel").digest()
        for user in users.to_pylist()
    )
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def check_panel(n_users: int, width: int, standing_width: int) -> None:
    """Return if vectors of ``width`` numbers can be aligned on so many users with standing vectors.

    Raises:
        ValueError: the vectors differ in width, or the panel has no more users than numbers.
    """
    if width != standing_width:
        raise ValueError(
            f"pretrain_smen: the standing vectors have {standing_width} numbers, the new ones "
            f"{width}; set pretrain_smen.space to new, and have heads trained anew"
        )
    if n_users <= width:
        raise ValueError(
            f"pretrain_smen: expected more users with standing vectors than the {width} numbers "
            f"of a vector, found {n_users}; set pretrain_smen.space to new, and have heads trained anew"
        )


def align(new: NDArray[np.float32], old: NDArray[np.float32]) -> Alignment:
    """The linear map and shift that bring ``new`` (n, k) closest to ``old`` (n, k), row by row.

    With N and O the covariances of the two and C that between them, the map is N^-1/2 U V' O^1/2, where
    U S V' = N^-1/2 C O^1/2: the orthogonal Procrustes solution (P. Schönemann, Psychometrika, 1966,
    https://doi.org/10.1007/BF02289451) for whitened new vectors, which then get the covariance O.

    Raises:
        ValueError: as :func:`check_panel`.
    """
    check_panel(len(new), new.shape[1], old.shape[1])
    x, y = torch.tensor(new, dtype=torch.float64), torch.tensor(old, dtype=torch.float64)
    x_mean, y_mean = x.mean(0), y.mean(0)
    x_white = _power((x - x_mean).T @ (x - x_mean) / len(x), -0.5, FLOOR)
    y_root = _power((y - y_mean).T @ (y - y_mean) / len(y), 0.5, 0)
    u, _, vt = torch.linalg.svd(x_white @ ((x - x_mean).T @ (y - y_mean) / len(x)) @ y_root)
    turn = x_white @ u @ vt @ y_root
    offset = y_mean - x_mean @ turn
    left = (x @ turn + offset - y).square().sum() / (y - y_mean).square().sum()
    return Alignment(turn.float(), offset.float(), 1 - float(left))


def _power(covariance: torch.Tensor, power: float, floor: float) -> torch.Tensor:
    """The power of a covariance (k, k), eigenvalues below ``floor`` times their mean raised to that."""
    values, axes = torch.linalg.eigh(covariance)
    return (axes * values.clamp(min=floor * float(values.mean())) ** power) @ axes.T


def turned_back(
    vectors: NDArray[np.float32], turn: torch.Tensor, offset: torch.Tensor
) -> NDArray[np.float32]:
    """The raw vectors (n, k) whose turned ones are given, up to rounding."""
    turned = torch.tensor(vectors, dtype=torch.float64) - offset
    return (turned @ torch.linalg.pinv(turn.double())).float().numpy()
