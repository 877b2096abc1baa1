import numpy as np
import pyarrow as pa
import pytest

from lurm import alignment
from lurm.alignment import align, panel, turned_back


def rotation(k, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(k, k)))[0]


def vectors(n, k, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, k)) * np.linspace(2, 0.1, k) + 1).astype(np.float32)


def test_a_space_that_was_turned_and_shifted_is_brought_back():
    old = vectors(300, 8)
    new = ((old - 3) @ rotation(8) + 0.5).astype(np.float32)
    found = align(new, old)
    turned = new @ found.turn.numpy() + found.offset.numpy()
    np.testing.assert_allclose(turned, old, atol=1e-4)
    assert found.explained == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(turned_back(turned, found.turn, found.offset), new, atol=1e-4)


def test_turned_vectors_have_the_covariance_of_the_old_however_often_they_are_turned():
    old, new = vectors(300, 6), vectors(300, 6, seed=1)
    new = (new + old @ rotation(6)).astype(np.float32)
    x = old
    for _ in range(5):
        found = align(new, x)
        x = (new @ found.turn.numpy() + found.offset.numpy()).astype(np.float32)
        np.testing.assert_allclose(np.cov(x.T), np.cov(old.T), atol=1e-3)
        np.testing.assert_allclose(x.mean(0), old.mean(0), atol=1e-4)


def test_no_other_map_to_that_covariance_comes_closer():
    old = vectors(300, 6)
    new = (vectors(300, 6, seed=1) + old @ rotation(6)).astype(np.float32)
    found = align(new, old)
    turned = new @ found.turn.numpy() + found.offset.numpy()
    values, axes = np.linalg.eigh(np.cov(old.T))
    root, white = (axes * values**p @ axes.T for p in (0.5, -0.5))
    centred = turned - turned.mean(0)
    for seed in range(20):
        small = np.linalg.qr(np.eye(6) + 0.05 * np.random.default_rng(seed).normal(size=(6, 6)))[0]
        small *= np.sign(np.diag(small))
        other = centred @ white @ small @ root + turned.mean(0)
        assert ((turned - old) ** 2).sum() <= ((other - old) ** 2).sum()


def test_anchors_in_another_order_are_found_with_the_rest():
    old = vectors(400, 12).reshape(400, 3, 4)
    found = align(old[:, [2, 0, 1]].reshape(400, 12), old.reshape(400, 12))
    blocks = found.turn.numpy().reshape(3, 4, 3, 4).transpose(0, 2, 1, 3)
    lengths = np.linalg.norm(blocks, axis=(2, 3))
    assert lengths.argmax(axis=1).tolist() == [2, 0, 1]


def test_the_panel_is_of_users_that_both_know_in_the_order_of_here():
    here, there = panel(pa.array([1, 2, 5, 9]), pa.array([9, 3, 1, 2]))
    assert here.tolist() == [0, 1, 3]
    assert there.tolist() == [2, 3, 0]


def test_a_user_stays_in_the_panel_when_others_come_and_go(monkeypatch):
    monkeypatch.setattr(alignment, "PANEL", 50)
    users = pa.array([f"user {n}" for n in range(400)])
    chosen = {users[row].as_py() for row in panel(users, users)[0]}
    assert len(chosen) == 50
    fewer = users.slice(100)
    still = {fewer[row].as_py() for row in panel(fewer, users)[0]}
    assert {user for user in chosen if int(user.split()[1]) >= 100} <= still


def test_ids_of_another_type_are_refused():
    with pytest.raises(ValueError, match="user_id is int64 in the timelines but string"):
        panel(pa.array([1]), pa.array(["1"]))


def test_what_hardly_varies_is_held_back():
    old = vectors(300, 6)
    new = old.copy()
    new[:, 5] = 1e-4 * new[:, 5]  # to be blown up ten thousand times
    found = align(new, old)
    assert found.turn.abs().max() < 100
    assert found.explained > 0.99
