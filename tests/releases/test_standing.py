"""What a retraining takes over from the release before it."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from lurm.interests.lineage import first_lineage
from lurm.releases.standing import FOLDER, LINEAGE, stand_on
from lurm.releases.workspaces import RELEASE_MODEL
from lurm.storage import read_json, read_parquet, write_array, write_parquet, write_tensors

MAP, VECTORS = "data/item_interests/2017-03.parquet", "data/user_vectors/2017-03.parquet"


@pytest.fixture
def workspace(tmp_path):
    """A workspace on a published branch with the given outputs; what it was asked to do is in `done`."""

    def make(*outputs, **about):
        for path in (MAP, VECTORS):
            write_parquet(pa.table({"of": [path]}), tmp_path / path)
        write_parquet(first_lineage([0.5, 0.5], "2017-02"), tmp_path / LINEAGE)
        write_array(np.eye(3, dtype=np.float32), tmp_path / "models/interest_centres.npy")
        write_tensors({}, tmp_path / RELEASE_MODEL, {"model_version": "v2"} | about)
        done = []
        # The second release was taken back, and the first is from before its report told the last id.
        published = {
            "release/*": "release/1\nrelease/2-r2",
            "release/1:reports/cluster_interests.json": "{}",
            "release/2-r2:reports/cluster_interests.json": '{"last_interest_id": 7}',
        }
        return SimpleNamespace(
            root=tmp_path,
            outputs=lambda: dict.fromkeys(outputs, "hash"),
            params=lambda: {"training": {"through": "2017-02"}},
            do=lambda *words: done.append(words),
            done=done,
            ask=lambda *words: published.get(words[-1], ""),
        )

    return make


def test_before_a_first_release_there_is_nothing_to_stand_on(workspace):
    there = workspace()
    stand_on(there, "2017-03")
    assert not (there.root / FOLDER).exists()
    assert there.done == []


def test_the_map_and_the_vectors_are_those_of_the_month(workspace):
    there = workspace(RELEASE_MODEL, LINEAGE, MAP, VECTORS, space_version="v1")
    stand_on(there, "2017-03")
    folder = there.root / FOLDER
    assert read_parquet(folder / "item_interests.parquet")["of"].to_pylist() == [MAP]
    assert read_parquet(folder / "user_vectors.parquet")["of"].to_pylist() == [VECTORS]
    assert len(read_parquet(folder / "interest_lineage.parquet")) == 2
    assert read_json(folder / "about.json") == {
        "month": "2017-03", "model_version": "v2", "space_version": "v1", "last_interest_id": 7
    }  # fmt: skip
    assert there.done == [("dvc", "add", FOLDER)]


def test_a_copy_does_not_write_into_what_it_was_copied_from(workspace):
    there = workspace(RELEASE_MODEL, LINEAGE, MAP, VECTORS)
    stand_on(there, "2017-03")
    assert not (there.root / FOLDER / "user_vectors.parquet").samefile(there.root / VECTORS)


def test_a_release_from_before_interests_had_ids_gives_them_their_rows(workspace):
    there = workspace(RELEASE_MODEL, MAP, VECTORS)
    stand_on(there, "2017-03")
    lineage = read_parquet(there.root / FOLDER / "interest_lineage.parquet")
    assert lineage["interest_id"].to_pylist() == [0, 1, 2]
    assert set(lineage["since"].to_pylist()) == {"2017-02"}
    assert read_json(there.root / FOLDER / "about.json")["space_version"] == "v2"


def test_a_month_that_the_standing_release_has_not_encoded_is_refused(workspace):
    with pytest.raises(
        ValueError, match=r"user_vectors/2017-03.* let lurm_refresh publish 2017-03"
    ):
        stand_on(workspace(RELEASE_MODEL, LINEAGE, MAP), "2017-03")
