"""Files are whole or not there, and a reader says which file is damaged or missing."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lurm.storage import (
    file_hash,
    month_files,
    null_count,
    read_array,
    read_json,
    read_parquet,
    read_rows,
    read_runs,
    read_schema,
    read_taken,
    read_tensors,
    replacing,
    row_groups,
    scratch,
    write_array,
    write_csv,
    write_json,
    write_parquet,
    write_tensors,
    write_text,
)

N = 50_000
NOISE = np.random.default_rng(0).standard_normal(N)
WRITERS = {
    "table.parquet": lambda path: write_parquet(pa.table({"a": NOISE}), path),
    "value.json": lambda path: write_json(NOISE.tolist(), path),
    "text.html": lambda path: write_text("ü" * N, path),
    "columns.csv": lambda path: write_csv({"a": NOISE, "b": range(N)}, path),
    "array.npy": lambda path: write_array(NOISE, path),
    "weights.safetensors": lambda path: write_tensors({"a": torch.from_numpy(NOISE)}, path),
}
READERS = {
    "table.parquet": read_parquet,
    "value.json": read_json,
    "array.npy": read_array,
    "weights.safetensors": read_tensors,
}
each_writer = pytest.mark.parametrize("name", WRITERS)


@each_writer
def test_the_same_content_gives_the_same_bytes_in_a_folder_made_for_it(name, tmp_path):
    for folder in ("one/two", "three"):
        WRITERS[name](tmp_path / folder / name)
    assert file_hash(tmp_path / "one/two" / name) == file_hash(tmp_path / "three" / name)
    assert stat.S_IMODE((tmp_path / "three" / name).stat().st_mode) == 0o644


@each_writer
def test_a_full_disk_leaves_the_old_file_and_nothing_else(name, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / name).write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        WRITERS[name](tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"before"
    assert os.listdir(tmp_path) == [name]


def test_a_disk_that_fills_up_in_mid_write_leaves_the_old_files_and_nothing_else(tmp_path):
    script = f"""
import resource, sys
sys.path[:0] = {sys.path!r}
from tests.test_storage import WRITERS
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for name, write in WRITERS.items():
    try:
        write({str(tmp_path)!r} + "/" + name)
    except OSError as error:
        print(name)
"""
    for name in WRITERS:
        (tmp_path / name).write_bytes(b"before")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == list(WRITERS)
    assert sorted(os.listdir(tmp_path)) == sorted(WRITERS)
    assert {(tmp_path / name).read_bytes() for name in WRITERS} == {b"before"}


def test_a_killed_process_leaves_the_old_file_and_a_rerun_replaces_it(tmp_path):
    path = tmp_path / "value.json"
    write_json("before", path)
    script = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from lurm.storage import replacing
with replacing({str(path)!r}) as temporary:
    temporary.write_text('"half')
    print("half way", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"half way\n"
        process.send_signal(signal.SIGKILL)
    assert read_json(path) == "before"
    assert len(list(tmp_path.iterdir())) == 2
    write_json("after", path)
    assert read_json(path) == "after"
    assert list(tmp_path.iterdir()) == [path]  # what was half written is cleared away


def test_who_writes_the_same_file_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "value.json"
    with replacing(path) as first:
        first.write_text('"first"')
        write_json("second", path)
        assert read_json(path) == "second"
    assert read_json(path) == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_of_killed_processes_are_cleared_away_and_those_of_living_ones_left_alone(tmp_path):
    script = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from lurm.storage import scratch
with scratch(Path({str(tmp_path)!r}), "spill-") as folder:
    (folder / "part").write_text("half")
    print("half way", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"half way\n"
        with scratch(tmp_path, "spill-"), scratch(tmp_path, "other-"):
            assert len(list(tmp_path.iterdir())) == 3
        process.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 1
    with scratch(tmp_path, "spill-") as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


def test_what_another_one_clears_away_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    lock = fcntl.flock
    met = []  # what there was

    def meanwhile(handle, how):  # another one begins between the making and the lock
        if how == fcntl.LOCK_EX and not met:
            met.append(sorted(tmp_path.iterdir()))
            with scratch(tmp_path, "spill-"), replacing(tmp_path / "value.json") as other:
                other.write_text('"other"')
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    with scratch(tmp_path, "spill-") as folder:
        (folder / "part").write_text("mine")
    del met[:]
    write_json("mine", tmp_path / "value.json")
    assert len(met[0]) == 2  # the file that "other" wrote, and the one that was being made
    assert read_json(tmp_path / "value.json") == "mine"
    assert os.listdir(tmp_path) == ["value.json"]


def test_a_folder_that_another_process_clears_at_the_same_time_is_no_error(tmp_path):
    (tmp_path / "spill-gone.tmp").symlink_to("nowhere")  # listed, but not there when it is opened
    with scratch(tmp_path, "spill-") as folder:
        assert folder.exists()


def test_what_only_looks_like_a_left_folder_is_no_trap(tmp_path):
    os.mkfifo(tmp_path / "spill-aaaaaaaa.tmp")  # opened for reading it would wait for a writer
    with scratch(tmp_path, "spill-") as folder:
        assert folder.is_dir()
    assert os.listdir(tmp_path) == ["spill-aaaaaaaa.tmp"]


def test_where_files_have_no_locks_all_is_written_and_nothing_cleared_away(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with scratch(tmp_path, "spill-") as living, scratch(tmp_path, "spill-"):
        (living / "part").write_text("mine")
    with replacing(tmp_path / "value.json") as first:
        write_json("second", tmp_path / "value.json")
        first.write_text('"first"')
    assert read_json(tmp_path / "value.json") == "first"
    assert os.listdir(tmp_path) == ["value.json"]


def test_an_error_while_writing_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "out.txt") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_everything_written_reads_back(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / name)
    np.testing.assert_array_equal(read_parquet(tmp_path / "table.parquet")["a"], NOISE)
    assert read_schema(tmp_path / "table.parquet").names == ["a"]
    assert read_json(tmp_path / "value.json") == NOISE.tolist()
    array = read_array(tmp_path / "array.npy")
    np.testing.assert_array_equal(array, NOISE)
    assert isinstance(array, np.memmap)
    tensors, settings = read_tensors(tmp_path / "weights.safetensors")
    assert torch.equal(tensors["a"], torch.from_numpy(NOISE))
    assert settings == {}
    assert (tmp_path / "columns.csv").read_text().splitlines()[0] == '"a","b"'


def test_settings_beside_tensors_keep_their_order(tmp_path):
    settings = {"version": "v", "scales": {"year": 12, "month": 1, "quarter": 3}}
    write_tensors({"a": torch.zeros(1)}, tmp_path / "a", settings)
    _, read = read_tensors(tmp_path / "a")
    assert list(read["scales"].items()) == list(settings["scales"].items())


def test_tensors_that_are_views_are_written_as_they_look(tmp_path):
    square = torch.arange(6.0).reshape(2, 3)
    write_tensors({"t": square.T}, tmp_path / "a")
    assert torch.equal(read_tensors(tmp_path / "a")[0]["t"], square.T)


def test_json_has_no_word_for_what_is_no_number(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"loss": float("nan")}, tmp_path / "a.json")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", READERS)
def test_a_truncated_file_is_refused_by_its_name(name, tmp_path):
    WRITERS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for length in (0, 9, len(whole) // 2):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=f"{name}: expected a complete .* deliver or rebuild it"
        ):
            READERS[name](tmp_path / name)


@pytest.mark.parametrize("read", [*READERS.values(), read_schema])
def test_a_missing_file_is_refused_by_its_name(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent: expected a .* file, found none"):
        read(tmp_path / "absent")


def test_the_files_of_months_come_in_the_order_asked_for_and_others_stay_unread(tmp_path):
    for month in ("2017-01", "2017-02", "2017-03"):
        (tmp_path / f"{month}.parquet").touch()
    paths = month_files(tmp_path, ["2017-02", "2017-01"])
    assert paths == [tmp_path / "2017-02.parquet", tmp_path / "2017-01.parquet"]


def test_all_missing_months_are_named_at_once(tmp_path):
    (tmp_path / "2017-02.parquet").touch()
    with pytest.raises(
        FileNotFoundError,
        match=r"each of 2017-01\.\.2017-03, missing 2017-01\.parquet, 2017-03\.parquet;",
    ):
        month_files(Path(tmp_path), ["2017-01", "2017-02", "2017-03"])


# ---- parquet piece by piece --------------------------------------------------------------------

VALUES = st.lists(st.sampled_from(["", "a", "b", "Ä"]), max_size=20).map(sorted)


@settings(max_examples=50, deadline=None)
@given(VALUES, st.integers(1, 7), st.integers(0, 20), st.integers(0, 20))
def test_rows_runs_and_groups_are_those_of_the_whole_table(values, size, first, last):
    first, last = sorted((first, last))
    table = pa.table({"a": pa.array(values, pa.string()), "b": range(len(values))})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.parquet")
        pq.write_table(table, path, row_group_size=size)
        assert read_rows(path, slice(first, last)).equals(table[first:last])
        groups = list(row_groups(path))
        assert [len(group) for group in groups[:-1]] == [size] * (len(groups) - 1)
        assert not values or pa.concat_tables(groups).equals(table)
        larger = list(row_groups(path, 2 * size + 1))
        assert [len(group) for group in larger[:-1]] == [3 * size] * (len(larger) - 1)
        assert not values or pa.concat_tables(larger).equals(table)
        runs, edges = read_runs(path, "a")
    assert edges[0] == 0
    assert edges[-1] == len(values)
    again = [
        value for value, n in zip(runs.to_pylist(), np.diff(edges), strict=True) for _ in range(n)
    ]
    assert again == values
    assert runs.type == pa.string()


def test_damage_within_a_parquet_file_is_told_by_its_name(tmp_path):
    path = tmp_path / "table.parquet"
    write_parquet(pa.table({"n": [f"user {n}" for n in range(5000)]}), path)
    content = bytearray(path.read_bytes())
    content[2000:2400] = bytes(400)
    path.write_bytes(content)
    for read in (read_parquet, lambda path: list(row_groups(path)), lambda p: read_runs(p, "n")):
        with pytest.raises(ValueError, match=r"table\.parquet: expected a complete parquet file"):
            read(path)


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_without_a_value_are_counted_whether_the_footer_tells_or_not(tmp_path, statistics):
    table = pa.table({"n": [1, None, 3, None], "m": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2, write_statistics=statistics)
    assert null_count(tmp_path / "t.parquet", "n") == 2
    assert null_count(tmp_path / "t.parquet", "m") == 0


def test_groups_without_rows_are_passed_over(tmp_path):
    table = pa.table({"n": [1, 2]})
    with pq.ParquetWriter(tmp_path / "t.parquet", table.schema) as writer:
        for part in (table, table.slice(0, 0)):
            writer.write_table(part)
    assert list(row_groups(tmp_path / "t.parquet")) == [table]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.integers(1, 7), st.data())
def test_rows_are_taken_in_the_order_asked_for_from_any_groups(n_rows, of_group, data):
    table = pa.table({"n": pa.array(range(n_rows), pa.int64())})
    every = st.integers(0, n_rows - 1) if n_rows else st.nothing()
    rows = data.draw(st.lists(every, unique=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.parquet")
        pq.write_table(table, path, row_group_size=of_group)
        taken = read_taken(path, np.array(rows, dtype=np.int64))
        assert taken["n"].to_pylist() == rows
