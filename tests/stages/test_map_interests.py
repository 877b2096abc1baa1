from pathlib import Path

import numpy as np
import pytest

from lurm.smen import load_smen
from lurm.storage import read_array, read_parquet
from stages.map_interests import main
from stages.pretrain_smen import main as pretrain_smen
from tests import small_world
from tests.stages.test_pretrain_smen import ARGS as PRETRAIN
from tests.stages.test_pretrain_smen import OUTS, write_timelines

ARGS = f"--centres centres.npy --smen {OUTS['smen']} --timelines timelines"
ARGS = [*ARGS.split(), "--interest-map=map/interests.parquet", "--anchor-map=map/anchors.parquet"]


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """Centres, timelines, and the encoder trained on them."""
    monkeypatch.chdir(tmp_path)
    small_world.write_settings()
    small_world.write_centres()
    small_world.write_training()
    write_timelines()
    pretrain_smen(PRETRAIN)
    return load_smen(Path(OUTS["smen"]))[0]


def test_every_interest_has_a_place_its_neighbors_and_what_anchors_hold_of_it(encoder):
    main(ARGS)
    found = read_parquet("map/interests.parquet")
    centres = read_array(Path("centres.npy"))
    assert found["interest"].to_pylist() == [0, 1, 2, 3]
    cosines = centres @ centres.T - 3 * np.eye(4)
    assert found["neighbors"].to_pylist() == np.argsort(-cosines)[:, :3].tolist()
    shares = np.array(found["anchor_shares"].to_pylist())
    expected = encoder.multi_anchor.shares(encoder.multi_anchor.interests).detach().numpy()
    np.testing.assert_allclose(shares, expected)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    anchors = read_parquet("map/anchors.parquet")
    assert set(anchors["anchor"].to_pylist()) == {0, 1}


@pytest.mark.usefixtures("encoder")
def test_the_same_models_give_the_same_maps():
    main(ARGS)
    before = small_world.files("map")
    main(ARGS)
    assert small_world.files("map") == before
