from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from lurm.alignment import align
from lurm.smen import Smen, SmenSettings
from lurm.storage import read_json, write_parquet, write_tensors
from lurm.tables import user_vectors_schema
from stages.carry_heads import main

PARAMS = Path(__file__).parents[2] / "params.yaml"
N_USERS, WIDTH = 240, 6
ARGS = [
    *("--task=age", "--labels=users.parquet", "--standing=standing.parquet"),
    *("--vectors=vectors.parquet", "--bags=boi", "--smen=smen.safetensors", "--result=result.json"),
]


def write_vectors(x, path, users, version):
    columns = [
        users,
        pa.FixedSizeListArray.from_arrays(pa.array(x.astype(np.float32).ravel()), x.shape[1]),
        [1] * len(x),
        pa.array([0.5] * len(x), pa.float32()),
        *([month] * len(x) for month in ("2017-01", "2017-10")),
        *([name] * len(x) for name in version),
    ]
    schema = user_vectors_schema(x.shape[1], pa.int64())
    write_parquet(pa.table([pa.array(c) for c in columns], schema=schema), path)


def write_smen(alignment=None, space="v1"):
    settings = SmenSettings(3, 2, 4, {"month": 1}, published_width=WIDTH)
    smen = Smen(settings)
    if alignment:
        smen.turn, smen.offset = alignment.turn, alignment.offset
    about = {"model_version": "v2", "space_version": space, **settings.to_json()}
    write_tensors(smen.state_dict(), "smen.safetensors", about)


@pytest.fixture(autouse=True)
def vectors(tmp_path, monkeypatch):
    """Vectors that tell the age, the same ones turned, and a few users that only one side knows."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load(PARAMS.read_text("utf-8"))
    settings["evaluation"] |= {"folds": 3, "repeats": 1, "max_epochs": 30}
    Path("params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    rng = np.random.default_rng(0)
    old = rng.normal(size=(N_USERS, WIDTH)) * np.linspace(1, 0.2, WIDTH) + 1
    raw = (old - 3) @ np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    age = np.where(old[:, 0] + 0.3 * rng.normal(size=N_USERS) > 1, "old", "young")
    users = np.arange(N_USERS)
    write_parquet(pa.table({"user_id": users, "age": age}), "users.parquet")
    write_vectors(old[:-5], "standing.parquet", users[:-5], ("v1", "v1"))
    return old.astype(np.float32), raw.astype(np.float32), users


def test_heads_serve_vectors_that_were_turned_and_read_noise_in_others(vectors):
    old, raw, users = vectors
    found = align(raw, old)
    turned = raw @ found.turn.numpy() + found.offset.numpy()
    write_vectors(turned[3:], "vectors.parquet", users[3:], ("v2", "v1"))
    write_smen(found)
    main(ARGS)
    scores = read_json("result.json")
    means = {name: np.mean(folds) for name, folds in scores.items()}
    assert set(scores) == {"standing", "carried", "unaligned", "raw"}
    assert all(len(folds) == 3 for folds in scores.values())
    assert means["standing"] > 0.9
    assert means["carried"] == pytest.approx(means["standing"], abs=0.01)
    assert means["raw"] > 0.9
    assert means["unaligned"] < means["carried"] - 0.1


def test_in_a_new_space_there_is_nothing_turned_to_compare_with(vectors):
    _, raw, users = vectors
    write_vectors(raw, "vectors.parquet", users, ("v2", "v2"))
    write_smen(space="v2")
    main(ARGS)
    assert set(read_json("result.json")) == {"standing", "carried"}


def test_vectors_of_another_width_take_no_head_of_before(vectors):
    _, raw, users = vectors
    write_vectors(raw[:, :4], "vectors.parquet", users, ("v2", "v2"))
    write_smen(space="v2")
    main(ARGS)
    assert set(read_json("result.json")) == {"standing"}
