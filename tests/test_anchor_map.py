"""Outputs of anchors: taken as SMEN makes them, and told apart where they lie apart."""

import numpy as np
import torch

from lurm.anchor_map import anchor_map, anchor_outputs, separation
from lurm.smen import Smen, SmenSettings
from lurm.timelines import build_timelines
from tests import reference


def test_outputs_are_those_of_the_multi_anchor_module_at_unit_length():
    lives = reference.random_lives(6, np.random.default_rng(0))
    timelines = build_timelines(reference.boi_tables(lives))
    torch.manual_seed(0)
    smen = Smen(SmenSettings(int(timelines.interests.max()) + 1, 3, 4, {"month": 1}))
    found = anchor_outputs(smen, timelines, 10**6, 0)
    rng = np.random.default_rng(0)
    timelines = timelines.take(rng.permutation(len(timelines)))
    n_bags = timelines.n_bags
    assert found.shape == (n_bags, 3, 4)
    bags = [slice(*timelines.first_entry[[bag, bag + 1]]) for bag in range(n_bags)]
    literal = []
    for bag in bags:
        rows = smen.multi_anchor.interests[timelines.interests[bag].astype(int)]
        values = torch.from_numpy(timelines.counts[bag]).log1p()
        r = torch.relu(torch.einsum("em,e,eh->mh", smen.multi_anchor.shares(rows), values, rows))
        literal.append((r / r.norm(dim=1, keepdim=True).clamp(min=1e-12)).detach().numpy())
    order = rng.permutation(n_bags)
    np.testing.assert_allclose(found, np.stack(literal)[order], atol=1e-5)


def planted(spread):
    """Outputs of four anchors around their own direction, or all around one."""
    rng = np.random.default_rng(0)
    centres = np.eye(4, 8)[None] * (spread > 0)
    x = centres + 0.1 * rng.standard_normal((50, 4, 8))
    return (x / np.linalg.norm(x, axis=2, keepdims=True)).astype(np.float32)


def test_anchors_that_lie_apart_are_told_apart_and_others_by_chance_only():
    assert separation(planted(1)) == 1
    assert abs(separation(planted(0)) - 1 / 4) < 0.05


def test_the_map_keeps_together_what_lies_together():
    places = anchor_map(planted(1), 0)
    assert places.shape == (50, 4, 2)
    middles = places.mean(axis=0)
    own = np.linalg.norm(places - middles, axis=2).mean()
    apart = np.linalg.norm(middles[:, None] - middles[None], axis=2)[np.triu_indices(4, 1)].min()
    assert apart > 2 * own
