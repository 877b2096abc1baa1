"""Public data sets cut into monthly deliveries; what the adapters beside this module share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from lurm.console import progress
from lurm.landing import publish, staging
from lurm.months import month_bounds, month_name, month_number
from lurm.tables import TIMESTAMP

# What DuckDB may hold in memory; the rest waits on the landing place's disk.
MEMORY_LIMIT = "2GB"
# Rows held in memory while a file is written.
ROWS_PER_GROUP = 1 << 20


@dataclass(frozen=True)
class Landed:
    """What an example put into the landing place, and what a reader of its figures should know."""

    behaviors: dict[str, int]  # rows per month
    left_out: int  # rows outside the months asked for
    alike: int  # rows beyond the first with the same user, item and time
    users: int  # users with behaviors
    items: int  # catalog records
    shared_text: int  # items whose text another item has too
    without_text: int  # items whose text columns are all empty
    unknown_items: int  # item ids among the behaviors that have no record
    unknown_rows: int  # and the rows they have
    remarks: dict[str, int]  # what the adapter itself found
    timezone: str  # the calendar of the months
    files: dict[str, str]  # "new", "replaced" or "unchanged", by path

    def lines(self) -> list[str]:
        """The figures as sentences, one a line."""
        changed = sum(state != "unchanged" for state in self.files.values())
        return [
            *(f"{month}: {n:,} behaviors" for month, n in self.behaviors.items()),
            f"behaviors: {sum(self.behaviors.values()):,} of {self.users:,} users, "
            f"{self.alike:,} of them repeating a row in user, item and time; "
            f"{self.left_out:,} left out, being of other months",
            f"items: {self.items:,} records; {self.shared_text:,} share their text with another, "
            f"{self.without_text:,} have none",
            f"items without a record: {self.unknown_items:,} ids, {self.unknown_rows:,} behaviors",
            *(f"{remark}: {n:,}" for remark, n in self.remarks.items()),
            f"files: {changed} written, {len(self.files) - changed} unchanged",
            f"calendar.timezone: {self.timezone}",
        ]


@contextmanager
def working_tables(landing: Path | str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection of bounded memory, whose tables lie beside ``landing`` while it lasts.

    Raises:
        OSError: DuckDB could not read its input or write its tables.
    """
    try:
        with (
            staging(landing) as folder,
            duckdb.connect(
                folder / "tables.duckdb",
                config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(folder / "spill")},
            ) as connection,
        ):
            yield connection
    except duckdb.Error as error:
        raise OSError(
            f"expected complete input and room beside {landing}, got {error}; fetch the input "
            "again, or make room"
        ) from error


def land_tables(
    connection: duckdb.DuckDBPyConnection,
    landing: Path | str,
    timezone: str,
    since: str | None = None,
    through: str | None = None,
    remarks: Mapping[str, int] | None = None,
) -> Landed:
    """Write the tables of ``connection`` as monthly deliveries; returns the counts.

    Public data sets date no catalog, so an item enters it in the month of its first behavior, and
    an item without behaviors is there from the opening: no delivery tells of a later month. The
    same tables give the same bytes.

    Args:
        connection: holds ``behaviors`` (user_id, item_id, timestamp: naive, UTC), ``items``
            (item_id and text columns, one row per item), perhaps ``users`` (user_id, attributes).
        landing: folder to write to.
        timezone: IANA name of the calendar whose months the data set follows.
        since: first month to land; its opening catalog holds all items of earlier months.
        through: last month to land.
        remarks: counts of the adapter's own, to stand among the others.

    Raises:
        ValueError: there are no behaviors, or none in the months asked for.
    """
    connection.execute(
        "CREATE TEMP TABLE in_order AS SELECT user_id, item_id, timestamp FROM behaviors "
        "ORDER BY timestamp, user_id, item_id"
    )
    connection.execute(
        "CREATE TEMP TABLE catalog AS SELECT items.*, first_seen FROM items LEFT JOIN "
        "(SELECT item_id, min(timestamp) AS first_seen FROM in_order GROUP BY item_id) "
        "USING (item_id) ORDER BY first_seen, item_id"
    )
    first, last = _only_row(connection, "SELECT min(timestamp), max(timestamp) FROM in_order")
    if first is None:
        raise ValueError("expected behaviors, found none; is the input the right file?")
    months = _months(_month_of(first, timezone), _month_of(last, timezone), since, through)

    with staging(landing) as folder:
        rows = {}
        for month in progress(months, "months"):
            start, end = _naive_bounds(month, timezone)
            rows[month] = _write(
                connection,
                "FROM in_order WHERE timestamp >= $start AND timestamp < $end "
                "ORDER BY timestamp, user_id, item_id",
                {"start": start, "end": end},
                folder / "behaviors" / f"{month}.parquet",
            )
            if month != months[0]:
                new_items = folder / "items" / f"{month}.parquet"
                n_items = _write(
                    connection,
                    "SELECT * EXCLUDE first_seen FROM catalog "
                    "WHERE first_seen >= $start AND first_seen < $end ORDER BY item_id",
                    {"start": start, "end": end},
                    new_items,
                )
                if n_items == 0:
                    new_items.unlink()
        _write(
            connection,
            "SELECT * EXCLUDE first_seen FROM catalog "
            "WHERE first_seen IS NULL OR first_seen < $end ORDER BY item_id",
            {"end": _naive_bounds(months[0], timezone)[1]},
            folder / "items.parquet",
        )
        if ("users",) in connection.sql("SHOW TABLES").fetchall():
            _write(connection, "FROM users ORDER BY user_id", {}, folder / "users.parquet")
        files = publish(folder, landing)

    return Landed(
        behaviors=rows,
        **_count(
            connection,
            _naive_bounds(months[0], timezone)[0],
            _naive_bounds(months[-1], timezone)[1],
        ),
        remarks=dict(remarks or {}),
        timezone=timezone,
        files=files,
    )


def _count(connection: duckdb.DuckDBPyConnection, start: datetime, end: datetime) -> dict[str, int]:
    """The counts of :class:`Landed` for the behaviors from ``start`` to ``end`` and the catalog."""
    window = {"start": start, "end": end}
    inside = "FROM in_order WHERE timestamp >= $start AND timestamp < $end"
    rows, users, distinct = _only_row(
        connection,
        "SELECT count(*), count(DISTINCT user_id), "
        f"count(DISTINCT (user_id, item_id, timestamp)) {inside}",
        window,
    )
    (all_rows,) = _only_row(connection, "SELECT count(*) FROM in_order")
    columns = connection.sql("FROM items").columns
    text = ", ".join(f'"{name}"' for name in columns if name != "item_id")
    items, shared_text, without_text = _only_row(
        connection,
        "SELECT sum(n), sum(n) FILTER (n > 1), sum(n) FILTER (empty) FROM "
        f"(SELECT count(*) AS n, concat({text}) = '' AS empty FROM catalog "
        f"WHERE first_seen IS NULL OR first_seen < $end GROUP BY {text})",
        {"end": end},
    )
    unknown_items, unknown_rows = _only_row(
        connection,
        f"SELECT count(DISTINCT item_id), count(*) FROM ({inside}) ANTI JOIN items USING (item_id)",
        window,
    )
    return {
        "left_out": all_rows - rows,
        "alike": rows - distinct,
        "users": users,
        "items": int(items or 0),
        "shared_text": int(shared_text or 0),
        "without_text": int(without_text or 0),
        "unknown_items": unknown_items,
        "unknown_rows": unknown_rows,
    }


def _only_row(
    connection: duckdb.DuckDBPyConnection, query: str, values: dict[str, datetime] | None = None
) -> tuple:
    (row,) = connection.execute(query, values or {}).fetchall()
    return row


def _month_of(instant: datetime, timezone: str) -> str:
    """The month of a naive UTC instant in the calendar of ``timezone``."""
    return f"{instant.replace(tzinfo=UTC).astimezone(ZoneInfo(timezone)):%Y-%m}"


def _naive_bounds(month: str, timezone: str) -> tuple[datetime, datetime]:
    """First instant of the month and of the next, naive in UTC as the tables have them."""
    start, end = month_bounds(month, timezone)
    return start.replace(tzinfo=None), end.replace(tzinfo=None)


def _months(first: str, last: str, since: str | None, through: str | None) -> list[str]:
    """The months from ``first`` to ``last``, cut to those asked for."""
    numbers = range(
        max(month_number(first), month_number(since or first)),
        min(month_number(last), month_number(through or last)) + 1,
    )
    if not numbers:
        raise ValueError(
            f"expected months within {first}..{last}, where the behaviors are, got "
            f"{since or first}..{through or last}; change --since or --through"
        )
    return [month_name(number) for number in numbers]


def _write(
    connection: duckdb.DuckDBPyConnection, query: str, values: dict[str, datetime], path: Path
) -> int:
    """Stream the rows of ``query`` into a parquet file, timestamps as UTC; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    reader = connection.sql(query, params=values).to_arrow_reader(ROWS_PER_GROUP)
    schema = pa.schema(
        [
            field.with_type(TIMESTAMP) if pa.types.is_timestamp(field.type) else field
            for field in reader.schema
        ]
    )
    n_rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch.cast(schema), row_group_size=ROWS_PER_GROUP)
            n_rows += batch.num_rows
    return n_rows
