"""What a user did up to a month: counts per interest over the whole history and over its last months.

Whole months are the smallest window, since bags are monthly. After WINDOW months without behaviors nothing
here changes any more, so that the vector of a user who stays away does not have to be computed again.

Letters: n users, D interests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lurm.timelines import Timelines, ranges

WINDOW = 3  # months of the longer window; the shorter one is the month itself
N_ACTIVITY = 6  # columns of History.activity


@dataclass(frozen=True)
class History:
    """Counts per interest of n users, as of one month. Rows without behaviors are allowed."""

    total: sparse.csr_matrix  # (n, D) float32, all months
    month: sparse.csr_matrix  # (n, D) float32, the month itself
    window: sparse.csr_matrix  # (n, D) float32, the month and the WINDOW - 1 before it
    n_months: NDArray[np.int64]  # (n,) months with behaviors
    span: NDArray[np.int64]  # (n,) months from the first with behaviors to the last, both included
    away: NDArray[np.int64]  # (n,) months since the last with behaviors, WINDOW at most

    def __len__(self) -> int:
        """Number of users."""
        return len(self.n_months)

    def take(self, rows: slice | NDArray[np.int64]) -> "History":
        """The history of the users in these rows."""
        return History(
            self.total[rows],
            self.month[rows],
            self.window[rows],
            self.n_months[rows],
            self.span[rows],
            self.away[rows],
        )

    def activity(self) -> NDArray[np.float32]:
        """log(1 + x) of six figures per user, (n, 6) float32.

        Behaviors in all, in the window and in the month; months with behaviors; months from the first to
        the last of them; months since the last.
        """
        sums = [np.asarray(c.sum(axis=1)).ravel() for c in (self.total, self.window, self.month)]
        columns = [*sums, self.n_months, self.span, self.away]
        return np.log1p(np.stack(columns, axis=1)).astype(np.float32)


def timeline_history(
    timelines: Timelines,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    month: int,
    n_interests: int,
) -> History:
    """The history as of ``month`` of users whose bags are ``first[i]:last[i]``, none of a later month.

    Args:
        timelines: bags of all users.
        first: (n,) row of each user's first bag.
        last: (n,) row after each user's last bag; equal to ``first`` for a user without behaviors.
        month: number of the month (:func:`lurm.months.month_number`).
        n_interests: D.
    """
    n_bags = last - first
    bags = ranges(first, last)
    user = np.repeat(np.arange(len(first)), n_bags)
    age = month - timelines.months[bags].astype(np.int64)
    begin, end = timelines.first_entry[bags], timelines.first_entry[bags + 1]
    entries = ranges(begin, end)
    entry_user, entry_age = (np.repeat(values, end - begin) for values in (user, age))
    interests, counts = timelines.interests[entries], timelines.counts[entries]

    def counted(newest: int) -> sparse.csr_matrix:
        kept = entry_age < newest
        return sparse.csr_matrix(
            (counts[kept], (entry_user[kept], interests[kept])), shape=(len(first), n_interests)
        )

    known = n_bags > 0
    oldest, latest = np.zeros((2, len(first)), dtype=np.int64)
    oldest[known] = timelines.months[first[known]]
    latest[known] = timelines.months[last[known] - 1]
    return History(
        total=counted(np.iinfo(np.int64).max),
        month=counted(1),
        window=counted(WINDOW),
        n_months=n_bags.astype(np.int64),
        span=np.where(known, latest - oldest + 1, 0),
        away=np.where(known, np.minimum(month - latest, WINDOW), WINDOW),
    )
