"""Every kind of artifact without some users is what it would have been, had they never come."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from lurm.behaviors import REASONS
from lurm.encoding import encode_month, no_users
from lurm.erasure.artifacts import (
    Freeing,
    explorer,
    index,
    labels,
    page,
    pattern_of,
    profile,
    states,
    timelines,
)
from lurm.erasure.tombstones import Tombstones
from lurm.months import month_name
from lurm.reporting.explorer import explorer_page
from lurm.reporting.validation_page import validation_page
from lurm.smen import Smen, SmenSettings
from lurm.states import finish_month, growing_states, shard_of
from lurm.storage import (
    read_json,
    read_parquet,
    read_schema,
    shard_folder,
    write_json,
    write_parquet,
)
from lurm.timelines import build_timelines, finish, save_shard
from lurm.use.index import build_index, read_index, write_index
from lurm.vectors import vector_matrix
from tests import reference
from tests.pipeline.workspaces import ROOT
from tests.reporting.test_explorer import make_release
from tests.small_world import files
from tests.use.worlds import grouped, vectors_table

KEY = b"a key that is long enough to be one"


def freeing(*users, **hashes):
    return Freeing(Tombstones(KEY, frozenset(Tombstones(KEY).hash(user) for user in users)), hashes)


@pytest.fixture
def lives():
    """Lives of thirty users, by number."""
    return reference.random_lives(30, np.random.default_rng(0))


@pytest.fixture
def some(lives):
    """The first of them, one in between, and the last."""
    users = sorted(lives)
    return users[0], users[7], users[-1]


def without(lives, *users):
    return {user: life for user, life in lives.items() if user not in users}


@pytest.mark.parametrize("n_shards", [1, 3])
def test_timelines_are_those_of_all_others(lives, some, n_shards, tmp_path):
    for name, gone in {"all": (), "others": some}.items():
        shards = []
        for number, users in enumerate(np.array_split(sorted(lives), n_shards)):
            of_shard = {int(user): lives[user] for user in users if user not in gone}
            of_shard = build_timelines(reference.boi_tables(of_shard))
            shards.append(save_shard(of_shard, shard_folder(tmp_path / name, number)))
        finish(tmp_path / name, shards)
    assert timelines(tmp_path / "all", tmp_path / "freed", freeing(*some, -1)).rows == 3
    assert files(tmp_path / "freed") == {
        name.replace("others", "freed"): content
        for name, content in files(tmp_path / "others").items()
    }
    assert timelines(tmp_path / "freed", tmp_path / "again", freeing(*some)).rows == 0
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("n_shards", [1, 3])
def test_states_keep_all_others_bit_by_bit(lives, some, n_shards, tmp_path):
    smen = Smen(SmenSettings(n_interests=6, n_anchors=2, width=3, scales={"month": 1, "year": 12}))
    after, told = no_users(smen.settings, pa.int64()), {"model_version": "v1", "n_interests": 6}
    for month in reference.months_of(lives):
        after, _ = encode_month(smen.eval(), after, reference.boi_table(lives, month), month)
        active, users = after.last_month == month, after.users.to_numpy()
        for name, kept in {"all": active, "others": active & ~np.isin(users, some)}.items():
            folder = tmp_path / name / month_name(month)
            for number, of_shard in enumerate(np.array_split(sorted(lives), n_shards)):
                with growing_states(shard_of(folder, number), after.scales) as append:
                    append(after.take(np.flatnonzero(kept & np.isin(users, of_shard))))
            told |= {"month": folder.name, "scales": after.scales}
            finish_month(folder, n_shards, **told)
    for folder in sorted((tmp_path / "all").iterdir()):
        found = states(folder, tmp_path / "freed", freeing(*some))
        expected = tmp_path / "others" / folder.name
        if not found.rows:
            assert not (tmp_path / "freed").exists()
            assert by_name(folder) == by_name(expected)
        else:
            assert by_name(tmp_path / "freed") == by_name(expected)
            shutil.rmtree(tmp_path / "freed")


def test_states_of_which_a_shard_holds_nobody_are_freed_of_a_user_of_another(tmp_path):
    smen = Smen(SmenSettings(n_interests=6, n_anchors=2, width=3, scales={"month": 1})).eval()
    lives = {user: {24_200: {0: 1.0}} for user in range(4)}
    boi = reference.boi_table(lives, 24_200)
    after, _ = encode_month(smen, no_users(smen.settings, pa.int64()), boi, 24_200)
    folder = tmp_path / month_name(24_200)
    for number, rows in enumerate(([0, 1, 2, 3], [])):
        with growing_states(shard_of(folder, number), after.scales) as append:
            append(after.take(np.array(rows, int)))
    about = {"model_version": "v1", "n_interests": 6, "scales": ["month"]}
    finish_month(folder, 2, month=folder.name, **about)
    assert states(folder, tmp_path / "freed", freeing(1)).rows == 1
    assert states(tmp_path / "freed", tmp_path / "again", freeing(2)).rows == 1
    told = json.loads((tmp_path / "again/about.json").read_text("utf-8"))
    assert [shard["users"] for shard in told["shards"]] == [2, 0]


def by_name(folder):
    return {str(Path(name).relative_to(folder)): content for name, content in files(folder).items()}


def test_labels_name_the_behaviors_they_were_made_from_as_these_are_now(tmp_path):
    table = pa.table({"user_id": [1, 2], "column": ["c"] * 2, "value": ["v"] * 2})
    write_parquet(table.replace_schema_metadata({"behaviors_sha256": "old"}), tmp_path / "labels")
    assert labels(tmp_path / "labels", tmp_path / "freed", freeing(1, old="new")).rows == 1
    assert read_parquet(tmp_path / "freed")["user_id"].to_pylist() == [2]
    assert read_schema(tmp_path / "freed").metadata[b"behaviors_sha256"] == b"new"
    # The behaviors changed, though the labels hold nobody who was forgotten.
    assert labels(tmp_path / "labels", tmp_path / "renamed", freeing(3, old="new")).rows == 0
    assert len(read_parquet(tmp_path / "renamed")) == 2
    labels(tmp_path / "labels", tmp_path / "same", freeing(3, other="new"))
    assert not (tmp_path / "same").exists()


def test_a_profile_names_the_clean_month_as_it_is_now(tmp_path):
    write_json({"sha256": "old", "users": 3}, tmp_path / "profile")
    profile(tmp_path / "profile", tmp_path / "freed", freeing(1, old="new"))
    assert read_json(tmp_path / "freed") == {"sha256": "new", "users": 3}
    profile(tmp_path / "profile", tmp_path / "same", freeing(1))
    assert not (tmp_path / "same").exists()


def test_a_page_loses_the_rows_that_show_a_forgotten_user_and_nothing_else(tmp_path):
    counts = dict.fromkeys(REASONS, 0) | {"rows_in": 9, "rows_clean": 7, "rows_set_aside": 2}
    told = {
        "month": "2020-01",
        "delivery": "here",
        "timezone": "UTC",
        "counts": counts | {"unknown_item": 2},
        "profile": {
            "users": 2,
            "items": 3,
            "behaviors_per_user": {"median": 1, "p90": 1, "p99": 1, "max": 9},
        },
        "days": [("2020-01-01", 7)],
    }
    rows = [{"row": n, "reason": "unknown_item", "user_id": u} for n, u in enumerate(["a<b", "b"])]
    shown = validation_page(**told, heavy_users=[("a<b", 5), ("c", 4)], examples=rows)
    (tmp_path / "page").write_text(shown, encoding="utf-8")
    assert (
        page(tmp_path / "page", tmp_path / "freed", freeing("a<b", "9", "1")).rows == 1
    )  # not the row of number 1
    freed = (tmp_path / "freed").read_text("utf-8")
    assert "a&lt;b" in shown
    assert "a&lt;b" not in freed
    gone = [line.strip() for line in shown.splitlines() if line not in freed.splitlines()]
    assert all("a&lt;b" in line or line.startswith("<td>0") for line in gone), gone
    assert freed.count("<tr") == shown.count("<tr") - 2
    page(tmp_path / "page", tmp_path / "same", freeing("7"))  # clean rows, but nobody's id
    assert not (tmp_path / "same").exists()


@pytest.mark.parametrize("exact_up_to", [1000, 10])
def test_an_index_forgets_the_row_of_a_user_and_finds_the_others_as_before(tmp_path, exact_up_to):
    x, _ = grouped(300, 5)
    write_parquet(vectors_table(x), tmp_path / "vectors.parquet")
    made, _ = build_index(x, exact_up_to=exact_up_to, min_recall=0.99, n_queries=50, seed=0)
    write_index(made, tmp_path / "before")
    gone = [100, 250, 399]
    told = replace(freeing(*gone), users=tmp_path / "vectors.parquet")
    assert index(tmp_path / "before", tmp_path / "after", told).rows == 3
    rows = np.delete(np.arange(300), [user - 100 for user in gone])
    after = read_index(tmp_path / "after")
    assert after.ntotal == 297
    cosines, found = after.search(x[rows], 1)
    np.testing.assert_array_equal(found[:, 0], np.arange(297))
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    left = vector_matrix(vectors_table(x[rows]))
    write_parquet(vectors_table(left, rows + 100), tmp_path / "vectors.parquet")
    assert index(tmp_path / "after", tmp_path / "again", told).rows == 0
    assert not (tmp_path / "again").exists()


def test_the_explorer_loses_the_life_of_a_forgotten_user_and_nothing_else(tmp_path):
    write_parquet(
        pa.table({"user_id": ["ann", "bob"], "name": ["user 1", "user 2"]}),
        tmp_path / "users.parquet",
    )
    before, due = make_release(), make_release(lives=make_release().lives[1:])
    (tmp_path / "page").write_text(explorer_page(before), encoding="utf-8")
    told = replace(freeing("ann"), users=tmp_path / "users.parquet")
    assert explorer(tmp_path / "page", tmp_path / "freed", told).rows == 1
    freed = (tmp_path / "freed").read_text("utf-8")
    assert "".join(freed.split()) == "".join(explorer_page(due).split())
    assert (
        explorer(
            tmp_path / "freed", tmp_path / "same", replace(told, tombstones=freeing("x").tombstones)
        ).rows
        == 0
    )
    assert not (tmp_path / "same").exists()


def test_every_output_of_the_pipeline_has_a_rule():
    text = re.sub(r"\$\{[^}]+\}", "2017-01", (ROOT / "dvc.yaml").read_text("utf-8"))
    paths = [
        path
        for stage in yaml.safe_load(text)["stages"].values()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get("do", stage).get(kind, [])
        for path in ([out] if isinstance(out, str) else out)
    ]
    assert "data/timelines" in paths
    listed = subprocess.run(
        ["git", "ls-files", "*.dvc"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert listed == ["data/landing.dvc"]
    for path in paths:
        assert pattern_of(path)


def test_users_whom_the_watch_on_drift_waits_for_are_known_too():
    assert pattern_of("data/drift/2017-11/labels/2017-11.parquet") == "data/drift/*/labels/*"
    waiting = "data/drift/2017-11/predictions/2017-10.parquet"
    assert pattern_of(waiting) == "data/drift/*/predictions/*"


def test_an_output_without_a_rule_is_refused():
    with pytest.raises(ValueError, match=r"data/new/x: .*lurm/erasure/artifacts.py"):
        pattern_of("data/new/x")
