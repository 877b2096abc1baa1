"""A month's drift: the example's months are calm, and what is planted in the next is found and told."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lurm.storage import read_parquet, write_parquet

pytestmark = pytest.mark.slow

MONTH = "2017-04"


@pytest.fixture
def watched(complete_journey, workspace, deliveries, tmp_path):
    """Deliver the fourth month, changed by a function of its behaviors and items; returns its drift."""
    cache = (
        complete_journey.root.parent / "cache"
    )  # others' runs are not to be found in it, nor ours there
    shutil.copytree(cache, tmp_path / "cache", ignore=shutil.ignore_patterns("runs"))
    workspace.use_cache(tmp_path / "cache")

    def watch(change):
        behaviors = read_parquet(deliveries / f"behaviors/{MONTH}.parquet")
        items = read_parquet(deliveries / f"items/{MONTH}.parquet")
        behaviors, items = change(behaviors, items)
        write_parquet(behaviors, tmp_path / f"changed/behaviors/{MONTH}.parquet")
        write_parquet(items, tmp_path / f"changed/items/{MONTH}.parquet")
        workspace.do("lurm", "land", MONTH, "--from", str(tmp_path / "changed"))
        done = workspace.do("dvc", "repro", f"watch_drift@{MONTH}")
        found = workspace.json(f"reports/drift/{MONTH}.json")
        assert all(line in done.output for line in found["told"])
        levels = {row["figure"]: row["level"] for row in found["figures"]}
        return found, {name: level for name, level in levels.items() if level != "calm"}

    return watch


def test_the_months_of_the_example_are_calm(complete_journey, watched):
    for month in ("2017-01", "2017-02", "2017-03"):
        found = complete_journey.json(f"reports/drift/{month}.json")
        assert found["told"] == [], found
    assert complete_journey.json("reports/drift/2017-01.json")["against"] == []
    found, levels = watched(lambda behaviors, items: (behaviors, items))
    levels.pop("calibration_gap", None)  # a head trained for three epochs is not calibrated
    assert set(levels.values()) <= {"note"}, found
    assert found["against"] == ["2017-01", "2017-02", "2017-03"]
    # Labels of one month, one month after: those of the third month's predictions are in.
    assert found["heads"]["as_of"] == "2017-03"
    assert found["heads"]["judged"]
    (coffee,) = found["heads"]["tasks"]
    assert 0 < coffee["auc"] < 1
    earlier = complete_journey.json("reports/drift/2017-03.json")["heads"]
    assert (earlier["as_of"], earlier["judged"]) == ("2017-02", False)


def test_double_volume_is_told(watched):
    def change(behaviors, items):
        later = pc.add(behaviors["timestamp"], pa.scalar(1, pa.duration("s")))
        again = behaviors.set_column(
            behaviors.schema.get_field_index("timestamp"), "timestamp",
            later.cast(behaviors.schema.field("timestamp").type),
        )  # fmt: skip
        return pa.concat_tables([behaviors, again]), items

    found, levels = watched(change)
    assert levels["behaviors_change"] == "warn"
    assert found["level"] == "warn"
    assert any(line.startswith(f"{MONTH}: the change of volume is 1") for line in found["told"])


def test_a_category_that_vanishes_is_found_in_mix_and_interests(watched, workspace):
    catalog = read_parquet(workspace.root / "data/catalog/2017-03.parquet")
    gone = catalog.filter(pc.field("department") == "GROCERY")["item_id"]

    def change(behaviors, items):
        keep = pc.invert(pc.is_in(behaviors["item_id"], value_set=gone.combine_chunks()))
        return behaviors.filter(keep), items

    found, levels = watched(change)
    assert levels["mix_psi"] == levels["interest_psi"] == "warn"
    assert levels["interest_psi_training"] == "retrain"
    assert found["level"] == "retrain"
    assert found["told"][0].endswith("trigger lurm_retrain")
    moved = [abs(row["share"] - row["before"]) for row in found["movers"]]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 0.05


def test_many_items_that_came_after_training_ask_for_a_retraining(watched, workspace):
    rng = np.random.default_rng(0)

    def change(behaviors, items):
        known = read_parquet(workspace.root / "data/landing/items.parquet")
        new = known.slice(0, 800)  # so many that few are bought twice by one user on one day
        first_new = 10**8
        words = [f"gizmo{k % 70} widget{k % 50}" for k in range(len(new))]
        for name in new.column_names:
            values = range(first_new, first_new + len(new)) if name == "item_id" else words
            column = new.schema.get_field_index(name)
            if name == "item_id" or pa.types.is_string(new.schema.field(name).type):
                kind = new.schema.field(name).type
                new = new.set_column(column, name, pa.array(values).cast(kind))
        ids = behaviors["item_id"].to_numpy(zero_copy_only=False).copy()
        swapped = rng.random(len(ids)) < 0.5
        fresh = new["item_id"].to_numpy(zero_copy_only=False)
        ids[swapped] = rng.choice(fresh, swapped.sum())
        column = behaviors.schema.get_field_index("item_id")
        kind = behaviors.schema.field("item_id").type
        behaviors = behaviors.set_column(column, "item_id", pa.array(ids).cast(kind))
        return behaviors, pa.concat_tables(
            [items, new.select(items.column_names).cast(items.schema)]
        )

    found, levels = watched(change)
    assert levels["unknown_items"] == "retrain"
    assert found["measured"]["unknown_items"] == pytest.approx(0.5, abs=0.05)
    assert found["level"] == "retrain"
