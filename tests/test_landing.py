"""What arrives is brought in whole or not at all, and months only ever follow each other."""

import errno
import logging
import os
import shutil
from pathlib import Path

import boto3
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from lurm.erasure.rows import n_left_out
from lurm.erasure.tombstones import Tombstones
from lurm.landing import (
    STAGED,
    check_next,
    fetch,
    find_forgotten,
    land_month,
    publish,
    register_month,
)
from lurm.months import month_name, month_number
from lurm.storage import read_parquet, scratch

PARAMS = """\
# The whole is settings.
calendar:
  timezone: "UTC"  # kept as quoted

# Every month that is in.
months:
  2020-01: {previous: start, items: data/landing/items.parquet}
  2020-02: {previous: 2020-01, items: data/landing/items/2020-02.parquet}

training:
  # Months of the models.
  months: [2020-01, 2020-02]
"""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A landing place with two more months, items with the first of them, and users."""
    folder = tmp_path / "source"
    for month in ("2020-03", "2020-04"):
        write(behaviors(month), folder / "behaviors" / f"{month}.parquet")
    write(items("c"), folder / "items" / "2020-03.parquet")
    write(items("a", "b"), folder / "items.parquet")
    write(pa.table({"user_id": ["u"], "age": ["45-54"]}), folder / "users.parquet")
    return folder


def test_forgotten_users_stay_outside_and_are_counted(
    source: Path, params: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tombstones = Tombstones(b"a key")
    tombstones = tombstones.adding([tombstones.hash("u")])
    landing = tmp_path / "landing"
    write(pa.table({"user_id": ["u", "w"], "age": ["1", "2"]}), source / "users.parquet")
    land_month("2020-03", str(source), landing, params, tombstones=tombstones)
    for name, others in {"behaviors/2020-03": ["v"], "users": ["w"]}.items():
        path = landing / f"{name}.parquet"
        assert pq.read_table(path)["user_id"].to_pylist() == others
        assert n_left_out(path) == 1
    assert "behaviors/2020-03.parquet: 1 rows of forgotten users left out" in caplog.text
    assert not list(tmp_path.glob(".landing*"))
    again = land_month("2020-03", str(source), landing, params, tombstones=tombstones)
    assert set(again.values()) == {"unchanged"}
    assert {
        name: found.rows for name, found in find_forgotten(str(source), tombstones).items()
    } == {
        "behaviors/2020-03.parquet": 1,
        "behaviors/2020-04.parquet": 1,
        "users.parquet": 1,
    }


def test_a_delivery_without_forgotten_users_is_landed_as_it_is(
    source: Path, params: Path, tmp_path: Path
) -> None:
    tombstones = Tombstones(b"a key", frozenset(["somebody else's"]))
    land_month("2020-03", str(source), tmp_path / "landing", params, tombstones=tombstones)
    for path in (tmp_path / "landing").rglob("*.parquet"):
        assert path.read_bytes() == (source / path.relative_to(tmp_path / "landing")).read_bytes()


def behaviors(month: str, **changes: list) -> pa.Table:
    columns = {"user_id": ["u", "v"], "item_id": ["a", "b"]}
    columns["timestamp"] = pd.to_datetime([f"{month}-05 10:00", f"{month}-06 11:30"], utc=True)
    return pa.table(columns | changes)


def items(*ids: str) -> pa.Table:
    return pa.table({"item_id": list(ids), "title": [f"the {name}" for name in ids]})


def write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- bringing a month in ------------------------------------------------------------------------


def test_a_month_arrives_with_its_items_the_catalog_and_the_users(
    source: Path, params: Path, tmp_path: Path
) -> None:
    landing = tmp_path / "landing"
    done = land_month("2020-03", str(source), landing, params)
    assert set(done.values()) == {"new"}
    delivered = tree(source)
    del delivered["behaviors/2020-04.parquet"]
    assert tree(landing) == delivered
    assert not list(tmp_path.glob(".landing*"))
    month = yaml.safe_load(params.read_text())["months"]["2020-03"]
    assert month == {"previous": "2020-02", "items": f"{landing}/items/2020-03.parquet"}


def test_a_month_without_items_points_at_the_opening_catalog(
    source: Path, params: Path, tmp_path: Path
) -> None:
    landing = tmp_path / "landing"
    land_month("2020-03", str(source), landing, params)
    land_month("2020-04", str(source), landing, params)
    month = yaml.safe_load(params.read_text())["months"]["2020-04"]
    assert month == {"previous": "2020-03", "items": f"{landing}/items.parquet"}


def test_landing_the_same_month_again_touches_nothing(
    source: Path, params: Path, tmp_path: Path
) -> None:
    landing = tmp_path / "landing"
    land_month("2020-03", str(source), landing, params)
    times = {path: path.stat().st_mtime_ns for path in [params, *landing.rglob("*.parquet")]}
    assert set(land_month("2020-03", str(source), landing, params).values()) == {"unchanged"}
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_a_corrected_month_replaces_the_old_one_and_says_so(
    source: Path, params: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    landing = tmp_path / "landing"
    land_month("2020-03", str(source), landing, params)
    before = params.read_text()
    corrected = source / "behaviors" / "2020-03.parquet"
    write(behaviors("2020-03", item_id=["a", "c"]), corrected)
    done = land_month("2020-03", str(source), landing, params)
    assert done["behaviors/2020-03.parquet"] == "replaced"
    assert "behaviors/2020-03.parquet: replaced" in caplog.text
    assert (landing / "behaviors/2020-03.parquet").read_bytes() == corrected.read_bytes()
    assert params.read_text() == before


def test_items_that_come_late_to_a_known_month_are_pointed_out(
    source: Path, params: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    landing = tmp_path / "landing"
    land_month("2020-03", str(source), landing, params)
    land_month("2020-04", str(source), landing, params)
    write(items("d"), source / "items" / "2020-04.parquet")
    land_month("2020-04", str(source), landing, params)
    assert "months.2020-04.items is" in caplog.text
    assert "items/2020-04.parquet, change it there" in caplog.text


def test_deliveries_may_lie_in_the_landing_place_itself(source: Path, params: Path) -> None:
    before = tree(source)
    land_month("2020-03", str(source), source, params)
    assert tree(source) == before
    assert "2020-03" in yaml.safe_load(params.read_text())["months"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: (s / "behaviors/2020-03.parquet").unlink(), "expected behaviors/2020-03"),
        (lambda s: shutil.rmtree(s), "expected behaviors/2020-03.parquet"),
        (lambda s: (s / "items.parquet").unlink(), "expected items.parquet, the catalog"),
        (lambda s: in_parts(s / "behaviors/2020-03.parquet"), "one parquet file, found a folder"),
        (lambda s: cut(s / "behaviors/2020-03.parquet"), "expected a complete parquet file"),
        (lambda s: cut(s / "items/2020-03.parquet"), "items/2020-03.parquet: expected a complete"),
        (lambda s: (s / "users.parquet").write_text("user_id\n1\n"), "users.parquet: expected a"),
        (lambda s: (s / "users.parquet").write_bytes(b""), "users.parquet: expected a complete"),
        (
            lambda s: write(pa.table({"user": [1]}), s / "behaviors/2020-03.parquet"),
            "column 'user_id' is missing; column 'item_id' is missing",
        ),
        (
            lambda s: write(
                behaviors("2020-03", timestamp=["5 March", "6 March"]),
                s / "behaviors/2020-03.parquet",
            ),
            "column 'timestamp' should be instants, .* is string",
        ),
        (
            lambda s: write(
                behaviors("2020-03").drop_columns("timestamp"), s / "behaviors/2020-03.parquet"
            ),
            "column 'timestamp' is missing",
        ),
        (
            lambda s: write(
                behaviors("2020-03", user_id=[1.5, 2.0]), s / "behaviors/2020-03.parquet"
            ),
            "column 'user_id' should be integer or string, is double",
        ),
        (
            lambda s: write(pa.table({"title": ["x"]}), s / "items.parquet"),
            "items.parquet: column 'item_id' is missing",
        ),
        (
            lambda s: write(
                behaviors("2020-03", item_id=[1, 2]), s / "behaviors/2020-03.parquet"
            ),
            "expected item_id to hold strings as the data so far does, found integers",
        ),
    ],
)  # fmt: skip
def test_a_bad_delivery_is_refused_and_nothing_is_touched(
    spoil, message: str, source: Path, params: Path, tmp_path: Path
) -> None:
    landing = tmp_path / "landing"
    spoil(source)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refusal:
        land_month("2020-03", str(source), landing, params)
    assert not landing.exists()
    assert params.read_text() == PARAMS
    assert not list(tmp_path.glob(".landing*"))
    assert str(source) in str(refusal.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def in_parts(path: Path) -> None:
    whole = pq.read_table(path)
    path.unlink()
    write(whole, path / "part-0.parquet")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_timestamps_of_any_unit_and_integer_ids_are_accepted(
    unit: str, zone: str, source: Path, params: Path, tmp_path: Path
) -> None:
    table = behaviors("2020-03", user_id=[1, 2], item_id=[3, 4], price=[0.5, None])
    moment = table["timestamp"].cast(pa.timestamp(unit, zone))
    write(pa.table({"item_id": [3, 4]}), source / "items.parquet")
    write(pa.table({"user_id": [1]}), source / "users.parquet")
    delivery = table.set_column(2, "timestamp", moment)
    write(delivery, source / "behaviors" / "2020-03.parquet")
    land_month("2020-03", str(source), tmp_path / "landing", params)


def test_the_example_of_the_handbook_lands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "your-own-logs.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(page.split("```python\n")[1].split("```")[0], {})
    Path("params.yaml").write_text("months: {}\n")
    land_month("2018-01", "deliveries", "data/landing")
    last = pq.read_table("data/landing/behaviors/2018-01.parquet")["timestamp"][-1].as_py()
    assert last.isoformat() == "2018-01-31T22:30:00+00:00"


def test_other_kinds_of_address_are_refused(params: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a folder or an s3:// address, got gs://x"):
        land_month("2020-03", "gs://x", tmp_path / "landing", params)


# ---- the list of months -------------------------------------------------------------------------


def test_a_gap_is_refused_with_the_missing_months_named(
    source: Path, params: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"expected 2020-03, .* got 2020-06; land 2020-03, 2020-04, 2"
    ):
        land_month("2020-06", str(source), tmp_path / "landing", params)
    assert params.read_text() == PARAMS


@pytest.mark.parametrize(
    ("month", "message"),
    [("2019-12", "the months begin at 2020-01"), ("march", "expected a month such as '2017-05'")],
)
def test_months_that_cannot_follow_are_refused(month: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_next(month, ["2020-01", "2020-02"])


def test_a_new_month_adds_one_line_and_keeps_the_rest_to_the_letter(params: Path) -> None:
    register_month(params, "2020-03", "data/landing/items.parquet")
    line = "  2020-03: {previous: 2020-02, items: data/landing/items.parquet}\n"
    head, tail = PARAMS.split("\ntraining:")
    assert params.read_text() == f"{head}{line}\ntraining:{tail}"


def test_the_settings_of_the_repository_survive_a_new_month_to_the_letter(tmp_path: Path) -> None:
    ours = Path(__file__).parents[1] / "params.yaml"
    copy = tmp_path / "params.yaml"
    shutil.copy(ours, copy)
    last = max(yaml.safe_load(ours.read_text())["months"])
    register_month(copy, last, "data/landing/items.parquet")
    assert copy.read_text() == ours.read_text()
    following = month_name(month_number(last) + 1)
    register_month(copy, following, "data/landing/items.parquet")
    line = f"  {following}: {{previous: {last}, items: data/landing/items.parquet}}\n"
    assert copy.read_text().replace(line, "") == ours.read_text()


def test_the_first_month_of_an_empty_list_starts_it(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("months: {}\nseed: 0\n")
    register_month(params, "2020-01", "data/landing/items.parquet")
    register_month(params, "2020-02", "data/landing/items.parquet")
    months = yaml.safe_load(params.read_text())["months"]
    assert [months[month]["previous"] for month in months] == ["start", "2020-01"]


@pytest.mark.parametrize("text", ["", "seed: 0\n", "months: [1]\n", "months: {"])
def test_settings_without_months_are_refused(text: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(text)
    with pytest.raises(ValueError, match=r"params\.yaml: expected"):
        register_month(params, "2020-01", "data/landing/items.parquet")


# ---- publishing ---------------------------------------------------------------------------------


def test_behaviors_are_published_after_their_items(tmp_path: Path) -> None:
    with scratch(tmp_path, STAGED) as folder:
        for name in ("behaviors/2020-01.parquet", "items.parquet", "users.parquet"):
            write(items("a"), folder / name)
        assert list(publish(folder, tmp_path / "landing")) == [
            "items.parquet",
            "users.parquet",
            "behaviors/2020-01.parquet",
        ]


def test_two_that_publish_the_same_file_at_once_both_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        write(items(name), tmp_path / name / "items.parquet")
    flush, states = os.fsync, []

    def meanwhile(handle: int) -> None:
        if not states:
            states.append("begun")
            states.append(publish(tmp_path / "second", tmp_path / "landing"))
        flush(handle)

    monkeypatch.setattr(os, "fsync", meanwhile)
    publish(tmp_path / "first", tmp_path / "landing")
    assert states == ["begun", {"items.parquet": "new"}]
    assert read_parquet(tmp_path / "landing/items.parquet")["item_id"].to_pylist() == ["first"]
    assert [path.name for path in (tmp_path / "landing").iterdir()] == ["items.parquet"]


def test_a_disk_that_is_full_when_a_file_is_published_is_told_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(items("a"), tmp_path / "staged/items.parquet")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"landing/items\.parquet: not finished: No space left .* make"
    ):
        publish(tmp_path / "staged", tmp_path / "landing")
    assert not (tmp_path / "landing/items.parquet").exists()


def test_what_a_killed_landing_fetched_is_cleared_away_by_the_next(
    source: Path, params: Path, tmp_path: Path
) -> None:
    left = tmp_path / "workspace/.landing-killed12.tmp/behaviors"
    left.mkdir(parents=True)
    land_month("2020-03", str(source), tmp_path / "workspace/landing", params)
    assert [path.name for path in (tmp_path / "workspace").iterdir()] == ["landing"]


# ---- object storage -----------------------------------------------------------------------------


@pytest.fixture
def bucket(source: Path, monkeypatch: pytest.MonkeyPatch):
    """The deliveries in an S3 bucket, reached as the environment says."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="logs")
    for path in source.rglob("*.parquet"):
        client.upload_file(str(path), "logs", f"shop/{path.relative_to(source).as_posix()}")
    yield client
    S3FileSystem.clear_instance_cache()
    server.stop()


def test_a_month_arrives_from_object_storage_byte_for_byte(
    bucket, source: Path, params: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    landing = tmp_path / "landing"
    land_month("2020-03", "s3://logs/shop/", landing, params)
    delivered = tree(source)
    del delivered["behaviors/2020-04.parquet"]
    assert tree(landing) == delivered
    assert "very-secret" not in caplog.text
    corrected = pa.BufferOutputStream()
    pq.write_table(behaviors("2020-03", item_id=["a", "c"]), corrected)
    bucket.put_object(
        Bucket="logs", Key="shop/behaviors/2020-03.parquet", Body=corrected.getvalue().to_pybytes()
    )
    done = land_month("2020-03", "s3://logs/shop", landing, params)
    assert done["behaviors/2020-03.parquet"] == "replaced"


def test_a_month_missing_from_object_storage_is_named(bucket, params: Path, tmp_path: Path) -> None:
    for place in ("s3://logs/elsewhere", "s3://nowhere/shop"):
        with pytest.raises(FileNotFoundError, match=f"{place}: expected behaviors/2020-03.parquet"):
            land_month("2020-03", place, tmp_path / "landing", params)


def test_a_month_in_parts_in_object_storage_is_refused(
    bucket, params: Path, tmp_path: Path
) -> None:
    part = {"Bucket": "logs", "Key": "parts/behaviors/2020-03.parquet/part-0.parquet"}
    bucket.put_object(**part, Body=b"")
    with pytest.raises(ValueError, match=r"2020-03.parquet: expected one parquet file, found a"):
        land_month("2020-03", "s3://logs/parts", tmp_path / "landing", params)
    assert not (tmp_path / "landing").exists()


def test_object_storage_without_credentials_says_what_to_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match=r"cannot be reached: .*credentials.*check the address"):
        fetch("s3://logs/shop", tmp_path / "folder", ["items.parquet"])


def test_a_later_month_does_not_replace_the_opening_catalog(
    source: Path, params: Path, tmp_path: Path
) -> None:
    landing = tmp_path / "data/landing"
    land_month("2020-03", str(source), landing, params)
    before = (landing / "items.parquet").read_bytes()
    write(items("a", "b", "of today"), source / "items.parquet")
    with pytest.raises(ValueError, match=r"found another with 2020-04; deliver .* items/2020-04"):
        land_month("2020-04", str(source), landing, params)
    assert (landing / "items.parquet").read_bytes() == before
    assert not (landing / "behaviors/2020-04.parquet").exists()
    assert "2020-04" not in params.read_text()


def test_user_ids_of_another_kind_than_before_are_refused(
    source: Path, params: Path, tmp_path: Path
) -> None:
    landing = tmp_path / "data/landing"
    land_month("2020-03", str(source), landing, params)
    write(behaviors("2020-04", user_id=[1, 2]), source / "behaviors/2020-04.parquet")
    with pytest.raises(ValueError, match="expected user_id to hold strings"):
        land_month("2020-04", str(source), landing, params)
    assert not (landing / "behaviors/2020-04.parquet").exists()
