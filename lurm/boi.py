"""Bag-of-Interests of a month: how often a user met each interest (paper 2.1.2, eq. 4).

The table holds counts. Counts add up over months, scales and late data; the logarithm of eq. 4 is taken
where a bag is used (:mod:`lurm.smen`).
"""

from pathlib import Path

import duckdb

from lurm.database import literal, one
from lurm.storage import null_count, read_schema, row_count
from lurm.tables import BEHAVIORS, ITEM_INTERESTS, check_columns, check_same_ids

# The one definition of the aggregation, in SQL that DuckDB and Spark both run. The join drops behaviors of
# items without an interest, which check_assigned misses in the counts: an outer join costs a quarter more.
BOI_SQL = """
SELECT b.user_id,
       i.interest,
       CAST({share} AS FLOAT) AS count
FROM behaviors b
JOIN (
    SELECT item_id, interest, ROUND(CAST(weight AS DOUBLE) * 1e6) AS millionths FROM item_interests
) i ON b.item_id = i.item_id
GROUP BY b.user_id, i.interest
ORDER BY b.user_id, i.interest
"""
# What behaviors add up to: their number where every item has one interest, else their weights, in whole
# millionths, so that sums are exact and do not hang on the order of rows.
HARD, SOFT = "COUNT(*)", "SUM(i.millionths) / 1e6"
# How far counts of a behavior may be from 1 together: rounded to float32, and of shares that add up to 1.
ROUNDED = {True: 2.0**-24, False: 1e-4}

# Whether every item has one interest.
HARD_SQL = "SELECT COUNT(*) = 0 FROM item_interests WHERE NOT weight = 1"

UNASSIGNED_SQL = """
SELECT COUNT(*) AS behaviors, COUNT(DISTINCT b.item_id) AS items
FROM behaviors b LEFT JOIN item_interests i ON b.item_id = i.item_id
WHERE i.item_id IS NULL
"""

# Items that are not whole among the interests of a map; shares are float32, and rounded.
UNFIT_SQL = """
SELECT COUNT(*), MIN(item_id)
FROM (
    SELECT item_id FROM item_interests GROUP BY item_id
    HAVING NOT (MIN(weight) > 0.9e-6 AND ABS(SUM(weight) - 1) <= 1e-5 AND MIN(interest) >= 0)
)
"""


def boi_query(connection: duckdb.DuckDBPyConnection, behaviors: Path, item_interests: Path) -> str:
    """The query for every user's bag (:data:`lurm.tables.BOI`), sorted by user, then interest.

    ``behaviors`` and ``item_interests`` are parquet files of :data:`lurm.tables.BEHAVIORS` and
    :data:`lurm.tables.ITEM_INTERESTS`; they become views of the connection. What it gives must pass
    :func:`check_assigned`. Raises as :func:`check_inputs` does.
    """
    check_inputs(behaviors, item_interests)
    _create_views(connection, behaviors, item_interests)
    (hard,) = one(connection, HARD_SQL)
    return boi_sql(hard)


def boi_sql(hard: bool) -> str:
    """The query over the views; ``hard`` is what HARD_SQL says of them."""
    return BOI_SQL.format(share=HARD if hard else SOFT)


def check_inputs(behaviors: Path, item_interests: Path) -> None:
    """Return if both files have their columns, and a value in every row.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is truncated, or a column is missing, of another type, or has nulls; items are
            numbers in one of them and strings in the other.
    """
    counted = {"user_id", "item_id", "interest", "weight"}
    for path, columns in ((behaviors, BEHAVIORS), (item_interests, ITEM_INTERESTS)):
        check_columns(read_schema(path), columns, str(path))
        for column in counted & columns.keys():
            nulls = null_count(path, column)
            if nulls:
                raise ValueError(
                    f"{path}: expected {column} in every row, found {nulls:,} rows without; rerun "
                    "the stage that writes the file"
                )
    mapped = read_schema(item_interests)
    check_same_ids(read_schema(behaviors), mapped, "item_id", str(behaviors))


def counted(bags: duckdb.DuckDBPyRelation) -> float:
    """All counts of the bags together."""
    ((total,),) = bags.aggregate("coalesce(sum(CAST(count AS DOUBLE)), 0)").fetchall()
    return float(total)


def check_assigned(
    connection: duckdb.DuckDBPyConnection,
    n_counted: float,
    behaviors: Path,
    item_interests: Path,
) -> None:
    """Return if every behavior is in its user's bag; ``n_counted`` is what :func:`counted` says of them.

    If each item is whole among the interests, each behavior counts 1. So behaviors of a hard map are looked
    up one by one only where counts do not add up to them.

    Raises:
        ValueError: weights of an item are below 1e-6 or do not add up to 1; behaviors of items without an
            interest.
        OSError: counts do not add up to the behaviors, all of which have one: bags were lost or doubled.
    """
    _create_views(connection, behaviors, item_interests)
    n_unfit, first = one(connection, UNFIT_SQL)
    if n_unfit:
        raise ValueError(
            f"{item_interests}: expected weights of every item from 1e-6 on that add up to 1, and "
            f"interests from 0 on, found {n_unfit:,} items with others, {first!r} among them; rerun the "
            "stage that writes the file"
        )
    (hard,), n_behaviors = one(connection, HARD_SQL), row_count(behaviors)
    if hard and n_counted == n_behaviors:
        return
    lost, items = one(connection, UNASSIGNED_SQL)
    if lost:
        raise ValueError(
            f"{behaviors}: {items:,} items with {lost:,} behaviors have no interest in "
            f"{item_interests}; rerun assign_items for the month"
        )
    if abs(n_counted - n_behaviors) > ROUNDED[hard] * n_behaviors:
        raise OSError(
            f"{behaviors}: expected bags that add up to its {n_behaviors:,} behaviors, found "
            f"{n_counted:,.2f}: some were lost or doubled; run again, with Spark in a folder that this "
            "process and its workers share"
        )


def _create_views(
    connection: duckdb.DuckDBPyConnection, behaviors: Path, item_interests: Path
) -> None:
    for view, path in {"behaviors": behaviors, "item_interests": item_interests}.items():
        connection.execute(f"CREATE OR REPLACE VIEW {view} AS FROM read_parquet({literal(path)})")
