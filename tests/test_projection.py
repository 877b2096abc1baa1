"""The projection: files, directions against a full SVD, and a planted shop that it has to learn."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import sparse

from lurm.history import timeline_history
from lurm.pretraining import add_projection, encode_timelines
from lurm.projection import load_projection, transformed
from lurm.projection_training import leading_directions
from lurm.smen import Smen, SmenSettings, load_smen, model_settings, model_tensors
from lurm.storage import write_tensors
from lurm.timelines import build_timelines
from tests import reference

MONTH = 24209


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def shop(n_users=240, seed=0):
    """Users of two tastes, of ten interests each; who bought an interest of late buys it again."""
    rng = np.random.default_rng(seed)
    lives = {}
    for user in range(n_users):
        recent = rng.choice(10, 2, replace=False) + 10 * (user % 2)
        lives[user] = {}
        for month in range(MONTH - 9, MONTH + 1):
            drawn = rng.choice(10, 3, replace=False) + 10 * (user % 2)
            lives[user][month] = {int(i): 1.0 for i in [*drawn, *recent]}
            recent = np.where(rng.random(2) < 0.8, recent, rng.choice(10, 2) + 10 * (user % 2))
    return lives


def trained(seed=0, **settings):
    torch.manual_seed(0)
    smen = Smen(SmenSettings(20, 2, 4, {"month": 1}, published_width=8)).eval()
    timelines = build_timelines(reference.boi_tables(shop()))
    taste = sparse.csr_matrix(np.repeat(np.eye(2, dtype=np.float32), 10, axis=0))
    figures = add_projection(
        smen, timelines, {"taste": taste}, month=MONTH, block_width=10, seed=seed, **settings
    )
    return smen, timelines, figures


def test_leading_directions_are_those_of_a_full_svd():
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((80, 6)) @ rng.standard_normal((6, 40)) + 3.0
    dense[dense < 1] = 0
    values = sparse.csr_matrix(dense.astype(np.float32))
    axes = leading_directions(values, 12, seed=0)
    centred = dense - dense.mean(axis=0)
    _, singular, _ = np.linalg.svd(centred, full_matrices=False)
    kept = np.linalg.norm(centred @ axes) ** 2 / (singular[:12] ** 2).sum()
    assert axes.shape == (40, 12)
    np.testing.assert_allclose(axes.T @ axes, np.eye(12), atol=1e-5)
    assert kept > 0.99
    assert leading_directions(values, 40, seed=0).tolist() == np.eye(40).tolist()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("log", [np.log1p(3), 0, np.log1p(1)]),
        ("seen", [1, 0, 1]),
        ("share", [np.sqrt(0.75), 0, 0.5]),
    ],
)
def test_transformed_keeps_zeros(kind, expected):
    counts = sparse.csr_matrix(np.array([[3, 0, 1]], np.float32))
    np.testing.assert_allclose(transformed(kind, counts).toarray()[0], expected, rtol=1e-6)


def test_a_projection_is_the_same_after_a_file(tmp_path):
    smen, timelines, _ = trained()
    about = {"model_version": "v", **model_settings(smen)}
    write_tensors(model_tensors(smen), tmp_path / "smen.safetensors", about)
    loaded, _ = load_smen(tmp_path / "smen.safetensors")
    expected = encode_timelines(smen, timelines, MONTH)
    assert encode_timelines(loaded, timelines, MONTH).tobytes() == expected.tobytes()
    assert loaded.projection.settings == smen.projection.settings


def test_the_same_seed_gives_the_same_bytes():
    one, timelines, figures = trained()
    other, _, again = trained()
    assert figures == again
    vectors = [encode_timelines(smen, timelines, MONTH).tobytes() for smen in (one, other)]
    assert vectors[0] == vectors[1]
    different, _, _ = trained(seed=1)
    assert encode_timelines(different, timelines, MONTH).tobytes() != vectors[0]


def test_the_projection_tells_on_users_it_never_saw_what_they_buy_next():
    """Interests bought in the last month are bought again; the vector of other users tells it."""
    smen, _, figures = trained()
    assert figures["pair_loss"] < figures["base_loss"]
    assert max(figures["explained"].values()) > 0.2
    timelines = build_timelines(reference.boi_tables(shop(seed=1)))
    bounds = timelines.first_bag[:-1], timelines.first_bag[1:]
    history = timeline_history(timelines, *bounds, MONTH, 20)
    projection = smen.projection
    counts = projection.all_counts(history)
    numbers = torch.zeros(len(history), 8)
    log_odds = projection.log_odds(projection.inputs(history, counts, numbers), history, counts)
    interests = projection.rows["interest"]
    bought = history.month[:, interests].toarray() > 0
    scores = log_odds[:, : len(interests)].numpy()
    assert scores[bought].mean() > scores[~bought].mean() + 1


def test_load_projection_needs_every_tensor():
    projection = reference.random_projection(5, 6, 4)
    tensors = projection.tensors()
    del tensors["axes.0"]
    with pytest.raises(KeyError, match=r"axes\.0"):
        load_projection(projection.settings, tensors)


def test_timeline_history_counts_windows_as_a_loop_does():
    lives = reference.random_lives(6, np.random.default_rng(0), 5, MONTH - 6, n_months=5)
    timelines = build_timelines(reference.boi_tables(lives))
    assert isinstance(timelines.users, pa.Array)
    bounds = timelines.first_bag[:-1], timelines.first_bag[1:]
    for month in range(MONTH - 2, MONTH + 3):
        history = timeline_history(timelines, *bounds, month, 5)
        for row, user in enumerate(timelines.users.to_pylist()):
            for name, newest in (("total", 10**6), ("month", 1), ("window", 3)):
                expected = reference.history_counts(lives[user], month, newest, 5)
                np.testing.assert_allclose(getattr(history, name)[[row]].toarray()[0], expected)
            np.testing.assert_allclose(
                history.activity()[row], reference.activity(lives[user], month), rtol=1e-6
            )
