from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch

from lurm.encoding import load_states
from lurm.smen import load_smen
from lurm.storage import read_json
from lurm.timelines import build_timelines, save_timelines
from stages.pretrain_smen import main
from tests import reference, small_world

OUTS = {"smen": "out/smen.safetensors", "result": "out/result.json", "plot": "out/loss.csv"}
ARGS = [
    *("--timelines=timelines", "--centres=centres.npy", "--start=out/start"),
    *(f"--{k}={v}" for k, v in OUTS.items()),
]


def write_timelines(n_users=10, interest=3):
    lives = {
        small_world.user_name(u): {24204 + i: {u % 3: 1.0, interest: 2.0} for i in range(3)}
        for u in range(n_users)
    }
    save_timelines(build_timelines(reference.boi_tables(lives)), Path("timelines"))


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    small_world.write_settings()
    small_world.write_centres()
    write_timelines()


def test_the_encoder_its_first_states_and_its_figures_carry_one_version():
    main(ARGS)
    smen, version = load_smen(Path(OUTS["smen"]))
    assert version.startswith("2017-03-r1-")
    assert smen.settings.n_interests == 4
    assert list(smen.settings.scales) == ["month", "year"]
    states = load_states(Path("out/start"), version)
    assert len(states.users) == 0
    assert states.users.type == pa.string()
    assert list(states.scales) == ["month", "year"]
    result = read_json(OUTS["result"])
    assert result["model_version"] == version
    assert result["n_users"] == 10
    assert result["n_bags"] == 30
    losses = pd.read_csv(OUTS["plot"])
    assert losses["epoch"].tolist() == [1, 2]
    assert losses["loss"].iloc[-1] == pytest.approx(result["loss"])


def test_the_same_input_gives_the_same_bytes_and_another_seed_another_version():
    main(ARGS)
    first = small_world.files("out")
    main(ARGS)
    assert small_world.files("out") == first
    small_world.write_settings(pretrain_smen={"seed": 1})
    main(ARGS)
    _, version = load_smen(Path(OUTS["smen"]))
    assert version not in first[OUTS["result"]].decode()


def test_without_the_centres_interests_start_at_random_and_no_centres_are_read():
    main(ARGS)
    first = small_world.files("out")
    small_world.write_settings(pretrain_smen={"interest_start": "random"})
    Path("centres.npy").unlink()
    main(ARGS)
    assert small_world.files("out") != first


def refused(told, error=ValueError, more=()):
    with pytest.raises(error, match=told):
        main([*ARGS, *more])
    assert not Path("out").exists()


def test_a_single_user_is_refused():
    write_timelines(n_users=1)
    refused("needs two users or more")


def test_an_interest_beyond_those_of_the_settings_is_refused():
    write_timelines(interest=4)
    refused(r"cluster_interests\.n_interests")


def test_a_complement_of_three_scales_is_refused():
    scales = {"month": 1, "quarter": 3, "year": 12}
    small_world.write_settings(pretrain_smen={"gate": "complement", "scales": scales})
    refused(r"pretrain_smen\.gate: 'complement' needs two scales, got month, quarter, year")


def test_timelines_that_are_incomplete_are_refused():
    Path("timelines/counts.npy").unlink()
    refused(r"counts\.npy", FileNotFoundError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_refused():
    refused("finds no GPU here", more=["--device=cuda"])


def test_centres_of_another_number_than_the_interests_are_refused():
    small_world.write_centres(3)
    refused("n_interests is 4, there are 3 centres")
