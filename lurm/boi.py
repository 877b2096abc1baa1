"""Bag-of-Interests of a month: how often a user met each interest (paper 2.1.2, eq. 4).

The table holds counts. Counts add up over months, scales and late data; the logarithm of eq. 4 is taken
where a bag is used (:mod:`lurm.smen`).
"""

from pathlib import Path

import duckdb

from lurm.database import one

# The one definition of the aggregation, in SQL that DuckDB and Spark both run. Weights are 1 where an
# item has one interest; decimals make sums of soft weights independent of the order of rows.
BOI_SQL = """
SELECT b.user_id,
       i.interest,
       CAST(SUM(CAST(i.weight AS DECIMAL(18, 6))) AS FLOAT) AS count
FROM behaviors b JOIN item_interests i ON b.item_id = i.item_id
GROUP BY b.user_id, i.interest
ORDER BY b.user_id, i.interest
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
    lost, items = one(connection, UNASSIGNED_SQL)
    if lost:
        raise ValueError(
            f"{behaviors}: {items:,} items with {lost:,} behaviors have no interest in "
            f"{item_interests}; rerun assign_items for the month"
        )
    (n_behaviors,) = one(connection, "SELECT COUNT(*) FROM behaviors")
    return BOI_SQL, n_behaviors
