"""Counts with windows and volume, their SVD, and the two contrastive rivals."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_matrix

from lurm.competitors.clue import clue
from lurm.competitors.history_counts import (
    history_counts,
    idf_normalised,
    last_months,
    membership,
    svd_of_counts,
    volume,
)
from lurm.competitors.icl import icl, stretch
from lurm.competitors.lives import NOTHING, read_lives

END = datetime(2017, 6, 30, 12, tzinfo=UTC)
CATALOG = pa.table(
    {
        "item_id": [10, 11, 12],
        "kind": ["tea", None, "coffee"],
        "text": ["green tea", "plain", "dark coffee"],
    }
)
BEHAVIORS = pa.table(
    {
        "user_id": ["a", "a", "a", "b", "z"],
        "item_id": [10, 10, 12, 12, 10],
        "timestamp": pa.array(
            [END - timedelta(days=days) for days in (0, 100, 100, 45, 0)],
            pa.timestamp("us", tz="UTC"),
        ),
    }
)
USER_IDS = pa.array(["a", "b", "c"])


def test_membership_leaves_items_without_a_value_out():
    assert membership(CATALOG, "kind").toarray().tolist() == [[1, 0], [0, 0], [0, 1]]


def test_last_months_ends_with_the_last_behavior_of_all():
    assert last_months(BEHAVIORS, 1)["user_id"].to_pylist() == ["a", "z"]
    assert last_months(BEHAVIORS, 3)["user_id"].to_pylist() == ["a", "b", "z"]


def test_volume_counts_behaviors_and_distinct_days():
    assert np.expm1(volume(BEHAVIORS, USER_IDS)).round().tolist() == [[3, 2], [1, 1], [0, 0]]


def test_history_counts_has_the_history_then_each_window_and_volume():
    features = membership(CATALOG, "kind")
    plain = history_counts(BEHAVIORS, CATALOG, USER_IDS, features)
    assert np.expm1(plain).round().tolist() == [[2, 1], [0, 1], [0, 0]]
    x = np.expm1(history_counts(BEHAVIORS, CATALOG, USER_IDS, features, [1])).round()
    assert x.tolist() == [
        [2, 1, 1, 0, 1, 1, 3, 2],
        [0, 1, 0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_history_counts_leaves_out_features_of_few_users():
    features = membership(CATALOG, "kind")
    x = history_counts(BEHAVIORS, CATALOG, USER_IDS, features, min_user_share=0.5)
    assert np.expm1(x).round().tolist() == [[1], [1], [0]]


def test_svd_of_counts_keeps_the_inner_products_of_users():
    counts = csr_matrix(np.random.default_rng(0).poisson(0.5, (30, 6)).astype(np.float32))
    for idf in (False, True):
        x = svd_of_counts(counts, 64, idf)
        full = idf_normalised(counts).toarray() if idf else np.log1p(counts.toarray())
        u, s, _ = np.linalg.svd(full, full_matrices=False)
        expected = (u[:, :5] * s[:5]) @ (u[:, :5] * s[:5]).T
        assert x.shape == (30, 5)
        assert x @ x.T == pytest.approx(expected, abs=1e-3)


@pytest.fixture(scope="module")
def lives():
    """Forty users, each with twelve behaviors of their own taste in four; the last has one."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    user = np.append(np.repeat(np.arange(39), 12), 39)
    own = rng.random(len(user)) < 0.85
    kind = np.where(own, user % 2, 1 - user % 2)
    catalog = pa.table(
        {
            "item_id": range(12),
            "text": [f"{['coffee beans', 'tea'][i % 2]} size{i // 2}" for i in range(12)],
        }
    )
    when = [END + timedelta(minutes=int(m)) for m in rng.integers(0, 80_000, len(user))]
    item = 2 * rng.integers(0, 6, len(user)) + kind
    table = pa.table({"user_id": user, "item_id": item, "timestamp": when})
    return read_lives(table, catalog, pa.array(np.arange(40)), ["text"])


def test_stretch_is_a_run_of_the_history_with_padding_at_the_end(lives):
    rng = np.random.default_rng(0)
    users = np.arange(40)
    items = stretch(lives, users, 4, rng).numpy()
    for u in users:
        kept = items[u][items[u] != NOTHING]
        history = lives.items[lives.first[u] : lives.first[u + 1]]
        runs = [history[i : i + len(kept)].tolist() for i in range(len(history) - len(kept) + 1)]
        assert 1 <= len(kept) <= 4
        assert kept.tolist() in runs
        assert (items[u][len(kept) :] == NOTHING).all()


@pytest.mark.parametrize(
    ("make", "options", "width"),
    [
        (icl, {"width": 16, "n_entries": 4, "n_chosen": 2}, 64),
        (clue, {"width": 16, "longest": 20}, 16),
    ],
)
def test_contrastive_rivals_tell_two_tastes_apart_and_repeat_themselves(
    lives, make, options, width
):
    options = {**options, "steps": 60, "batch_size": 32, "learning_rate": 3e-3}
    x = make(lives, **options)
    assert x.shape == (40, width)
    assert np.isfinite(x).all()
    assert np.array_equal(x, make(lives, **options))
    x = x[:39] - x[:39].mean(axis=0)
    taste = np.where(np.arange(39) % 2, 1, -1)
    # leave one out, by the difference of class means
    correct = 0
    for u in range(39):
        rest = np.arange(39) != u
        one, two = (x[rest & (taste == side)].mean(axis=0) for side in (1, -1))
        correct += ((x[u] - (one + two) / 2) @ (one - two) > 0) == (taste[u] > 0)
    assert correct >= 33
