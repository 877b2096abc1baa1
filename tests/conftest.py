"""What holds for all tests; a cluster of Spark, where it is installed."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A main module without a file, such as that of a worker of pytest-xdist, is taken by pyspark for its own
# doctests: whoever imports it, as Great Expectations does where it is installed, then exits.
if not hasattr(sys.modules["__main__"], "__file__"):
    sys.modules["__main__"].__file__ = __file__


@pytest.fixture
def java(monkeypatch):
    """Skips without Spark; its workers find the modules that tests import by name."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    pytest.importorskip("pyspark", reason="pyspark, of the extra `spark`, is not installed")
    if not shutil.which("java"):
        pytest.skip("there is no Java")


@pytest.fixture
def cluster(java, tmp_path):
    """The address of a Spark master on loopback with two workers of one core each."""
    from pyspark.find_spark_home import _find_spark_home

    spark_class = Path(_find_spark_home(), "bin/spark-class")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"spark://127.0.0.1:{port}"
    at = ["--host", "127.0.0.1", "--webui-port", "0"]
    deploy = "org.apache.spark.deploy"
    daemons = [
        [f"{deploy}.master.Master", *at, "--port", str(port)],
        *[
            [f"{deploy}.worker.Worker", *at, "--cores", "1", "--memory", "1g", address]
            for _ in range(2)
        ],
    ]
    log = tmp_path / "daemons.log"
    environment = os.environ | {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(tmp_path / "work"),
    }
    with log.open("w") as said:
        processes = [
            subprocess.Popen([spark_class, *daemon], stdout=said, stderr=said, env=environment)
            for daemon in daemons
        ]
    try:
        deadline = time.monotonic() + 120
        while log.read_text().count("Successfully registered with master") < 2:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield address
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
