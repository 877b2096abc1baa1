"""SMEN against literal loops in float64, and its gradients against finite differences (eq. 4-9)."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from lurm.contrastive import nt_xent
from lurm.history import timeline_history
from lurm.pretraining import view_periods
from lurm.smen import (
    Smen,
    SmenSettings,
    Version,
    load_smen,
    model_settings,
    model_tensors,
)
from lurm.storage import write_tensors
from lurm.timelines import Periods, build_timelines
from tests import reference

D, M, H = 6, 3, 4
SCALES = {"month": 1, "year": 12}
EVERY_SETTING = [
    {"scales": scales, "gate": gate, "empty_periods": empty_periods, "aggregation": aggregation}
    for scales, gate, empty_periods, aggregation in itertools.product(
        ({"month": 1}, SCALES, {"year": 12, "quarter": 3, "month": 1}),
        ("per_scale", "complement"),
        ("skip", "zeros"),
        ("gru", "mean"),
    )
    if gate == "per_scale" or len(scales) == 2
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make(seed=0, n_interests=D, n_anchors=M, width=H, scales=None, **options):
    """A small SMEN in float64, with interests spread wide enough for ReLU to have both sides."""
    torch.manual_seed(seed)
    settings = SmenSettings(n_interests, n_anchors, width, scales or SCALES, **options)
    smen = Smen(settings).double()
    torch.nn.init.normal_(smen.multi_anchor.interests)
    return smen


def random(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def csr(bags):
    """Bags of counts as the tensors that the multi-anchor module takes."""
    offsets = np.cumsum([0, *map(len, bags)])
    interests = np.array([j for bag in bags for j in bag], dtype=np.int64)
    counts = np.array([count for bag in bags for count in bag.values()], dtype=np.float32)
    return torch.from_numpy(offsets), torch.from_numpy(interests), torch.from_numpy(counts)


BAGS = [{0: 1.0, 4: 7.0}, {}, {3: 2.5}, {j: j + 0.5 for j in range(D)}, {}]


def encode(smen, lives, order=None):
    """The vectors of ``lives`` as one batch, in ``order``."""
    timelines = build_timelines(reference.boi_tables(lives))
    users = np.arange(len(lives)) if order is None else np.asarray(order)
    first, last = timelines.first_bag[users], timelines.first_bag[users + 1]
    return smen(view_periods(timelines, first, last, smen.settings)).detach().numpy()


# ---- multi-anchor module, eq. 4-6 --------------------------------------------------------------


def test_bags_become_the_vectors_of_the_literal_loop():
    smen = make()
    expected = [reference.multi_anchor(bag, reference.weights(smen)) for bag in BAGS]
    np.testing.assert_allclose(smen.multi_anchor(*csr(BAGS)).detach(), expected, atol=1e-12)


def test_shares_are_those_of_the_literal_loop_and_each_interest_is_shared_out_whole():
    smen = make()
    shares = smen.multi_anchor.shares(smen.multi_anchor.interests).detach()
    expected = [reference.alpha(j, reference.weights(smen)) for j in range(D)]
    np.testing.assert_allclose(shares, expected, atol=1e-12)
    np.testing.assert_allclose(shares.sum(dim=1), 1)


def test_one_anchor_gets_every_interest_whole():
    smen = make(n_anchors=1)
    module = smen.multi_anchor
    assert torch.equal(module.shares(module.interests), torch.ones(D, 1, dtype=torch.float64))
    r = module(*csr([{1: 3.0, 2: 1.0}])).detach()[0, 0]
    table = module.interests.detach()
    np.testing.assert_allclose(
        r, functional.relu(math.log(4) * table[1] + math.log(2) * table[2]), atol=1e-7
    )


def test_a_bag_does_not_depend_on_its_neighbors_or_on_the_order_of_its_entries():
    module = make().multi_anchor
    together = module(*csr(BAGS))
    for bag, expected in zip(BAGS, together, strict=True):
        backwards = dict(reversed(bag.items()))
        np.testing.assert_allclose(
            module(*csr([backwards])).detach()[0], expected.detach(), atol=1e-12
        )


def dense_multi_anchor(module, bags):
    """Eq. 4-6 with a dense bag (P, D) and every interest, for autograd to differentiate."""
    b = torch.zeros(len(bags), len(module.interests), dtype=torch.float64)
    for row, bag in enumerate(bags):
        for j, count in bag.items():
            b[row, j] = math.log(1 + count)
    keys = functional.relu(module.interests) @ module.key.weight.T
    alpha = torch.softmax(keys @ module.anchors.T, dim=1)
    return functional.relu(torch.einsum("jm,pj,jh->pmh", alpha, b, module.interests))


def test_sparse_and_dense_paths_agree_in_value_and_in_every_gradient():
    module, weight = make().multi_anchor, random(len(BAGS), M, H)
    gradients = []
    for r in (module(*csr(BAGS)), dense_multi_anchor(module, BAGS)):
        gradients.append((r, *torch.autograd.grad((r * weight).sum(), list(module.parameters()))))
    for sparse, dense in zip(*gradients, strict=True):
        np.testing.assert_allclose(sparse.detach(), dense.detach(), atol=1e-12)


def test_interests_that_nobody_met_get_no_gradient():
    module = make().multi_anchor
    module(*csr([{1: 2.0}, {4: 1.0}])).sum().backward()
    touched = module.interests.grad.abs().sum(dim=1) > 0
    assert set(np.flatnonzero(touched)) <= {1, 4}


def test_a_bag_costs_what_it_holds_and_not_the_number_of_interests():
    n_interests, n_bags = 2_000_000, 5000  # 40 GB if the bags were dense
    module = make(n_interests=n_interests, n_anchors=2, width=2).float().multi_anchor
    interests = torch.arange(n_bags) * 399
    r = module(torch.arange(n_bags + 1), interests, torch.ones(n_bags))
    assert r.shape == (n_bags, 2, 2)


# ---- time aggregation --------------------------------------------------------------------------

LENGTHS = [2, 0, 5, 1, 0, 2]


def sequences(lengths=LENGTHS):
    n = len(lengths)
    start, steps = random(n, M, H, seed=1), torch.tensor([3, 0, 1, 0, 2, 5])[:n]
    return (
        random(sum(lengths), M, H),
        torch.tensor(lengths),
        start * (steps > 0)[:, None, None],
        steps,
    )


@pytest.mark.parametrize("aggregation", ["gru", "mean"])
def test_packed_sequences_equal_a_loop_step_by_step(aggregation):
    smen = make(aggregation=aggregation)
    r, lengths, start, steps = sequences()
    parts = r.split(lengths.tolist())
    expected = [
        reference.aggregate(
            [step.numpy() for step in part],
            start[i].numpy(),
            int(steps[i]),
            aggregation,
            reference.weights(smen),
        )
        for i, part in enumerate(parts)
    ]
    out = smen.aggregate(r, lengths, start, steps).detach()
    np.testing.assert_allclose(out, expected, atol=1e-12)


def test_packed_sequences_equal_torchs_own_cell_and_share_it_among_anchors():
    smen = make()
    cell = torch.nn.GRUCell(H, H).double()
    cell.load_state_dict({name[: -len("_l0")]: w for name, w in smen.gru.state_dict().items()})
    r, lengths, start, steps = sequences()
    out = smen.aggregate(r, lengths, start, steps)
    for i, part in enumerate(r.split(lengths.tolist())):
        for anchor in range(M):
            state = start[i, anchor]
            for step in part:
                state = cell(step[anchor], state)
            np.testing.assert_allclose(out[i, anchor].detach(), state.detach(), atol=1e-12)


@pytest.mark.parametrize("aggregation", ["gru", "mean"])
def test_sequences_without_periods_keep_their_start(aggregation):
    smen = make(aggregation=aggregation)
    _, _, start, steps = sequences()
    none = torch.zeros(len(start), dtype=torch.int64)
    out = smen.aggregate(random(0, M, H), none, start, steps)
    np.testing.assert_allclose(out.detach(), start)


@pytest.mark.parametrize("aggregation", ["gru", "mean"])
def test_a_sequence_cut_in_two_ends_where_the_whole_one_does(aggregation):
    smen = make(aggregation=aggregation)
    r, start = random(7, M, H), torch.zeros(1, M, H, dtype=torch.float64)
    whole = smen.aggregate(r, torch.tensor([7]), start, torch.tensor([0]))
    middle = smen.aggregate(r[:3], torch.tensor([3]), start, torch.tensor([0]))
    end = smen.aggregate(r[3:], torch.tensor([4]), middle, torch.tensor([3]))
    np.testing.assert_allclose(end.detach(), whole.detach(), atol=1e-12)


# ---- multi-scale aggregation, eq. 7, and the head, eq. 8-9 -------------------------------------


@pytest.mark.parametrize(
    ("n_scales", "gate"), [(1, "per_scale"), (2, "per_scale"), (3, "per_scale"), (2, "complement")]
)
def test_scales_are_gated_and_added_up_as_in_the_literal_loop(n_scales, gate):
    smen = make(scales={f"s{i}": i + 1 for i in range(n_scales)}, gate=gate)
    scales = [random(5, M, H, seed=i) for i in range(n_scales)]
    w = reference.weights(smen)
    expected = [reference.merge([scale[u].numpy() for scale in scales], gate, w) for u in range(5)]
    np.testing.assert_allclose(smen.merge(scales).detach(), expected, atol=1e-12)


def test_a_gate_and_its_complement_leave_two_equal_scales_as_they_are():
    r = random(5, M, H)
    np.testing.assert_allclose(make(gate="complement").merge([r, r]).detach(), r, atol=1e-12)


@pytest.mark.parametrize("n_scales", [1, 3])
def test_a_complement_needs_two_scales(n_scales):
    scales = {f"s{i}": i + 1 for i in range(n_scales)}
    with pytest.raises(ValueError, match=r"pretrain_smen\.gate: 'complement' needs two scales"):
        make(scales=scales, gate="complement")


def test_the_head_is_that_of_the_literal_loop():
    smen, users = make(), random(5, M, H)
    expected = [reference.project(user.numpy(), reference.weights(smen)) for user in users]
    np.testing.assert_allclose(smen.project(users).detach(), expected, atol=1e-12)


def test_the_head_mixes_anchors_but_never_users():
    smen, users = make(), random(2, M, H)
    alone = smen.project(users[:1])
    np.testing.assert_allclose(smen.project(users)[:1].detach(), alone.detach(), atol=1e-12)
    moved = users.clone()
    moved[0, 1] += 1
    assert not torch.allclose(smen.project(moved)[0], alone[0])


# ---- gradients ---------------------------------------------------------------------------------


def gradients_hold(output, *inputs):
    """Whether autograd and finite differences agree; ``output`` reads ``inputs`` where they lie."""
    assert torch.autograd.gradcheck(lambda *_: output(), inputs)


def test_gradients_of_the_multi_anchor_module_are_those_of_finite_differences():
    module, bags = make().multi_anchor, csr(BAGS)
    gradients_hold(lambda: module(*bags), *module.parameters())


def test_gradients_through_the_gru_are_those_of_finite_differences():
    smen = make(n_anchors=2, width=2)
    r, start = (random(*s).requires_grad_() for s in ((6, 2, 2), (4, 2, 2)))
    lengths, steps = torch.tensor([2, 0, 3, 1]), torch.zeros(4, dtype=torch.int64)
    gradients_hold(
        lambda: smen.aggregate(r, lengths, start, steps), r, start, *smen.gru.parameters()
    )


@pytest.mark.parametrize("gate", ["per_scale", "complement"])
def test_gradients_of_gates_and_head_are_those_of_finite_differences(gate):
    smen = make(n_anchors=2, width=2, gate=gate)
    scales = [random(3, 2, 2, seed=i).requires_grad_() for i in range(2)]
    gradients_hold(lambda: smen.merge(scales), *scales, *smen.gates.parameters())
    head = [smen.head_anchor, smen.head_mix, *smen.head_out.parameters()]
    gradients_hold(lambda: smen.project(scales[0]), scales[0], *head)


@pytest.mark.parametrize("empty_periods", ["skip", "zeros"])
def test_the_gradient_of_the_whole_loss_is_that_of_finite_differences(empty_periods):
    smen = make(n_interests=4, n_anchors=2, width=2, empty_periods=empty_periods)
    lives = reference.random_lives(3, np.random.default_rng(3), n_interests=4, n_months=5)
    timelines = build_timelines(reference.boi_tables(lives))
    first, last = timelines.first_bag[:-1], timelines.first_bag[1:]
    views = [
        view_periods(timelines, a, b, smen.settings) for a, b in ((first, first + 1), (first, last))
    ]
    gradients_hold(
        lambda: nt_xent(*(smen.project(smen(view)) for view in views), 0.5), *smen.parameters()
    )


# ---- the whole encoder -------------------------------------------------------------------------


@pytest.mark.parametrize("options", EVERY_SETTING)
def test_a_life_becomes_the_vector_of_the_literal_loop(options):
    smen = make(**options)
    lives = reference.random_lives(5, np.random.default_rng(0), n_months=26)
    w = reference.weights(smen)
    expected = [reference.user_vector(life, smen.settings, w) for life in lives.values()]
    np.testing.assert_allclose(encode(smen, lives), expected, atol=1e-12)


@pytest.mark.parametrize("empty_periods", ["skip", "zeros"])
def test_a_user_has_the_same_vector_alone_in_any_batch_and_in_any_order(empty_periods):
    smen = make(empty_periods=empty_periods)
    lives = reference.random_lives(7, np.random.default_rng(1))
    together = encode(smen, lives)
    order = np.random.default_rng(2).permutation(7)
    np.testing.assert_allclose(encode(smen, lives, order), together[order], atol=1e-12)
    np.testing.assert_allclose(encode(smen, lives, [3, 3, 0]), together[[3, 3, 0]], atol=1e-12)
    for i, (user, life) in enumerate(lives.items()):
        np.testing.assert_allclose(encode(smen, {user: life})[0], together[i], atol=1e-12)


def test_empty_periods_matter_only_if_they_enter_as_zeros():
    month, bag = 24204, {1: 2.0}
    steady, paused = {0: {month: bag, month + 1: bag}}, {0: {month: bag, month + 4: bag}}
    skip, zeros = (make(scales={"month": 1}, empty_periods=e) for e in ("skip", "zeros"))
    np.testing.assert_allclose(encode(skip, steady), encode(skip, paused))
    assert not np.allclose(encode(zeros, steady), encode(zeros, paused))
    np.testing.assert_allclose(encode(zeros, steady), encode(skip, steady))


def test_a_year_takes_the_logarithm_of_its_summed_counts():
    january = 2017 * 12
    yearly = make(scales={"year": 12})
    spread = {0: {january + i: {2: 1.0} for i in range(4)}}
    at_once = {0: {january: {2: 4.0}}}
    np.testing.assert_allclose(encode(yearly, spread), encode(yearly, at_once), atol=1e-12)
    sum_of_logs = {0: {january: {2: 2.0**4 - 1}}}
    assert not np.allclose(encode(yearly, spread), encode(yearly, sum_of_logs))


def test_single_and_double_precision_agree():
    smen = make()
    lives = reference.random_lives(6, np.random.default_rng(4))
    precise = encode(smen, lives)
    assert precise.dtype == np.float64
    single = encode(smen.float(), lives)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, precise, atol=1e-5)


def test_a_batch_without_users_has_no_vectors():
    smen = make()
    none = np.zeros(0, dtype=np.int64)
    empty = Periods(none, np.zeros(1, dtype=np.int64), none, np.zeros(0, dtype=np.float32))
    assert smen([empty, empty]).shape == (0, M, H)


@pytest.mark.parametrize("options", EVERY_SETTING)
def test_the_encoder_comes_back_from_its_file_with_its_scales_in_order(options, tmp_path):
    smen = make(**options).float()
    about = {"model_version": "v1", **smen.settings.to_json()}
    write_tensors(smen.state_dict(), tmp_path / "smen.safetensors", about)
    loaded, version = load_smen(tmp_path / "smen.safetensors")
    assert version == Version("v1", "v1")
    assert loaded.settings == smen.settings
    lives = reference.random_lives(4, np.random.default_rng(5))
    np.testing.assert_array_equal(encode(loaded, lives), encode(smen, lives))


@pytest.mark.parametrize("published_width", [0, 5])
def test_an_encoder_that_keeps_an_older_space_turns_its_vectors_into_it(published_width, tmp_path):
    smen, history = make(published_width=published_width).float(), None
    if published_width:
        smen.attach(reference.random_projection(D, M * H, published_width))
        lives = reference.random_lives(3, np.random.default_rng(0), D, 24200, n_months=3)
        timelines = build_timelines(reference.boi_tables(lives))
        bounds = timelines.first_bag[:-1], timelines.first_bag[1:]
        history = timeline_history(timelines, *bounds, 24202, D)
    plain = smen.publish(torch.ones(3, M, H), history)
    k = plain.shape[1]
    assert "turn" not in smen.state_dict()
    smen.turn, smen.offset = torch.randn(k, k), torch.randn(k)
    about = {"model_version": "v2", "space_version": "v1", **model_settings(smen)}
    write_tensors(model_tensors(smen), tmp_path / "smen.safetensors", about)
    loaded, version = load_smen(tmp_path / "smen.safetensors")
    assert version == Version("v2", "v1")
    expected = plain @ smen.turn + smen.offset
    torch.testing.assert_close(loaded.publish(torch.ones(3, M, H), history), expected)


def test_publish_refuses_a_projection_without_histories():
    smen = make(published_width=5).float()
    smen.attach(reference.random_projection(D, M * H, 5))
    with pytest.raises(ValueError, match="expected the users' histories"):
        smen.publish(torch.ones(3, M, H))
