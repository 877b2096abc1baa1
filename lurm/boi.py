"""Bag-of-Interests of a month: how often a user met each interest (paper 2.1.2, eq. 4).

The table holds counts. Counts add up over months, scales and late data; the logarithm of eq. 4 is taken
where a bag is used (:mod:`lurm.smen`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from lurm.database import one

# The one definition of the aggregation, in SQL that DuckDB and Spark both run. Weights are 1 where an
# item has one interest; decimals make sums of soft weights independent of the order of rows.
BOI_SQL = """
SELECT b.user_id,
       i.interest,
       CAST(SUM(i.weight) AS FLOAT) AS count
FROM behaviors b
JOIN (SELECT item_id, interest, CAST(weight AS DECIMAL(18, 6)) AS weight FROM item_interests) i
  ON b.item_id = i.item_id
GROUP BY b.user_id, i.interest
ORDER BY b.user_id, i.interest
"""

BEHAVIORS_SQL = "SELECT COUNT(*) FROM behaviors"

# An inner join is several times cheaper than UNASSIGNED_SQL, which is left to say what is wrong.
ASSIGNED_SQL = """
SELECT COUNT(*)
FROM behaviors b JOIN (SELECT DISTINCT item_id FROM item_interests) i ON b.item_id = i.item_id
"""

UNASSIGNED_SQL = """
SELECT COUNT(*) AS behaviors, COUNT(DISTINCT b.item_id) AS items
FROM behaviors b LEFT JOIN item_interests i ON b.item_id = i.item_id
WHERE i.item_id IS NULL
"""


def boi_query(
    connection: duckdb.DuckDBPyConnection, behaviors: Path, item_interests: Path
) -> tuple[str, int]:
    """The query for every user's bag (:data:`lurm.tables.BOI`), and the number of behaviors in it.

    Its rows are sorted by user, then interest. ``behaviors`` and ``item_interests`` are parquet files of
    :data:`lurm.tables.BEHAVIORS` and :data:`lurm.tables.ITEM_INTERESTS`; they become views of the
    connection.

    Raises:
        ValueError: behaviors of items without an interest.
    """
    for view, path in {"behaviors": behaviors, "item_interests": item_interests}.items():
        connection.read_parquet(str(path)).create_view(view, replace=True)
    n_behaviors = check_assigned(lambda sql: one(connection, sql), behaviors, item_interests)
    return BOI_SQL, n_behaviors


def check_assigned(
    one_row: Callable[[str], tuple[Any, ...]], behaviors: Path, item_interests: Path
) -> int:
    """The number of behaviors, all of items with an interest; ``one_row`` is an engine with the views.

    Raises:
        ValueError: behaviors of items without an interest.
    """
    (n_behaviors,), (n_assigned,) = one_row(BEHAVIORS_SQL), one_row(ASSIGNED_SQL)
    if n_assigned < n_behaviors:
        lost, items = one_row(UNASSIGNED_SQL)
        raise ValueError(
            f"{behaviors}: {items:,} items with {lost:,} behaviors have no interest in "
            f"{item_interests}; rerun assign_items for the month"
        )
    return int(n_behaviors)
