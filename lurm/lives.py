"""What the months hold of all interests, of single users and of items, asked of the files themselves.

Letters: D interests, N months, n users.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Bags = Mapping[str, Mapping[int, float]]  # of one user: by month and interest the count


def masses_by_month(
    connection: duckdb.DuckDBPyConnection, bags: Mapping[str, Path], n_interests: int
) -> NDArray[np.float64]:
    """Behaviors of every interest in every month, (D, N) float64. bags: each month's ``tables.BOI``."""
    found = np.zeros((n_interests, len(bags)))
    for column, path in enumerate(bags.values()):
        sums = connection.execute(
            "SELECT interest, sum(count::DECIMAL(18, 6))::DOUBLE AS n FROM read_parquet(?)"
            " GROUP BY interest",
            [str(path)],
        ).fetchnumpy()
        found[sums["interest"], column] = sums["n"]
    return found


def example_users(
    connection: duckdb.DuckDBPyConnection, bags: Mapping[str, Path], n: int, seed: int
) -> list[Any]:
    """Ids of at most ``n`` users, drawn by a hash among those there in half of the months or more."""
    rows = connection.execute(
        """
        SELECT user_id FROM (
            SELECT user_id, count(DISTINCT filename) AS months
            FROM read_parquet(?, filename = true) GROUP BY user_id
        ) WHERE 2 * months >= ? ORDER BY md5(user_id::VARCHAR || ?), user_id LIMIT ?
        """,
        [[str(path) for path in bags.values()], len(bags), f" {seed}", n],
    ).fetchall()
    return [user for (user,) in rows]


def bags_of_users(
    connection: duckdb.DuckDBPyConnection, bags: Mapping[str, Path], users: Sequence[Any]
) -> list[Bags]:
    """The bags of every user, in the order of ``users``; months without behaviors are left out."""
    found: dict[Any, dict[str, dict[int, float]]] = {user: {} for user in users}
    for month, path in bags.items():
        rows = connection.execute(
            "SELECT user_id, interest, count FROM read_parquet(?) WHERE user_id IN (SELECT unnest(?))"
            " ORDER BY user_id, interest",
            [str(path), list(users)],
        ).fetchall()
        for user, interest, count in rows:
            found[user].setdefault(month, {})[interest] = count
    return list(found.values())


def famous_items(
    connection: duckdb.DuckDBPyConnection,
    behaviors: Sequence[Path],
    item_interests: Path,
    texts: pa.Table,
    n: int,
) -> pa.Table:
    """The ``n`` different texts of items with most behaviors: ``text``, ``interest``, ``n_behaviors``.

    Items with one text are one here; its interest is that of the item met most often. Sorted by behaviors.

    Args:
        behaviors: parquet files of ``tables.BEHAVIORS``.
        item_interests: parquet file of ``tables.ITEM_INTERESTS``.
        texts: ``item_id`` and ``text`` of every item that is known.
    """
    connection.register("texts", texts)
    return connection.sql(
        """
        WITH counted AS (
            SELECT item_id, count(*) AS n FROM read_parquet($behaviors) GROUP BY item_id
        ), nearest AS (
            SELECT item_id, arg_max(interest, (weight, -interest)) AS interest
            FROM read_parquet($interests) GROUP BY item_id
        )
        SELECT text, arg_max(interest, (coalesce(n, 0), -interest))::INTEGER AS interest,
               sum(coalesce(n, 0))::BIGINT AS n_behaviors
        FROM texts JOIN nearest USING (item_id) LEFT JOIN counted USING (item_id)
        WHERE text != '' GROUP BY text ORDER BY n_behaviors DESC, text LIMIT $n
        """,
        params={
            "behaviors": [str(path) for path in behaviors],
            "interests": str(item_interests),
            "n": n,
        },
    ).to_arrow_table()
