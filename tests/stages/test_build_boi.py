import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lurm.boi_on_spark import write_boi_parts
from lurm.storage import read_parquet, write_parquet
from lurm.tables import BOI, check_columns
from stages import build_boi
from stages.build_boi import main
from tests import small_world

ARGS = [
    "--behaviors=2017-01.parquet",
    "--item-interests=item_interests.parquet",
    "--boi=out/b.parquet",
]


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_world.write_settings()
    small_world.write_behaviors("2017-01", folder=".")
    small_world.write_item_interests()


def test_every_behavior_is_counted_once_sorted_by_user_then_interest():
    main(ARGS)
    table = read_parquet("out/b.parquet")
    check_columns(table.schema, BOI, "bags")
    keys = list(zip(table["user_id"].to_pylist(), table["interest"].to_pylist(), strict=True))
    assert keys == sorted(set(keys))
    counts = dict.fromkeys(keys, 0)
    for row in read_parquet("2017-01.parquet").to_pylist():
        counts[row["user_id"], row["item_id"] % 4] += 1
    assert dict(zip(keys, table["count"].to_pylist(), strict=True)) == counts


def test_the_same_month_gives_the_same_bytes():
    main(ARGS)
    first = small_world.files("out")
    main(ARGS)
    assert small_world.files("out") == first


def test_items_without_an_interest_are_refused_and_the_bags_before_stay():
    main(ARGS)
    first = small_world.files("out")
    small_world.write_item_interests(n_items=10)
    with pytest.raises(ValueError, match=r"2017-01\.parquet: \d+ items with \d+ behaviors have no"):
        main(ARGS)
    assert small_world.files("out") == first


@pytest.mark.parametrize("name", ["2017-01.parquet", "item_interests.parquet"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_written(name, damage):
    whole = Path(name).read_bytes()
    Path(name).unlink()
    if damage == "truncated":
        Path(name).write_bytes(whole[:-9])
    with pytest.raises((ValueError, OSError), match=name):
        main(ARGS)
    assert small_world.files("out") == {}


def test_columns_that_are_missing_are_named_and_nothing_is_written():
    table = read_parquet("item_interests.parquet")
    write_parquet(table.drop_columns("weight"), "item_interests.parquet")
    with pytest.raises(ValueError, match=r"item_interests\.parquet: column 'weight' is missing"):
        main(ARGS)
    assert small_world.files("out") == {}


@pytest.mark.usefixtures("java")
def test_the_stage_run_as_a_script_counts_on_spark():
    main(ARGS)
    first = small_world.files("out")
    small_world.write_settings(build_boi={"engine": "spark"})
    subprocess.run([sys.executable, build_boi.__file__, *ARGS], check=True)
    assert small_world.files("out") == first


@pytest.mark.usefixtures("java")
def test_spark_writes_the_bytes_that_duckdb_writes():
    main(ARGS)
    first = small_world.files("out")
    small_world.write_settings(build_boi={"engine": "spark"})
    main(ARGS)
    assert small_world.files("out") == first


@pytest.mark.usefixtures("java")
def test_spark_shares_items_among_interests_to_the_same_bytes():
    write_parquet(
        pa.table(
            {
                "item_id": np.repeat(np.arange(small_world.N_ITEMS), 2),
                "interest": pa.array(list(range(4)) * (small_world.N_ITEMS // 2), pa.int32()),
                "weight": pa.array([0.3, 0.7] * small_world.N_ITEMS, pa.float32()),
                "cosine": pa.array([0.5, 0.6] * small_world.N_ITEMS, pa.float32()),
            }
        ),
        "item_interests.parquet",
    )
    test_spark_writes_the_bytes_that_duckdb_writes()
    assert any(count % 1 for count in read_parquet("out/b.parquet")["count"].to_pylist())


@pytest.mark.usefixtures("java")
@pytest.mark.parametrize("kind", [pa.uint64(), pa.uint8(), pa.int16()])
def test_spark_keeps_the_type_of_ids(kind):
    behaviors = read_parquet("2017-01.parquet")
    users = pa.array([int(name[-2:]) for name in behaviors["user_id"].to_pylist()], kind)
    write_parquet(behaviors.set_column(0, "user_id", users), "2017-01.parquet")
    test_spark_writes_the_bytes_that_duckdb_writes()
    assert read_parquet("out/b.parquet")["user_id"].type == kind


@pytest.mark.usefixtures("java")
def test_bags_that_a_worker_wrote_where_nobody_finds_them_are_missed(monkeypatch):
    def half_lost(*args):
        paths = write_boi_parts(*args)
        found = read_parquet(paths[-1])
        write_parquet(found[: len(found) // 2], paths[-1])
        return paths

    monkeypatch.setattr(build_boi, "write_boi_parts", half_lost)
    small_world.write_settings(build_boi={"engine": "spark"})
    with pytest.raises(OSError, match=r"2017-01\.parquet: expected bags that add up .* lost or"):
        main(ARGS)
    assert small_world.files("out") == {}


@pytest.mark.usefixtures("java")
def test_without_a_java_spark_says_in_one_line_that_it_needs_one():
    small_world.write_settings(build_boi={"engine": "spark"})
    nowhere = {"PATH": "/nowhere", "JAVA_HOME": "/nowhere", "PYTHONPATH": os.environ["PYTHONPATH"]}
    run = subprocess.run(
        [sys.executable, build_boi.__file__, *ARGS],
        env=nowhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    last = run.stderr.splitlines()[-1]
    assert re.search(r"Spark on local\[2\] did not start: .* it needs a Java 17", last)
    assert "Traceback" not in run.stderr


def test_what_a_killed_run_on_spark_left_is_cleared_away():
    left = [Path(f"out/.spark-{name}-killed12.tmp/parts") for name in ("b", "c")]
    for folder in left:
        folder.mkdir(parents=True)
    small_world.write_settings(build_boi={"engine": "spark"})
    with suppress(ModuleNotFoundError, OSError):
        main(ARGS)
    assert [folder.exists() for folder in left] == [False, True]


@pytest.mark.usefixtures("java")
def test_a_damaged_page_under_spark_is_told_in_one_line():
    content = bytearray(Path("2017-01.parquet").read_bytes())
    content[20:120] = bytes(100)
    Path("2017-01.parquet").write_bytes(content)
    small_world.write_settings(build_boi={"engine": "spark"})
    with pytest.raises(OSError, match=r"^build_boi: Spark on local\[2\] could not finish: [^\n]+$"):
        main(ARGS)
    assert small_world.files("out") == {}


@pytest.mark.usefixtures("java")
def test_spark_refuses_items_without_an_interest_too():
    small_world.write_settings(build_boi={"engine": "spark"})
    small_world.write_item_interests(n_items=10)
    with pytest.raises(ValueError, match=r"2017-01\.parquet: \d+ items with \d+ behaviors have no"):
        main(ARGS)
    assert small_world.files("out") == {}


@pytest.mark.usefixtures("java")
def test_spark_names_a_truncated_file_too():
    small_world.write_settings(build_boi={"engine": "spark"})
    Path("item_interests.parquet").write_bytes(Path("item_interests.parquet").read_bytes()[:-9])
    with pytest.raises(
        ValueError, match=r"item_interests\.parquet: expected a complete parquet file"
    ):
        main(ARGS)
    assert small_world.files("out") == {}


def test_a_cluster_of_two_workers_writes_the_bytes_that_duckdb_writes(cluster, tmp_path):
    main(ARGS)
    first = small_world.files("out")
    small_world.write_settings(build_boi={"engine": "spark", "spark_master": cluster})
    main(ARGS)
    assert small_world.files("out") == first
    executors = (tmp_path / "work").glob("app-*/*/stderr")
    assert len({path.parent.name for path in executors}) == 2  # both workers took part


def test_without_pyspark_the_engine_spark_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    small_world.write_settings(build_boi={"engine": "spark"})
    with pytest.raises(ModuleNotFoundError, match=r"pip install lurm\[spark\]"):
        main(ARGS)
