from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from lurm.alignment import turned_back
from lurm.months import month_number
from lurm.pretraining import published
from lurm.smen import load_smen
from lurm.storage import read_array, read_json, read_parquet, write_json, write_parquet
from lurm.tables import user_vectors_schema
from lurm.timelines import ShardedTimelines, build_timelines, finish, save_shard
from stages.pretrain_smen import main
from tests import reference, small_world

OUTS = {
    "start": "out/start.parquet",
    "smen": "out/smen.safetensors",
    "result": "out/result.json",
    "plot": "out/loss.csv",
}
MONTH = month_number("2017-03")
ARGS = [
    *(
        "--timelines=timelines",
        "--centres=centres.npy",
        "--anchor-shares=out/anchor_shares.npy",
        "--training=training",
        "--item-interests=item_interests.parquet",
        "--standing=standing",
    ),
    *(f"--{k}={v}" for k, v in OUTS.items()),
]


def write_timelines(n_users=10, interest=3):
    lives = {
        small_world.user_name(u): {24204 + i: {u % 3: 1.0, interest: 2.0} for i in range(3)}
        for u in range(n_users)
    }
    shard = save_shard(build_timelines(reference.boi_tables(lives)), Path("timelines/00000"))
    finish(Path("timelines"), [shard])


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    small_world.write_settings()
    small_world.write_centres()
    small_world.write_training()
    write_timelines()


def test_the_encoder_its_first_states_and_its_figures_carry_one_version():
    main(ARGS)
    smen, version = load_smen(Path(OUTS["smen"]))
    assert version.model.startswith("2017-03-r1-")
    assert smen.settings.n_interests == 4
    assert list(smen.settings.scales) == ["month", "year"]
    shares = smen.multi_anchor.shares(smen.multi_anchor.interests).detach().numpy()
    np.testing.assert_array_equal(read_array("out/anchor_shares.npy"), shares)
    nobody = read_parquet(OUTS["start"])
    assert nobody.equals(user_vectors_schema(5, pa.string()).empty_table())
    result = read_json(OUTS["result"])
    assert result["model_version"] == version.model == version.space
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
    assert version.model not in first[OUTS["result"]].decode()


def test_interests_may_start_at_random_instead_of_at_the_centres():
    main(ARGS)
    first = small_world.files("out")
    small_world.write_settings(pretrain_smen={"interest_start": "random"})
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
    Path("timelines/00000/counts.npy").unlink()
    refused(r"counts\.npy", FileNotFoundError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_refused():
    refused("finds no GPU here", more=["--device=cuda"])


def test_centres_of_another_number_than_the_interests_are_refused():
    small_world.write_centres(3)
    refused("n_interests is 4, there are 3 centres")


# ---- with a standing release ---------------------------------------------------------------------


def stand(month="2017-03", keep=slice(None)):
    """Let what the stage has made be the standing release; returns its vectors, (U, 5)."""
    smen, version = load_smen(Path(OUTS["smen"]))
    timelines = ShardedTimelines(Path("timelines"))
    vectors = published(smen, timelines, np.arange(len(timelines.users)), MONTH)
    table = pa.table(
        {
            "user_id": timelines.users,
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 5),
            **{
                f"{kind}_version": [name] * len(vectors) for kind, name in version._asdict().items()
            },
        }
    )
    write_parquet(table.take(np.arange(len(table))[keep]), "standing/release/user_vectors.parquet")
    write_json({"month": month}, "standing/release/about.json")
    return vectors, version


def test_a_retraining_keeps_the_space_and_turns_its_vectors_into_it():
    main(ARGS)
    old, first = stand()
    small_world.write_settings(pretrain_smen={"seed": 1})
    main(ARGS)
    smen, second = load_smen(Path(OUTS["smen"]))
    assert second.model != first.model
    assert second.space == first.space
    result = read_json(OUTS["result"])
    assert result["space_version"] == second.space
    assert result["alignment"]["n_users"] == 10
    timelines = ShardedTimelines(Path("timelines"))
    new = published(smen, timelines, np.arange(10), MONTH)
    raw = turned_back(new, smen.turn, smen.offset)
    spread = ((old - old.mean(0)) ** 2).sum()
    assert ((new - old) ** 2).sum() < ((raw - old) ** 2).sum()
    explained = 1 - ((new - old) ** 2).sum() / spread
    assert explained == pytest.approx(result["alignment"]["explained"], abs=1e-3)


def test_the_same_training_again_is_turned_onto_itself():
    main(ARGS)
    old, _ = stand()
    main(ARGS)
    smen, _ = load_smen(Path(OUTS["smen"]))
    assert read_json(OUTS["result"])["alignment"]["explained"] == pytest.approx(1, abs=0.01)
    new = published(smen, ShardedTimelines(Path("timelines")), np.arange(10), MONTH)
    np.testing.assert_allclose(new, old, atol=0.2 * old.std())


@pytest.mark.parametrize("month", ["2017-03", "2016-12"])
def test_a_new_space_is_founded_on_request_whatever_month_the_standing_vectors_are_of(month):
    main(ARGS)
    first = small_world.files("out")
    stand(month)
    small_world.write_settings(pretrain_smen={"space": "new"})
    main(ARGS)
    assert small_world.files("out") == first


def test_vectors_as_of_another_month_are_refused():
    main(ARGS)
    stand(month="2017-02")
    with pytest.raises(
        ValueError, match=r"as of training\.through \(2017-03\), found those as of 2017-02"
    ):
        main(ARGS)


def test_a_space_cannot_be_kept_with_another_width_or_too_few_users_and_nothing_is_trained(
    monkeypatch,
):
    main(ARGS)
    monkeypatch.setattr("stages.pretrain_smen.pretrain", None)
    stand()
    small_world.write_settings(pretrain_smen={"published_width": 4})
    with pytest.raises(ValueError, match="standing vectors have 5 numbers, the new ones 4"):
        main(ARGS)
    small_world.write_settings()
    stand(keep=slice(5))
    with pytest.raises(ValueError, match="more users with standing vectors than the 5 numbers"):
        main(ARGS)
