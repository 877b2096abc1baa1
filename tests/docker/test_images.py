"""The images, built for real: what is in them, what is not, and that any user can work in them."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.docker.engine import Engine
from tests.docker.images import LARGEST_MB, ROOT, STAGES

pytestmark = pytest.mark.slow

IMAGES = sorted(LARGEST_MB)
SCRIPTS = [(image, stage) for image, stages in STAGES.items() for stage in stages]
# Whom nobody knows: neither the images' own user nor one of the host's. Only root may hand files to him.
STRANGER = 4242 if os.geteuid() == 0 else os.geteuid()


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the repository with the working tree's stages and library, open to every user."""
    place = tmp_path_factory.mktemp("workspaces") / "workspace"
    subprocess.run(["git", "clone", "--quiet", ROOT, place], check=True)
    for name in ("stages", "lurm"):
        subprocess.run(["cp", "-r", ROOT / name, place], check=True)
    return place


@pytest.fixture
def var(tmp_path: Path) -> Path:
    """A folder of the stranger's, to be mounted."""
    folder = tmp_path / "var"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER if os.geteuid() == 0 else -1)
    return folder


def run(engine: Engine, image: str, command: str, *options: str) -> str:
    """What a shell command prints in a new container."""
    done = engine.docker(
        "run", "--rm", "--network=host", *options, image, "sh", "-euc", command, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def config(engine: Engine, image: str) -> dict:
    return json.loads(engine.docker("image", "inspect", image).stdout)[0]["Config"]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_not_larger_than_stated(
    engine: Engine, images: dict[str, str], name: str
) -> None:
    size = engine.docker("image", "inspect", "--format", "{{.Size}}", images[name]).stdout
    assert int(size) / 1e6 < LARGEST_MB[name]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_does_not_run_as_root(engine: Engine, images: dict[str, str], name: str) -> None:
    assert run(engine, images[name], "id -u").strip() == "10001"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_says_which_revision_it_was_built_from(
    engine: Engine, images: dict[str, str], name: str
) -> None:
    labels = config(engine, images[name])["Labels"]
    assert re.fullmatch("[0-9a-f]{40}", labels["org.opencontainers.image.revision"])


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_no_compiler_and_no_cache_left(
    engine: Engine, images: dict[str, str], name: str
) -> None:
    compilers = run(engine, images[name], "which cc gcc c++ g++ clang make ld as nvcc || true")
    caches = "/root/.cache /tmp/home/.cache /var/lib/apt/lists/* /var/cache/apt/*"
    left = run(engine, images[name], f"ls -d {caches} 2>/dev/null || true", "--user=0")
    assert (compilers, left) == ("", "")


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_holds_no_secret_and_no_trace_of_the_package_index(
    engine: Engine, images: dict[str, str], name: str
) -> None:
    history = engine.docker(
        "history", "--no-trunc", "--format", "{{.CreatedBy}}", images[name]
    ).stdout
    traces = history + "\n".join(config(engine, images[name])["Env"])
    assert not re.search("password|secret|token|index_url|find_links|://", traces, re.IGNORECASE)
    files = (
        "find / -xdev -name .env -o -xdev -name .git -o -xdev -name .netrc -o -xdev -name 'id_*sa'"
    )
    assert run(engine, images[name], files, "--user=0") == ""


@pytest.mark.parametrize("name", IMAGES)
def test_every_library_finds_the_libraries_that_it_asks_for(
    engine: Engine, images: dict[str, str], name: str
) -> None:
    report = run(engine, images[name], "pip --python /opt/venv/bin/python check || true")
    # lurm as a whole asks for what a laptop gets; an image holds a part of it
    lines = [line for line in report.splitlines() if not line.startswith("lurm ")]
    assert lines in ([], ["No broken requirements found."])


@pytest.mark.parametrize(("name", "stage"), SCRIPTS)
def test_a_stage_of_the_workspace_starts_in_its_image(
    engine: Engine, images: dict[str, str], workspace: Path, name: str, stage: str
) -> None:
    options = ["--volume", f"{workspace}:{workspace}:ro", "--workdir", str(workspace)]
    options += ["--env", f"PYTHONPATH={workspace}", f"--user={STRANGER}:{STRANGER}"]
    shown = run(engine, images[name], f"python stages/{stage}.py --help", *options)
    assert shown.startswith("usage:")
    origin = run(engine, images[name], "python -c 'import lurm; print(lurm.__file__)'", *options)
    assert origin.strip() == f"{workspace}/lurm/__init__.py"


@pytest.mark.parametrize("name", STAGES)
def test_the_command_lurm_works_on_a_workspace(
    engine: Engine, images: dict[str, str], workspace: Path, name: str
) -> None:
    options = ["--volume", f"{workspace}:{workspace}:ro", "--workdir", str(workspace)]
    shown = run(engine, images[name], "lurm --help && lurm check 2>&1", *options)
    assert "General-purpose user vectors" in shown
    assert "all settings hold" in shown


@pytest.mark.parametrize("name", STAGES)
def test_any_user_can_run_dvc_and_commit_in_a_mounted_folder(
    engine: Engine, images: dict[str, str], var: Path, name: str
) -> None:
    options = ["--volume", f"{var}:{var}", "--workdir", str(var), f"--user={STRANGER}:{STRANGER}"]
    for who in ("AUTHOR", "COMMITTER"):
        options += ["--env", f"GIT_{who}_NAME=LURM", "--env", f"GIT_{who}_EMAIL=lurm@localhost"]
    command = """
        git init --quiet workspace && cd workspace && dvc init --quiet
        dvc config core.analytics false && dvc remote add --quiet --default store s3://bucket/dvc
        dvc stage add --quiet --name months --outs months.txt 'echo 2017-10 > months.txt'
        flock -n -E 75 ../lock dvc repro --quiet && dvc status -q
        git add . && git commit --quiet --message 'A month' && git log --format=%an
        python -c 'import getpass; print(getpass.getuser())'
        touch "$HOME/there"
    """
    assert run(engine, images[name], command, *options).split() == ["LURM", "lurm"]
    written = var / "workspace/months.txt"
    assert (written.read_text(), written.stat().st_uid) == ("2017-10\n", STRANGER)


def test_a_workspace_of_another_user_is_read_without_complaint(
    engine: Engine, images: dict[str, str], workspace: Path
) -> None:
    options = ["--volume", f"{workspace}:{workspace}:ro", f"--user={STRANGER + 1}:{STRANGER + 1}"]
    shown = run(engine, images["logs"], f"git -C {workspace} log -1 --format=%H", *options)
    assert len(shown.strip()) == 40


@pytest.mark.parametrize("name", STAGES)
def test_dvc_knows_s3(engine: Engine, images: dict[str, str], name: str) -> None:
    assert "\ts3 (" in run(engine, images[name], "dvc version")


def test_the_models_image_has_torch_for_the_processor(
    engine: Engine, images: dict[str, str]
) -> None:
    code = "import faiss, torch; print(torch.version.cuda, torch.ones(2).sum().item())"
    assert run(engine, images["models"], f"python -c '{code}'").split() == ["None", "2.0"]


@pytest.mark.parametrize("name", IMAGES)
def test_a_container_that_is_told_to_stop_stops_at_once(
    engine: Engine, images: dict[str, str], name: str
) -> None:
    command = ["python", "-c", "import time; time.sleep(600)"]
    container = engine.docker("run", "--detach", "--rm", "--network=host", images[name], *command)
    start = time.monotonic()
    engine.docker("stop", "--time=30", container.stdout.strip())
    assert time.monotonic() - start < 10


def test_airflow_starts_as_any_user_and_has_a_health_check(
    engine: Engine, images: dict[str, str]
) -> None:
    shown = run(engine, images["airflow"], "airflow version", f"--user={STRANGER}:0")
    assert shown.strip() == "3.3.2"
    assert config(engine, images["airflow"])["Healthcheck"]["Test"][0] == "CMD"
    drivers = "airflow.providers.docker, airflow.providers.cncf.kubernetes, asyncpg, psycopg2, s3fs"
    run(engine, images["airflow"], f"python -c 'import {drivers}'")


@pytest.mark.parametrize("runner", ["process", "docker", "kubernetes"])
def test_the_calendar_is_read_in_airflow_s_image(
    engine: Engine, images: dict[str, str], runner: str
) -> None:
    code = "import airflow, glob, runpy; [runpy.run_path(dag) for dag in glob.glob('/opt/lurm/dags/*.py')]"
    options = ["--volume", f"{ROOT}/dags:/opt/lurm/dags:ro", "--env", f"LURM_RUNNER={runner}"]
    options += ["--env", "LURM_HOME=/srv/lurm", "--env", f"LURM_REPOSITORY={ROOT}"]
    run(engine, images["airflow"], f'python -c "{code}"', *options)
