import numpy as np
import pytest
import torch

from lurm.heads.folds import Job, nested_splits
from lurm.heads.mlp import _started, fit_mlp, mlp_out_of_sample
from lurm.heads.settings import HeadSettings

QUICK = HeadSettings(hidden=8, max_epochs=4, batch_size=64, learning_rate=1e-2, patience=2)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_mlp_out_of_sample_gives_what_fit_mlp_gives_for_each_job(n_threads, monkeypatch):
    monkeypatch.setattr("lurm.heads.mlp._HEADS_AT_ONCE", 4)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6)).astype(np.float32) + 3
    jobs = []
    for n_classes, n_users in ((2, 300), (3, 210), (2, 151)):
        rows = rng.permutation(300)[:n_users]
        y = np.argmax(x[rows, :n_classes] + rng.standard_normal((n_users, n_classes)), axis=1)
        nested = nested_splits(y, 3, 1, 0)
        for seed, (train, test) in enumerate(nested.outer + nested.inner):
            jobs.append(Job(rows[train], y[train], n_classes, rows[test], seed))
    found = mlp_out_of_sample(x, jobs, QUICK, n_threads)
    for job, log_p in zip(jobs, found, strict=True):
        head = fit_mlp(x[job.train], job.y, job.n_classes, QUICK, job.seed)
        expected = head.log_probabilities(x[job.test])
        assert log_p.shape == (1, *expected.shape)
        np.testing.assert_allclose(log_p[0], expected, atol=2e-3)


def test_mlp_out_of_sample_starts_where_torch_does():
    torch.manual_seed(3)
    first, last = torch.nn.Linear(6, 8), torch.nn.Linear(8, 2)
    started = _started(6, 8, 2, 3)
    for own, torchs in ((started[0], first), (started[2], last)):
        torch.testing.assert_close(own.weight, torchs.weight)
        torch.testing.assert_close(own.bias, torchs.bias)


def test_mlp_out_of_sample_refuses_inputs_that_are_not_finite():
    x = np.full((20, 3), np.inf, dtype=np.float32)
    job = Job(np.arange(16), np.arange(16) % 2, 2, np.arange(16, 20), 0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        mlp_out_of_sample(x, [job], QUICK)
