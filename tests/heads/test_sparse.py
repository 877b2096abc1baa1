"""Sparse heads against scikit-learn on the same few inputs, and what they are for."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lurm.heads import HeadSettings, fit, out_of_fold, predict
from lurm.heads.folds import Job
from lurm.heads.sparse import POWER, VARIANTS, fit_sparse, sparse_out_of_sample
from lurm.metrics import auc
from lurm.tasks import TaskLabels


def planted(n=600, d=60, seed=0):
    """One number tells the class well; the others are noise, some of them large."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)).astype(np.float32)
    y = (x[:, 7] + 0.7 * rng.standard_normal(n) > 0).astype(np.int64)
    x[:, 20:] *= 5
    return x, y


def reference(x, y, n_inputs, penalty):
    """Log odds by scikit-learn on the most correlated inputs, weighed by their correlation."""
    r = np.abs([np.corrcoef(column, y)[0, 1] for column in x.T])
    columns = np.argsort(-r)[:n_inputs]
    z = (x[:, columns] - x[:, columns].mean(axis=0)) / x[:, columns].std(axis=0)
    z = z * (r[columns] / r.max()) ** POWER
    model = LogisticRegression(C=penalty, tol=1e-10, max_iter=2000).fit(z, y)
    return model.decision_function(z)


@pytest.mark.parametrize("variant", range(len(VARIANTS)))
def test_fit_sparse_agrees_with_scikit_learn_on_the_same_inputs(variant):
    x, y = planted()
    p = predict(fit_sparse(x, y, 2, variant), x)
    expected = reference(x.astype(np.float64), y, *VARIANTS[variant])
    np.testing.assert_allclose(np.log(p[:, 1] / p[:, 0]), expected, atol=2e-3)


def test_sparse_out_of_sample_gives_what_fit_sparse_gives():
    x, y = planted()
    train, test = np.arange(400), np.arange(400, 600)
    jobs = [Job(train, y[train], 2, test, 0), Job(test, y[test], 2, train, 0)]
    several = sparse_out_of_sample(x, jobs, HeadSettings(), n_threads=2)
    for job, found in zip(jobs, several, strict=True):
        for variant in range(len(VARIANTS)):
            head = fit_sparse(x[job.train], job.y, 2, variant)
            expected = head.log_probabilities(x[job.test])
            np.testing.assert_allclose(found[variant], expected, atol=1e-4)


def test_a_sparse_head_finds_the_one_number_among_large_noise():
    x, y = planted()
    tasks = {"task": TaskLabels(np.arange(len(y)), y, ("no", "yes"))}
    scores = out_of_fold(x, tasks, kinds=("logistic", "sparse"), repeats=1)
    assert scores["sparse"]["task"].mean_auc > scores["logistic"]["task"].mean_auc + 0.02


def test_a_sparse_head_of_three_classes_gives_probabilities_that_tell_them_apart():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = (np.eye(12)[y] + 0.3 * rng.standard_normal((300, 12))).astype(np.float32)
    p = predict(fit(x, y, 3, kind="sparse"), x)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert auc(y, p) > 0.95


def test_fit_sparse_refuses_vectors_that_are_not_finite_or_all_equal():
    x, y = planted(60)
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit_sparse(x, y, 2, 0)
    with pytest.raises(ValueError, match="all users in the task are equal"):
        fit_sparse(np.ones((60, 4), np.float32), y, 2, 0)
