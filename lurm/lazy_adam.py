"""Adam for a table of which each step meets few rows: dense Adam's numbers at the cost of the rows met.

Dense Adam moves a row after every step, met or not: without a gradient its moments decay, and it goes on by
them. What such a row would have done in the steps it missed has a closed form, so it is done in one go when
the row is next met: :meth:`LazyAdam.catch_up` before the row is read. The rest of the table is not touched.

Letters: D rows, H width, n rows met.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HORIZON = 200  # missed steps after which the first moment is spent
CHUNK = 65_536  # rows brought up to date at once


class LazyAdam:
    """:class:`torch.optim.Adam` for one (D, H) parameter with sparse gradients; see the module.

    Raises:
        ValueError: a first moment that is not spent after HORIZON steps, or decays slower than the second's
            root; the closed form does not hold for it.
    """

    def __init__(
        self,
        table: torch.nn.Parameter,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not (0 <= betas[0] < betas[1] ** 0.5 < 1 and betas[0] ** HORIZON < 1e-9):
            raise ValueError(
                f"LazyAdam: expected betas with beta1 ** {HORIZON} below 1e-9 and beta1 below the root of "
                f"beta2, such as (0.9, 0.999), got {betas}"
            )
        self.table, self.learning_rate, self.betas, self.eps = table, learning_rate, betas, eps
        self.steps = 0
        # (D,) the step each row stands at; 0: not met
        self.reached = torch.zeros(len(table), dtype=torch.int64, device=table.device)
        self.mean, self.square = torch.zeros_like(table), torch.zeros_like(table)

    @torch.no_grad()
    def catch_up(self, rows: Tensor) -> None:
        """Bring the rows (n,), in any order and number, to where dense Adam has them by now."""
        late = rows.to(self.table.device).unique()
        reached = self.reached[late]
        late = late[(reached > 0) & (reached < self.steps)]
        steps, which = self.reached[late].unique(return_inverse=True)
        since = steps.cpu().numpy()
        moves, slacks = self._missed(since)
        gap = (self.steps - since).astype(np.float64)
        beta1, beta2 = self.betas
        for start in range(0, len(late), CHUNK):
            part, of = late[start : start + CHUNK], which[start : start + CHUNK]

            def column(values: NDArray[np.float64], of: Tensor = of) -> Tensor:
                return torch.from_numpy(values).to(self.table)[of, None]

            mean, square = self.mean[part], self.square[part]
            move = mean * column(moves) / (square.sqrt() + column(self.eps * slacks))
            self.table.index_add_(0, part, move, alpha=-1)
            self.mean[part] = mean * column(beta1**gap)
            self.square[part] = square * column(beta2**gap)
        self.reached[late] = self.steps

    def _missed(self, since: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What rows last met at each step ``since`` (k,) missed: their move is m c / (sqrt(v) + eps w).

        The missed step i moves a row by a_i m / (sqrt(v) q_i + eps), with a_i = lr beta1^i / (1 - beta1^s),
        q_i = beta2^(i/2) / sqrt(1 - beta2^s) and s = since + i. All together: c = sum a_i / q_i, and w, the
        mean of 1 / q_i, is exact to first order in eps / sqrt(v): to rounding where gradients are far
        above eps. Where they are as small as it, rows that are met now and again stay within 1.5 % of the
        table's longest move, and one that is met once and never again within 5 %.
        """
        beta1, beta2 = self.betas
        i = np.arange(1, HORIZON + 1, dtype=np.float64)
        s = since[:, None] + i  # (k, HORIZON)
        a = self.learning_rate * beta1**i / (1 - beta1**s) * (s <= self.steps)
        inverse_q = np.sqrt(1 - beta2**s) / beta2 ** (i / 2)
        moves = (a * inverse_q).sum(1)
        return moves, (a * inverse_q**2).sum(1) / moves

    @torch.no_grad()
    def step(self) -> None:
        """Move the rows that have a gradient, as Adam does, and forget the gradient."""
        if self.table.grad is None:
            raise ValueError("LazyAdam.step needs a gradient; call backward first")
        gradient = self.table.grad.coalesce()
        self.table.grad = None
        rows, g = gradient.indices()[0], gradient.values()  # (n,), (n, H)
        self.catch_up(rows)
        self.steps += 1
        beta1, beta2 = self.betas
        mean = torch.lerp(self.mean[rows], g, 1 - beta1)
        square = self.square[rows].mul_(beta2).addcmul_(g, g, value=1 - beta2)
        self.mean[rows], self.square[rows] = mean, square
        root = square.sqrt_().div_((1 - beta2**self.steps) ** 0.5).add_(self.eps)
        move = mean.div_(root)
        self.table.index_add_(0, rows, move, alpha=-self.learning_rate / (1 - beta1**self.steps))
        self.reached[rows] = self.steps

    def finish(self) -> None:
        """Bring all rows up to date, as before the table is saved; costs D rows once."""
        self.catch_up(torch.arange(len(self.table)))
