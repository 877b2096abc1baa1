"""Public data sets cut into monthly deliveries; what the adapters beside this module share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lurm.console import progress
from lurm.database import literal, name, one, write_query
from lurm.landing import STAGED, publish
from lurm.months import month_name, month_number
from lurm.storage import scratch

# What DuckDB may hold in memory while a data set is cut; the rest waits on disk.
MEMORY_LIMIT = "2GB"


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
        connection: holds ``behaviors`` (user_id, item_id, timestamp: naive, UTC; perhaps more),
            ``items`` (item_id and text columns, one row per item), perhaps ``users`` (user_id,
            attributes); see :func:`lurm.database.database`.
        landing: folder to write to.
        timezone: IANA name of the calendar whose months the data set follows.
        since: first month to land; its opening catalog holds all items of earlier months.
        through: last month to land.
        remarks: counts of the adapter's own, to stand among the others.

    Raises:
        ValueError: there are no behaviors, or none in the months asked for.
    """
    connection.execute(
        "CREATE TEMP TABLE in_order AS SELECT *, strftime("
        f"timezone({literal(timezone)}, timestamp AT TIME ZONE 'UTC'), '%Y-%m') AS month "
        "FROM behaviors ORDER BY timestamp, user_id, item_id, COLUMNS(*)"
    )
    first, last = one(connection, "SELECT min(month), max(month) FROM in_order")
    if first is None:
        raise ValueError("expected behaviors, found none; is the input the right file?")
    months = _months(first, last, since, through)
    connection.execute(
        "CREATE TEMP TABLE catalog AS SELECT items.*, "
        f"greatest(first_month, {literal(months[0])}) AS month FROM items LEFT JOIN "
        "(SELECT item_id, min(month) AS first_month FROM in_order GROUP BY item_id) "
        "USING (item_id) ORDER BY month, item_id"
    )

    with scratch(Path(landing).parent, STAGED) as folder:
        (folder / "behaviors").mkdir()
        (folder / "items").mkdir()
        rows = {}
        for month in progress(months, "months"):
            rows[month] = write_query(
                connection,
                f"SELECT * EXCLUDE month FROM in_order WHERE month = {literal(month)} "
                "ORDER BY timestamp, user_id, item_id, COLUMNS(*)",
                folder / "behaviors" / f"{month}.parquet",
            )
            opening = month == months[0]
            path = folder / ("items.parquet" if opening else f"items/{month}.parquet")
            n_items = write_query(
                connection,
                f"SELECT * EXCLUDE month FROM catalog WHERE month = {literal(month)} "
                "ORDER BY item_id",
                path,
            )
            if n_items == 0 and not opening:
                path.unlink()
        if ("users",) in connection.sql("SHOW TABLES").fetchall():
            write_query(connection, "FROM users ORDER BY user_id", folder / "users.parquet")
        files = publish(folder, landing)

    return Landed(
        behaviors=rows,
        **_count(connection, months),
        remarks=dict(remarks or {}),
        timezone=timezone,
        files=files,
    )


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


def _count(connection: duckdb.DuckDBPyConnection, months: list[str]) -> dict[str, int]:
    """The counts of :class:`Landed` for the behaviors of ``months`` and their catalog."""
    inside = f"FROM in_order WHERE month BETWEEN {literal(months[0])} AND {literal(months[-1])}"
    rows, users, moments = one(
        connection,
        "SELECT count(*), count(DISTINCT user_id), "
        f"count(DISTINCT (user_id, item_id, timestamp)) {inside}",
    )
    unknown_items, unknown_rows = one(
        connection,
        f"SELECT count(DISTINCT item_id), count(*) FROM ({inside}) ANTI JOIN items USING (item_id)",
    )
    texts = ", ".join(name(c) for c in connection.table("items").columns if c != "item_id")
    items, shared_text, without_text = one(
        connection,
        "SELECT sum(n), sum(n) FILTER (n > 1), sum(n) FILTER (empty) FROM "
        f"(SELECT count(*) AS n, concat({texts}) = '' AS empty FROM catalog "
        f"WHERE month <= {literal(months[-1])} GROUP BY {texts})",
    )
    return {
        "left_out": one(connection, "SELECT count(*) FROM in_order")[0] - rows,
        "alike": rows - moments,
        "users": users,
        "items": int(items or 0),
        "shared_text": int(shared_text or 0),
        "without_text": int(without_text or 0),
        "unknown_items": unknown_items,
        "unknown_rows": unknown_rows,
    }
