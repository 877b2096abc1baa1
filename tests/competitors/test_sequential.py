"""Rivals that read behaviors one after the other, on users of two planted tastes."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch

from lurm.competitors.han import HAN
from lurm.competitors.lives import NOTHING, last_days, read_lives, sequences
from lurm.competitors.ptum import UserModel, ptum
from lurm.competitors.sumn import Sumn, keep_last, sumn
from lurm.competitors.supervised import classify
from lurm.competitors.text_cnn import TextCNN

N_USERS, N_ITEMS = 60, 12
USER_IDS = pa.array([f"u{u:02d}" for u in range(N_USERS)])
TASTE = np.arange(N_USERS) % 2
CATALOG = pa.table(
    {
        "item_id": range(N_ITEMS),
        "text": [f"{['coffee beans', 'tea'][i % 2]} size{i // 2}" for i in range(N_ITEMS)],
    }
)


@pytest.fixture(scope="module")
def lives():
    """Twelve behaviors each, three in four of the user's own taste, but one for the last user."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    user = np.append(np.repeat(np.arange(N_USERS - 1), 12), N_USERS - 1)
    own = rng.random(len(user)) < 0.75
    item = 2 * rng.integers(0, N_ITEMS // 2, len(user)) + np.where(
        own, TASTE[user], 1 - TASTE[user]
    )
    start = datetime(2017, 1, 1, tzinfo=UTC)
    when = [start + timedelta(minutes=int(m)) for m in rng.integers(0, 80_000, len(user))]
    mixed = rng.permutation(len(user))
    table = pa.table({"user_id": USER_IDS.take(pa.array(user)), "item_id": item, "timestamp": when})
    return read_lives(table.take(mixed), CATALOG, USER_IDS, ["text"])


def test_lives_are_in_the_order_of_time_and_batches_hold_the_last_items(lives):
    assert np.diff(lives.first).tolist() == [12] * (N_USERS - 1) + [1]
    for u in range(N_USERS):
        assert (np.diff(lives.days[lives.first[u] : lives.first[u + 1]]) >= 0).all()
    batch = sequences(lives, np.array([3, N_USERS - 1]), 5)
    assert batch[0].tolist() == lives.items[lives.first[4] - 5 : lives.first[4]].tolist()
    assert batch[1].tolist() == [lives.items[-1]] + [NOTHING] * 4
    earlier = sequences(lives, np.array([3]), 5, lives.first[[3]] + 2)
    assert earlier.tolist() == [lives.items[lives.first[3] : lives.first[3] + 2].tolist()]


def test_the_last_days_are_those_before_the_last_behavior_of_all(lives):
    recent = last_days(lives, 10)
    assert recent.days.tolist() == lives.days[lives.days > lives.days.max() - 10].tolist()
    assert np.diff(recent.first).sum() == len(recent.items)
    counts = np.add.reduceat(np.append(lives.days > lives.days.max() - 10, 0), lives.first[:-1])
    assert np.diff(recent.first).tolist() == counts.tolist()


def test_what_came_after_a_cut_is_kept_alone():
    items = torch.tensor([[1, 2, 3, 4], [5, 6, NOTHING, NOTHING]])
    kept = keep_last(items, np.array([3, 1])).tolist()
    assert kept == [[NOTHING, 2, 3, 4], [NOTHING, 6, NOTHING, NOTHING]]


NETWORKS = {
    "text_cnn": lambda words, n, c: TextCNN(words, n, c, width=16, filters=8),
    "han": lambda words, n, c: HAN(words, n, c, width=16, hidden=8),
    "ptum": lambda words, n, c: UserModel(words, n, 16, 30),
    "sumn": lambda words, n, c: Sumn(words, n, 16, 2),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_padding_changes_nothing_and_an_empty_life_is_finite(make, lives):
    torch.manual_seed(0)
    network = make(torch.from_numpy(lives.words), lives.n_words, 3).eval()
    items = sequences(lives, np.arange(8), 12)
    padded = torch.nn.functional.pad(items, (0, 9), value=NOTHING)
    with torch.no_grad():
        np.testing.assert_allclose(network(items), network(padded), atol=1e-5)
        assert len(network(items)) == 8
        assert torch.isfinite(network(torch.full((2, 3), NOTHING))).all()


@pytest.mark.parametrize("name", ["text_cnn", "han"])
def test_a_supervised_rival_learns_the_taste_and_repeats_itself(name, lives):
    users = np.random.default_rng(0).permutation(N_USERS)
    train, test = users[:40], users[40:]
    options = {"longest": 12, "batch_size": 16, "learning_rate": 0.01, "max_epochs": 12}
    p, again = (
        classify(NETWORKS[name], lives, train, TASTE[train], test, 2, **options) for _ in range(2)
    )
    assert p.shape == (20, 2)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    assert (p.argmax(1) == TASTE[test]).mean() > 0.7
    assert p.tobytes() == again.tobytes()


RIVALS = {
    "ptum": lambda lives: ptum(lives, width=16, longest=8, steps=80, batch_size=32),
    "sumn": lambda lives: sumn(lives, width=16, longest=8, steps=60, batch_size=32),
}


@pytest.mark.parametrize("make", RIVALS.values(), ids=RIVALS)
def test_users_of_the_same_taste_are_closer_than_others(make, lives):
    x = make(lives)
    assert x.shape == (N_USERS, 16)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    x = (x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=1, keepdims=True)
    same = np.equal.outer(TASTE, TASTE)
    assert (x @ x.T)[same].mean() > (x @ x.T)[~same].mean() + 0.2
    assert make(lives).tobytes() == make(lives).tobytes()
