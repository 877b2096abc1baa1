"""The landing place: monthly deliveries as a customer's logs arrive (docs/your-own-logs.md).

    behaviors/<month>.parquet   user_id, item_id, timestamp, and more if wanted
    items.parquet               the catalog at the opening of the first month
    items/<month>.parquet       optional: items new or changed in that month
    users.parquet               optional: user_id and attributes

Files are gathered in a folder beside the landing place and published from there one by one, each
whole, once all of them are known to be good; a file whose bytes are already there is left alone.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from lurm.console import progress
from lurm.months import month_bounds, month_name, month_number
from lurm.params import START
from lurm.storage import file_hash, replacing
from lurm.tables import ID, LANDED_ITEMS, LANDED_USERS, TIMESTAMP, check_columns

log = logging.getLogger(__name__)

# Rows held in memory while a file is written.
ROWS_PER_GROUP = 1 << 20


# ---- publishing --------------------------------------------------------------------------------


@contextmanager
def staging(landing: Path | str) -> Iterator[Path]:
    """An empty folder on the landing place's disk, gone when the block ends."""
    landing = Path(landing)
    landing.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=landing.parent, prefix=f".{landing.name}.") as folder:
        yield Path(folder)


def publish(staged: Path, landing: Path | str) -> dict[str, str]:
    """Move every parquet file under ``staged`` to the same place under ``landing``.

    Returns what happened to each, by its path: "new", "replaced" or "unchanged" (not touched).
    Behaviors go last, so that a month that is there has its items there.
    """
    files = sorted(path.relative_to(staged) for path in staged.rglob("*.parquet"))
    done = {}
    for file in sorted(files, key=lambda path: path.parts[0] == "behaviors"):
        target = Path(landing) / file
        if not target.exists():
            state = "new"
        elif file_hash(target) == file_hash(staged / file):
            state = "unchanged"
        else:
            state = "replaced"
        if state != "unchanged":
            with replacing(target) as temporary:
                (staged / file).replace(temporary)
        done[file.as_posix()] = state
    return done


# ---- public data sets as deliveries -------------------------------------------------------------


@dataclass(frozen=True)
class Landed:
    """What an example put into the landing place, and what a reader of its figures should know."""

    behaviors: dict[str, int]  # rows per month
    left_out: int  # rows outside the months asked for
    alike: int  # rows equal to another one in user, item and time
    users: int  # users with behaviors
    items: int  # catalog records
    shared_text: int  # items whose text another item has too
    without_text: int  # items whose text columns are all empty
    unknown_items: int  # item ids among the behaviors that have no record
    unknown_rows: int  # and the rows they have
    files: dict[str, str]  # "new", "replaced" or "unchanged", by path

    def lines(self) -> list[str]:
        """The figures as sentences, one a line."""
        rows = sum(self.behaviors.values())
        changed = sum(state != "unchanged" for state in self.files.values())
        return [
            *(f"{month}: {n:,} behaviors" for month, n in self.behaviors.items()),
            f"behaviors: {rows:,} of {self.users:,} users; {self.left_out:,} left out by the months "
            f"asked for; {self.alike:,} equal to another row in user, item and time",
            f"items: {self.items:,} records; {self.shared_text:,} share their text with another, "
            f"{self.without_text:,} have none",
            f"items without a record: {self.unknown_items:,} ids, {self.unknown_rows:,} behaviors",
            f"files: {changed} written, {len(self.files) - changed} unchanged",
        ]


def land_tables(
    connection: duckdb.DuckDBPyConnection,
    landing: Path | str,
    timezone: str,
    since: str | None = None,
    through: str | None = None,
) -> Landed:
    """Write the tables of ``connection`` as monthly deliveries; returns the counts.

    ``behaviors`` (user_id, item_id, timestamp: naive, UTC), ``items`` (item_id and text columns, one
    row per item) and, if there, ``users``. Public data sets date no catalog, so an item enters it
    in the month of its first behavior, and an item without behaviors is there from the opening:
    no delivery tells anything of a later month. The same tables give the same bytes. Memory is what
    the connection allows itself, plus a row group.

    Args:
        connection: holds the tables or views named above.
        landing: folder to write to.
        timezone: IANA name of the calendar whose months the data set follows.
        since: first month to land; the catalog of all earlier ones opens it.
        through: last month to land.

    Raises:
        ValueError: there are no behaviors, or none in the months asked for.
    """
    sql = connection.sql
    connection.execute(
        "CREATE TEMP TABLE in_order AS SELECT user_id, item_id, timestamp FROM behaviors "
        "ORDER BY timestamp, user_id, item_id"
    )
    first, last = _one(sql("SELECT min(timestamp), max(timestamp) FROM in_order"))
    if first is None:
        raise ValueError("expected behaviors, found none; is the input the right file?")
    months = _months(_month_of(first, timezone), _month_of(last, timezone), since, through)
    opening = month_bounds(months[0], timezone)[0].replace(tzinfo=None)
    closing = month_bounds(months[-1], timezone)[1].replace(tzinfo=None)
    connection.execute(
        "CREATE TEMP TABLE catalog AS SELECT items.*, first_seen FROM items LEFT JOIN "
        "(SELECT item_id, min(timestamp) AS first_seen FROM in_order GROUP BY item_id) "
        "USING (item_id) ORDER BY first_seen, item_id"
    )
    text = [name for name in sql("FROM items").columns if name != "item_id"]
    with staging(landing) as folder:
        rows = {}
        for month in progress(months, "months"):
            start, end = (instant.replace(tzinfo=None) for instant in month_bounds(month, timezone))
            behaviors = sql(
                "FROM in_order WHERE timestamp >= $start AND timestamp < $end "
                "ORDER BY timestamp, user_id, item_id",
                params={"start": start, "end": end},
            )
            rows[month] = _write(behaviors, folder / "behaviors" / f"{month}.parquet")
            if month == months[0]:
                _write(
                    sql(
                        "SELECT * EXCLUDE first_seen FROM catalog "
                        "WHERE first_seen IS NULL OR first_seen < $end ORDER BY item_id",
                        params={"end": end},
                    ),
                    folder / "items.parquet",
                )
                continue
            new_items = folder / "items" / f"{month}.parquet"
            n_items = _write(
                sql(
                    "SELECT * EXCLUDE first_seen FROM catalog "
                    "WHERE first_seen >= $start AND first_seen < $end ORDER BY item_id",
                    params={"start": start, "end": end},
                ),
                new_items,
            )
            if not n_items:
                new_items.unlink()
        if ("users",) in sql("SHOW TABLES").fetchall():
            _write(sql("FROM users ORDER BY user_id"), folder / "users.parquet")

        window = {"start": opening, "end": closing}
        inside = "in_order WHERE timestamp >= $start AND timestamp < $end"
        n_rows, n_users, n_distinct = _one(
            sql(
                "SELECT count(*), count(DISTINCT user_id), "
                f"count(DISTINCT (user_id, item_id, timestamp)) FROM {inside}",
                params=window,
            )
        )
        known = "catalog WHERE first_seen IS NULL OR first_seen < $end"
        texts = ", ".join(f'"{name}"' for name in text)
        n_items, n_without, n_shared = _one(
            sql(
                "SELECT coalesce(sum(n), 0), coalesce(sum(n) FILTER (empty), 0), "
                "coalesce(sum(n) FILTER (n > 1), 0) FROM (SELECT count(*) AS n, "
                f"concat({texts}) = '' AS empty FROM {known} GROUP BY {texts})",
                params={"end": closing},
            )
        )
        n_unknown, n_unknown_rows = _one(
            sql(
                f"SELECT count(DISTINCT item_id), count(*) FROM (FROM {inside}) "
                "ANTI JOIN items USING (item_id)",
                params=window,
            )
        )
        files = publish(folder, landing)
    everything = _one(sql("SELECT count(*) FROM in_order"))[0]
    return Landed(
        behaviors=rows,
        left_out=everything - n_rows,
        alike=n_rows - n_distinct,
        users=n_users,
        items=int(n_items),
        shared_text=int(n_shared),
        without_text=int(n_without),
        unknown_items=n_unknown,
        unknown_rows=n_unknown_rows,
        files=files,
    )


def _one(relation: duckdb.DuckDBPyRelation) -> tuple:
    """The only row of ``relation``."""
    (row,) = relation.fetchall()
    return row


def _month_of(instant: datetime, timezone: str) -> str:
    """The month of a naive UTC instant in the calendar of ``timezone``."""
    return f"{instant.replace(tzinfo=UTC).astimezone(ZoneInfo(timezone)):%Y-%m}"


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


def _write(relation: duckdb.DuckDBPyRelation, path: Path) -> int:
    """Stream ``relation`` into a parquet file, timestamps marked as UTC; returns its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    reader = relation.to_arrow_reader(ROWS_PER_GROUP)
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
