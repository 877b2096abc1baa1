"""The images' locks hold what the stages of each image import, in the versions of requirements.lock."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.docker.images import ROOT, STAGES

IMAGES = ("logs", "models", "models-gpu", "airflow")
# What torch for CUDA brings along; torch for CPU, which is all that requirements.lock knows, does not.
CUDA = re.compile(r"nvidia-|cuda-|triton$")


def pins(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text().splitlines() if not line.startswith("#"))
    return dict(line.split("==") for line in lines)


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def named(requirement: str) -> str:
    """The normal form of a requirement's name."""
    return re.sub(r"[._]", "-", re.split(r"[=<>\[ ]", requirement)[0])


def asked(group: str) -> set[str]:
    """The names that a dependency group asks for, groups within it included."""
    names: set[str] = set()
    for entry in pyproject()["dependency-groups"][group]:
        names |= asked(entry["include-group"]) if isinstance(entry, dict) else {named(entry)}
    return names


def imported(path: Path, seen: set[Path]) -> set[str]:
    """The libraries that a script or a module imports anywhere, by itself or through ``lurm``."""
    if path in seen:
        return set()
    seen.add(path)
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {str(node.module)} | {f"{node.module}.{a.name}" for a in node.names}
    libraries = {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names)
    for module in modules:
        file = ROOT / f"{module.replace('.', '/')}.py"
        if module.startswith(("lurm.", "stages.")) and file.exists():
            libraries |= imported(file, seen)
    return libraries - {"lurm", "stages"}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_the_versions_of_the_whole_lock(image: str) -> None:
    image_pins = pins(ROOT / "docker" / f"{image}.lock")
    extra = image_pins.items() - pins(ROOT / "requirements.lock").items()
    assert {name for name, _ in extra if not (image == "models-gpu" and CUDA.match(name))} == set()


def test_the_gpu_image_has_what_the_cpu_image_has_and_cuda() -> None:
    cpu, gpu = (pins(ROOT / "docker" / f"{name}.lock") for name in ("models", "models-gpu"))
    assert cpu.items() <= gpu.items()
    assert {"triton", "nvidia-cublas"} <= gpu.keys() - cpu.keys()


@pytest.mark.parametrize("image", ["logs", "models", "airflow"])
def test_an_image_has_all_that_its_group_asks_for(image: str) -> None:
    assert asked(image) <= pins(ROOT / "docker" / f"{image}.lock").keys()


@pytest.mark.parametrize("image", ["logs", "models"])
def test_a_stage_image_asks_for_nothing_that_a_laptop_does_not_get(image: str) -> None:
    assert asked(image) <= {named(name) for name in pyproject()["project"]["dependencies"]}


def test_heavy_libraries_are_in_the_images_that_need_them_only() -> None:
    heavy = {"apache-airflow", "dvc", "faiss-cpu", "great-expectations", "torch"}
    there = {image: heavy & pins(ROOT / "docker" / f"{image}.lock").keys() for image in IMAGES[:2]}
    assert there == {"logs": {"dvc", "great-expectations"}, "models": {"dvc", "faiss-cpu", "torch"}}
    assert heavy & pins(ROOT / "docker/airflow.lock").keys() == {"apache-airflow"}


def test_every_stage_has_an_image() -> None:
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert scripts <= {stage for stages in STAGES.values() for stage in stages}


@pytest.mark.parametrize("image", STAGES)
def test_an_image_has_every_library_that_its_stages_and_steps_import(image: str) -> None:
    there = pins(ROOT / "docker" / f"{image}.lock").keys()
    distributions = packages_distributions()
    scripts = [ROOT / "stages" / f"{stage}.py" for stage in STAGES[image]]
    for script in [*scripts, *(ROOT / "lurm/releases").glob("*.py")]:
        libraries = imported(script, set())
        if (
            image == "logs"
        ):  # lurm.storage imports it where models are read, which no stage here does
            libraries -= {"torch"}
        libraries -= {"triton"}  # torch for CUDA brings it along
        libraries -= {"pyspark", "py4j"}  # an extra: the stage says how to add it to an image
        missing = {
            library
            for library in libraries
            if not there & {named(name.lower()) for name in distributions[library]}
        }
        assert missing == set(), script
