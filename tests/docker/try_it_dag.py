"""One task in the scheduler's own container, one in a container of a stage image that it asks for."""

import os
from pathlib import Path

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import dag, task
from docker.types import Mount

HOME = os.environ["LURM_HOME"]
COMMAND = f"""
lurm --help
python -c 'import s3fs; print("buckets", s3fs.S3FileSystem().ls(""))'
cp {HOME}/greeting {HOME}/answer
"""


@dag(schedule=None)
def try_it() -> None:
    """Greet, and answer."""

    @task
    def greet() -> None:
        Path(HOME, "greeting").write_text("hello")

    answer = DockerOperator(
        task_id="answer",
        image=os.environ["LURM_IMAGE_LOGS"],
        command=["sh", "-euc", COMMAND],
        user=f"{os.getuid()}:{os.getgid()}",
        network_mode=os.environ["LURM_NETWORK"],
        private_environment={k: v for k, v in os.environ.items() if k.startswith("AWS_")},
        mount_tmp_dir=False,
        mounts=[Mount(HOME, HOME, type="bind")],
        auto_remove="force",
    )
    greet() >> answer


try_it()
