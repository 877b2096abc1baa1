"""A session on Apache Spark, for the stages that can run there.

``pip install lurm[spark]`` and a Java 17 are needed. On a cluster files must lie where its workers can read
and write them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@contextmanager
def spark(stage: str, master: str, memory_limit: str = "1GB") -> "Iterator[SparkSession]":
    """A Spark session in UTC on ``master`` (``local[2]``, ``spark://host:7077``, ...).

    ``memory_limit`` (such as 4GB) is that of the driver and of each executor, without what Python
    takes beside them.

    Raises:
        ModuleNotFoundError: pyspark is not installed.
    """
    try:
        from pyspark.sql import SparkSession
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{stage}.engine is spark, and pyspark is not installed; run `pip install lurm[spark]` or "
            "set another engine"
        ) from error

    memory = re.sub("B$", "", memory_limit).lower()
    session = (
        SparkSession.builder.master(master)
        .appName(f"lurm {stage}")
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
