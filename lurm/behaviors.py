"""Clean behaviors of a month out of a delivery: every row is kept or set aside with one reason.

A delivery is a parquet file of :data:`lurm.tables.LANDED_BEHAVIORS`, with more columns if the
customer likes; of those only ``behavior_type`` stays. DuckDB reads it in a stream, so a month may
be larger than memory.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from lurm.database import blank, check_names, literal, name, one, write_query
from lurm.tables import LANDED_BEHAVIORS, check_columns, check_same_ids

# Why a row is set aside. A row has the first reason that holds, in this order.
REASONS = {
    "user_id_missing": "no user id, or an empty one",
    "item_id_missing": "no item id, or an empty one",
    "timestamp_missing": "no timestamp",
    "outside_month": "timestamp outside the month",
    "unknown_item": "item not in the catalog as known that month",
    "repeated_row": "equal to an earlier row in every delivered column",
}
EXAMPLES = 3  # rows shown of those set aside for one reason
HEAVIEST = 10  # users shown of those with very many behaviors
_QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99}


def check_delivery(delivery: pa.Schema, catalog: pa.Schema, where: str) -> None:
    """Return if a delivery of behaviors keeps the contract and speaks of the catalog's items.

    Raises:
        ValueError: a column is missing, of the wrong type or has a name that is taken; the message
            says what to do.
    """
    expected = dict(LANDED_BEHAVIORS)
    if "timestamp" in delivery.names:
        _check_timestamp(delivery.field("timestamp").type, where)
        del expected["timestamp"]
    check_columns(delivery, expected, where)
    check_names(delivery, where)
    check_same_ids(delivery, catalog, "item_id", where)


def check_mix_column(catalog: pa.Schema, mix_column: str) -> None:
    """Return if the catalog has the column whose mix is watched.

    Raises:
        ValueError: it has not; the message names those that are there.
    """
    if mix_column not in catalog.names:
        raise ValueError(
            f"compare_months.mix_column: expected a column of the catalog "
            f"({', '.join(catalog.names)}), got {mix_column}"
        )


def _check_timestamp(kind: pa.DataType, where: str) -> None:
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return
    if pa.types.is_timestamp(kind):
        found = f"{kind} without a time zone"
        cure = 'df["timestamp"].dt.tz_localize("UTC"), or the zone that the clock was in'
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        found, cure = f"{kind}", 'pd.to_datetime(df["timestamp"], unit="s", utc=True)'
    else:
        found, cure = f"{kind}", 'pd.to_datetime(df["timestamp"], utc=True)'
    raise ValueError(
        f"{where}: column 'timestamp' should be instants, timestamp[us, tz=UTC], is {found}; "
        f"convert it before delivery, with pandas: {cure}"
    )


def clean_month(
    connection: duckdb.DuckDBPyConnection,
    delivery: Path,
    catalog: Path,
    start: datetime,
    end: datetime,
    clean: Path,
    quarantine: Path,
) -> dict[str, int]:
    """Write the clean month and the quarantine; returns the counts.

    ``clean`` gets :data:`lurm.tables.BEHAVIORS` (and ``behavior_type`` if delivered), ids as
    int64 or string, sorted by user, time, item. ``quarantine`` gets :data:`lurm.tables.QUARANTINE`
    and every delivered column as text, sorted by row, rows counted from 0.

    A row that equals an earlier one in *every* delivered column is taken for a second delivery of
    the same behavior. Who counts two alike delivers a column that tells them apart, such as a line
    number.

    Args:
        connection: see :func:`lurm.database.database`.
        delivery: parquet file that :func:`check_delivery` let pass.
        catalog: parquet file of :data:`lurm.tables.CATALOG`.
        start: first instant that belongs to the month.
        end: first instant that does not any more.
        clean: file to write.
        quarantine: file to write.

    Returns:
        ``rows_in``, ``rows_clean``, ``rows_set_aside``, one count per key of :data:`REASONS`, and
        ``same_moment``: clean rows equal to another in user, item and time but not in all columns.
    """
    connection.execute(
        f"CREATE OR REPLACE VIEW delivered AS "
        f"FROM read_parquet({literal(delivery)}, file_row_number = true)"
    )
    kinds = {str(row[0]): str(row[1]) for row in connection.sql("DESCRIBE delivered").fetchall()}
    del kinds["file_row_number"]
    moment = "user_id, item_id, timestamp"
    whole = ", ".join(map(name, kinds))
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE set_aside AS
        SELECT file_row_number AS row, CASE
                WHEN {_missing("user_id", kinds)} THEN 'user_id_missing'
                WHEN {_missing("item_id", kinds)} THEN 'item_id_missing'
                WHEN timestamp IS NULL THEN 'timestamp_missing'
                WHEN CAST(timestamp AS TIMESTAMPTZ) < $start
                  OR CAST(timestamp AS TIMESTAMPTZ) >= $end THEN 'outside_month'
                WHEN item_id NOT IN (SELECT item_id FROM read_parquet({literal(catalog)}))
                    THEN 'unknown_item'
            END AS reason
        FROM delivered WHERE reason IS NOT NULL
        """,
        {"start": start, "end": end},
    )
    # Few rows share user, item and time with another; only those are compared as a whole.
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE alike AS
        WITH good AS (FROM delivered ANTI JOIN set_aside ON file_row_number = row),
        moments AS (
            SELECT hash({moment}) FROM good
            GROUP BY hash({moment}) HAVING count(*) > 1
        )
        SELECT file_row_number AS row,
            row_number() OVER (PARTITION BY {moment} ORDER BY file_row_number) AS nth_moment,
            row_number() OVER (PARTITION BY {whole} ORDER BY file_row_number) AS nth_whole
        FROM good WHERE hash({moment}) IN (FROM moments);
        INSERT INTO set_aside SELECT row, 'repeated_row' FROM alike WHERE nth_whole > 1
        """
    )
    same_moment, repeated = one(
        connection,
        "SELECT count(*) FILTER (nth_moment > 1), count(*) FILTER (nth_whole > 1) FROM alike",
    )

    kept = {column: _as_clean(column, kinds) for column in ("user_id", "item_id", "timestamp")}
    if "behavior_type" in kinds:
        kept["behavior_type"] = "CAST(behavior_type AS VARCHAR)"
    order = ["user_id", "timestamp", "item_id", *list(kept)[3:]]
    rows_clean = write_query(
        connection,
        f"SELECT {', '.join(f'{value} AS {column}' for column, value in kept.items())} "
        "FROM delivered ANTI JOIN set_aside ON file_row_number = row "
        f"ORDER BY {', '.join(order)}",
        clean,
    )
    rows_set_aside = write_query(
        connection,
        "SELECT row, reason, "
        + ", ".join(f"CAST({name(column)} AS VARCHAR) AS {name(column)}" for column in kinds)
        + " FROM delivered JOIN set_aside ON file_row_number = row ORDER BY row",
        quarantine,
    )
    counted = dict(
        connection.sql("SELECT reason, count(*) FROM set_aside GROUP BY reason").fetchall()
    )
    (rows_in,) = one(connection, "SELECT count(*) FROM delivered")
    return {
        "rows_in": rows_in,
        "rows_clean": rows_clean,
        "rows_set_aside": rows_set_aside,
        "same_moment": same_moment - repeated,
        **{reason: counted.get(reason, 0) for reason in REASONS},
    }


def _missing(column: str, kinds: dict[str, str]) -> str:
    """SQL that holds where an identifier is null or blank."""
    empty = f" OR {blank(column)}" if kinds[column] == "VARCHAR" else ""
    return f"{column} IS NULL{empty}"


def _as_clean(column: str, kinds: dict[str, str]) -> str:
    """SQL for a column in its stored type."""
    if column == "timestamp":
        return "CAST(timestamp AS TIMESTAMPTZ)"
    return column if kinds[column] == "VARCHAR" else f"CAST({column} AS BIGINT)"


def likely_month(
    connection: duckdb.DuckDBPyConnection, delivery: Path, timezone: str
) -> str | None:
    """The month that most timestamps of a delivery belong to, None without timestamps."""
    (month,) = one(
        connection,
        "SELECT mode(strftime(CAST(timestamp AS TIMESTAMPTZ) AT TIME ZONE $zone, '%Y-%m')) "
        f"FROM read_parquet({literal(delivery)})",
        {"zone": timezone},
    )
    return None if month is None else str(month)


def profile_month(
    connection: duckdb.DuckDBPyConnection, clean: Path, catalog: Path, mix_column: str
) -> dict[str, object]:
    """What a clean month looks like: volume, behaviors per user, and the mix of ``mix_column``.

    Returns:
        ``behaviors``, ``users``, ``items``, ``user_id_type``, ``behaviors_per_user`` (median, p90,
        p99, max) and ``mix``: share of the behaviors by value of the catalog's ``mix_column``,
        ``""`` for none.
    """
    source = f"read_parquet({literal(clean)})"
    shares = ", ".join(f"quantile_disc(n, {share})" for share in _QUANTILES.values())
    *quantiles, most, users, behaviors = one(
        connection,
        f"SELECT {shares}, max(n), count(*), coalesce(sum(n), 0)::BIGINT "
        f"FROM (SELECT count(*) AS n FROM {source} GROUP BY user_id)",
    )
    items, user_id_type = one(
        connection, f"SELECT count(DISTINCT item_id), max(typeof(user_id)) FROM {source}"
    )
    mix = connection.sql(
        f"SELECT coalesce(catalog.{name(mix_column)}, ''), count(*) FROM {source} "
        f"JOIN read_parquet({literal(catalog)}) AS catalog USING (item_id) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return {
        "behaviors": behaviors,
        "users": users,
        "items": items,
        "user_id_type": user_id_type,
        "behaviors_per_user": {
            key: value or 0
            for key, value in zip([*_QUANTILES, "max"], [*quantiles, most], strict=True)
        },
        "mix": {value: n / behaviors for value, n in mix},
    }


def heavy_users(
    connection: duckdb.DuckDBPyConnection, clean: Path, more_than: int
) -> list[tuple[int | str, int]]:
    """Users with more than ``more_than`` behaviors in the month and how many, most first."""
    return connection.sql(
        f"SELECT user_id, count(*) AS n FROM read_parquet({literal(clean)}) GROUP BY user_id "
        f"HAVING n > {more_than:d} ORDER BY n DESC, user_id"
    ).fetchall()


def set_aside(counts: dict[str, int]) -> list[str]:
    """How many rows were set aside for each reason that occurred, in words.

    >>> set_aside(dict.fromkeys(REASONS, 0) | {"timestamp_missing": 2})
    ['2 rows set aside: no timestamp']
    """
    return [
        f"{counts[reason]} rows set aside: {meaning}"
        for reason, meaning in REASONS.items()
        if counts[reason]
    ]


def details(
    connection: duckdb.DuckDBPyConnection,
    clean: Path,
    quarantine: Path,
    heavy: list[tuple[int | str, int]],
    timezone: str,
) -> dict[str, Any]:
    """What the page shows of a month beyond its counts, named as ``validation_page`` takes it."""
    return {
        "heavy_users": heavy[:HEAVIEST],
        "days": behaviors_per_day(connection, clean, timezone),
        "examples": examples(connection, quarantine, EXAMPLES),
        "timezone": timezone,
    }


def behaviors_per_day(
    connection: duckdb.DuckDBPyConnection, clean: Path, timezone: str
) -> list[tuple[str, int]]:
    """Days such as ``"2017-05-31"`` in the calendar of ``timezone``, with their behaviors."""
    return connection.execute(
        "SELECT strftime(timestamp AT TIME ZONE $zone, '%Y-%m-%d') AS day, count(*) "
        f"FROM read_parquet({literal(clean)}) GROUP BY day ORDER BY day",
        {"zone": timezone},
    ).fetchall()


def examples(
    connection: duckdb.DuckDBPyConnection, quarantine: Path, per_reason: int
) -> list[dict[str, str | int]]:
    """The first ``per_reason`` rows set aside for each reason, as delivered."""
    found = connection.sql(
        f"FROM read_parquet({literal(quarantine)}) QUALIFY "
        f"row_number() OVER (PARTITION BY reason ORDER BY row) <= {per_reason:d} ORDER BY row"
    )
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
