"""Counts with recency windows and volume: what a practitioner adds to counts first.

Letters: U users, K columns of counts.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WINDOWS = (1, 3, 6)  # last months


def with_windows(
    counts: Callable[[pa.Table], np.ndarray], behaviors: pa.Table, user_ids: pa.Array
) -> np.ndarray:
    """Counts of the whole history, of the last 1, 3 and 6 months, and volume, (U, 4 K + 8) float32.

    Volume is log(1 + x) of behaviors and of active days, for the history and for each window.

    Args:
        counts: makes counts (U, K) of a table of behaviors.
        behaviors: ``user_id``, ``item_id``, ``timestamp``, all before the cut-off.
        user_ids: the users, (U,).
    """
    end = pc.max(behaviors["timestamp"])
    blocks, volume = [], []
    for months in (None, *WINDOWS):
        part = behaviors
        if months is not None:
            since = pc.subtract(
                end, pa.scalar(int(months * 30.44 * 86_400_000_000), pa.duration("us"))
            )
            part = behaviors.filter(pc.greater(behaviors["timestamp"], since))
        blocks.append(counts(part))
        user = pc.index_in(part["user_id"], value_set=user_ids)
        day = pc.divide(part["timestamp"].cast(pa.int64()), 86_400_000_000)
        table = pa.table({"user": user, "day": day}).drop_null()
        days = table.group_by(["user", "day"]).aggregate([])
        for rows in (table, days):
            volume.append(np.bincount(rows["user"].to_numpy(), minlength=len(user_ids)))
    return np.concatenate([*blocks, np.log1p(np.stack(volume, axis=1))], axis=1).astype(np.float32)
