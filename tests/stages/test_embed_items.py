from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from lurm.item_embedding import ItemEncoder, Vocabulary, embed_catalog
from lurm.storage import read_array, read_json, read_parquet, read_tensors, write_parquet
from stages.embed_items import main
from tests import small_world

OUTS = {
    "encoder": "out/encoder.safetensors",
    "vocabulary": "out/vocabulary.json",
    "items": "out/items.parquet",
    "vectors": "out/vectors.npy",
    "result": "out/result.json",
    "plot": "out/loss.csv",
}
ARGS = ["--training=training", *(f"--{name}={path}" for name, path in OUTS.items())]


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    small_world.write_settings()
    small_world.write_catalog()
    for month in small_world.TRAINING:
        small_world.write_behaviors(month)


def test_every_item_of_the_catalog_gets_a_unit_vector_in_the_catalogs_order():
    main(ARGS)
    vectors = read_array(OUTS["vectors"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (small_world.N_ITEMS, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert read_parquet(OUTS["items"])["item_id"].to_pylist() == list(range(small_world.N_ITEMS))
    result = read_json(OUTS["result"])
    assert result["n_behaviors"] == 6 * (12 + 11 + 11)
    assert result["items_without_known_word"] == 4
    assert result["n_texts"] == 3
    losses = pd.read_csv(OUTS["plot"])
    assert losses["step"].tolist() == list(range(1, 11))
    assert result["loss"] == pytest.approx(losses["loss"].mean())


def test_behaviors_that_are_not_learned_from_are_counted(caplog):
    small_world.write_settings(embed_items={"most_behaviors": 100})
    with caplog.at_level("INFO", logger="embed_items"):
        main(ARGS)
    learned = read_json(OUTS["result"])["n_behaviors"]
    assert 0 < learned < 6 * (12 + 11 + 11)
    assert f"learns from {learned} of 204 behaviors" in caplog.text


def test_the_encoder_and_its_vocabulary_give_the_vectors_again():
    main(ARGS)
    encoder = ItemEncoder.from_tensors(read_tensors(OUTS["encoder"])[0])
    vocabulary = Vocabulary.from_json(read_json(OUTS["vocabulary"]))
    assert {"綠茶", "чай", "soap"} <= set(vocabulary.words)
    again = embed_catalog(encoder, vocabulary, read_parquet("training/catalog.parquet"))
    np.testing.assert_array_equal(again, read_array(OUTS["vectors"]))


def test_the_same_input_gives_the_same_bytes_and_another_seed_others():
    main(ARGS)
    first = small_world.files("out")
    main(ARGS)
    assert small_world.files("out") == first
    small_world.write_settings(embed_items={"seed": 1})
    main(ARGS)
    assert small_world.files("out")[OUTS["vectors"]] != first[OUTS["vectors"]]


def test_months_that_are_not_trained_on_change_nothing():
    main(ARGS)
    first = small_world.files("out")
    small_world.write_behaviors("2017-04", seed=9)
    main(ARGS)
    assert small_world.files("out") == first


def refused(told, error=ValueError):
    with pytest.raises(error, match=told):
        main(ARGS)
    assert not Path("out").exists()


def test_a_missing_training_month_is_named():
    Path("training/behaviors/2017-02.parquet").unlink()
    refused(r"missing 2017-02\.parquet", FileNotFoundError)


def test_a_truncated_month_is_named():
    path = Path("training/behaviors/2017-02.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    refused(r"2017-02\.parquet: expected a complete parquet file")


def test_a_text_column_that_the_catalog_lacks_is_named():
    small_world.write_settings(embed_items={"text_columns": ["title"]})
    refused(r"embed_items\.text_columns: the catalog has no column title")


def test_behaviors_of_items_that_the_catalog_lacks_are_refused():
    catalog = read_parquet("training/catalog.parquet")
    write_parquet(catalog.slice(2), "training/catalog.parquet")
    refused(r"\d+ behaviors are of items that the pinned catalog does not hold")


def test_a_catalog_without_text_is_refused():
    catalog = read_parquet("training/catalog.parquet")
    none = pa.nulls(len(catalog), pa.string())
    texts = {"name": none, "kind": none}
    write_parquet(pa.table({"item_id": catalog["item_id"], **texts}), "training/catalog.parquet")
    refused("none of 0 words")
