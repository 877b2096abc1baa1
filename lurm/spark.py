"""A session on Apache Spark, for the stages that can run there.

``pip install lurm[spark]`` and a Java 17 are needed. On a cluster files must lie where its workers can read
and write them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")


@contextmanager
def spark(stage: str, master: str, memory_limit: str = "1GB") -> "Iterator[SparkSession]":
    """A Spark session in UTC on ``master`` (``local[2]``, ``spark://host:7077``, ...).

    ``memory_limit`` (such as 4GB) is that of the driver and of each executor, without what Python
    takes beside them.

    Raises:
        ModuleNotFoundError: pyspark is not installed.
        OSError: Spark did not start, or could not finish what it was given; with the innermost reason.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{stage}.engine is spark, and pyspark is not installed; run `pip install lurm[spark]` or "
            "set another engine"
        ) from error

    memory = re.sub("i?B$", "", memory_limit).lower()
    broken = (Py4JError, PySparkException, ConnectionError)  # the last where its Java is gone
    try:
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
    except broken as error:
        raise OSError(
            f"{stage}: Spark on {master} did not start: {_innermost(error)}; it needs a Java 17, on PATH "
            "or in JAVA_HOME, and a master that answers"
        ) from error
    try:
        yield session
    except broken as error:
        raise OSError(
            f"{stage}: Spark on {master} could not finish: {_innermost(error)}; look into the file it "
            "names, if it does, and run again"
        ) from error
    finally:
        with suppress(*broken):
            session.stop()


def _innermost(error: Exception) -> str:
    """The last reason that Java tells, in a line."""
    reasons = [line for line in str(error).splitlines() if line.startswith("Caused by: ")]
    return (reasons or str(error).splitlines() or [repr(error)])[-1].removeprefix("Caused by: ")


def on_workers(session: "SparkSession", work: Callable[[T], None], items: Sequence[T]) -> None:
    """Do the work for every item, side by side on the session's workers.

    Raises:
        ValueError, OSError: what the first item that ended so says; an error of Spark would bury it.
    """
    tasks = session.sparkContext.parallelize(items, len(items))
    for lasting, reason in filter(None, tasks.map(partial(_refusal, work)).collect()):
        raise ValueError(reason) if lasting else OSError(reason)


def _refusal(work: Callable[[T], None], item: T) -> tuple[bool, str] | None:
    try:
        work(item)
    except (ValueError, OSError) as error:
        return isinstance(error, (ValueError, FileNotFoundError)), str(error)
    return None
