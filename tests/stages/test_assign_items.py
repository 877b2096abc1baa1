from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lurm.interests.assignment import assign
from lurm.item_embedding import ItemEncoder, build_vocabulary, embed_catalog
from lurm.storage import (
    read_array,
    read_json,
    read_parquet,
    write_array,
    write_json,
    write_parquet,
    write_tensors,
)
from stages.assign_items import main

ARGS = [
    "--catalog=catalog.parquet",
    "--standing=standing.parquet",
    "--centres=centres.npy",
    "--encoder=encoder.safetensors",
    "--vocabulary=vocabulary.json",
    "--item-interests=map.parquet",
    "--result=result.json",
]
PARAMS = Path(__file__).parents[2] / "params.yaml"


def catalog(ids, texts):
    return pa.table({"item_id": ids, "text": pa.array(texts, pa.string())})


KNOWN = catalog([1, 2, 4], ["dark coffee", "dog food", "green tea"])


@pytest.fixture(autouse=True)
def release(tmp_path, monkeypatch):
    """A release trained on three items, each the centre of its own interest."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes(PARAMS.read_bytes())
    vocabulary = build_vocabulary(KNOWN, ["text"], 1, 0.95)
    encoder = ItemEncoder(len(vocabulary), 8)
    write_tensors(encoder.state_dict(), "encoder.safetensors")
    write_json(vocabulary.to_json(), "vocabulary.json")
    centres = embed_catalog(encoder.eval(), vocabulary, KNOWN)
    write_array(centres, "centres.npy")
    write_parquet(assign(KNOWN["item_id"], centres, centres, 1, 0.1), "standing.parquet")


def run(table):
    write_parquet(table, "catalog.parquet")
    main(ARGS)
    return read_parquet("map.parquet"), read_json("result.json")


def test_an_unchanged_catalog_keeps_the_standing_map_and_needs_no_encoder():
    Path("encoder.safetensors").unlink()
    mapped, result = run(KNOWN)
    assert mapped.equals(read_parquet("standing.parquet"))
    assert result["items"] == 3
    assert result["new_items"] == 0
    assert result["mean_cosine_new"] is None


def test_new_items_get_the_interest_of_their_nearest_centre_and_move_nobody():
    more = catalog([0, 3, 9], ["food dog", "tea green", "never seen words"])
    mapped, result = run(pa.concat_tables([KNOWN, more]))
    assert mapped["item_id"].to_pylist() == [0, 1, 2, 3, 4, 9]
    interest = dict(zip(mapped["item_id"].to_pylist(), mapped["interest"].to_pylist(), strict=True))
    assert interest[0] == interest[2]
    assert interest[3] == interest[4]
    standing = read_parquet("standing.parquet")
    assert mapped.take([1, 2, 4]).equals(standing)
    assert result["new_items"] == 3
    assert -1 <= result["mean_cosine_new"] < result["mean_cosine_known"] <= 1.000001


def test_an_item_whose_text_changed_keeps_its_standing_interest():
    mapped, _ = run(catalog([1, 2, 4], ["dog food", "dog food", "dog food"]))
    assert mapped.equals(read_parquet("standing.parquet"))


def test_a_catalog_with_other_ids_is_refused_and_nothing_is_written():
    write_parquet(catalog(["1"], ["tea"]), "catalog.parquet")
    with pytest.raises(ValueError, match="string in the catalog but int64"):
        main(ARGS)
    assert not Path("map.parquet").exists()


def test_centres_of_another_release_are_refused():
    write_array(np.eye(3, 5, dtype=np.float32), "centres.npy")
    with pytest.raises(ValueError, match="different releases"):
        run(catalog([7], ["tea"]))
    assert read_array("centres.npy").shape == (3, 5)


def test_a_missing_catalog_column_is_named():
    write_parquet(pa.table({"sku": [1]}), "catalog.parquet")
    with pytest.raises(ValueError, match=r"catalog\.parquet.*'item_id' is missing"):
        main(ARGS)
