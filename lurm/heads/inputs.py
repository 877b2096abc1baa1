"""What a task may be told from beside the user vector: counts of the user's interests.

Letters: U users, M interests in all, F interests kept.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lurm.storage import month_files, row_groups

COUNTS = "counts"
MOST_INTERESTS = 2_000  # of more interests those of most behaviors; 200,000 users are then 1.6 GB
_ROWS_AT_ONCE = 1_048_576


def frequent_interests(bags: Sequence[Path], most: int = MOST_INTERESTS) -> np.ndarray:
    """The interests of most behaviors in the months' bags, at most so many, ascending, (F,) int64.

    bags: a file of `tables.BOI` for every month. Of equals those of lower number are kept.
    """
    totals = np.zeros(0)
    for path in bags:
        for rows in row_groups(path, _ROWS_AT_ONCE):
            interest = rows["interest"].to_numpy()
            count = rows["count"].to_numpy().astype(np.float64)
            size = max(len(totals), int(interest.max(initial=-1)) + 1)
            totals = np.pad(totals, (0, size - len(totals)))
            totals += np.bincount(interest, weights=count, minlength=size)
    order = np.argsort(-totals, kind="stable")[:most]
    return np.sort(order[totals[order] > 0])


def interest_counts(bags: Sequence[Path], user_ids: pa.Array, interests: np.ndarray) -> np.ndarray:
    """log(1 + behaviors with an interest in the whole history), (U, F) float32.

    Users without behaviors have zeros.

    Args:
        bags: a file of `tables.BOI` for every month of the history, up to the month that is looked from.
        user_ids: (U,) ids, each once.
        interests: (F,) the interests to count, ascending.
    """
    counts = np.zeros((len(user_ids), len(interests)), dtype=np.float32)
    if not len(interests):
        return counts
    for path in bags:
        for rows in row_groups(path, _ROWS_AT_ONCE):
            ids = rows["user_id"].combine_chunks()
            user = pc.index_in(ids, value_set=user_ids.cast(ids.type))
            interest = rows["interest"].to_numpy()
            column = np.minimum(np.searchsorted(interests, interest), len(interests) - 1)
            kept = np.asarray(user.is_valid()) & (interests[column] == interest)
            row = user.fill_null(0).to_numpy()[kept]  # a user has an interest once in a month
            counts[row, column[kept]] += rows["count"].to_numpy()[kept]
    return np.log1p(counts, out=counts)


def bags_until(folder: Path, months: Iterable[str], as_of: str) -> list[Path]:
    """The bags of all months up to ``as_of``.

    Raises:
        FileNotFoundError: a month has none.
    """
    return month_files(folder, [month for month in months if month <= as_of])
