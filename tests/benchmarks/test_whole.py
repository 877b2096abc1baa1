"""The pipeline on generated logs, tiny: what the benchmark of the whole rests on."""

import pytest
import yaml

from benchmarks import stages, whole
from benchmarks.logs import World
from lurm.params import parse_params
from lurm.storage import read_json

pytestmark = pytest.mark.slow


def test_every_stage_runs_on_generated_logs_and_leaves_its_figures(tmp_path, capsys):
    size = [
        "--grow=1",
        "--behaviors=2e4",
        "--users=200",
        "--months=3",
        "--items=400",
        "--interests=40",
    ]
    result = tmp_path / "whole.json"
    whole.main([*size, f"--folder={tmp_path / 'whole'}", f"--result={result}"])
    told = read_json(result)
    rows = told["rows"]
    assert told["bytes"][0]["states"] > told["bytes"][0]["user_vectors"] > 0
    stages = yaml.safe_load((tmp_path / "whole/dvc.yaml").read_text("utf-8"))["stages"]
    assert {row["stage"] for row in rows} == set(stages)
    assert all(row["seconds"] > 0 and row["peak_mb"] > 0 for row in rows)
    assert "pretrain_smen" in capsys.readouterr().out


def test_the_settings_of_any_world_are_allowed():
    world = World(n_behaviors=10**8, n_users=10**6, n_months=24, n_items=10**5, n_interests=10**4)
    params = parse_params(whole.settings(world, 5000), "the world")
    assert len(params.months) == 24
    assert params.training.through == params.evaluation.as_of == "2016-11"


def test_a_folder_that_is_there_already_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match=r"expected one that is not there yet, found .*mine"):
        whole.main([f"--folder={tmp_path / 'mine'}"])
    assert (tmp_path / "mine").exists()


def test_a_command_is_measured_by_its_own_memory_and_says_why_it_failed():
    held = bytearray(300_000_000)  # by this process, which counts for nothing
    assert stages.measure("true")[2] < 100 < len(held) / 1e6
    assert 150 < stages.measure('python -c "held = bytearray(150_000_000)"')[2] < 250
    with pytest.raises(
        RuntimeError, match="ModuleNotFoundError: No module named 'nothing_like_it'"
    ):
        stages.measure('python -c "import nothing_like_it"')
