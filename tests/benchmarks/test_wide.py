"""The wide scorecard's pieces: influences and intervals against simulation, counts with windows."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from lurm.competitors.svd import item_svd, truncated_svd
from lurm.competitors.windows import with_windows
from lurm.metrics import auc, auc_influence
from lurm.scorecard import two_way_difference
from lurm.tables import TIMESTAMP


def test_auc_influence_has_the_variance_of_the_auc_over_samples_of_users():
    rng = np.random.default_rng(0)
    y = (rng.random(400) < 0.3).astype(np.int64)
    p = np.round(np.clip(0.3 * y + rng.random(400), 0, 1), 2)
    both = np.stack([1 - p, p], axis=1)
    influence = auc_influence(y, both)
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    drawn = [rng.integers(0, 400, 400) for _ in range(1000)]
    spread = np.std([auc(y[rows], both[rows]) for rows in drawn])
    assert np.sqrt(influence.var() / 400) == pytest.approx(spread, rel=0.1)


def test_two_way_difference_covers_the_true_mean_as_often_as_it_says():
    """Tasks and users are drawn; both move the difference that is seen."""
    rng, inside = np.random.default_rng(1), 0
    for _ in range(400):
        of_users = rng.normal(0, 0.3, 200)
        of_tasks = rng.normal(0, 0.02, 30)
        gaps = 0.01 + of_users.mean() + of_tasks
        gap = two_way_difference(gaps, of_users, 0.95)
        inside += gap.low <= 0.01 <= gap.high
    assert 0.92 <= inside / 400 <= 0.98


def behaviors(rows):
    """Rows of user, item and days before the end."""
    end = datetime(2017, 6, 30, tzinfo=UTC)
    users, items, days = zip(*rows, strict=True)
    times = pa.array([end - timedelta(days=d) for d in days], TIMESTAMP)
    return pa.table({"user_id": users, "item_id": items, "timestamp": times})


def test_with_windows_counts_each_window_and_the_volume():
    table = behaviors([(1, 0, 0), (1, 0, 0), (1, 0, 40), (1, 0, 200), (2, 0, 80)])

    def counts(part):
        return np.array([[part["user_id"].to_pylist().count(user)] for user in (1, 2)], float)

    x = with_windows(counts, table, pa.array([1, 2]))
    assert x.shape == (2, 4 + 8)
    assert x[:, :4].tolist() == [[4, 2, 3, 3], [1, 0, 1, 1]]
    volume = np.expm1(x[:, 4:])
    np.testing.assert_allclose(volume[0], [4, 3, 2, 1, 3, 2, 3, 2], atol=1e-5)


def test_truncated_svd_and_item_svd_keep_users_of_equal_counts_together():
    table = behaviors([(u, i, 0) for u in range(6) for i in ((0, 1) if u % 2 else (2, 3))])
    catalog = pa.table({"item_id": range(5)})
    x = item_svd(table, catalog, pa.array(range(6)), 2)
    assert x.shape == (6, 2)
    np.testing.assert_allclose(x[0], x[2], atol=1e-6)
    assert not np.allclose(x[0], x[1])
    assert truncated_svd(np.eye(4), 64).shape == (4, 3)
