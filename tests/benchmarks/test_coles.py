"""CoLES on users of two planted tastes. What runs its library is skipped where that is missing."""

import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.coles import events as module
from benchmarks.coles.events import ENVIRONMENT, HERE, coles, events, numbered
from benchmarks.methods import COLES

N_USERS, N_ITEMS = 24, 12
USER_IDS = pa.array([f"u{u:02d}" for u in range(N_USERS)])
TASTE = np.arange(N_USERS) % 2
CATALOG = pa.table(
    {
        "item_id": range(N_ITEMS),
        "kind": [["coffee", "tea"][i % 2] for i in range(N_ITEMS)],
        "size": [None if i == 7 else str(i // 2) for i in range(N_ITEMS)],
    }
)
SMALL = COLES | {"epochs": 2, "width": 8, "shortest": 5, "longest": 10, "batch_size": 8}
with_library = pytest.mark.skipif(
    not (ENVIRONMENT / "bin/python").exists(),
    reason="the environment of CoLES is missing: run `make coles-environment`",
)


@pytest.fixture(scope="module")
def behaviors():
    """Twenty each, nine in ten of the user's own taste; three of the last but one, none of the last."""
    rng = np.random.default_rng(0)
    user = np.append(np.repeat(np.arange(N_USERS - 2), 20), [N_USERS - 2] * 3)
    own = rng.random(len(user)) < 0.9
    item = 2 * rng.integers(0, N_ITEMS // 2, len(user)) + np.where(
        own, TASTE[user], 1 - TASTE[user]
    )
    start = datetime(2017, 1, 1, tzinfo=UTC)
    when = [start + timedelta(minutes=int(m)) for m in rng.integers(0, 80_000, len(user))]
    table = {"user_id": USER_IDS.take(pa.array(user)), "item_id": item, "timestamp": when}
    return pa.table(table).take(rng.permutation(len(user)))


def events_of(behaviors):
    return events(behaviors, CATALOG, USER_IDS, ["kind", "size"], "America/New_York")


def test_events_are_the_behaviors_of_each_user_in_the_order_of_time(behaviors):
    rows = events_of(behaviors).to_pylist()
    assert [row["user"] for row in rows] == sorted(row["user"] for row in rows)
    for u, user_id in enumerate(USER_IDS.to_pylist()):
        taken = [row for row in behaviors.to_pylist() if row["user_id"] == user_id]
        times = sorted(row["timestamp"] for row in taken)
        found = [row for row in rows if row["user"] == u]
        days = [time.timestamp() / 86_400 for time in times]
        np.testing.assert_allclose([row["event_time"] for row in found], days)
        gaps = np.log1p(np.diff(days, prepend=days[:1]))
        np.testing.assert_allclose([row["gap"] for row in found], gaps, rtol=1e-4, atol=1e-6)


def test_the_order_of_behaviors_and_other_users_change_no_event(behaviors):
    mixed = behaviors.take(np.random.default_rng(1).permutation(len(behaviors)))
    stranger = pa.table({"user_id": ["x"], "item_id": [0], "timestamp": behaviors["timestamp"][:1]})
    mixed = pa.concat_tables([mixed, stranger.cast(behaviors.schema)])
    assert events_of(mixed).equals(events_of(behaviors))


def test_the_day_of_the_week_is_that_of_the_time_zone():
    monday = pa.table(
        {"user_id": ["u00"], "item_id": [0], "timestamp": [datetime(2017, 1, 2, 3, tzinfo=UTC)]}
    )
    days = {
        zone: events(monday, CATALOG, USER_IDS, [], zone)["weekday"].to_pylist()
        for zone in ("UTC", "America/New_York")
    }
    assert days == {"UTC": [1], "America/New_York": [7]}


def test_values_are_numbered_from_one_by_how_common_they_are_and_none_is_a_value():
    values = ["b", "a", None, "a", None, "a", "c", "b", "b", "b"]
    numbers = numbered(pa.chunked_array([values]))
    commonest = [value for value, _ in Counter(values).most_common()]
    assert numbers.tolist() == [1 + commonest.index(value) for value in values]


def test_an_item_that_the_catalog_lacks_has_the_number_of_no_value(behaviors):
    unknown = pa.table({"item_id": [7, 10**9], "user_id": ["u00"] * 2})
    unknown = unknown.append_column("timestamp", behaviors["timestamp"][:2].combine_chunks())
    sizes = events_of(unknown)["size"].to_pylist()
    assert sizes == [1, 1]


def test_a_missing_environment_is_told_with_the_command_that_makes_it(
    behaviors, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "ENVIRONMENT", Path(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="run `make coles-environment`"):
        coles(events_of(behaviors), N_USERS, tmp_path, **SMALL)


@with_library
def test_every_user_has_a_row_and_a_rerun_gives_the_same_bytes(behaviors, tmp_path):
    x = coles(events_of(behaviors), N_USERS, tmp_path, **SMALL)
    assert x.shape == (N_USERS, 8)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert x[:-1].any(1).all()
    assert not x[-1].any()
    again = coles(events_of(behaviors), N_USERS, tmp_path, **SMALL)
    assert again.tobytes() == x.tobytes()


@with_library
def test_users_of_the_same_taste_are_closer_than_others(behaviors, tmp_path):
    x = coles(events_of(behaviors), N_USERS, tmp_path, **SMALL | {"epochs": 40, "width": 16})
    full = (x - x[:-2].mean(0))[:-2]
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    same = np.equal.outer(TASTE[:-2], TASTE[:-2]) & ~np.eye(N_USERS - 2, dtype=bool)
    other = ~np.equal.outer(TASTE[:-2], TASTE[:-2])
    cosine = full @ full.T
    assert cosine[same].mean() > cosine[other].mean() + 0.2


@with_library
def test_what_went_wrong_in_the_environment_is_told(behaviors, tmp_path):
    with pytest.raises(RuntimeError, match="following arguments are required: --seed"):
        coles(
            events_of(behaviors), N_USERS, tmp_path, **{k: SMALL[k] for k in SMALL if k != "seed"}
        )


COMPARE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from ptls.data_load.padded_batch import PaddedBatch
from ptls.nn import RnnEncoder
from train import GroupedEncoder
torch.manual_seed(0)
ours = GroupedEncoder(3, 4, is_reduce_sequence=True)
theirs = RnnEncoder(3, 4, is_reduce_sequence=True)
theirs.load_state_dict(ours.state_dict())
for n in (1, 5, 40):
    batch = PaddedBatch(torch.randn(n, 9, 3), torch.randint(1, 10, (n,)))
    torch.testing.assert_close(ours(batch), theirs(batch))
"""


@with_library
def test_groups_of_like_length_give_the_states_of_the_librarys_own_encoder():
    python = ENVIRONMENT / "bin/python"
    subprocess.run([python, "-I", "-c", COMPARE, HERE], check=True)
