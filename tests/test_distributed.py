"""Several processes train as one does: equal batches give equal losses and weights, and one writes."""

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from lurm.distributed import own_slice
from lurm.pretraining import pretrain
from lurm.smen import SmenSettings
from lurm.storage import read_json, read_tensors, write_json, write_tensors
from stages.pretrain_smen import main
from tests import small_world
from tests.stages.test_pretrain_smen import ARGS, OUTS, write_timelines
from tests.test_pretraining import OPTIONS, SETTINGS, planted

ROOT = Path(__file__).parents[1]
TRAIN = """
from torch import distributed
from lurm.distributed import processes
from tests.test_distributed import train
with processes():
    train(distributed.get_rank())
"""
CASES = {
    "even": ({}, {}),
    "uneven": (
        {"aggregation": "mean", "empty_periods": "zeros"},
        {"batch_size": 11},
    ),
    "users fewer than processes": ({}, {"batch_size": 46}),  # in the last batch of 48
}


def train(rank):
    """Writes the losses and the weights of every case here."""
    torch.set_num_threads(1)
    for case, (settings, options) in CASES.items():
        smen, losses = pretrain(
            planted(), SmenSettings(**SETTINGS.to_json() | settings), **OPTIONS | options
        )
        write_tensors(smen.state_dict(), Path(f"{rank}/{case}.safetensors"), {})
        write_json(losses, Path(f"{rank}/{case}.json"))


def torchrun(n_processes, *command):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        # The -- keeps torchrun from reading the stage's --start as its own --start-method.
        [*launcher, f"--nproc-per-node={n_processes}", "--", *command],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("n_processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_losses_and_weights_are_those_of_one_process(n_processes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(TRAIN, encoding="utf-8")
    train("alone")
    torchrun(n_processes, "train.py")
    for case in CASES:
        losses, others = (read_json(Path(f"{who}/{case}.json")) for who in ("alone", "0"))
        np.testing.assert_allclose(others, losses, rtol=1e-5)
        alone, *ranks = (
            read_tensors(Path(f"{who}/{case}.safetensors"))[0]
            for who in ("alone", *range(n_processes))
        )
        for name, expected in alone.items():
            assert all(torch.equal(rank[name], ranks[0][name]) for rank in ranks)
            # Adam makes much of the rounding of a gradient near zero, but of few.
            apart = (ranks[0][name] - expected).norm() / expected.norm()
            assert apart < 1e-3, (case, name)


def test_the_stage_runs_under_torchrun_and_one_process_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_world.write_settings()
    small_world.write_centres()
    small_world.write_training()
    write_timelines()
    torchrun(2, str(ROOT / "stages/pretrain_smen.py"), *ARGS)
    together = small_world.files("out")
    assert set(OUTS.values()) <= set(together)
    loss = read_json(Path(OUTS["result"]))["loss"]
    main(ARGS)
    assert set(small_world.files("out")) == set(together)
    assert loss == pytest.approx(read_json(Path(OUTS["result"]))["loss"], rel=1e-4)


@pytest.mark.parametrize(("n", "size"), [(7, 3), (2, 4), (0, 2), (256, 8)])
def test_slices_are_in_order_hold_everybody_once_and_are_as_even_as_can_be(n, size, monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: size)
    parts = []
    for rank in range(size):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        parts.append(list(range(n))[own_slice(n)])
    assert list(chain(*parts)) == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
