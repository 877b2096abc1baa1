"""The Bag-of-Interests of a month on Spark: the SQL of :mod:`lurm.boi` on another engine.

For months that outgrow one machine; see :mod:`lurm.spark`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from lurm.boi import BOI_SQL, check_assigned

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def write_boi_parts(
    session: "SparkSession", behaviors: Path, item_interests: Path, folder: Path
) -> tuple[list[Path], int]:
    """Every user's bag, in new parquet files of ``folder``, and the number of behaviors in it.

    The files' rows one after the other are sorted by user, then interest, and are those of
    :func:`lurm.boi.boi_query`.

    Raises:
        ValueError: behaviors of items without an interest.
    """
    for view, path in {"behaviors": behaviors, "item_interests": item_interests}.items():
        session.read.parquet(str(path.absolute())).createOrReplaceTempView(view)
    n_behaviors = check_assigned(
        lambda sql: tuple(session.sql(sql).collect()[0]), behaviors, item_interests
    )
    # Spark sorts a whole table by ranges, one a file, in the order of the files' names.
    session.sql(BOI_SQL).write.parquet(str(folder.absolute()))
    return sorted(folder.glob("part-*.parquet")), n_behaviors
