"""No stage sees anything from after its cut-off; and the same input gives the same bytes.

The label month of Ta-Feng is replaced by nonsense in a second workspace with a cache of its own, where
every stage runs anew. Up to the cut-off each output must have the bytes of the true run. Then the true
month comes in there too, labels and heads that stand on the nonsense are forgotten, and all outputs must.
"""

import re

import pytest

from tests.pipeline.runs import FUTURE, THROUGH

pytestmark = pytest.mark.slow

# What models and vectors rest on, and they themselves.
MONTHLY = ["catalog", "behaviors", "item_interests", "boi", "user_vectors"]
TRAINED = [
    "data/training/catalog.parquet",
    f"data/training/behaviors/{THROUGH}.parquet",
    "data/timelines",
    "data/user_vectors/start.parquet",
    "models/item_encoder.safetensors",
    "models/vocabulary.json",
    "models/items.parquet",
    "models/item_vectors.npy",
    "models/interest_centres.npy",
    "models/interest_sample.parquet",
    "models/item_interests.parquet",
    "models/interests.parquet",
    "models/smen.safetensors",
    "models/anchor_shares.npy",
    "models/interest_map.parquet",
    "models/anchor_map.parquet",
]
# What is learnt or measured on the label month, or tells of all months.
OF_THE_FUTURE = re.compile(
    rf"{FUTURE}|^models/heads/|^data/predictions/|^data/drift/\d|^reports/(heads|roc|drift)/"
    r"|^reports/(months|scores|report|explorer|data_card|model_card)\b"
)


def differing(one, other):
    """The outputs whose bytes are not the same in both workspaces."""
    one, other = one.hashes(), other.hashes()
    assert one.keys() == other.keys()
    return {path for path in one if one[path] != other[path]}


def test_nothing_up_to_the_cut_off_sees_what_comes_after_it(ta_feng, false_future):
    past = {path for path in ta_feng.hashes() if not OF_THE_FUTURE.search(path)}
    months = ["2000-12", THROUGH]
    assert past >= {f"data/{kind}/{month}.parquet" for kind in MONTHLY for month in months}
    assert past >= {f"data/states/{month}" for month in months} | set(TRAINED)
    assert past & differing(ta_feng, false_future) == set()


def test_what_comes_after_the_cut_off_does_see_it(ta_feng, false_future):
    assert differing(ta_feng, false_future) >= {
        *(f"data/{kind}/{FUTURE}.parquet" for kind in MONTHLY),
        f"data/states/{FUTURE}",
        f"data/labels/{FUTURE}.parquet",
        *("models/heads/class_1101.safetensors", "models/heads/age.safetensors"),
    }


def test_the_same_input_and_seed_give_the_same_bytes_in_every_stage(
    ta_feng, false_future, tmp_path
):
    set_right = false_future.copy(tmp_path)
    deliveries = ta_feng.root.parent / "deliveries"
    landed = set_right.do("lurm", "land", FUTURE, "--from", str(deliveries)).output
    assert landed.count("replaced") == 3  # behaviors, items, users
    set_right.forget(f"collect_labels@{FUTURE}", "train_heads@class_1101")  # pinned to the release
    set_right.repro()
    assert differing(ta_feng, set_right) == set()
