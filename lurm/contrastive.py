"""The contrastive loss of items (paper eq. 2-3) and of users (paper 2.2.4).

Letters: n pairs in the batch, H width.
"""

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Mean of l(x_i, y_i) and l(y_i, x_i) over the batch, a scalar (paper eq. 2-3).

    Row i of ``x`` and row i of ``y``, both (n, H), are a positive pair; the other 2n - 2 rows are its
    negatives. Similarity is the cosine divided by ``temperature``. Known as NT-Xent
    (Chen et al., SimCLR, arXiv 2002.05709); a smaller temperature weighs the hardest negatives more.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> round(nt_xent(x, x, 1.0).item(), 4)  # -log(e / (e + 2))
    0.5514
    """
    n = len(x)
    z = functional.normalize(torch.cat([x, y]), dim=1)  # (2n, H)
    logits = z @ z.T / temperature  # (2n, 2n)
    logits.fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * n, device=x.device).roll(n)
    return functional.cross_entropy(logits, partner)
