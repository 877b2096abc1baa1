"""The cleaning in SQL against a slow loop over rows."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lurm.behaviors import REASONS, clean_month, profile_month
from lurm.database import database
from lurm.storage import read_parquet, write_parquet
from lurm.tables import TIMESTAMP

START, END = datetime(2017, 5, 1, tzinfo=UTC), datetime(2017, 6, 1, tzinfo=UTC)
CATALOG = {"item_id": [1, 2], "kind": ["a", None]}
TIMES = [START, datetime(2017, 5, 20, tzinfo=UTC), END, datetime(1999, 1, 1, tzinfo=UTC), None]

rows = st.lists(
    st.tuples(
        st.sampled_from(["u", "ü", "", " ", "\t\n", "\u3000\u00a0", None]),
        st.sampled_from([1, 2, 3, None]),
        st.sampled_from(TIMES),
        st.sampled_from([0.5, None]),
    ),
    max_size=30,
)


def slow_reasons(delivered):
    """The reason of every row, None for clean ones, one row at a time."""
    seen, reasons = set(), []
    for row in delivered:
        user, item, time, _ = row
        if user is None or not user.strip():
            reason = "user_id_missing"
        elif item is None:
            reason = "item_id_missing"
        elif time is None:
            reason = "timestamp_missing"
        elif not START <= time < END:
            reason = "outside_month"
        elif item not in CATALOG["item_id"]:
            reason = "unknown_item"
        elif row in seen:
            reason = "repeated_row"
        else:
            reason = None
            seen.add(row)
        reasons.append(reason)
    return reasons


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows)
def test_every_row_is_clean_or_set_aside_as_a_slow_loop_says(tmp_path, delivered):
    delivery, catalog = tmp_path / "delivery.parquet", tmp_path / "catalog.parquet"
    clean, quarantine = tmp_path / "clean.parquet", tmp_path / "quarantine.parquet"
    users, items, times, prices = zip(*delivered, strict=True) if delivered else ((), (), (), ())
    table = {
        "user_id": pa.array(users, pa.string()),
        "item_id": pa.array(items, pa.int64()),
        "timestamp": pa.array(times, TIMESTAMP),
        "price": pa.array(prices, pa.float64()),
    }
    write_parquet(pa.table(table), delivery)
    write_parquet(pa.table(CATALOG), catalog)
    with database("1GB", delivery) as connection:
        counts = clean_month(connection, delivery, catalog, START, END, clean, quarantine)
        profile = profile_month(connection, clean, catalog, "kind")

    reasons = slow_reasons(delivered)
    kept = [row[:3] for row, reason in zip(delivered, reasons, strict=True) if reason is None]
    found = [(r["user_id"], r["item_id"], r["timestamp"]) for r in read_parquet(clean).to_pylist()]
    assert found == sorted(kept, key=lambda row: (row[0], row[2], row[1]))
    assert [(r["row"], r["reason"]) for r in read_parquet(quarantine).to_pylist()] == [
        (i, reason) for i, reason in enumerate(reasons) if reason
    ]
    assert {key: counts[key] for key in REASONS} == {key: reasons.count(key) for key in REASONS}
    assert counts["same_moment"] == len(kept) - len(set(kept))
    assert profile["behaviors"] == len(kept)
    assert profile["users"] == len({user for user, *_ in kept})
    shares = {"a": 1, "": 2}
    assert profile["mix"] == {
        value: sum(row[1] == item for row in kept) / len(kept)
        for value, item in sorted(shares.items())
        if any(row[1] == item for row in kept)
    }
    assert not list(Path(tmp_path).glob("*.tmp"))
