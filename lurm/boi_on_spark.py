"""The Bag-of-Interests of a month on Spark: the SQL of :mod:`lurm.boi` on another engine.

For months that outgrow one machine; ``pip install lurm[spark]`` and a Java 17 are needed. On a cluster
the files must lie where its workers can read and write them.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lurm.boi import BOI_SQL, check_assigned

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)


@contextmanager
def spark(master: str, memory_limit: str) -> "Iterator[SparkSession]":
    """A Spark session in UTC on ``master`` (``local[2]``, ``spark://host:7077``, ...).

    ``memory_limit`` (such as 4GB) is that of the driver and of each executor.

    Raises:
        ModuleNotFoundError: pyspark is not installed.
    """
    try:
        from pyspark.sql import SparkSession
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "build_boi.engine is spark, and pyspark is not installed; run `pip install lurm[spark]` or "
            "set the engine to duckdb"
        ) from error

    memory = re.sub("B$", "", memory_limit).lower()
    session = (
        SparkSession.builder.master(master)
        .appName("lurm build_boi")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.driver.memory", memory)
        .config("spark.executor.memory", memory)
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    try:
        yield session
    finally:
        session.stop()


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
