"""What is published: whole months, each in one step, in the bytes of one plain `dvc repro`."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.releases.platforms import LATER, REFUSED, SHORT, check, get, vectors
from tests.releases.whole import check_whole

pytestmark = pytest.mark.slow


def test_six_months_one_after_the_other_equal_one_plain_repro(six_months, plain):
    assert six_months.hashes() == plain.hashes()
    check_whole(six_months)


def test_each_month_is_published_under_a_tag_that_stays_and_a_name_that_moves(six_months):
    names = six_months.names()
    history = six_months.git("log", "--first-parent", "--format=%H", "main").splitlines()
    months = {f"refresh/{m}" for m in LATER}
    assert set(names) == {"main", "release/1", *months, *(f"{name}/r1" for name in months)}
    for month, commit in zip(LATER, reversed(history[: len(LATER)]), strict=True):
        assert names[f"refresh/{month}"] == names[f"refresh/{month}/r1"] == commit
        told = six_months.at(commit, "reports/release.json")
        assert told["plan"] == {"kind": "refresh", "month": month}
        assert told["names"] == [f"refresh/{month}/r1"]
        assert list(six_months.at(commit, "params.yaml")["months"])[-1] == month


def test_a_consumer_needs_the_git_address_and_the_store_only(six_months, tmp_path):
    for month in LATER:
        got = get(six_months, vectors(month), f"refresh/{month}", tmp_path / "consumer")
        assert hashlib.md5(got).hexdigest() == six_months.hashes()[vectors(month)]


def test_months_that_come_backwards_and_late_end_in_the_same_bytes(platform, plain):
    platform.deliver(LATER[1], LATER[2])
    early = platform.run_month(LATER[2], steps=SHORT)["open"]
    assert early.status == REFUSED
    assert f"expected behaviors/{LATER[0]}.parquet, found none; deliver it" in early.reason
    platform.deliver(LATER[0])
    for month in reversed(LATER):
        ended = platform.run_month(month, steps=SHORT)
        check(ended)
        assert ended["publish"].result["published"] == [f"refresh/{month}/r1"]
    assert platform.hashes() == plain.hashes()
    check_whole(platform)


def test_months_two_at_a_time_end_in_the_same_bytes(platform, plain):
    platform.deliver(*LATER)
    with ThreadPoolExecutor(2) as pool:
        for ended in pool.map(lambda month: platform.run_month(month, steps=SHORT), LATER):
            check(ended)
    assert platform.hashes() == plain.hashes()
    assert {f"refresh/{month}/r1" for month in LATER} <= set(platform.names())
    check_whole(platform)


def test_the_same_month_run_twice_at_once_is_published_once(platform, six_months):
    platform.deliver(LATER[0])
    with ThreadPoolExecutor(2) as pool:
        runs = list(
            pool.map(lambda run: platform.run_month(LATER[0], run=run, steps=SHORT), ("one", "two"))
        )
    for ended in runs:
        check(ended)
    published = [name for ended in runs for name in ended["publish"].result["published"]]
    assert published == [f"refresh/{LATER[0]}/r1"]
    assert platform.hashes() == six_months.hashes(f"refresh/{LATER[0]}")
    assert len(platform.git("log", "--format=%H", "refresh/2017-04", "^release/1").split()) == 2
    check_whole(platform)
