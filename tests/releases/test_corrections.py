"""A month delivered again, corrected or not; a month refused, and those that wait for it."""

import shutil

import pyarrow as pa
import pytest

from lurm.storage import read_parquet, write_parquet
from tests.releases.platforms import (
    DONE,
    LATER,
    REFRESH,
    REFUSED,
    SHORT,
    WAITS,
    Platform,
    check,
    get,
    put,
    vectors,
)
from tests.releases.whole import check_whole

pytestmark = pytest.mark.slow


def correct(platform: Platform, month: str) -> None:
    """Deliver the month again, without the first thousand rows."""
    delivered = platform.deliveries / f"behaviors/{month}.parquet"
    corrected = platform.folder / "corrected.parquet"
    write_parquet(read_parquet(delivered).slice(1000), corrected)
    put(corrected, platform.landing / f"behaviors/{month}.parquet")


# ---- delivered again -----------------------------------------------------------------------------


def test_a_corrected_month_reaches_what_hangs_on_it_and_no_name_that_stays(later, plain, tmp_path):
    before, models = later.names(), pinned(later)
    old = get(later, vectors("2017-04"), "refresh/2017-04/r1", tmp_path / "consumer")
    correct(later, "2017-04")
    ended = later.run_month("2017-04", run="corrected", steps=SHORT)
    check(ended)
    new_names = [f"refresh/{month}/r2" for month in LATER]
    assert ended["publish"].result["published"] == new_names

    after = later.names()
    moved = {name for name in after if after[name] != before.get(name)}
    assert moved == {"main", *new_names, *(f"refresh/{month}" for month in LATER)}
    assert {after[f"refresh/{month}"] for month in LATER} == {after["main"]}
    assert get(later, vectors("2017-04"), "refresh/2017-04/r1", tmp_path / "consumer") == old
    assert get(later, vectors("2017-04"), "refresh/2017-04", tmp_path / "consumer") != old
    assert pinned(later) == models
    check_whole(later)

    # A plain repro over everything ends in the same bytes.
    project = plain.copy(tmp_path)
    project.land(later.landing, ["2017-04"])
    project.repro()
    assert later.hashes() == project.hashes()

    # Delivered once more as it is: there is nothing new.
    same = later.run_month("2017-04", run="the same again", steps=SHORT)
    check(same)
    assert same["publish"].result["published"] == []
    assert later.names() == after


def pinned(platform: Platform) -> dict[str, str]:
    """What belongs to the models, and is not touched by a refresh."""
    places = ("models/", "data/training/", "data/labels/", "reports/heads/")
    return {path: md5 for path, md5 in platform.hashes().items() if path.startswith(places)}


# ---- refused -------------------------------------------------------------------------------------


def test_a_refused_month_is_seen_and_later_ones_wait_for_it_then_go_on(platform, six_months):
    first, second = LATER[:2]
    platform.deliver(second)
    shutil.copyfile(  # March's file under April's name
        platform.deliveries / "behaviors/2017-03.parquet",
        platform.landing / f"behaviors/{first}.parquet",
    )
    before = platform.names()
    refused = platform.run_month(first, run="refused", steps=("open", "validate_logs"))
    assert refused["validate_logs"].status == REFUSED
    assert f"behaviors/{first}.parquet" in refused["validate_logs"].reason
    assert "2017-03" in refused["validate_logs"].reason  # the month it likely is
    told = platform.steps("refused")["validate_logs"]
    assert told["status"] == "refused"
    assert told["page"] == f"reports/refused/{first}.html"
    page = platform.home / "runs/refused/workspace" / told["page"]
    assert "refused" in page.read_text("utf-8").lower()

    # The later month does what hangs on no other month, then waits.
    waiting = platform.run_month(second, run="waiting")
    assert [step.status for step in waiting.values()] == [DONE] * 5 + [WAITS]
    assert list(waiting) == list(REFRESH[:6])
    reason = waiting["encode_users"].reason
    assert reason.startswith(f"waits for {first}, whose validate_logs@{first} says: ")
    assert platform.steps("waiting")["encode_users"]["status"] == "waits"
    assert platform.step("waiting", "encode_users").status == WAITS
    assert platform.step("waiting", "publish").status == WAITS
    assert platform.names() == before

    # Delivered well, it goes through from `open` on; then so does the other, by repeating its step.
    platform.deliver(first)
    check(platform.run_month(first, run="refused", steps=("open", "validate_logs", "publish")))
    assert not page.exists()
    assert platform.step("waiting", "encode_users").status == DONE
    assert platform.step("waiting", "publish").result["published"] == [f"refresh/{second}/r1"]
    assert platform.hashes() == six_months.hashes(f"refresh/{second}")
    check_whole(platform)


def test_a_truncated_delivery_is_refused_when_the_run_opens(platform):
    delivered = (platform.deliveries / "behaviors/2017-04.parquet").read_bytes()
    (platform.landing / "behaviors/2017-04.parquet").write_bytes(delivered[:1000])
    ended = platform.run_month("2017-04")
    assert list(ended) == ["open"]
    assert ended["open"].status == REFUSED
    assert f"{platform.landing}/behaviors/2017-04.parquet: expected a complete parquet file" in (
        ended["open"].reason
    )


def test_other_columns_are_refused_when_the_run_opens(platform):
    table = pa.table({"user": [1], "item": [2]})
    write_parquet(table, platform.landing / "behaviors/2017-04.parquet")
    opened = platform.run_month("2017-04", steps=("open",))["open"]
    assert opened.status == REFUSED
    assert "behaviors/2017-04.parquet" in opened.reason


# ---- no release, or no longer the release of the settings -----------------------------------------


def test_without_a_release_there_is_nothing_to_refresh(new_platform, tmp_path):
    platform = new_platform.copy(tmp_path / "platform")
    opened = platform.run_month("2017-03", steps=("open",))["open"]
    assert opened.status == REFUSED
    assert "expected a release on branch main" in opened.reason
    assert "trigger lurm_retrain first" in opened.reason


def test_a_refresh_is_refused_when_settings_of_training_have_changed(platform, tmp_path):
    platform.deliver("2017-04")
    platform.change("longer training", at=tmp_path / "person", params={"epochs: 2": "epochs: 3"})
    opened = platform.run_month("2017-04", steps=("open",))["open"]
    assert opened.status == REFUSED
    assert "pretrain_smen" in opened.reason
    assert opened.reason.endswith("trigger lurm_retrain")
