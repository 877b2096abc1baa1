"""Pre-training on planted groups: it learns, it repeats, and nobody is left without a negative."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from lurm import pretraining
from lurm.foresight import foretelling_directions
from lurm.pretraining import pretrain, rows_from_centres, view_periods
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
    "ridge": 1.0,
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


def test_directions_are_those_that_foretell_the_two_months_after_each_month(timelines):
    settings = SmenSettings(**SETTINGS.to_json() | {"published_width": 6})
    smen, _ = pretrain(timelines, settings, **OPTIONS)
    first, last = timelines.first_bag[:-1], timelines.first_bag[1:]
    cuts = []
    for month in range(24200, 24207):  # nothing comes after the eighth
        until = np.array(
            [a + (timelines.months[a:b] <= month).sum() for a, b in zip(first, last, strict=True)]
        )
        met = np.zeros((len(first), settings.n_interests))
        for user, (a, b) in enumerate(zip(until, last, strict=True)):
            for bag in range(a, min(a + 2, b)):
                entries = slice(timelines.first_entry[bag], timelines.first_entry[bag + 1])
                met[user, timelines.interests[entries]] = 1
        with torch.no_grad():
            x = smen(view_periods(timelines, first, until, settings)).flatten(1).numpy()
        cuts.append((x, sparse.csr_matrix(met)))
    expected = foretelling_directions(cuts, 6, OPTIONS["ridge"])
    np.testing.assert_allclose(
        smen.directions.numpy(), expected, atol=1e-4 * np.abs(expected).max()
    )
    assert np.linalg.norm(expected, axis=0).min() > 0


def test_who_has_come_by_a_cut_and_what_comes_after_it_are_told_apart(monkeypatch):
    """Three users; the second comes late, the third leaves early."""
    lives = {
        0: {24200: {0: 1.0}, 24202: {1: 2.0}, 24203: {1: 1.0, 2: 1.0}},
        1: {24202: {3: 1.0}},
        2: {24200: {4: 1.0}},
    }
    seen = []
    monkeypatch.setattr(
        pretraining, "foretelling_directions",
        lambda cuts, width, _: seen.extend(met.toarray() for _, met in cuts) or np.zeros((16, width)),
    )  # fmt: skip
    settings = SmenSettings(**SETTINGS.to_json() | {"published_width": 6})
    pretrain(build_timelines(reference.boi_tables(lives)), settings, **OPTIONS)
    told = [[np.flatnonzero(row).tolist() for row in cut] for cut in seen]
    assert told == [[[1], []], [[1, 2], [], []]]


def test_groups_of_interests_are_met_where_one_of_theirs_is(monkeypatch):
    lives = {
        0: {24200: {0: 1.0}, 24201: {1: 2.0, 2: 1.0}},
        1: {24200: {0: 1.0}, 24201: {5: 1.0}},
    }
    seen = []
    monkeypatch.setattr(
        pretraining, "foretelling_directions",
        lambda cuts, width, _: seen.extend(met.toarray() for _, met in cuts) or np.zeros((16, width)),
    )  # fmt: skip
    settings = SmenSettings(**SETTINGS.to_json() | {"published_width": 6})
    groups = np.arange(40, dtype=np.int32) // 5
    timelines = build_timelines(reference.boi_tables(lives))
    pretrain(timelines, settings, **OPTIONS, groups=groups)
    (cut,) = seen
    assert cut.shape == (2, 48)
    assert [np.flatnonzero(row).tolist() for row in cut] == [[1, 2, 40], [5, 41]]
    assert cut.max() == 1


def test_of_very_many_lives_a_sample_is_cut(timelines, monkeypatch):
    seen = []
    monkeypatch.setattr(pretraining, "LIVES", 10)
    monkeypatch.setattr(pretraining, "CUTS", 3)
    monkeypatch.setattr(
        pretraining, "foretelling_directions",
        lambda cuts, width, _: seen.extend(x.shape for x, _ in cuts) or np.zeros((16, width)),
    )  # fmt: skip
    settings = SmenSettings(**SETTINGS.to_json() | {"published_width": 6})
    pretrain(timelines, settings, **OPTIONS)
    assert seen == [(10, 16)] * 3


def test_users_of_one_month_alone_give_no_directions(timelines):
    lives = {u: {24200: {u % 3: 1.0}} for u in range(6)}
    settings = SmenSettings(**SETTINGS.to_json() | {"published_width": 6})
    with pytest.raises(ValueError, match="published_width"):
        pretrain(build_timelines(reference.boi_tables(lives)), settings, **OPTIONS)
