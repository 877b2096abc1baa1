import numpy as np
import pytest

from lurm.heads.boosting import boosting_out_of_sample, fit_boosting
from lurm.heads.folds import Job
from lurm.heads.settings import HeadSettings

SETTINGS = HeadSettings(trees=40)


def planted(n_classes=2, n_users=400, seed=0):
    """Counts of which only the steps tell: more than two of the one, and not of the other."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(2, (n_users, 6)).astype(np.float32)
    kind = (x[:, 0] > 2) ^ (x[:, 1] > 2)
    return x, np.where(kind, 0, 1 + rng.integers(0, n_classes - 1, n_users))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_fit_boosting_finds_what_is_not_linear(n_classes):
    x, y = planted(n_classes)
    log_p = fit_boosting(x, y, n_classes, SETTINGS).log_probabilities(x)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, atol=1e-5)
    assert ((log_p.argmax(axis=1) == 0) == (y == 0)).mean() > 0.9


def test_fit_boosting_gives_the_same_trees_every_time():
    x, y = planted()
    assert fit_boosting(x, y, 2, SETTINGS, 3).text == fit_boosting(x, y, 2, SETTINGS, 3).text


def test_boosting_out_of_sample_gives_what_fit_boosting_gives_for_any_number_of_threads():
    x, y = planted()
    rows = np.arange(len(x))
    jobs = [Job(rows[k::2], y[k::2], 2, rows[1 - k :: 2], k) for k in (0, 1)]
    one, two = (boosting_out_of_sample(x, jobs, SETTINGS, n) for n in (1, 2))
    for job, a, b in zip(jobs, one, two, strict=True):
        head = fit_boosting(x[job.train], job.y, 2, SETTINGS, job.seed)
        assert np.array_equal(a[0], head.log_probabilities(x[job.test]))
        assert np.array_equal(a, b)


def test_fit_boosting_refuses_inputs_that_are_not_finite():
    x, y = planted()
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit_boosting(x, y, 2, SETTINGS)
