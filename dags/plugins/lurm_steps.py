"""A step of a run as an Airflow task: the one place that knows how steps are run.

Every step is the same command, ``lurm release ... --run <run>``; the setting ``LURM_RUNNER`` tells where:
as a ``process`` of the worker, in a ``docker`` container, or in a ``kubernetes`` pod.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from lurm_pages import PageLink

# Stages whose image holds Great Expectations and no torch; all others need the models' image.
LOGS = (
    *("update_catalog", "validate_logs", "build_boi"),
    *("compare_months", "report", "cards", "explore"),
)
REFUSED = 1  # exit status of a step that trying again would not help


@dataclass(frozen=True)
class Settings:
    """What the environment says, read once when the DAGs are parsed."""

    runner: str
    home: str
    repository: str
    landing: str
    retry_delay: timedelta
    deadline: timedelta
    waits: int
    parallel_runs: int
    since: datetime | None
    retrain_schedule: str | None
    images: dict[str, str]
    docker_url: str
    mounts: tuple[str, ...]
    network: str
    claim: str
    secret: str | None
    connection: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """``LURM_*``; docs/every-month.md lists them.

        Raises:
            ValueError: the runner is not one of the three.
        """
        get = environment.get
        runner, since = get("LURM_RUNNER", "process"), get("LURM_SINCE")
        if runner not in ("process", "docker", "kubernetes"):
            raise ValueError(f"LURM_RUNNER: expected process, docker or kubernetes, got {runner!r}")
        return cls(
            runner=runner,
            home=get("LURM_HOME", ""),
            repository=get("LURM_REPOSITORY", ""),
            landing=get("LURM_LANDING", ""),
            retry_delay=timedelta(seconds=float(get("LURM_RETRY_SECONDS", "300"))),
            deadline=timedelta(hours=float(get("LURM_DEADLINE_HOURS", "72"))),
            waits=int(get("LURM_WAITS", "288")),
            parallel_runs=int(get("LURM_PARALLEL_RUNS", "4")),
            since=datetime.fromisoformat(since).replace(tzinfo=UTC) if since else None,
            retrain_schedule=get("LURM_RETRAIN_SCHEDULE"),
            images={
                kind: get(f"LURM_IMAGE_{kind.upper()}", f"lurm-{kind}:dev")
                for kind in ("logs", "models")
            },
            docker_url=get("DOCKER_HOST", "unix://var/run/docker.sock"),
            mounts=tuple(filter(None, get("LURM_MOUNTS", "").split(":"))),
            network=get("LURM_NETWORK", "host"),
            claim=get("LURM_CLAIM", "lurm"),
            secret=get("LURM_SECRET"),
            connection=get("LURM_CONNECTION"),
        )


SETTINGS = Settings.from_environment(os.environ)


def stage(name: str, **options: Any) -> BaseOperator:
    """The task that brings the stage ``name`` of ``dvc.yaml`` up to date, for the run's month."""
    return step(name, "run", name, image="logs" if name in LOGS else "models", **options)


def step(task_id: str, *words: str, image: str = "models", **options: Any) -> BaseOperator:
    """The task that runs ``lurm release <words>``, with the runner that is set."""
    run = "{{ dag.dag_id }}__{{ run_id }}"
    command = ["lurm", "release", words[0], "--run", run, *words[1:]]
    make = {"process": StepProcess, "docker": _container, "kubernetes": _pod}[SETTINGS.runner]
    return make(task_id=task_id, command=command, image=SETTINGS.images[image], **options)


def environment() -> dict[str, str]:
    """What a step is told; the keys of the connection, if one is set, are filled in when it runs."""
    told = {
        "LURM_HOME": SETTINGS.home,
        "LURM_REPOSITORY": SETTINGS.repository,
        "LURM_LANDING": SETTINGS.landing,
        "LURM_RUNNER": SETTINGS.runner,
    }
    if SETTINGS.connection:
        connection = f"conn.{SETTINGS.connection}"
        told["AWS_ACCESS_KEY_ID"] = f"{{{{ {connection}.login }}}}"
        told["AWS_SECRET_ACCESS_KEY"] = f"{{{{ {connection}.password }}}}"
    return told


def inherited() -> dict[str, str]:
    """What a step finds in its environment because the worker has it, never shown: keys among them."""
    passed = ("AWS_", "LURM_ERASURE_KEY", "OMP_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name.startswith(passed)}


class StepProcess(BaseOperator):
    """A step as a process of the worker."""

    template_fields = ("command", "environment")
    operator_extra_links = (PageLink(),)
    ui_color = "#e3f0ea"

    def __init__(self, *, command: list[str], image: str, **options: Any) -> None:
        super().__init__(**options)
        self.command = command
        self.environment = environment()
        self.hook = SubprocessHook()

    def execute(self, context: Context) -> Any:
        """Run the step; returns the JSON of its last line."""
        done = self.hook.run_command(self.command, env={**os.environ, **self.environment})
        return _ended(done.exit_code, done.output)

    def on_kill(self) -> None:
        """End the process with the task."""
        self.hook.send_sigterm()


class StepContainer(DockerOperator):
    """A step as a container, which leaves its image's digest with the run."""

    operator_extra_links = (PageLink(),)

    def execute(self, context: Context) -> Any:
        """Run the step; returns the JSON of its last line.

        A container that a killed task left behind goes on and holds the run's lock, so that this one
        waits for it. What such a one leaves when it has ended is removed here.
        """
        ti = context["ti"]
        name = f"{ti.dag_id}.{ti.run_id}.{ti.task_id}"
        for old in self.cli.containers(all=True, filters={"label": f"lurm.step={name}"}):
            if old["State"] != "running":
                self.cli.remove_container(old["Id"])
        self.labels = {"lurm.step": name}
        if not self.cli.images(name=self.image):  # the first time on this machine
            self.cli.pull(self.image)
        self.environment["LURM_IMAGE"] = f"{self.image}@{self.cli.inspect_image(self.image)['Id']}"
        try:
            status, line = 0, super().execute(context)
        except DockerContainerFailedException as error:
            status = self.cli.wait(self.container["Id"])["StatusCode"] if self.container else None
            line = (error.logs or [str(error)])[-1]
        if self.container:
            self.cli.remove_container(self.container["Id"])
        return _ended(status, line)


def _container(*, command: list[str], image: str, **options: Any) -> BaseOperator:
    from docker.types import Mount

    places = (SETTINGS.repository, SETTINGS.landing)
    local = [SETTINGS.home, *(p for p in places if p.startswith("/")), *SETTINGS.mounts]
    return StepContainer(
        command=command,
        image=image,
        docker_url=SETTINGS.docker_url,
        environment=environment(),
        private_environment=inherited(),
        mounts=[Mount(path, path, type="bind") for path in dict.fromkeys(local)],
        mount_tmp_dir=False,
        network_mode=SETTINGS.network,
        user=f"{os.getuid()}:{os.getgid()}",
        auto_remove="never",
        **options,
    )


def _pod(*, command: list[str], image: str, **options: Any) -> BaseOperator:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from kubernetes.client import models as k8s

    # A pod does not learn its image's digest, so the name that is set should hold one.
    told = {"LURM_RESULT_FILE": "/airflow/xcom/return.json", "LURM_IMAGE": image}
    pod = KubernetesPodOperator(
        name=f"lurm-{options['task_id'].replace('_', '-')}",
        arguments=command,  # not cmds: the image's entrypoint hands signals on
        image=image,
        env_vars=environment() | told,
        env_from=[
            k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=name))
            for name in filter(None, [SETTINGS.secret])
        ],
        volumes=[
            k8s.V1Volume(
                name="lurm",
                persistent_volume_claim=k8s.V1PersistentVolumeClaimVolumeSource(
                    claim_name=SETTINGS.claim
                ),
            )
        ],
        volume_mounts=[k8s.V1VolumeMount(name="lurm", mount_path=SETTINGS.home)],
        security_context=k8s.V1PodSecurityContext(run_as_non_root=True, fs_group=1000),
        do_xcom_push=True,
        on_finish_action="delete_succeeded_pod",
        durable=True,  # a retry goes on with the pod of the try before
        **options,
    )
    pod.operator_extra_links = (PageLink(),)
    return pod


def _ended(status: int | None, last_line: Any) -> Any:
    line = last_line.decode() if isinstance(last_line, bytes) else str(last_line)
    if status == 0:
        return json.loads(line)
    reason = line.removeprefix("error: ")
    if status == REFUSED:
        raise AirflowFailException(reason)
    raise AirflowException(f"{reason} (exit status {status})")
