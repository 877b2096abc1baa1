"""Each delivery that a customer can get wrong, through the stage's own command line."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lurm.storage import file_hash, read_json, read_parquet, write_parquet
from lurm.tables import BEHAVIORS, TIMESTAMP, check_columns
from stages.validate_logs import main

ROOT = Path(__file__).parents[2]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
OUTPUTS = ["clean", "quarantine", "profile", "accepted", "result", "page"]
N = 40


def arguments(month="2017-05"):
    files = {
        "landing": "landing.parquet",
        "catalog": "catalog.parquet",
        "clean": "clean.parquet",
        "quarantine": "quarantine.parquet",
        "profile": "profile.json",
        "accepted": "accepted.json",
        "result": "result.json",
        "page": "page.html",
        "refused": "refused.html",
    }
    return ["--month", month, *(x for k, v in files.items() for x in (f"--{k}", v))]


def write_catalog(item_ids):
    departments = ["GROCERY" if i % 2 else "飲料" for i in range(len(item_ids))]
    write_parquet(pa.table({"item_id": item_ids, "department": departments}), "catalog.parquet")


def good_month(n=N):
    start = datetime(2017, 5, 1, 12, tzinfo=UTC)
    return {
        "user_id": pa.array(np.arange(n) % 7),
        "item_id": pa.array(np.arange(n) % 10),
        "timestamp": pa.array([start + timedelta(hours=5 * i) for i in range(n)], TIMESTAMP),
    }


def deliver(columns, **replaced):
    """Write the delivery, with single values replaced: ``column={row: value}``."""
    columns = dict(columns)
    for name, values in replaced.items():
        column = columns[name].to_pylist()
        for row, value in values.items():
            column[row] = value
        columns[name] = pa.array(column, columns[name].type)
    write_parquet(pa.table(columns), "landing.parquet")


def set_params(**changes):
    params = json.loads(json.dumps(PARAMS))
    params["validate_logs"] |= changes
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """A folder with settings that let one bad row of forty pass, a catalog and a good month."""
    monkeypatch.chdir(tmp_path)
    set_params()
    write_catalog(list(range(10)))
    deliver(good_month())


def nothing_is_written():
    left = {path.name for path in Path().iterdir()}
    return left <= {"params.yaml", "landing.parquet", "catalog.parquet", "refused.html"}


def refused(message, month="2017-05"):
    with pytest.raises((ValueError, OSError), match=message) as error:
        main(arguments(month))
    assert nothing_is_written()
    page = Path("refused.html").read_text(encoding="utf-8")
    assert "Refused" in page
    return str(error.value)


def accepted(month="2017-05"):
    main(arguments(month))
    result = read_json("result.json")
    assert result["rows_in"] == result["rows_clean"] + result["rows_set_aside"]
    assert result["rows_clean"] == pq.read_metadata("clean.parquet").num_rows
    assert not Path("refused.html").exists()
    return result


def set_aside():
    return [(r["row"], r["reason"]) for r in read_parquet("quarantine.parquet").to_pylist()]


# ---- what is accepted ----------------------------------------------------------------------------


def test_a_good_month_passes_whole_and_comes_out_sorted():
    shuffled = np.random.default_rng(0).permutation(N)
    write_parquet(pa.table(good_month()).take(shuffled), "landing.parquet")
    result = accepted()
    clean = read_parquet("clean.parquet")
    check_columns(clean.schema, BEHAVIORS, "clean")
    rows = [(r["user_id"], r["timestamp"], r["item_id"]) for r in clean.to_pylist()]
    assert rows == sorted(rows)
    assert len(rows) == result["rows_in"] == N
    assert result["warnings"] == 0
    assert set_aside() == []
    assert read_json("profile.json")["mix"] == {"GROCERY": 0.5, "飲料": 0.5}


def test_the_same_delivery_gives_the_same_bytes_and_another_order_the_same_clean_month():
    accepted()
    first = {name: path.read_bytes() for name in OUTPUTS for path in Path().glob(f"{name}.*")}
    accepted()
    for name, content in first.items():
        assert next(Path().glob(f"{name}.*")).read_bytes() == content
    write_parquet(pa.table(good_month()).slice(0, N).take(list(range(N))[::-1]), "landing.parquet")
    accepted()
    assert Path("clean.parquet").read_bytes() == first["clean"]


def test_the_note_of_acceptance_does_not_depend_on_the_content():
    accepted()
    note = Path("accepted.json").read_bytes()
    deliver(good_month(30))
    accepted()
    assert Path("accepted.json").read_bytes() == note


def test_more_columns_are_allowed_and_only_the_behavior_type_stays():
    deliver({**good_month(), "price": pa.array([1.5] * N), "behavior_type": pa.array(["看"] * N)})
    accepted()
    clean = read_parquet("clean.parquet")
    assert clean.column_names == ["user_id", "item_id", "timestamp", "behavior_type"]
    assert set(clean["behavior_type"].to_pylist()) == {"看"}


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.uint16(), pa.uint64()])
def test_integer_ids_of_any_width_become_int64(kind):
    month = good_month()
    deliver(
        {**month, "user_id": month["user_id"].cast(kind), "item_id": month["item_id"].cast(kind)}
    )
    accepted()
    clean = read_parquet("clean.parquet").schema
    assert clean.field("user_id").type == clean.field("item_id").type == pa.int64()


def test_string_ids_of_any_script_are_kept_as_they_came():
    users = ["Ünal", "上海-1", "ольга", "o'neil", 'a"b', "  x", "🙂"]
    items = [f"商品-{i}" for i in range(10)]
    write_catalog(items)
    month = good_month()
    month["user_id"] = pa.array([users[i] for i in month["user_id"].to_pylist()])
    month["item_id"] = pa.array([items[i] for i in month["item_id"].to_pylist()])
    deliver(month)
    accepted()
    clean = read_parquet("clean.parquet")
    assert set(clean["user_id"].to_pylist()) == set(users)
    assert set(clean["item_id"].to_pylist()) == set(items)


@pytest.mark.parametrize("unit", ["ms", "ns"])
def test_instants_of_another_unit_or_zone_are_the_same_instants(unit):
    month = good_month()
    accepted()
    expected = read_parquet("clean.parquet")
    deliver({**month, "timestamp": month["timestamp"].cast(pa.timestamp(unit, "Asia/Tokyo"))})
    accepted()
    assert read_parquet("clean.parquet").equals(expected)


def test_a_user_with_one_behavior_is_kept():
    deliver(good_month(), user_id={3: 999})
    accepted()
    assert read_parquet("clean.parquet")["user_id"].to_pylist().count(999) == 1


def test_a_user_with_a_million_behaviors_is_kept_and_pointed_out():
    n = 1_000_000
    start = int(datetime(2017, 5, 1, 12, tzinfo=UTC).timestamp() * 1e6)
    deliver(
        {
            "user_id": pa.array(np.where(np.arange(n + 10) < n, 5, 6)),
            "item_id": pa.array(np.arange(n + 10) % 10),
            "timestamp": pa.array(start + np.arange(n + 10) * 1_000_000, TIMESTAMP),
        }
    )
    result = accepted()
    assert (result["rows_clean"], result["warnings"]) == (n + 10, 1)
    assert read_json("profile.json")["behaviors_per_user"]["max"] == n
    assert "1,000,000" in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("month", "first", "last"),
    [
        ("2017-03", "2017-03-01T05:00:00Z", "2017-04-01T03:59:59.999999Z"),
        ("2017-11", "2017-11-01T04:00:00Z", "2017-12-01T04:59:59.999999Z"),
    ],
)
def test_the_month_begins_and_ends_by_the_local_clock_when_the_clock_changes(month, first, last):
    first, last = datetime.fromisoformat(first), datetime.fromisoformat(last)
    tick = timedelta(microseconds=1)
    times = [first - tick, first, last, last + tick] + [
        first + timedelta(hours=i) for i in range(36)
    ]
    deliver({**good_month(), "timestamp": pa.array(times, TIMESTAMP)})
    accepted(month)
    assert set_aside() == [(0, "outside_month"), (3, "outside_month")]


def test_a_tolerance_keeps_rows_just_outside():
    set_params(tolerance_hours=2)
    deliver(good_month(), timestamp={0: datetime(2017, 5, 1, 3, tzinfo=UTC)})
    assert accepted()["rows_set_aside"] == 0


# ---- what is set aside ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "bad"),
    [
        ("user_id_missing", {"user_id": {5: None}}),
        ("item_id_missing", {"item_id": {5: None}}),
        ("timestamp_missing", {"timestamp": {5: None}}),
        ("outside_month", {"timestamp": {5: datetime(2017, 4, 30, 3, 59, tzinfo=UTC)}}),
        ("outside_month", {"timestamp": {5: datetime(2091, 1, 1, tzinfo=UTC)}}),
        ("unknown_item", {"item_id": {5: 77}}),
        (
            "repeated_row",
            {
                "user_id": {5: 4},
                "item_id": {5: 4},
                "timestamp": {5: datetime(2017, 5, 2, 8, tzinfo=UTC)},
            },
        ),
    ],
)
def test_a_bad_row_is_set_aside_with_its_number_and_reason(reason, bad):
    deliver(good_month(), **bad)
    result = accepted()
    assert set_aside() == [(5, reason)]
    assert result[reason] == result["rows_set_aside"] == 1
    (row,) = read_parquet("quarantine.parquet").to_pylist()
    assert set(row) == {"row", "reason", "user_id", "item_id", "timestamp"}
    assert all(value is None or isinstance(value, str) for k, value in row.items() if k != "row")


@pytest.mark.parametrize("blank", ["", "   ", "\t\n", "\u3000", "\u00a0", "\u200b"])
def test_an_empty_string_is_no_user(blank):
    month = good_month()
    deliver({**month, "user_id": month["user_id"].cast(pa.string())}, user_id={5: blank})
    accepted()
    assert set_aside() == [(5, "user_id_missing")]


def test_columns_may_have_any_name_that_is_not_needed_here():
    names = ["moment", "alike", "good", "delivered", "set_aside", "value", "day", 'an "odd" one']
    deliver({**good_month(), **{name: pa.array([1] * N) for name in names}})
    more = pa.table({name: ["x"] * 10 for name in [*names, "user_id", "timestamp"]})
    catalog = read_parquet("catalog.parquet")
    for name in more.column_names:
        catalog = catalog.append_column(name, more[name])
    write_parquet(catalog, "catalog.parquet")
    assert accepted()["rows_clean"] == N
    assert read_json("profile.json")["mix"] == {"GROCERY": 0.5, "飲料": 0.5}


def test_rows_that_differ_in_any_delivered_column_are_two_behaviors():
    first = good_month(1)
    twice = {name: pa.concat_arrays([column, column]) for name, column in first.items()}
    deliver({**twice, "basket": pa.array([1, 2])})
    set_params(max_repeated_rows=0)
    result = accepted()
    assert (result["rows_clean"], result["same_moment"], result["warnings"]) == (2, 1, 1)


def test_the_page_shows_set_aside_rows_as_text_and_needs_nothing_from_outside():
    month = good_month()
    deliver({**month, "note": pa.array(["<b>ひどい</b>"] * N)}, item_id={5: 77})
    accepted()
    page = Path("page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;ひどい&lt;/b&gt;" in page
    assert "Accepted" in page
    assert not any(word in page for word in ("http:", "https:", "<script", "<link", "@import"))


# ---- what is refused -----------------------------------------------------------------------------


def test_a_missing_file_is_refused():
    Path("landing.parquet").unlink()
    refused("landing.parquet: expected a parquet file, found none")


@pytest.mark.parametrize("damage", ["cut", "text", "nothing", "page"])
def test_a_file_that_is_not_whole_is_refused(damage):
    deliver(good_month(N * 100))
    content = Path("landing.parquet").read_bytes()
    damaged = {
        "cut": content[:-100],
        "text": b"user_id,item_id,timestamp\n1,2,2017-05-01",
        "nothing": b"",
        "page": content[:60] + bytes(400) + content[460:],
    }
    Path("landing.parquet").write_bytes(damaged[damage])
    refused("landing.parquet")


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
def test_a_missing_column_is_refused_and_named(column):
    month = good_month()
    del month[column]
    deliver(month)
    refused(f"column '{column}' is missing; found columns")


def test_ids_that_are_fractions_are_refused():
    month = good_month()
    deliver({**month, "user_id": month["user_id"].cast(pa.float64())})
    refused("column 'user_id' should be integer or string, is double")


@pytest.mark.parametrize(
    ("kind", "cure"),
    [
        (pa.string(), r"pd.to_datetime\(.*utc=True"),
        (pa.int64(), 'unit="s"'),
        (pa.timestamp("us"), "without a time zone.*tz_localize"),
        (pa.date32(), "to_datetime"),
    ],
)
def test_a_timestamp_that_is_no_instant_is_refused_with_a_cure(kind, cure):
    month = good_month()
    deliver({**month, "timestamp": month["timestamp"].cast(kind)})
    refused(cure)


def test_names_that_differ_in_capitals_only_are_refused():
    deliver({**good_month(), "Item_ID": pa.array(np.arange(N))})
    refused("item_id twice")


def test_names_that_the_quarantine_needs_are_refused():
    deliver({**good_month(), "reason": pa.array(["x"] * N)})
    refused("reason")


def test_integers_in_the_month_and_strings_in_the_catalog_are_refused():
    write_catalog([str(i) for i in range(10)])
    refused("expected item_id to hold strings as the data so far does, found integers")


def test_an_integer_beyond_64_bits_is_refused():
    month = good_month()
    deliver({**month, "user_id": month["user_id"].cast(pa.uint64())}, user_id={0: 2**64 - 1})
    refused("18446744073709551615")


@pytest.mark.parametrize("fault", ["mix_column", "misspelt", "catalog"])
def test_what_is_no_fault_of_the_delivery_is_not_said_to_be_refused(fault):
    if fault == "mix_column":
        write_parquet(pa.table({"item_id": list(range(10))}), "catalog.parquet")
    elif fault == "misspelt":
        set_params(heavy_usr=5)
    else:
        Path("catalog.parquet").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=fault):
        main(arguments())
    assert nothing_is_written()
    assert not Path("refused.html").exists()


def test_a_page_names_the_delivery_it_judges():
    accepted()
    page = Path("page.html").read_text(encoding="utf-8")
    assert file_hash("landing.parquet")[:16] in page
    assert f"{Path('landing.parquet').stat().st_size:,} bytes" in page.replace("\u202f", ",")
    Path("landing.parquet").write_bytes(b"half of it")
    with pytest.raises(ValueError, match="landing"):
        main(arguments())
    assert file_hash("landing.parquet")[:16] in Path("refused.html").read_text(encoding="utf-8")


def test_an_empty_month_is_refused():
    write_parquet(pa.table(good_month()).slice(0, 0), "landing.parquet")
    refused("the number of rows to be at least 1, found 0")


def test_a_file_that_holds_another_month_is_refused_and_the_month_is_named():
    message = refused(r"is refused as 2017-06 \(it seems to hold 2017-05\)", month="2017-06")
    assert "calendar.timezone" in message


def test_a_month_delivered_twice_in_one_file_is_refused():
    whole = pa.table(good_month())
    write_parquet(pa.concat_tables([whole, whole]), "landing.parquet")
    refused("share of rows that repeat an earlier row to be at most 5%, found 50%")


def test_too_many_unknown_items_are_refused():
    deliver(good_month(), item_id=dict.fromkeys(range(4), 77))
    refused("item is not in the catalog to be at most 5%, found 10%")


def test_too_many_bad_rows_of_any_kind_are_refused():
    deliver(good_month(), user_id=dict.fromkeys(range(5), None))
    refused("set aside for any reason to be at most 10%, found 12.5%")


def test_a_refusal_leaves_the_previous_outputs_as_they_were_and_a_repair_takes_the_page_away():
    accepted()
    before = {name: next(Path().glob(f"{name}.*")).read_bytes() for name in OUTPUTS}
    Path("landing.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="landing"):
        main(arguments())
    assert {name: next(Path().glob(f"{name}.*")).read_bytes() for name in OUTPUTS} == before
    assert Path("refused.html").exists()
    deliver(good_month())
    accepted()


# ---- what the machine gets wrong -----------------------------------------------------------------


def test_a_full_disk_leaves_nothing_half_written(monkeypatch):
    def no_space(_):
        raise OSError(28, "No space left on device")

    accepted()
    before = Path("clean.parquet").read_bytes()
    deliver(good_month(30))
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            main(arguments())
    assert Path("clean.parquet").read_bytes() == before
    assert not list(Path().glob(".*.tmp"))


def run_in_process(**settings):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "stages/validate_logs.py"), *arguments()],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def test_a_file_size_limit_ends_in_one_line_and_leaves_nothing():
    import resource

    deliver(good_month(100_000), timestamp={})
    with Path("landing.parquet").open("rb"):
        limited = run_in_process(
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        )
    _, errors = limited.communicate(timeout=60)
    assert limited.returncode == 70
    assert "Traceback" not in errors
    assert not any(next(Path().glob(f"{name}.*"), None) for name in OUTPUTS)


def test_a_kill_while_it_writes_leaves_nothing_half_written_and_a_rerun_succeeds():
    killed = run_in_process()
    while not list(Path().glob(".clean.parquet.*")) and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not any(next(Path().glob(f"{name}.*"), None) for name in OUTPUTS)
    accepted()
