from pathlib import Path

import pytest

from lurm.months import month_number
from lurm.storage import read_parquet
from lurm.timelines import load_timelines
from stages.build_timelines import main
from tests import small_world

ARGS = ["--training=training", "--item-interests=item_interests.parquet", "--timelines=out"]


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_world.write_settings()
    small_world.write_item_interests()
    for month in small_world.TRAINING:
        small_world.write_behaviors(month)


def test_the_timelines_hold_every_behavior_of_the_training_months_where_it_belongs():
    main(ARGS)
    timelines = load_timelines(Path("out"))
    found = {}
    for u, user in enumerate(timelines.users.to_pylist()):
        for b in range(timelines.first_bag[u], timelines.first_bag[u + 1]):
            for e in range(timelines.first_entry[b], timelines.first_entry[b + 1]):
                key = user, int(timelines.months[b]), int(timelines.interests[e])
                found[key] = timelines.counts[e]
    expected = {}
    for month in small_world.TRAINING:
        for row in read_parquet(f"training/behaviors/{month}.parquet").to_pylist():
            key = row["user_id"], month_number(month), row["item_id"] % 4
            expected[key] = expected.get(key, 0) + 1
    assert found == expected


def test_the_same_input_gives_the_same_bytes_and_later_months_change_nothing():
    main(ARGS)
    first = small_world.files("out")
    small_world.write_behaviors("2017-04")
    main(ARGS)
    assert small_world.files("out") == first


def test_a_missing_training_month_is_named_and_nothing_is_written():
    Path("training/behaviors/2017-03.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing 2017-03\.parquet"):
        main(ARGS)
    assert not Path("out").exists()


def test_items_without_an_interest_are_refused_and_nothing_is_written():
    small_world.write_item_interests(n_items=10)
    with pytest.raises(ValueError, match="behaviors have no interest"):
        main(ARGS)
    assert not Path("out").exists()
