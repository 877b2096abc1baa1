"""The Bag-of-Interests of a month on Spark: the SQL of :mod:`lurm.boi` on another engine.

For months that outgrow one machine; see :mod:`lurm.spark`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from lurm.boi import HARD_SQL, boi_sql, check_inputs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def write_boi_parts(
    session: "SparkSession", behaviors: Path, item_interests: Path, folder: Path
) -> list[Path]:
    """Every user's bag, in new parquet files of ``folder``.

    The files' rows one after the other are sorted by user, then interest, and are those of
    :func:`lurm.boi.boi_query`, which they are checked as.

    Raises as :func:`lurm.boi.check_inputs` does.
    """
    check_inputs(behaviors, item_interests)
    for view, path in {"behaviors": behaviors, "item_interests": item_interests}.items():
        session.read.parquet(str(path.absolute())).createOrReplaceTempView(view)
    # Spark sorts a whole table by ranges, one a file, in the order of the files' names.
    (hard,) = session.sql(HARD_SQL).first()
    session.sql(boi_sql(hard)).write.parquet(str(folder.absolute()))
    return sorted(folder.glob("part-*.parquet"))
