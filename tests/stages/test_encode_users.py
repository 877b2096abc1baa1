import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from lurm.months import month_number
from lurm.spark import on_workers, spark
from lurm.storage import read_json, read_parquet, write_json, write_parquet
from lurm.tables import user_vectors_schema
from stages import build_boi, build_timelines, encode_users, measure_confidence, pretrain_smen
from stages.encode_users import main
from tests import small_world


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with bags of four months, and SMEN trained on the first three."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small_world.write_settings()
        small_world.write_item_interests()
        for month in small_world.MONTHS:
            small_world.write_behaviors(month)
            interests = "--item-interests=item_interests.parquet"
            behaviors = f"--behaviors=training/behaviors/{month}.parquet"
            build_boi.main([behaviors, interests, f"--boi=boi/{month}.parquet"])
        build_timelines.main(["--training=training", interests, "--timelines=timelines"])
        train()
    return folder


def train():
    outs = ["--smen=smen.safetensors", "--start=vectors/start.parquet", "--result=smen.json"]
    outs += ["--anchor-shares=anchor_shares.npy"]
    small_world.write_centres()
    small_world.write_catalog()
    inputs = ["--timelines=timelines", "--centres=centres.npy", "--standing=standing"]
    inputs += ["--training=training", "--item-interests=item_interests.parquet"]
    pretrain_smen.main([*inputs, *outs, "--plot=smen.csv"])
    measure_confidence.main(
        ["--timelines=timelines", "--smen=smen.safetensors", "--confidence=confidence.json"]
    )


@pytest.fixture(autouse=True)
def workspace(trained, tmp_path, monkeypatch):
    """A copy of the trained folder to work in."""
    monkeypatch.chdir(tmp_path)
    for name, content in small_world.files(trained).items():
        path = tmp_path / Path(name).relative_to(trained)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def encode(month, previous, more=()):
    main(
        f"--month={month} --boi=boi/{month}.parquet --previous=vectors/{previous}.parquet "
        f"--smen=smen.safetensors --confidence=confidence.json --states=states --state=states/{month} "
        f"--vectors=vectors/{month}.parquet "
        f"--encoded=encoded/{month}.json".split()
        + list(more)
    )
    return read_parquet(f"vectors/{month}.parquet")


def encode_all(months=small_world.MONTHS):
    for month, previous in zip(months, ["start", *months], strict=False):
        table = encode(month, previous)
    return table


def refused(told, month="2017-01", previous="start", error=ValueError, more=()):
    with pytest.raises(error, match=told):
        encode(month, previous, more)
    assert not Path(f"states/{month}").exists()
    assert not Path(f"vectors/{month}.parquet").exists()
    assert not Path(f"encoded/{month}.json").exists()


def test_every_user_seen_so_far_has_one_row_sorted_by_id():
    table = encode_all()
    assert table.schema == user_vectors_schema(5, pa.string())
    users = table["user_id"].to_pylist()
    assert users == [small_world.user_name(u) for u in range(small_world.N_USERS)]
    rows = table.to_pylist()
    assert all(np.isfinite(row["vector"]).all() for row in rows)
    assert [row["n_behaviors"] for row in rows] == [24] * 11 + [6]
    assert {row["first_month"] for row in rows} == {"2017-01"}
    assert [row["last_month"] for row in rows] == ["2017-04"] * 11 + ["2017-01"]


def test_a_user_who_stays_away_keeps_the_vector_once_the_windows_are_empty():
    """User 11 acts in the first month only; a window is three months long."""
    first, fourth = encode_all(["2017-01"]), encode_all()
    shutil.copy("boi/2017-04.parquet", "boi/2017-05.parquet")
    fifth = encode("2017-05", "2017-04")
    vectors = [table["vector"].to_pylist() for table in (first, fourth, fifth)]
    assert vectors[0][11] != vectors[1][11]
    assert vectors[1][11] == vectors[2][11]
    assert vectors[1][0] != vectors[2][0]


def test_a_month_reads_the_states_of_users_whose_vectors_move_and_writes_those_of_its_own():
    """User 11 acts in the first month only, everybody else in all."""
    encode_all()
    shutil.copy("boi/2017-04.parquet", "boi/2017-05.parquet")
    expected = encode("2017-05", "2017-04")
    before = small_world.files("states/2017-05")
    for month in ("2017-01", "2017-02", "2017-03"):  # of nobody whose vector moves in the last
        shutil.rmtree(f"states/{month}")
    assert encode("2017-05", "2017-04").equals(expected)
    assert small_world.files("states/2017-05") == before
    about = read_json("states/2017-05/about.json")
    assert about["shards"] == [
        {"users": 11, "first": small_world.user_name(0), "last": small_world.user_name(10)}
    ]


def test_a_month_without_the_states_of_the_month_before_is_refused():
    encode_all()
    shutil.rmtree("states/2017-03")
    shutil.rmtree("states/2017-04")
    Path("vectors/2017-04.parquet").unlink()
    Path("encoded/2017-04.json").unlink()
    told = "states/2017-03: expected the states of the users of 2017-03, found none or unfinished"
    refused(told, "2017-04", "2017-03", FileNotFoundError)


def changed(table, row, **values):
    """The table with other values in one of its rows."""
    rows = table.to_pylist()
    rows[row] |= values
    return pa.Table.from_pylist(rows, table.schema)


@pytest.mark.parametrize("values", [{"n_behaviors": 11}, {"first_month": "2016-12"}])
def test_a_table_whose_users_have_other_behaviors_than_their_states_is_refused(values):
    before = encode_all(small_world.MONTHS[:2])
    write_parquet(changed(before, 3, **values), "vectors/2017-02.parquet")
    told = (
        "2017-02.parquet: expected the behaviors and first months that .* found others for 1 of 12"
    )
    refused(told, "2017-03", "2017-02")


def test_a_month_that_was_corrected_asks_for_the_months_behind_it():
    """User 11 acts in the first month, which is corrected, and comes back in the third."""
    encode_all(small_world.MONTHS[:2])
    first, third = (read_parquet(f"boi/2017-0{number}.parquet") for number in (1, 3))
    ours = first.filter(pc.equal(first["user_id"], small_world.user_name(11)))
    write_parquet(pa.concat_tables([third, ours]), "boi/2017-03.parquet")
    twice = pc.if_else(pc.equal(first["user_id"], small_world.user_name(11)), 2.0, 1.0)
    counts = pc.multiply(first["count"], twice.cast(pa.float32()))
    write_parquet(first.set_column(2, "count", counts), "boi/2017-01.parquet")
    encode("2017-01", "start")
    refused("encode the months from 2017-01 on again, in order", "2017-03", "2017-02")
    encode("2017-02", "2017-01")
    assert encode("2017-03", "2017-02")["n_behaviors"].to_pylist()[11] == 18


@pytest.mark.parametrize("order", [[1, 0, *range(2, 12)], [0, 0, *range(1, 12)]])
def test_a_table_whose_users_are_not_in_order_each_once_is_refused(order):
    before = encode_all(["2017-01"])
    write_parquet(before.take(order), "vectors/2017-01.parquet")
    refused("expected users in the order of their ids, each once", "2017-02", "2017-01")


def test_a_table_whose_vectors_are_not_finite_is_refused():
    before = encode_all(["2017-01"])
    write_parquet(changed(before, 11, vector=[float("nan")] * 5), "vectors/2017-01.parquet")
    refused("2017-01.parquet: expected finite vectors, found others", "2017-02", "2017-01")


def test_counts_too_large_to_be_added_up_are_refused():
    boi = read_parquet("boi/2017-01.parquet").slice(0, 2)
    users = pa.array([boi["user_id"][0].as_py()] * 2)
    huge = [users, pa.array([0, 1], pa.int32()), pa.array([3e38] * 2, pa.float32())]
    write_parquet(pa.table(huge, schema=boi.schema), "boi/2017-01.parquet")
    refused("2017-01.parquet: expected bags and states that give finite vectors and numbers")


def test_what_a_killed_run_left_beside_the_vectors_is_cleared_away():
    left = Path("vectors/.shards-2017-01-killed12.tmp")
    (left / "00000.arrow").parent.mkdir(parents=True)
    (left / "00000.arrow").write_bytes(b"rows")
    of_others = Path("vectors/.shards-2017-02-killed12.tmp")
    of_others.mkdir()
    encode_all(["2017-01"])
    assert [path.name for path in Path("vectors").glob(".shards*")] == [of_others.name]


def test_where_empty_periods_enter_as_zeros_everybody_moves_and_only_the_active_are_kept():
    small_world.write_settings(pretrain_smen={"empty_periods": "zeros"})
    train()
    first, last = encode_all(["2017-01"]), encode_all()
    assert first["vector"].to_pylist()[11] != last["vector"].to_pylist()[11]
    assert last["user_id"].equals(first["user_id"])
    told = [read_json(f"states/{month}/about.json")["shards"] for month in small_world.MONTHS]
    assert [[shard["users"] for shard in of_month] for of_month in told] == [[12], [11], [11], [11]]


def test_the_same_input_gives_the_same_bytes():
    encode_all()
    first = small_world.files("states") | small_world.files("vectors")
    encode_all()
    assert small_world.files("states") | small_world.files("vectors") == first


def bytes_in_shards(size, monkeypatch, months=small_world.MONTHS, **settings):
    """Of states and vectors, encoded in shards of that many users."""
    monkeypatch.setattr("stages.encode_users.SHARD", size)
    small_world.write_settings(encode_users=settings)
    encode_all(months)
    return {
        name: content
        for name, content in small_world.files().items()
        if name.startswith(("states/2017", "vectors"))
    }


@pytest.mark.parametrize("size", [1, 5])
def test_shards_of_any_size_give_the_same_vectors(size, monkeypatch):
    whole = encode_all()
    found = bytes_in_shards(size, monkeypatch)
    n_shards = -(-small_world.N_USERS // size)
    assert len([name for name in found if "2017-04/0" in name]) == n_shards
    table = read_parquet("vectors/2017-04.parquet")
    np.testing.assert_allclose(
        np.stack(table["vector"].to_numpy()), np.stack(whole["vector"].to_numpy()), atol=1e-6
    )
    assert table.drop_columns("vector").equals(whole.drop_columns("vector"))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("torch finds no GPU here", more=["--device=cuda"])


def test_a_shard_that_is_refused_leaves_nothing_of_the_others(monkeypatch):
    monkeypatch.setattr("stages.encode_users.SHARD", 5)
    bags = read_parquet("boi/2017-01.parquet")
    interests = bags["interest"].to_numpy().copy()
    interests[-1] = 99
    write_parquet(bags.set_column(1, "interest", pa.array(interests)), "boi/2017-01.parquet")
    refused(r"the model knows interests 0\.\.3, the bags hold 0\.\.99")
    assert [path.name for path in Path("vectors").iterdir()] == ["start.parquet"]


@pytest.mark.usefixtures("java")
def test_the_stage_run_as_a_script_encodes_on_spark(monkeypatch):
    encode("2017-01", "start")
    here = small_world.files("states") | small_world.files("vectors")
    small_world.write_settings(encode_users={"engine": "spark"})
    monkeypatch.setattr(
        "tests.stages.test_encode_users.main",
        lambda args: subprocess.run([sys.executable, encode_users.__file__, *args], check=True),
    )
    encode("2017-01", "start")
    assert small_world.files("states") | small_world.files("vectors") == here


@pytest.mark.usefixtures("java")
def test_what_is_refused_on_spark_says_why_in_one_line(monkeypatch):
    small_world.write_settings(encode_users={"engine": "spark"})
    test_a_shard_that_is_refused_leaves_nothing_of_the_others(monkeypatch)


@pytest.mark.usefixtures("java")
def test_a_full_disk_on_a_worker_is_told_as_one_here():
    def work(_: int) -> None:
        raise OSError("states/2017-01: not finished: No space left on device; make room")

    with (
        spark("encode_users", "local[1]") as session,
        pytest.raises(OSError, match=r"^states/2017-01: not finished: No space left"),
    ):
        on_workers(session, work, [0])


def test_a_cluster_of_two_workers_encodes_to_the_same_bytes(cluster, monkeypatch, tmp_path):
    months = small_world.MONTHS[:2]  # the second goes on from the states of the first
    here = bytes_in_shards(3, monkeypatch, months)
    there = {"engine": "spark", "spark_master": cluster}
    assert bytes_in_shards(3, monkeypatch, months, **there) == here
    executors = (tmp_path / "work").glob("app-*/*/stderr")
    assert len({path.parent.name for path in executors}) == 2  # both workers took part


def test_the_note_depends_on_the_model_and_not_on_what_the_month_holds():
    encode("2017-01", "start")
    note, vectors = Path("encoded/2017-01.json").read_bytes(), small_world.files("vectors")
    bags = read_parquet("boi/2017-01.parquet")
    write_parquet(bags.slice(len(bags) // 2), "boi/2017-01.parquet")
    table = encode("2017-01", "start")
    assert small_world.files("vectors") != vectors
    assert Path("encoded/2017-01.json").read_bytes() == note
    version = table["model_version"][0].as_py()
    assert read_json("encoded/2017-01.json") == {"month": "2017-01", "model_version": version}


def test_later_months_do_not_reach_into_earlier_vectors():
    first = encode_all(["2017-01", "2017-02"])
    bags = read_parquet("boi/2017-03.parquet")
    write_parquet(bags.slice(len(bags) // 2), "boi/2017-03.parquet")
    assert encode_all(["2017-01", "2017-02"]).equals(first)


def test_the_states_of_another_model_are_refused():
    encode("2017-01", "start")
    small_world.write_settings(pretrain_smen={"seed": 5})
    train()
    refused("found those of 2017-03-r1-", "2017-02", "2017-01")


def test_confidence_measured_on_another_model_is_refused():
    measured = read_json("confidence.json")
    write_json(measured | {"model_version": "another"}, "confidence.json")
    refused("expected the confidence in model 2017-03-r1-.*, found that in another")


def test_confidence_grows_with_the_behaviors_a_vector_rests_on():
    table = encode_all()
    rests_on = dict(
        zip(table["n_behaviors"].to_pylist(), table["confidence"].to_pylist(), strict=True)
    )
    assert set(rests_on) == {24, 6}
    assert 0 <= rests_on[6] <= rests_on[24] <= 1
    version = table["model_version"][0].as_py()
    points = [{"n_behaviors": n, "confidence": c} for n, c in ((6, 0.25), (24, 0.75))]
    write_json({"model_version": version, "points": points}, "confidence.json")
    assert encode_all()["confidence"].to_pylist() == [0.75] * 11 + [0.25]


def test_an_interest_that_the_model_does_not_know_is_refused():
    bags = read_parquet("boi/2017-01.parquet")
    strange = pa.array(bags["interest"].to_numpy() + 1, pa.int32())
    write_parquet(bags.set_column(1, "interest", strange), "boi/2017-01.parquet")
    refused(r"the model knows interests 0\.\.3, the bags hold 1\.\.4")


def test_user_ids_of_another_type_are_refused():
    encode("2017-01", "start")
    bags = read_parquet("boi/2017-02.parquet")
    write_parquet(bags.set_column(0, "user_id", pa.array(range(len(bags)))), "boi/2017-02.parquet")
    refused(
        r"boi/2017-02\.parquet: expected user ids of type string as in earlier months, found int64",
        *("2017-02", "2017-01"),
    )


def test_a_month_that_the_users_hold_already_is_refused():
    encode("2017-01", "start")
    encode("2017-02", "2017-01")
    Path("boi/2016-12.parquet").write_bytes(Path("boi/2017-01.parquet").read_bytes())
    refused("already hold 2017-02; encode the months in order", "2016-12", "2017-02")
    assert month_number("2016-12") < month_number("2017-02")


@pytest.mark.parametrize("previous", ["start", "2017-01"])
def test_going_on_from_another_month_than_the_one_before_is_refused(previous):
    encode_all(["2017-01", "2017-02"])
    told = rf"--previous: expected the vectors of 2017-02, .*, got .*vectors/{previous}\.parquet"
    refused(told, "2017-03", previous)


def test_files_of_another_month_are_refused():
    other = ["--boi=boi/2017-02.parquet"]
    refused(r"--boi: expected a file of --month, named 2017-01\.parquet, got .*2017-02", more=other)


def test_vectors_before_that_hold_a_user_whose_state_is_gone_are_refused():
    encode("2017-01", "start")
    encode("2017-02", "2017-01")
    bags = read_parquet("boi/2017-02.parquet")
    others = bags.filter(pc.not_equal(bags["user_id"], small_world.user_name(3)))
    write_parquet(others, "boi/2017-02.parquet")
    kept = Path("vectors/2017-02.parquet").read_bytes()
    encode("2017-02", "2017-01")
    Path("vectors/2017-02.parquet").write_bytes(kept)
    refused(
        "states/2017-02: expected the states of all .* found none of 1 of the 11 asked for",
        *("2017-03", "2017-02"),
    )


@pytest.mark.parametrize("column", ["user_id", "interest", "count"])
def test_bags_without_a_column_are_refused(column):
    bags = read_parquet("boi/2017-01.parquet")
    write_parquet(bags.drop_columns(column), "boi/2017-01.parquet")
    refused(rf"boi/2017-01\.parquet: column '{column}' is missing")


@pytest.mark.parametrize("name", ["boi/2017-01.parquet", "smen.safetensors"])
def test_a_truncated_file_is_named(name):
    Path(name).write_bytes(Path(name).read_bytes()[:-20])
    refused(f"{name}: expected a complete")


def test_vectors_before_that_are_not_there_are_named():
    refused("vectors/2016-12.parquet", previous="2016-12", error=FileNotFoundError)


def test_what_is_no_month_is_refused():
    Path("boi/2017-1.parquet").write_bytes(Path("boi/2017-01.parquet").read_bytes())
    refused("expected a month such as '2017-05', got '2017-1'", month="2017-1")
