"""A narrower user vector: the directions in which a life foretells what comes after it.

Those who take the vectors ask what users will do. So lives are cut at the end of a month, the interests met
in the months after it are regressed on the vectors of what came before, and the directions that explain
most of them are kept: reduced-rank regression (A. Izenman, "Reduced-rank regression for the multivariate
linear model", Journal of Multivariate Analysis, 1975, https://doi.org/10.1016/0047-259X(75)90042-1) with
a ridge. It takes nothing but bags; no task has a say.

Departure: the paper publishes all M x H numbers. `pretrain_smen.published_width: 0` does too.

The algebra is torch's and scipy's sparse product, which give the same bytes in a container and outside;
numpy's chooses its kernels by the environment.

Letters: n lives that a cut goes through, d numbers of a vector before (M x H), k after, D interests.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

CHUNK = 4096  # lives multiplied at once


def foretelling_directions(
    cuts: Iterable[tuple[NDArray[np.float32], sparse.csr_matrix]], width: int, ridge: float
) -> NDArray[np.float32]:
    """The map (d, k) to the ``width`` directions by which what comes after a cut is told best.

    With S the covariance of the vectors, C their covariance with the interests met, each interest divided
    by its spread, and B = (S + r I)^-1 C, r being ``ridge`` times the mean variance, the map's
    columns are B v for the eigenvectors v of B' S B of largest eigenvalue: along them the prediction
    varies most, and so does the vector, as far as it is to be trusted. The sign of a column is that of its
    largest entry. Both sides are centred within each cut, for months differ.

    Args:
        cuts: for each, the vectors (n, d) of lives until the cut and which interests the same users met
            after it, (n, D), ones and zeros.
        width: k, at most d.
        ridge: how far directions of little variance are held back.

    Raises:
        ValueError: there are fewer than two lives before a cut, or fewer numbers than ``width``.
    """
    n, vectors, across, met = 0, torch.zeros(0), torch.zeros(0), torch.zeros(0)
    for x, y in cuts:
        one = torch.from_numpy(x).double()
        x_mean, y_mean = one.mean(0), torch.from_numpy(np.asarray(y.mean(axis=0)).ravel())
        for part in one.split(CHUNK):
            vectors = (part - x_mean).T @ (part - x_mean) + (vectors if n else 0)
            n += len(part)
        products = torch.from_numpy(y.T.astype(np.float64) @ one.numpy())  # (D, d)
        across = products - len(x) * torch.outer(y_mean, x_mean) + (across if len(across) else 0)
        met = len(x) * y_mean * (1 - y_mean) + (met if len(met) else 0)
    if n < 2:
        raise ValueError(
            "pretrain_smen.published_width: expected users with behaviors before the last month of "
            f"training, found {n}; land more months, or set it to 0 to publish vectors as they are"
        )
    d = len(vectors)
    if width > d:
        raise ValueError(
            f"pretrain_smen.published_width: expected at most n_anchors x width ({d}), got {width}"
        )
    vectors, spread = vectors / n, (met / n).clamp(min=0).sqrt()
    varies = spread > 1e-6  # what nobody or everybody met tells nothing
    across = across[varies] / n / spread[varies, None]
    held = vectors + ridge * vectors.trace() / d * torch.eye(d, dtype=torch.float64)
    b = torch.linalg.solve(held, across.T)  # (d, D)
    # B' S B is D x D. With R the root of S it has the eigenvalues of R B B' R, which is d x d, and B v is
    # B B' R u / sqrt(eigenvalue) for that one's eigenvectors u.
    values, axes = torch.linalg.eigh(vectors)
    root = (axes * values.clamp(min=0).sqrt()) @ axes.T
    told = b @ b.T
    eigenvalues, u = torch.linalg.eigh(root @ told @ root)  # ascending
    deviations = eigenvalues.flip(0)[:width].clamp(min=0).sqrt()
    directions = told @ root @ u.flip(1)[:, :width] / deviations.clamp(min=1e-12)
    largest = directions.abs().argmax(0)
    return (directions * directions.gather(0, largest[None]).sign()).float().numpy()
