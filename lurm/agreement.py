"""A narrower user vector: the directions in which the two halves of a life agree.

What a user's vector says of a habit is in both halves of the user's life; what it owes to chance is in
one. So the vectors of first and second halves are compared over all users, the directions in which they
vary together are kept, and each is shrunk by the correlation found, as noise is shrunk from a signal (N.
Wiener, 1949). It is the linear answer to the question that SMEN is trained on: which two stretches belong
to one user (J. HaoChen et al., "Provable Guarantees for Self-Supervised Deep Learning with Spectral
Contrastive Loss", NeurIPS 2021, https://arxiv.org/abs/2106.04156).

Departure: the paper publishes all M x H numbers. `pretrain_smen.published_width: 0` does too.

The algebra is torch's, which gives the same bytes in a container and outside; numpy's chooses its
kernels by the environment.

Letters: U users with two halves, d numbers of a vector before (M x H), k after.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray


def agreeing_directions(
    halves: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]], width: int
) -> NDArray[np.float32]:
    """The map (d, k) to the ``width`` directions in which halves vary most together, each shrunk.

    With C the covariance of first and second halves, made symmetric, the directions v are its
    eigenvectors of largest eigenvalue c; the map's columns are v * c / (s1 * s2), where s1 and s2 are the
    spreads of the halves along v. Directions in which halves do not agree become zero. The sign of a
    column is that of its largest entry.

    Args:
        halves: vectors of the first and of the second half of the same users, (., d) each, in parts.
        width: k, at most d.

    Raises:
        ValueError: there are fewer than two users with two halves, or fewer numbers than ``width``.
    """
    n, sums, products = 0, torch.zeros(0), torch.zeros(0)
    for part in halves:
        both = torch.from_numpy(np.concatenate(part, axis=1, dtype=np.float64))
        sums = both.sum(0) + (sums if n else 0)
        products = both.T @ both + (products if n else 0)
        n += len(both)
    if n < 2:
        raise ValueError(
            "pretrain_smen.published_width: expected users with behaviors in two months or more, "
            f"found {n}; land more months, or set it to 0 to publish vectors as they are"
        )
    covariance = products / n - torch.outer(sums, sums) / n**2  # (2d, 2d)
    d = len(sums) // 2
    if width > d:
        raise ValueError(
            f"pretrain_smen.published_width: expected at most n_anchors x width ({d}), got {width}"
        )
    one, other, across = covariance[:d, :d], covariance[d:, d:], covariance[:d, d:]
    eigenvalues, vectors = torch.linalg.eigh((across + across.T) / 2)  # ascending
    directions, shared = vectors.flip(1)[:, :width], eigenvalues.flip(0)[:width].clamp(min=0)
    variances = [(directions * (c @ directions)).sum(0).clamp(min=0) for c in (one, other)]
    agreement = shared / (variances[0] * variances[1]).sqrt().clamp(min=1e-12)
    largest = directions.abs().argmax(0)
    signs = directions.gather(0, largest[None]).sign()
    return (directions * signs * agreement.clamp(max=1)).float().numpy()
