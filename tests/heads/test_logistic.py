import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lurm.heads.folds import Job
from lurm.heads.logistic import fit_logistic, logistic_out_of_sample, principal_coordinates
from lurm.heads.settings import HeadSettings


def planted(n_users=200, width=12, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n_users) % n_classes)
    x = rng.standard_normal((n_users, width)) * np.linspace(3, 0.1, width) + 5
    x[np.arange(n_users), y] += 1.5
    return x.astype(np.float32), y


def reference(x, y, test, penalty):
    """Probabilities by scikit-learn, whose inputs are centred and divided by one root mean square."""
    mean = x.mean(axis=0, dtype=np.float64)
    scale = np.sqrt(((x - mean) ** 2).mean())
    model = LogisticRegression(C=penalty, tol=1e-10, max_iter=10_000).fit((x - mean) / scale, y)
    return model.predict_proba((test - mean) / scale)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("penalty", [0.001, 0.1, 10])
@pytest.mark.parametrize("width", [12, 300])
def test_fit_logistic_agrees_with_scikit_learn(n_classes, penalty, width):
    x, y = planted(width=width, n_classes=n_classes)
    found = np.exp(fit_logistic(x, y, n_classes, penalty).log_probabilities(x))
    np.testing.assert_allclose(found, reference(x, y, x, penalty), atol=5e-4)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_logistic_out_of_sample_gives_what_each_job_gives_by_itself(n_threads, monkeypatch):
    monkeypatch.setattr("lurm.heads.logistic._NUMBERS_AT_ONCE", 900)
    x, two = planted()
    _, four = planted(n_classes=4, seed=1)
    rows = np.random.default_rng(2).permutation(len(x))
    jobs = [
        Job(rows[:120], two[rows[:120]], 2, rows[120:], 0),
        Job(rows[50:], four[rows[50:]], 4, rows[:50], 0),
        Job(rows[100:], two[rows[100:]], 2, rows[:30], 0),
    ]
    settings = HeadSettings(penalties=(0.003, 0.3))
    found = logistic_out_of_sample(x, jobs, settings, n_threads)
    for job, log_p in zip(jobs, found, strict=True):
        assert log_p.shape == (2, len(job.test), job.n_classes)
        for penalty, part in zip(settings.penalties, log_p, strict=True):
            expected = reference(x[job.train], job.y, x[job.test], penalty)
            np.testing.assert_allclose(np.exp(part), expected, atol=2e-3)


def test_logistic_out_of_sample_gives_the_same_bytes_for_any_number_of_threads():
    x, y = planted()
    rows = np.arange(len(x))
    jobs = [Job(rows[k::2], y[k::2], 2, rows[1 - k :: 2], 0) for k in (0, 1)]
    one, two = (logistic_out_of_sample(x, jobs, HeadSettings(), n) for n in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_logistic_out_of_sample_learns_nothing_from_labels_or_inputs_of_the_test_users():
    x, y = planted()
    rows = np.arange(len(x))
    job = Job(rows[:150], y[:150], 2, rows[150:], 0)
    changed = x.copy()
    changed[150:170] = 100  # the other test users keep their inputs
    before, after = (logistic_out_of_sample(v, [job], HeadSettings())[0] for v in (x, changed))
    np.testing.assert_allclose(before[:, 20:], after[:, 20:], atol=2e-3)


def test_fit_logistic_converges_where_classes_are_separable():
    x, y = planted()
    x[:, 0] = 10 * y
    found = np.exp(fit_logistic(x, y, 2, 1000).log_probabilities(x))
    assert np.isfinite(found).all()
    assert (found.argmax(axis=1) == y).all()


@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_principal_coordinates_keep_all_distances(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = principal_coordinates(x)
    z, directions = found.z.double().numpy(), found.directions.numpy()
    np.testing.assert_allclose(z @ directions.T, x - x.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(directions.T @ directions, np.eye(z.shape[1]), atol=1e-9)


@pytest.mark.parametrize(("x", "message"), [
    (np.ones((20, 3)), "nothing to learn from"),
    (np.full((20, 3), np.nan), "NaN or infinity"),
])  # fmt: skip
def test_fit_logistic_refuses_inputs_that_tell_nothing(x, message):
    with pytest.raises(ValueError, match=message):
        fit_logistic(x.astype(np.float32), np.arange(20) % 2, 2, 0.1)
