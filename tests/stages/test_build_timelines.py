from pathlib import Path

import pyarrow as pa
import pytest

from lurm.months import month_number
from lurm.storage import read_parquet, write_parquet
from lurm.timelines import load_shard
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
    timelines = load_shard(Path("out/00000"))
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


def test_of_several_months_the_damaged_one_is_named():
    path = Path("training/behaviors/2017-02.parquet")
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises((ValueError, OSError), match=r"^training/behaviors/2017-02\.parquet: "):
        main(ARGS)
    assert not Path("out").exists()


def test_months_without_any_behavior_are_refused():
    for path in Path("training/behaviors").iterdir():
        write_parquet(read_parquet(path).slice(0, 0), path)
    with pytest.raises(
        ValueError, match=r"expected behaviors to train on, found none in 2017-01\.\."
    ):
        main(ARGS)
    assert not Path("out").exists()


def test_user_ids_that_are_numbers_in_one_month_and_texts_in_another_are_refused():
    path = "training/behaviors/2017-02.parquet"
    table = read_parquet(path)
    numbers = pa.array(range(len(table)))
    write_parquet(table.set_column(0, "user_id", numbers), path)
    with pytest.raises(ValueError, match=r"2017-02\.parquet: expected user_id to hold strings"):
        main(ARGS)
