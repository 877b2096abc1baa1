"""The tables that pass between stages, as Arrow schemas, and one check that they hold.

``ID`` stands for the customer's own identifier, an integer or a string, kept as it came.
"""

from collections.abc import Mapping

import pyarrow as pa

ID = "id"  # int64 or string, decided by the customer's data
TIMESTAMP = pa.timestamp("us", tz="UTC")

# What the customer delivers (README, "Your own logs"); text and category columns are his own.
LANDED_BEHAVIORS = {"user_id": ID, "item_id": ID, "timestamp": TIMESTAMP}
LANDED_ITEMS = {"item_id": ID}
LANDED_USERS = {"user_id": ID}

# Clean behaviors of a month, sorted by user, then time, then item.
BEHAVIORS = {"user_id": ID, "item_id": ID, "timestamp": TIMESTAMP}
# Rows set aside, with every column as text, the reason, and the row's number in the delivery.
QUARANTINE = {"row": pa.int64(), "reason": pa.string()}
# The catalog as known in a month, sorted by item: the delivered columns as text.
CATALOG = {"item_id": ID}
# The vocabulary of interests: one row per item (hard) or several with weights that sum to 1 (soft).
ITEM_INTERESTS = {
    "item_id": ID,
    "interest": pa.int32(),
    "weight": pa.float32(),
    "cosine": pa.float32(),
}
# Every interest there ever was, sorted by id (lurm/interests/lineage.py). `interest` is its row, null once
# it is retired; `since` and `until` are the last training months of the releases that it came and went
# with; `cosine` is between where it stood and its centre now; `share` is of behaviors.
INTEREST_LINEAGE = {
    "interest_id": pa.int64(),
    "interest": pa.int32(),
    "status": pa.string(),  # kept | born | retired
    "since": pa.string(),
    "until": pa.string(),
    "cosine": pa.float32(),
    "share": pa.float64(),
}
# Bag-of-Interests of a month, sorted by user, then interest: counts, never logs, since counts add up.
BOI = {"user_id": ID, "interest": pa.int32(), "count": pa.float32()}
# Columns of the published user vectors beside the vector itself (:func:`user_vectors_schema`).
USER_VECTORS = {
    "user_id": ID,
    "n_behaviors": pa.int64(),
    "confidence": pa.float32(),
    "first_month": pa.string(),
    "last_month": pa.string(),
    "model_version": pa.string(),
    "space_version": pa.string(),
}
# Who had a behavior in which category during a label month.
LABELS = {"user_id": ID, "column": pa.string(), "value": pa.string()}
# What months looked like, for the watch on drift: one value by month, kind of measure, and key.
MEASURES = {"month": pa.string(), "kind": pa.string(), "key": pa.string(), "value": pa.float64()}


def user_vectors_schema(width: int, id_type: pa.DataType) -> pa.Schema:
    """Schema of published user vectors: one row per user, sorted by user.

    ``n_behaviors`` is what the vector rests on, ``confidence`` in 0..1 how far vectors that rest on so many
    can be trusted (:mod:`lurm.confidence`). ``first_month`` and ``last_month`` had behaviors.
    """
    own = {"user_id": id_type, "vector": pa.list_(pa.float32(), width)}
    return pa.schema(list((own | USER_VECTORS | own).items()))


def ids_of_lines(text: str) -> list[str]:
    """The ids in a text, one a line, exactly as they are: blanks belong to an id. Empty lines are left out.

    Lines end with a line feed, or with a carriage return and a line feed.

    >>> ids_of_lines("ann \\n ben\\r\\n\\nann")
    ['ann ', ' ben', 'ann']
    """
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line]


def is_id(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold identifiers."""
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def check_columns(schema: pa.Schema, expected: Mapping[str, object], where: str) -> None:
    """Return if every expected column is there with its type; more columns are allowed.

    Raises:
        ValueError: columns are missing or of another type; the message lists all of them.
    """
    faults = []
    for name, kind in expected.items():
        if name not in schema.names:
            faults.append(f"column {name!r} is missing")
            continue
        if schema.names.count(name) > 1:
            faults.append(f"column {name!r} is there more than once")
            continue
        found = schema.field(name).type
        if not (is_id(found) if kind is ID else found == kind):
            wanted = "integer or string" if kind is ID else kind
            faults.append(f"column {name!r} should be {wanted}, is {found}")
    if faults:
        raise ValueError(
            f"{where}: {'; '.join(faults)}; found columns {', '.join(schema.names) or 'none'}. "
            "See docs/your-own-logs.md for the contract."
        )


def check_same_ids(schema: pa.Schema, reference: pa.Schema, column: str, where: str) -> None:
    """Return if the identifiers in ``column`` are integers, or strings, in both schemas.

    Raises:
        ValueError: one has integers where the other has strings.
    """
    found, expected = (
        "integers" if pa.types.is_integer(s.field(column).type) else "strings"
        for s in (schema, reference)
    )
    if found != expected:
        raise ValueError(
            f"{where}: expected {column} to hold {expected} as the data so far does, found {found}; "
            "deliver identifiers the same way everywhere"
        )
