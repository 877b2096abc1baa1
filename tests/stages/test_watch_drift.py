from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from lurm.drift import TRAINING, from_table
from lurm.storage import read_json, read_parquet, write_json, write_parquet
from stages import build_boi, build_timelines, encode_users, open_drift, pretrain_smen
from stages.watch_drift import main
from tests import small_world
from tests.small_world import MONTHS

TASK = {"labels": "data/labels", "column": "kind", "value": "food"}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """Four months of the small world, encoded, with predictions; labels of one month, one month after."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("encoded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small_world.write_settings()
        settings = yaml.safe_load(Path("params.yaml").read_text("utf-8")) | {
            "tasks": {"food": TASK}
        }
        settings["evaluation"] |= {"as_of": "2017-02", "label_months": ["2017-03"]}
        settings["training"] |= {"through": "2017-02", "months": MONTHS[:2]}
        Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        small_world.write_item_interests()
        small_world.write_catalog("catalog.parquet")
        small_world.write_catalog()
        small_world.write_centres()
        for month in MONTHS:
            small_world.write_behaviors(month)
            behaviors = read_parquet(f"training/behaviors/{month}.parquet")
            profile = {"behaviors": len(behaviors), "mix": {"food": 0.5, "care": 0.5}}
            write_json(profile, f"profiles/{month}.json")
            build_boi.main(
                [f"--behaviors=training/behaviors/{month}.parquet", f"--boi=boi/{month}.parquet",
                 "--item-interests=item_interests.parquet"]
            )  # fmt: skip
        build_timelines.main(
            [
                "--training=training",
                "--item-interests=item_interests.parquet",
                "--timelines=timelines",
            ]
        )
        pretrain_smen.main(
            ["--timelines=timelines", "--centres=centres.npy", "--standing=standing",
             "--training=training", "--item-interests=item_interests.parquet",
             "--smen=smen.safetensors", "--anchor-shares=anchor_shares.npy",
             "--start=vectors/start.parquet", "--result=smen.json", "--plot=smen.csv"]
        )  # fmt: skip
        version = read_json("smen.json")["model_version"]
        write_json({"model_version": version, "points": []}, "confidence.json")
        for month, previous in zip(MONTHS, ["start", *MONTHS], strict=False):
            encode_users.main(
                [f"--month={month}", f"--boi=boi/{month}.parquet", f"--previous=vectors/{previous}.parquet",
                 "--smen=smen.safetensors", "--confidence=confidence.json", "--states=states",
                 f"--state=states/{month}", f"--vectors=vectors/{month}.parquet",
                 f"--encoded=encoded/{month}.json"]
            )  # fmt: skip
            users = read_parquet(f"vectors/{month}.parquet")["user_id"]
            chance = pa.array([0.1 if u % 2 == 0 else 0.8 for u in range(len(users))], pa.float32())
            write_parquet(
                pa.table({"user_id": users, "food": chance}), f"predictions/{month}.parquet"
            )
        write_json({"auc": 0.9}, "heads/food.json")
        interests = pa.table({"interest": pa.array(range(4), pa.int32()), "n_behaviors": [36] * 4})
        write_parquet(interests, "interests.parquet")
        open_drift.main(
            [
                "--interests=interests.parquet",
                "--state=drift/start",
                "--labels=labels/start.parquet",
            ]
        )
    return folder


@pytest.fixture(autouse=True)
def workspace(encoded, tmp_path, monkeypatch):
    """A copy of it to work in."""
    monkeypatch.chdir(tmp_path)
    for name, content in small_world.files(encoded).items():
        path = tmp_path / Path(name).relative_to(encoded)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def watch(month, standing="item_interests.parquet"):
    previous = ["start", *MONTHS][MONTHS.index(month)]
    main(
        f"--month={month} --profile=profiles/{month}.json --behaviors=training/behaviors/{month}.parquet "
        f"--catalog=catalog.parquet --boi=boi/{month}.parquet --item-interests=item_interests.parquet "
        f"--vectors=vectors/{month}.parquet --predictions=predictions/{month}.parquet "
        f"--standing={standing} --anchor-shares=anchor_shares.npy --heads=heads "
        f"--vectors-before=vectors/{previous}.parquet --previous=drift/{previous} --state=drift/{month} "
        f"--result=result/{month}.json".split()
    )
    return read_json(f"result/{month}.json")


def value(found, figure):
    return next(row["value"] for row in found["figures"] if row["figure"] == figure)


def test_a_month_is_measured_and_held_against_those_before_it():
    first, second = watch(MONTHS[0]), watch(MONTHS[1])
    assert (first["against"], second["against"]) == ([], MONTHS[:1])
    assert value(first, "behaviors_change") is None
    assert first["measured"]["users"] == 12
    assert first["measured"]["behaviors"] == 72
    assert value(second, "behaviors_change") == pytest.approx(66 / 72 - 1, abs=1e-6)
    assert second["measured"]["new_users"] == 0
    assert second["measured"]["cosine_known"] == 0.5
    assert "cosine_unknown" not in second["measured"]
    assert value(second, "mix_psi") < 0.01
    assert sum(second["anchors"]) == pytest.approx(1, abs=1e-5)


def test_items_that_training_did_not_know_are_counted_by_behaviors_with_their_distance():
    small_world.write_item_interests("standing.parquet", n_items=10)
    month = MONTHS[0]
    bought = read_parquet(f"training/behaviors/{month}.parquet")["item_id"].to_numpy()
    table = read_parquet("item_interests.parquet")
    cosines = np.where(np.arange(20) < 10, 0.5, 0.2).astype(np.float32)
    write_parquet(table.set_column(3, "cosine", pa.array(cosines)), "item_interests.parquet")
    found = watch(month, standing="standing.parquet")
    assert value(found, "unknown_items") == pytest.approx(np.mean(bought >= 10), abs=1e-6)
    assert value(found, "unknown_distance") == pytest.approx(0.3, abs=1e-6)
    assert found["level"] == "retrain"
    assert any(line.endswith("trigger lurm_retrain") for line in found["told"])


def test_heads_are_scored_when_their_labels_are_in_and_judged_beyond_what_they_were_trained_on():
    assert watch(MONTHS[0])["heads"] is None
    found = [watch(month)["heads"] for month in MONTHS[1:]]
    assert [heads["as_of"] for heads in found] == MONTHS[:3]
    assert [heads["judged"] for heads in found] == [False, False, True]
    (food,) = found[-1]["tasks"]
    labels = read_parquet(f"training/behaviors/{MONTHS[3]}.parquet")
    odd = {i for i in range(20) if i % 2 and i % 5 != 4}  # food with words, see small_world
    pairs = zip(labels["user_id"].to_pylist(), labels["item_id"].to_pylist(), strict=True)
    came = {user for user, item in pairs if item in odd}
    assert food["observed"] == pytest.approx(len(came) / 12, abs=1e-6)
    assert food["predicted"] == pytest.approx(0.45, abs=1e-6)
    assert food["auc_at_training"] == 0.9
    assert food["auc"] > 0.9


def test_so_much_travels_on_as_the_next_month_needs():
    for month in MONTHS:
        watch(month)
    names = sorted(str(p.relative_to("drift")) for p in Path("drift").rglob("*.parquet"))
    last = [name for name in names if name.startswith(MONTHS[3])]
    assert last == [f"{MONTHS[3]}/measures.parquet", f"{MONTHS[3]}/predictions/{MONTHS[3]}.parquet"]
    state = from_table(read_parquet(f"drift/{MONTHS[3]}/measures.parquet"))
    assert list(state) == [TRAINING, *MONTHS[1:]]


def test_the_same_input_gives_the_same_bytes():
    watch(MONTHS[0])
    watch(MONTHS[1])
    first = small_world.files("drift") | small_world.files("result")
    watch(MONTHS[1])
    assert small_world.files("drift") | small_world.files("result") == first


def test_users_looked_at_in_parts_give_the_same_figures(monkeypatch):
    first, second = watch(MONTHS[0]), watch(MONTHS[1])
    monkeypatch.setattr("lurm.drift.USERS", 5)
    assert (watch(MONTHS[0]), watch(MONTHS[1])) == (first, second)
    assert {"turn", "mean_shift", "norm"} <= second["measured"].keys()


def test_vectors_without_users_of_the_month_before_are_refused():
    watch(MONTHS[0])
    path = f"vectors/{MONTHS[1]}.parquet"
    write_parquet(read_parquet(path).slice(1), path)
    with pytest.raises(
        ValueError, match=r"expected all users of vectors/2017-01.parquet, .* found 1 missing"
    ):
        watch(MONTHS[1])
    assert not Path(f"drift/{MONTHS[1]}").exists()


def test_vectors_that_do_not_say_when_users_were_active_are_refused():
    path = f"vectors/{MONTHS[0]}.parquet"
    write_parquet(read_parquet(path).drop(["last_month"]), path)
    with pytest.raises(ValueError, match="column 'last_month' is missing"):
        watch(MONTHS[0])


@pytest.mark.parametrize("of", [MONTHS[0], MONTHS[1]])
def test_vectors_of_another_model_are_refused(of):
    watch(MONTHS[0])
    table = read_parquet(f"vectors/{of}.parquet")
    at = table.column_names.index("model_version")
    others = pa.array(["another"] * len(table))
    write_parquet(table.set_column(at, "model_version", others), f"vectors/{of}.parquet")
    with pytest.raises(ValueError, match=r"with vectors of one model, found .*another"):
        watch(MONTHS[1])


def test_the_drift_of_a_later_month_is_no_month_before():
    for month in MONTHS[:3]:
        watch(month)
    Path("drift/start").rename("drift/first")
    Path(f"drift/{MONTHS[2]}").rename("drift/start")
    with pytest.raises(
        ValueError, match=r"drift/start: expected months before 2017-01, found 2017"
    ):
        watch(MONTHS[0])


def test_a_missing_state_is_named():
    with pytest.raises(
        FileNotFoundError, match=r"drift/2017-01/measures\.parquet: expected a parquet"
    ):
        watch(MONTHS[1])
