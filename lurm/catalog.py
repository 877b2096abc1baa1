"""The catalog as known in a month: that of the month before with the month's changes merged in.

Every column but ``item_id`` is text. DuckDB merges, so a catalog may be larger than memory.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from lurm.database import blank, check_names, literal, name, one, write_query
from lurm.tables import LANDED_ITEMS, check_columns, check_same_ids

# Why a row of a delivery is set aside. A row has the first reason that holds, in this order.
REASONS = {
    "item_id_missing": "no item id, or an empty one",
    "repeated_row": "equal to the last row of its id in the delivery",
    "superseded_row": "the last row of its id in the delivery says something else",
}


def catalog_columns(
    delivery: pa.Schema, previous: pa.Schema | None, needed: Sequence[str], where: str
) -> list[str]:
    """The text columns that the catalog takes from a delivery, in the catalog's order.

    The first delivery decides the columns. A later one must bring all of them; what it has beyond
    them is left out, since no earlier item has it.

    Args:
        delivery: what arrived.
        previous: the catalog so far, None for the first delivery.
        needed: columns that later stages will ask for.
        where: the delivery's name, for messages.

    Raises:
        ValueError: a column is missing or cannot be text, or ids changed their type.
    """
    check_columns(delivery, LANDED_ITEMS, where)
    check_names(delivery, where)
    if previous is not None:
        check_same_ids(delivery, previous, "item_id", where)
    known = (delivery if previous is None else previous).names
    missing = [c for c in dict.fromkeys([*known, *needed]) if c not in delivery.names]
    if missing:
        raise ValueError(
            f"{where}: expected columns {', '.join(missing)}, which "
            f"{'params.yaml names' if previous is None else 'the catalog has so far'}; found "
            f"{', '.join(delivery.names)}; deliver them again, or correct the setting"
        )
    columns = [column for column in known if column != "item_id"]
    unfit = [
        f"{column} is {delivery.field(column).type}"
        for column in columns
        if pa.types.is_nested(delivery.field(column).type)
        or pa.types.is_binary(delivery.field(column).type)
    ]
    if unfit:
        raise ValueError(
            f"{where}: expected columns of text or numbers, but {', '.join(unfit)}; join its parts "
            "into one text before delivery"
        )
    return columns


def merge_changes(
    connection: duckdb.DuckDBPyConnection,
    delivery: Path | None,
    previous: Path | None,
    columns: Sequence[str],
    text_columns: Sequence[str],
    catalog: Path,
    quarantine: Path,
) -> dict[str, int]:
    """Write the catalog with the delivery merged in, and what was set aside; returns the counts.

    Of several rows with one id the last one counts. Items that the delivery does not name stay.

    Args:
        connection: see :func:`lurm.database.database`.
        delivery: parquet file with ``item_id`` and ``columns``, None if the month brought none.
        previous: the catalog so far, None to begin one; one of the two is there.
        columns: see :func:`catalog_columns`.
        text_columns: those whose words describe an item, for the last two counts.
        catalog: file to write: :data:`lurm.tables.CATALOG`, sorted by item.
        quarantine: file to write: :data:`lurm.tables.QUARANTINE`, by row, counted from 0.

    Returns:
        ``rows_in`` = ``new`` + ``changed`` + ``unchanged`` + ``rows_set_aside``, one count per key
        of :data:`REASONS`, and of the whole catalog ``items``, ``without_text`` (all text columns
        empty) and ``sharing_text`` (another item has the same words).
    """
    arrived = f"(FROM read_parquet({literal(delivery or previous or '')}, file_row_number = true)"
    arrived += ")" if delivery else " LIMIT 0)"
    kinds = {row[0]: row[1] for row in connection.sql(f"DESCRIBE FROM {arrived}").fetchall()}
    id_type = "VARCHAR" if kinds["item_id"] == "VARCHAR" else "BIGINT"
    content = "{" + ", ".join(f"{name(c)}: CAST({name(c)} AS VARCHAR)" for c in columns) + "}"
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE judged AS
        SELECT file_row_number AS row, CAST(item_id AS {id_type}) AS item_id, content,
            CASE
                WHEN item_id IS NULL OR {blank("CAST(item_id AS VARCHAR)")} THEN 'item_id_missing'
                WHEN row_number() OVER last_first = 1 THEN NULL
                WHEN content IS NOT DISTINCT FROM first_value(content) OVER last_first
                    THEN 'repeated_row'
                ELSE 'superseded_row'
            END AS reason
        FROM (SELECT file_row_number, item_id, {content} AS content FROM {arrived})
        WINDOW last_first AS (PARTITION BY item_id ORDER BY file_row_number DESC)
        """
    )
    before = (
        f"SELECT item_id, {content} AS content FROM read_parquet({literal(previous)})"
        if previous
        else "SELECT item_id, content FROM judged WHERE false"
    )
    new, changed, unchanged = one(
        connection,
        f"""
        SELECT count(*) FILTER (before.item_id IS NULL),
            count(*) FILTER (before.item_id IS NOT NULL
                             AND before.content IS DISTINCT FROM judged.content),
            count(*) FILTER (before.item_id IS NOT NULL
                             AND before.content IS NOT DISTINCT FROM judged.content)
        FROM judged LEFT JOIN ({before}) AS before USING (item_id) WHERE reason IS NULL
        """,
    )
    items = write_query(
        connection,
        f"""
        SELECT item_id, unnest(content) FROM (
            SELECT item_id, content FROM judged WHERE reason IS NULL
            UNION ALL
            SELECT item_id, content FROM ({before}) AS before
            ANTI JOIN (SELECT item_id FROM judged WHERE reason IS NULL) AS kept USING (item_id)
        ) ORDER BY item_id
        """,
        catalog,
    )
    as_text = ", ".join(
        f"CAST({name(column)} AS VARCHAR) AS {name(column)}"
        for column in kinds
        if column != "file_row_number"
    )
    rows_set_aside = write_query(
        connection,
        f"SELECT row, reason, {as_text} FROM {arrived} JOIN (SELECT row, reason FROM judged "
        "WHERE reason IS NOT NULL) ON file_row_number = row ORDER BY row",
        quarantine,
    )
    counted = dict(connection.sql("SELECT reason, count(*) FROM judged GROUP BY reason").fetchall())
    words = ", ".join(map(name, text_columns))
    without_text, sharing_text = one(
        connection,
        f"""
        SELECT coalesce(sum(n) FILTER (empty), 0)::BIGINT,
            coalesce(sum(n) FILTER (n > 1 AND NOT empty), 0)::BIGINT
        FROM (SELECT count(*) AS n, {blank(f"concat({words})")} AS empty
              FROM read_parquet({literal(catalog)}) GROUP BY {words})
        """,
    )
    return {
        "rows_in": sum(counted.values()),
        "new": new,
        "changed": changed,
        "unchanged": unchanged,
        "rows_set_aside": rows_set_aside,
        **{reason: counted.get(reason, 0) for reason in REASONS},
        "items": items,
        "without_text": without_text,
        "sharing_text": sharing_text,
    }


def item_texts(catalog: pa.Table, text_columns: Sequence[str]) -> list[str]:
    """The text columns of every item in one line, nulls left out."""
    columns = [catalog.column(name).to_pylist() for name in text_columns]
    return [", ".join(part for part in parts if part) for parts in zip(*columns, strict=True)]
