import numpy as np
import pytest

from lurm.metrics import auc, auc_influence, binary_auc, two_way_interval


def test_auc_influence_is_that_of_all_pairs_of_users():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 50)
    score = np.round(rng.random(50), 1)  # with ties
    p = np.stack([1 - score, score], axis=1)
    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    wins = (score[positive][:, None] > score[negative]) + 0.5 * (
        score[positive][:, None] == score[negative]
    )
    mean = wins.mean()
    slow = np.empty(50)
    slow[positive] = (wins.mean(axis=1) - mean) / len(positive)
    slow[negative] = (wins.mean(axis=0) - mean) / len(negative)
    assert binary_auc(y == 1, score) == pytest.approx(mean)
    assert auc_influence(y, p) == pytest.approx(slow)
    assert auc_influence(y, p).sum() == pytest.approx(0)


def simulated(rng, n_tasks, n_users, task_spread, user_spread):
    """Differences of two scorers (T,) and their influence (T, U).

    The scorers differ by a gain drawn for each task and by noise of each user that all tasks share.
    """
    y = (rng.random((n_tasks, n_users)) < 0.4).astype(np.int64)
    noise = rng.normal(0, user_spread, (2, n_users))
    gains = 1 + rng.normal(0, task_spread, n_tasks)
    differences, influence = [], []
    for t in range(n_tasks):
        results = []
        for method, gain in enumerate((gains[t], 1.0)):
            score = gain * y[t] + noise[method] + rng.normal(0, 1, n_users)
            p = np.stack([-score, score], axis=1)
            results.append((auc(y[t], p), auc_influence(y[t], p)))
        differences.append(results[0][0] - results[1][0])
        influence.append(results[0][1] - results[1][1])
    return np.array(differences), np.array(influence)


@pytest.mark.parametrize(
    ("task_spread", "user_spread"), [(0.0, 0.0), (0.0, 1.0), (0.5, 0.0), (0.4, 1.0)]
)
def test_two_way_interval_covers_the_true_difference_as_often_as_it_says(task_spread, user_spread):
    rng = np.random.default_rng(1)
    n_runs, covered = 200, 0
    truth = np.mean(
        [simulated(rng, 25, 150, task_spread, user_spread)[0].mean() for _ in range(400)]
    )
    for _ in range(n_runs):
        _, low, high = two_way_interval(*simulated(rng, 25, 150, task_spread, user_spread), 0.95)
        covered += low <= truth <= high
    assert covered / n_runs >= 0.91


def test_two_way_interval_is_wider_than_that_of_tasks_alone_where_users_are_shared():
    rng = np.random.default_rng(2)
    differences, influence = simulated(rng, 25, 150, 0.0, 1.0)
    _, low, high = two_way_interval(differences, influence, 0.95)
    alone = 1.96 * differences.std(ddof=1) / 5
    assert (high - low) / 2 > alone


def test_two_way_interval_of_no_task_is_refused():
    with pytest.raises(ValueError, match="one task or more"):
        two_way_interval(np.zeros(0), np.zeros((0, 3)), 0.95)
