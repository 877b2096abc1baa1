"""Pre-training on planted groups: it learns, it repeats, and nobody is left without a negative."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lurm import pretraining
from lurm.pretraining import (
    _examples,
    add_projection,
    encode_timelines,
    pretrain,
    rows_from_centres,
    view_periods,
)
from lurm.smen import Smen, SmenSettings
from lurm.storage import shard_folder
from lurm.timelines import ShardedTimelines, Timelines, build_timelines, finish, save_shard
from tests import reference

SETTINGS = SmenSettings(n_interests=40, n_anchors=2, width=8, scales={"month": 1, "year": 12})
OPTIONS = {
    "temperature": 0.1,
    "batch_size": 16,
    "epochs": 2,
    "learning_rate": 0.01,
    "min_view_share": 0.2,
    "max_view_share": 0.6,
    "min_kept_share": 0.5,
    "seed": 0,
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def planted(n_users=48, as_text=False):
    """Users of four groups: a month holds two of the group's five interests, and louder noise."""
    rng = np.random.default_rng(0)
    lives = {}
    for u in range(n_users):
        life = lives[f"ü{u:03d}" if as_text else u] = {}
        for month in range(24200, 24208):
            noise = rng.choice(np.arange(20, 40), 4, replace=False)
            of_group = rng.choice(5, 2, replace=False) + u % 4 * 5
            life[month] = dict.fromkeys(noise.tolist(), 4.0) | dict.fromkeys(of_group.tolist(), 1.0)
    return build_timelines(reference.boi_tables(lives))


@pytest.fixture(scope="module")
def timelines():
    return planted()


def vectors(smen, timelines):
    first, last = timelines.first_bag[:-1], timelines.first_bag[1:]
    out = smen(view_periods(timelines, first, last, SETTINGS)).detach().flatten(1).numpy()
    return out - out.mean(axis=0)


def closeness(smen, timelines):
    """Mean cosine within groups less the mean cosine between them."""
    v = vectors(smen, timelines)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    groups = np.arange(len(v)) % 4
    same = np.equal.outer(groups, groups)
    return (v @ v.T)[same].mean() - (v @ v.T)[~same].mean()


def test_the_loss_falls_and_users_of_one_group_come_closer(timelines):
    smen, losses = pretrain(timelines, SETTINGS, **OPTIONS | {"epochs": 8})
    assert losses[-1] < losses[0] - 0.5
    torch.manual_seed(0)
    assert closeness(smen, timelines) > closeness(Smen(SETTINGS), timelines) + 0.5


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(timelines):
    first, again, other = (
        pretrain(timelines, SETTINGS, **OPTIONS | {"seed": seed})[0].state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_user_ids_may_be_text_and_do_not_enter_the_model(timelines):
    by_number, _ = pretrain(timelines, SETTINGS, **OPTIONS)
    by_text, _ = pretrain(planted(as_text=True), SETTINGS, **OPTIONS)
    assert torch.equal(by_number.head_mix, by_text.head_mix)


def test_every_weight_of_the_encoder_and_of_the_head_is_trained(timelines):
    smen, _ = pretrain(timelines, SETTINGS, **OPTIONS)
    torch.manual_seed(0)
    before = Smen(SETTINGS).state_dict()
    assert not any(torch.equal(tensor, before[name]) for name, tensor in smen.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        {"gate": "complement", "empty_periods": "zeros", "aggregation": "mean"},
        {"scales": {"quarter": 3}},
        {"scales": {"year": 12, "half": 6, "month": 1}, "empty_periods": "zeros"},
    ],
)
def test_every_setting_trains(timelines, change):
    settings = SmenSettings(**SETTINGS.to_json() | change)
    _, losses = pretrain(timelines, settings, **OPTIONS)
    assert len(losses) == 2
    assert np.isfinite(losses).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("aggregation", ["gru", "mean"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_trains_as_the_cpu_does(timelines, precision, aggregation):
    change = {"aggregation": aggregation, "published_width": 6}
    settings = SmenSettings(**SETTINGS.to_json() | change)
    _, expected = pretrain(timelines, settings, **OPTIONS)
    smen, losses = pretrain(timelines, settings, **OPTIONS, device="cuda", precision=precision)
    np.testing.assert_allclose(losses, expected, rtol=1e-2)
    assert all(weight.device.type == "cpu" for weight in smen.state_dict().values())


@pytest.mark.parametrize("aggregation", ["gru", "mean"])
def test_short_numbers_are_near_to_long_ones(timelines, aggregation):
    settings = SmenSettings(**SETTINGS.to_json() | {"aggregation": aggregation})
    _, expected = pretrain(timelines, settings, **OPTIONS)
    smen, losses = pretrain(timelines, settings, **OPTIONS, precision="bfloat16")
    np.testing.assert_allclose(losses, expected, rtol=1e-2)
    assert losses != expected
    assert all(weight.dtype == torch.float32 for weight in smen.parameters())


@given(st.integers(2, 60), st.integers(2, 20))
def test_every_user_is_in_one_batch_and_no_batch_holds_a_single_user(n_users, size):
    users = np.random.default_rng(0).permutation(n_users)
    batches = list(pretraining._batches(users, size))
    assert np.concatenate(batches).tolist() == users.tolist()
    assert all(2 <= len(batch) <= size + 1 for batch in batches)


@pytest.mark.parametrize("n_users", [2, 3, 5])
def test_a_handful_of_users_is_enough(n_users):
    _, losses = pretrain(planted(n_users), SETTINGS, **OPTIONS | {"batch_size": 2})
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("n_users", [0, 1])
def test_fewer_than_two_users_are_refused(n_users):
    lives = {u: {24200: {0: 1.0}} for u in range(n_users)}
    table = reference.boi_table(lives, 24200, planted(2).users.type)
    with pytest.raises(ValueError, match=rf"needs two users or more, the timelines hold {n_users}"):
        pretrain(build_timelines({24200: table}), SETTINGS, **OPTIONS)


def test_from_shards_on_disk_the_same_model_is_learned(timelines, tmp_path):
    settings = replace(SETTINGS, published_width=4)
    shards = []
    for number, rows in enumerate(np.array_split(np.arange(len(timelines)), 3)):
        of_shard = replace(timelines.take(rows), users=timelines.users.take(pa.array(rows)))
        shards.append(save_shard(of_shard, shard_folder(tmp_path, number)))
    finish(tmp_path, shards)
    one, losses = pretrain(timelines, settings, **OPTIONS)
    other, in_shards = pretrain(ShardedTimelines(tmp_path), settings, **OPTIONS)
    assert in_shards == losses
    for name, weights in one.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]), name


def test_every_epoch_meets_every_user_twice_in_an_order_of_its_own(timelines, monkeypatch):
    met, n_views, take, draw_view = [], [], Timelines.take, pretraining.draw_view

    def take_recorded(timelines, rows):
        met.extend(rows.tolist())
        return take(timelines, rows)

    def draw_recorded(lives, *options):
        n_views.append(len(lives))
        return draw_view(lives, *options)

    monkeypatch.setattr(Timelines, "take", take_recorded)
    monkeypatch.setattr(pretraining, "draw_view", draw_recorded)
    pretrain(timelines, SETTINGS, **OPTIONS)
    n = len(timelines)
    first, second = met[:n], met[n : 2 * n]
    assert sorted(first) == sorted(second) == list(range(n))
    assert first != second
    assert sum(n_views) == OPTIONS["epochs"] * 2 * n


@given(st.integers(1, 12), st.integers(0, 20), st.integers(0, 3))
def test_rows_turned_to_a_larger_width_lie_to_each_other_as_the_centres_do(given_width, more, seed):
    centres = np.random.default_rng(seed).standard_normal((6, given_width)).astype(np.float32)
    rows = rows_from_centres(centres, given_width + more, seed)
    assert rows.shape == (6, given_width + more)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows @ rows.T, centres @ centres.T, atol=1e-4)


def test_a_smaller_width_keeps_neighbours_and_the_same_width_the_centres_themselves():
    centres = np.random.default_rng(0).standard_normal((20, 128)).astype(np.float32)
    twins = centres + 0.1 * np.random.default_rng(1).standard_normal(centres.shape)
    rows = rows_from_centres(np.concatenate([centres, twins.astype(np.float32)]), 64, seed=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert ((rows[:20] @ rows[20:].T).argmax(axis=1) == np.arange(20)).all()
    assert rows_from_centres(centres, 128, seed=0).tobytes() == centres.tobytes()


def test_training_goes_on_from_the_centres(timelines):
    centres = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    still = OPTIONS | {"learning_rate": 1e-9, "epochs": 1}
    smen, _ = pretrain(timelines, SETTINGS, **still, centres=centres)
    rows = smen.multi_anchor.interests.detach().numpy()
    np.testing.assert_allclose(rows, centres, atol=1e-6)


def test_examples_are_cut_at_the_ends_of_months_and_followed_by_hidden_behaviors():
    """Three users; the second comes late, the third leaves early."""
    lives = {
        0: {24200: {0: 1.0}, 24202: {1: 2.0}, 24203: {1: 1.0, 2: 1.0}},
        1: {24202: {3: 1.0}},
        2: {24200: {4: 1.0}},
    }
    timelines = build_timelines(reference.boi_tables(lives))
    smen = Smen(SETTINGS).eval()
    cuts = np.unique(timelines.months)[:-1]
    *cut, hidden = _examples(smen, timelines, cuts, 24203, np.random.default_rng(0))
    assert [example.users.tolist() for example in cut] == [[0, 2], [0, 1, 2]]
    seen = [[row.nonzero()[1].tolist() for row in e.history.total] for e in cut]
    assert seen == [[[0], [4]], [[0, 1], [3], [4]]]
    chosen = [[row.nonzero()[1].tolist() for row in e.chosen] for e in cut]
    assert chosen == [[[1], []], [[1, 2], [], []]]  # two months after a cut
    assert cut[1].history.away.tolist() == [0, 0, 2]
    everything = reference.history_counts(lives[0], 24203, 10**6, SETTINGS.n_interests)
    both = (hidden.history.total + hidden.chosen)[hidden.users.tolist().index(0)]
    np.testing.assert_allclose(both.toarray()[0], everything)


def test_add_projection_looks_at_a_sample_of_very_many_users(timelines, monkeypatch):
    monkeypatch.setattr(pretraining, "USERS", 20)
    monkeypatch.setattr(pretraining, "CUTS", 3)
    smen = Smen(replace(SETTINGS, published_width=6)).eval()
    figures = add_projection(smen, timelines, {}, month=24207, block_width=4, seed=0)
    assert figures["n_examples"] == 20 * 4  # three cuts and hidden behaviors


def test_add_projection_learns_from_users_of_one_month_by_hiding_behaviors():
    rng = np.random.default_rng(0)
    lives = {u: {24200: {int(i): 2.0 for i in rng.choice(6, 3) + 6 * (u % 2)}} for u in range(40)}
    timelines = build_timelines(reference.boi_tables(lives))
    smen = Smen(replace(SETTINGS, published_width=4)).eval()
    add_projection(smen, timelines, {}, month=24200, block_width=4, seed=0)
    vectors = encode_timelines(smen, timelines, 24200)
    assert vectors.shape == (40, 4)
    assert np.isfinite(vectors).all()


def test_add_projection_refuses_users_who_all_choose_the_same():
    lives = {u: {24200: {0: 1.0}} for u in range(6)}
    timelines = build_timelines(reference.boi_tables(lives))
    smen = Smen(replace(SETTINGS, published_width=4)).eval()
    with pytest.raises(ValueError, match="published_width: nothing that users choose varies"):
        add_projection(smen, timelines, {}, month=24200, block_width=4, seed=0)
