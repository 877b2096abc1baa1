"""A user who is forgotten is nowhere, does not come back, and nobody else notices."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from lurm.storage import file_hash, read_parquet, write_parquet
from tests.releases.platforms import (
    DONE,
    FIRST,
    LATER,
    REFUSED,
    SHORT,
    Platform,
    check,
    get,
    kill_tree,
    vectors,
)
from tests.releases.test_corrections import correct
from tests.releases.whole import check_whole, is_stored

pytestmark = pytest.mark.slow

KEY = {"LURM_ERASURE_KEY": "the key under which users are forgotten"}


# ---- a platform whose ids are told from all other text --------------------------------------------


def rename(path: Path) -> None:
    """Give users ids that occur nowhere by chance."""
    table = read_parquet(path)
    ids = pc.binary_join_element_wise("household", table["user_id"].cast(pa.string()), "☂", "-")
    column = table.schema.get_field_index("user_id")
    write_parquet(table.set_column(column, "user_id", ids), path)


def busiest(folder: Path, month: str) -> str | int:
    """The user with the most behaviors in the month, of those in the users file."""
    bought = read_parquet(folder / f"behaviors/{month}.parquet")
    known = read_parquet(folder / "users.parquet")["user_id"]
    counts = bought.filter(pc.is_in(bought["user_id"], known))["user_id"].value_counts()
    return max(counts.to_pylist(), key=lambda one: one["counts"])["values"]


def a_coffee(folder: Path) -> pa.Array:
    """An item that a task asks about."""
    items = read_parquet(folder / "items.parquet")
    return items.filter(pc.equal(items["product_category"], "COFFEE"))["item_id"].slice(0, 1)


@pytest.fixture(scope="module")
def named(once, new_platform) -> Platform:
    """A first release of users with names; the busiest is shown on pages, and in the quarantine."""

    def make(folder: Path) -> None:
        platform = new_platform.copy(folder)
        platform.change(
            "heavy is who buys twice", at=folder / "person",
            params={"heavy_user: 100000": "heavy_user: 1"},
        )  # fmt: skip
        (folder / "deliveries").unlink()
        shutil.copytree(new_platform.deliveries, folder / "deliveries")
        for path in [
            *platform.deliveries.glob("behaviors/*"),
            platform.deliveries / "users.parquet",
        ]:
            rename(path)
        user = busiest(platform.deliveries, FIRST[0])
        for month in FIRST:
            path = platform.deliveries / f"behaviors/{month}.parquet"
            table = read_parquet(path)
            odd = table.filter(pc.equal(table["user_id"], user)).slice(0, 2)
            unknown = pa.array([-1, -2][: len(odd)], table["item_id"].type)
            column = table.schema.get_field_index("item_id")
            odd = odd.set_column(column, "item_id", unknown)
            coffee = odd.slice(0, 1).set_column(column, "item_id", a_coffee(platform.deliveries))
            write_parquet(pa.concat_tables([table, odd, coffee]), path)
        shutil.rmtree(platform.landing)
        shutil.copytree(platform.deliveries, platform.landing)
        for month in LATER:
            (platform.landing / f"behaviors/{month}.parquet").unlink()
        check(platform.run_retraining(steps=SHORT))

    return Platform(once("named_release", make))


def places_of(platform: Platform, user: str) -> set[str]:
    """Where an id can be found: in the cache, the store, the runs and all that git ever kept."""
    found = set()
    for place in ("home", "store", "published.git"):
        for path in (platform.folder / place).rglob("*"):
            if path.is_file() and holds(path, user):
                found.add(str(path.relative_to(platform.folder)))
    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"],
        cwd=platform.repository, capture_output=True, check=True,
    ).stdout  # fmt: skip
    return found | ({"git objects"} if user.encode() in objects else set())


def holds(path: Path, user: str) -> bool:
    """Whether a file holds the id: a parquet file in any column, any other file as text."""
    content = path.read_bytes()
    if content[:4] != b"PAR1":
        return user.encode() in content or json.dumps(user).strip('"').encode() in content
    table = pq.read_table(pa.BufferReader(content))
    texts = [c for c in table.columns if pa.types.is_string(c.type)]
    return any(pc.any(pc.match_substring(text, user)).as_py() for text in texts)


def rows_of_others(content: bytes, user: str | int) -> pa.Table:
    """The rows of a file of all users but one."""
    table = pq.read_table(pa.BufferReader(content))
    return table.filter(pc.not_equal(table["user_id"], user))


def test_a_forgotten_user_is_nowhere_and_does_not_come_back(named, tmp_path):
    platform = replace(named.copy(tmp_path / "platform"), extra=KEY)
    (platform.folder / "deliveries").unlink()
    (platform.folder / "deliveries").symlink_to(named.deliveries)
    user = busiest(platform.deliveries, FIRST[0])
    platform.deliver(LATER[0])
    check(platform.run_month(LATER[0], run="unfinished", steps=("open", "build_boi")))
    pages = [path for path in places_of(platform, user) if path.endswith(".html")]
    assert len(pages) >= len(FIRST), "the search finds what is there"
    before, hashes = platform.names(), platform.hashes()
    old = {
        path: get(platform, path, "release/1", tmp_path / "consumer")
        for path in (*map(vectors, FIRST), f"data/predictions/{FIRST[-1]}.parquet", "data/labels")
        if path.endswith(".parquet")
    }

    forgotten = platform.forget(user)
    assert forgotten.status == DONE, forgotten.log
    assert user not in forgotten.log
    assert places_of(platform, user) == set()
    assert forgotten.result["reissued"] == {"release/1": "release/1-r2"}
    assert set(platform.names()) == {*before, "release/1-r2", "forgotten"} - {"release/1"}
    check_whole(platform, names_only=True)

    # All others have what they had, under the new name and the same models; the old one is gone.
    for path, content in old.items():
        now = pq.read_table(
            pa.BufferReader(get(platform, path, "release/1-r2", tmp_path / "consumer"))
        )
        assert now.equals(rows_of_others(content, user)), path
        assert len(now) < pq.read_metadata(pa.BufferReader(content)).num_rows
    after = platform.hashes("release/1-r2")
    models = [path for path in hashes if path.startswith(("models/", "reports/heads/"))]
    assert models
    assert all(after[path] == hashes[path] for path in models)
    changed = {hashes[path] for path in hashes if after[path] != hashes[path]}
    assert not any(is_stored(platform.store, md5) for md5 in changed)
    assert not any(is_stored(platform.home / "cache", md5) for md5 in changed)
    for revision in ("release/1", before["main"]):
        gone = subprocess.run(
            ["dvc", "get", str(platform.repository), vectors(FIRST[0]), "--rev", revision],
            cwd=tmp_path, env=platform.environment(), capture_output=True, check=False,
        )  # fmt: skip
        assert gone.returncode != 0

    # The certificate.
    told = json.loads(platform.git("show", "forgotten:certificates/1.json"))
    assert told["finished"]
    assert told["removed"].keys() >= {
        *("data/landing/behaviors", "data/landing/users.parquet", "data/behaviors", "data/boi"),
        *("data/quarantine/behaviors", "data/states", "data/user_vectors", "data/predictions"),
        *("data/labels", "data/training/behaviors", "data/timelines", "reports/validation/*.html"),
    }
    delivered = [read_parquet(platform.landing / f"behaviors/{month}.parquet") for month in FIRST]
    rows = sum(pc.sum(pc.equal(table["user_id"], user)).as_py() for table in delivered)
    assert told["removed"]["data/landing/behaviors"] == {"files": len(FIRST), "rows": rows}
    assert told["deliveries"][f"behaviors/{FIRST[0]}.parquet"] > 0
    text = platform.git("show", "forgotten:certificates/1.txt")
    assert "release/1 -> release/1-r2" in text
    assert "models/smen.safetensors" in text
    assert str(named.store) in text, "a store that the platform left is not cleaned, but named"
    assert user not in text

    # A run that was at work goes on, a month is delivered again; neither lets the user in.
    check({"publish": platform.step("unfinished", "publish")})
    again = platform.run_month(FIRST[1], run="again", steps=("open", "validate_logs", "publish"))
    check(again)
    assert again["publish"].result["published"] == [f"refresh/{FIRST[1]}/r1"]
    assert again["validate_logs"].result["rows_forgotten"]["data/landing/behaviors"] > 0
    assert not any(user in step.log for step in again.values())
    assert [path for path in places_of(platform, user) if "landing" in path] == []
    assert places_of(platform, user) == set()
    first = f"data/behaviors/{FIRST[1]}.parquet"
    assert platform.hashes()[first] == after[first]

    # Told once more, there is nothing to do; without the key, or with another, nothing is landed.
    names = platform.names()
    repeated = platform.forget(user)
    assert repeated.status == DONE, repeated.log
    assert repeated.result["certificate"] is None
    for key, reason in (
        ({}, "found neither"),
        ({"LURM_ERASURE_KEY": "another " * 8}, "got another"),
    ):
        other = replace(platform, extra=key)
        opened = other.run_month(FIRST[2], run="keyless", steps=("open",))["open"]
        assert opened.status == REFUSED
        assert reason in opened.reason
        assert other.forget(user).status == REFUSED
    assert platform.names() == names


BUCKET = "forgetting"  # of its own: servers of one process share their buckets


@pytest.fixture
def on_s3(platform, tmp_path):
    """The platform with its store and its landing place on S3; and what reaches it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    files = S3FileSystem(key="a-key", secret="a-secret", client_kwargs={"endpoint_url": address})
    files.mkdir(BUCKET)
    files.put(f"{platform.store}/", f"{BUCKET}/store/", recursive=True)
    files.put(f"{platform.landing}/", f"{BUCKET}/landing/", recursive=True)
    platform.change(
        "the store moves", at=tmp_path / "person",
        config={f"url = {platform.store}": f"url = s3://{BUCKET}/store\n    endpointurl = {address}"},
    )  # fmt: skip
    keys = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"}
    place = {"AWS_ENDPOINT_URL": address, "LURM_LANDING": f"s3://{BUCKET}/landing"}
    yield replace(platform, extra=KEY | keys | place | {"AWS_DEFAULT_REGION": "us-east-1"}), files
    server.stop()


def test_a_store_on_s3_keeps_nothing_either(on_s3):
    platform, files = on_s3
    user = busiest(platform.landing, FIRST[0])
    before = platform.hashes()
    done = platform.forget(user)
    assert done.status == DONE, done.log
    told = json.loads(platform.git("show", "forgotten:certificates/1.json"))
    assert set(told["deliveries"]) == {
        "users.parquet", *(f"behaviors/{month}.parquet" for month in FIRST)
    }  # fmt: skip
    stored = {"".join(path.split("/")[-2:]) for path in files.find(f"{BUCKET}/store", refresh=True)}
    now = platform.hashes()
    assert {before[path] for path in now if now[path] != before[path]}.isdisjoint(stored)
    assert {now[vectors(month)] for month in FIRST} <= stored


# ---- many names, and calls that do not end --------------------------------------------------------


def with_rows_of(platform: Platform, user: int) -> list[str]:
    """The tables in cache, store and runs that have rows of the user, as a number or as text."""
    found = []
    for place in ("home", "store"):
        for path in (platform.folder / place).rglob("*"):
            if path.is_file() and path.read_bytes()[:4] == b"PAR1":
                table = pq.ParquetFile(path).read()
                ids = table["user_id"].to_pylist() if "user_id" in table.schema.names else []
                if user in ids or str(user) in ids:
                    found.append(str(path))
    return found


def kill_before(platform: Platform, command: str, user: int) -> None:
    """Forget, and kill -9 all of it as the command is about to begin."""
    with platform.started("forget", str(user), group="") as process:
        for line in process.stderr:
            if line.startswith(f"$ {command}"):
                kill_tree(process)
                process.wait()
                return
    raise AssertionError(f"{command} did not come")


def test_a_call_that_is_killed_shows_nothing_or_all_and_the_next_ends_alike(later, tmp_path):
    platform = replace(later, extra=KEY)
    other = replace(later.copy(tmp_path / "other"), extra=KEY)
    user = busiest(platform.landing, LATER[0])
    names = platform.names()
    old = {month: get(later, vectors(month), f"refresh/{month}", tmp_path / "c") for month in LATER}
    for command in ("git tag", "dvc push", "git push --quiet --atomic"):
        kill_before(platform, command, user)
        assert platform.names() == names
        check_whole(platform)
    for command in ("dvc gc", "git push --quiet origin"):
        kill_before(platform, command, user)
        assert "not finished" in platform.git("show", "forgotten:certificates/1.txt")
        check_whole(platform, names_only=True)
    ended = platform.forget(user)
    assert ended.status == DONE, ended.log
    assert ended.result["finished"] == [1]
    assert "not finished" not in platform.git("show", "forgotten:certificates/1.txt")

    alike = other.forget(user)
    assert alike.status == DONE, alike.log
    revisions = {f"refresh/{month}/r1": f"refresh/{month}/r2" for month in LATER}
    assert alike.result["reissued"] == revisions | {"release/1": "release/1-r2"}
    assert set(platform.names()) == set(other.names())
    assert set(platform.names()) == {*names, *alike.result["reissued"].values(), "forgotten"} - set(
        alike.result["reissued"]
    )
    for name in other.names():
        if name != "forgotten":
            assert platform.hashes(name) == other.hashes(name), name
    objects = [
        {path.name for path in (one.folder / place).glob("files/md5/??/*")}
        for one in (platform, other)
        for place in ("store", "home/cache")
    ]
    assert objects[0] == objects[1] == objects[2] == objects[3]
    for month in LATER:
        now = get(platform, vectors(month), f"refresh/{month}/r2", tmp_path / "c")
        table = pq.read_table(pa.BufferReader(now))
        assert table.equals(rows_of_others(old[month], user))
        assert user not in table["user_id"].to_pylist()

    assert with_rows_of(platform, user) == []

    # Nothing is stale: a month delivered as it was changes nothing, a corrected one gets the next revision.
    same = platform.run_month(LATER[0], run="same", steps=SHORT)
    check(same)
    assert same["publish"].result["published"] == []
    correct(platform, LATER[2])
    corrected = platform.run_month(LATER[2], run="corrected", steps=SHORT)
    check(corrected)
    assert corrected["publish"].result["published"] == [f"refresh/{LATER[2]}/r3"]
    assert with_rows_of(platform, user) == []
    check(platform.run_retraining(steps=("open",)))
    assert with_rows_of(platform, user) == []


def test_users_are_forgotten_one_after_the_other(platform):
    platform = replace(platform, extra=KEY)
    table = read_parquet(platform.landing / f"behaviors/{FIRST[0]}.parquet")
    counts = {c["values"]: c["counts"] for c in table["user_id"].value_counts().to_pylist()}
    one, other = sorted(counts)[:2]
    assert platform.forget(one).result["reissued"] == {"release/1": "release/1-r2"}
    both = platform.forget(one, other)
    assert both.status == DONE, both.log
    assert both.result["reissued"] == {"release/1-r2": "release/1-r3"}
    assert both.result["finished"] == [2]
    tombstones = json.loads(platform.git("show", "forgotten:tombstones.json"))
    assert len(tombstones["users"]) == 2
    assert both.result["forgotten"] == [
        u for u in tombstones["users"] if u in both.result["forgotten"]
    ]
    check_whole(platform, names_only=True)
    # What is delivered again is the same as what the two erasures left.
    again = platform.run_month(FIRST[0], run="again", steps=("open", "validate_logs"))
    check(again)
    assert again["validate_logs"].result["ran"] == []
    left_out = again["validate_logs"].result["rows_forgotten"]["data/landing/behaviors"]
    assert left_out >= counts[one] + counts[other]


def test_a_user_of_a_delivery_that_was_never_landed_is_kept_out(platform):
    platform = replace(platform, extra=KEY)
    delivered = read_parquet(platform.deliveries / f"behaviors/{LATER[0]}.parquet")
    column = delivered.schema.get_field_index("user_id")
    new = pa.array([987654321], delivered["user_id"].type)
    row = delivered.slice(0, 1).set_column(column, "user_id", new)
    path = platform.landing / f"behaviors/{LATER[0]}.parquet"
    write_parquet(pa.concat_tables([delivered, row]), path)
    names = platform.names()
    done = platform.forget(987654321, 987654322)
    assert done.status == DONE, done.log
    assert done.result["reissued"] == {}
    assert len(done.result["unknown"]) == len(done.result["forgotten"]) == 1
    assert platform.names().items() >= names.items()
    check(platform.run_month(LATER[0], run="run", steps=("open",)))
    landed = platform.home / f"runs/run/workspace/data/landing/behaviors/{LATER[0]}.parquet"
    assert read_parquet(landed)["user_id"].to_pylist() == delivered["user_id"].to_pylist()


def test_a_user_nobody_knows_and_a_call_without_a_key_change_nothing(platform):
    names = platform.names()
    objects = {path: file_hash(path) for path in platform.folder.glob("store/files/md5/??/*")}
    keyless = platform.forget(busiest(platform.landing, FIRST[0]))
    assert keyless.status == REFUSED
    assert "expected the key of erasure in LURM_ERASURE_KEY" in keyless.reason
    unknown = replace(platform, extra=KEY).forget(987654321)
    assert unknown.status == REFUSED
    assert "found none; nothing was changed" in unknown.reason
    assert "1 of 1 users are in nothing published" in unknown.log
    assert platform.names() == names
    assert {p: file_hash(p) for p in platform.folder.glob("store/files/md5/??/*")} == objects
