"""Amazon reviews, the paper's public benchmark, in both public editions, from local files.

2018 (https://nijianmo.github.io/amazon): ``<category>.json.gz`` with ``reviewerID``, ``asin``,
``unixReviewTime`` (seconds, whole days); ``meta_<category>.json.gz`` with ``asin``, ``title``,
``brand``, ``main_cat``, ``category``.

2023 (https://amazon-reviews-2023.github.io): ``<category>.jsonl[.gz]`` with ``user_id``,
``parent_asin``, ``timestamp`` (milliseconds); ``meta_<category>.jsonl[.gz]`` with ``parent_asin``,
``title``, ``store``, ``main_category``, ``categories``.

A review is the behavior. Files of any size pass through DuckDB in bounded memory. Months are UTC's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import duckdb

from lurm.database import database
from lurm.examples.monthly import MEMORY_LIMIT, Landed, land_tables

TIMEZONE = "UTC"
Edition = Literal["2018", "2023"]

# Our name of each field, and what the edition calls it.
REVIEWS = {
    "2018": {"user_id": "reviewerID", "item_id": "asin", "time": "unixReviewTime"},
    "2023": {"user_id": "user_id", "item_id": "parent_asin", "time": "timestamp"},
}
META = {
    "2018": {
        "item_id": "asin",
        "title": "title",
        "brand": "brand",
        "main_category": "main_cat",
        "categories": "category",
    },
    "2023": {
        "item_id": "parent_asin",
        "title": "title",
        "brand": "store",
        "main_category": "main_category",
        "categories": "categories",
    },
}
TYPES = {"time": "BIGINT", "categories": "JSON"}  # the others are text
UNITS_PER_SECOND = {"2018": 1, "2023": 1_000}
# The year 2100, in seconds: a time beyond it is in another unit, or nonsense.
LATEST = 4_102_444_800


def land(
    edition: Edition,
    reviews: Sequence[Path | str],
    meta: Sequence[Path | str],
    landing: Path | str,
    since: str | None = None,
    through: str | None = None,
) -> Landed:
    """Land reviews and metadata; see :func:`lurm.examples.monthly.land_tables`.

    Items have ``title``, ``brand``, ``main_category``, ``subcategory`` (the second of the category
    list) and ``categories`` (the list, joined by " > "). Lines that are no JSON object, or lack a
    user, item or time, are left out and counted; so are repeated records of an item, of which the
    first in alphabetical order stays.

    Raises:
        FileNotFoundError: one of the files is not there.
        OSError: a file is damaged, or the disk is full.
        ValueError: no line of the reviews, or of the metadata, can be used.
    """
    missing = [str(file) for file in [*reviews, *meta] if not Path(file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"expected files on this machine, found no {', '.join(missing)}; download them first"
        )
    with database(MEMORY_LIMIT, Path(reviews[0])) as connection:
        units = UNITS_PER_SECOND[edition]
        broken_reviews = _read_lines(
            connection,
            "reviews",
            reviews,
            REVIEWS[edition],
            f"user_id != '' AND item_id != '' AND time BETWEEN 0 AND {LATEST * units}",
        )
        broken_meta = _read_lines(connection, "meta", meta, META[edition], "item_id != ''")
        connection.execute(
            "CREATE VIEW behaviors AS SELECT user_id, item_id, "
            f"make_timestamp(time * {1_000_000 // units}) AS timestamp FROM reviews"
        )
        # The edition of 2018 gives some main categories as the shop's picture, named in its `alt`.
        connection.execute(
            """
            CREATE TABLE items AS
            SELECT DISTINCT ON (item_id)
                item_id,
                title,
                brand,
                if(starts_with(main_category, '<img'),
                   regexp_extract(main_category, 'alt="([^"]*)"', 1), main_category)
                    AS main_category,
                json_extract_string(categories, '$[1]') AS subcategory,
                array_to_string(json_extract_string(categories, '$[*]'), ' > ') AS categories
            FROM meta ORDER BY ALL
            """
        )
        remarks = {
            "lines of reviews left out, unreadable or incomplete": broken_reviews,
            "lines of metadata left out, unreadable or incomplete": broken_meta,
            "repeated records of an item left out": _n_rows(connection, "meta")
            - _n_rows(connection, "items"),
        }
        return land_tables(connection, landing, TIMEZONE, since, through, remarks)


def _read_lines(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    files: Sequence[Path | str],
    fields: dict[str, str],
    usable: str,
) -> int:
    """Make ``table`` of the lines that are ``usable``, a condition; returns how many are not."""
    columns = {theirs: TYPES.get(ours, "VARCHAR") for ours, theirs in fields.items()}
    renamed = ", ".join(f"{theirs} AS {ours}" for ours, theirs in fields.items())
    # A line that is no JSON object comes as a row of nulls, so that it can be counted.
    connection.execute(
        f"CREATE TABLE all_{table} AS SELECT {renamed} FROM read_json($files, "
        f"columns = {columns}, format = 'newline_delimited', ignore_errors = true)",
        {"files": [str(file) for file in files]},
    )
    connection.execute(f"CREATE VIEW {table} AS FROM all_{table} WHERE {usable}")
    n_lines, n_usable = _n_rows(connection, f"all_{table}"), _n_rows(connection, table)
    if n_usable == 0:
        raise ValueError(
            f"{', '.join(map(str, files))}: expected lines with {', '.join(columns)}, found none "
            f"among {n_lines:,} lines; is it the other edition, or the other kind of file?"
        )
    return n_lines - n_usable


def _n_rows(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return connection.table(table).count("*").fetchall()[0][0]
