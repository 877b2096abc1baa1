"""LURM as slow loops in float64, written straight from the paper's formulas: what fast code is held to.

A *life* is ``{month number: {interest: count}}``; ``w`` are the weights of a SMEN or of an item encoder
as float64 arrays by name (:func:`weights`).
"""

import math

import numpy as np
import pyarrow as pa
import torch
from scipy import sparse

from lurm.projection import KINDS, Block, Projection, ProjectionSettings


def weights(module):
    """The weights of a torch module as float64 arrays by name."""
    return {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ---- items, eq. 1-3 ----------------------------------------------------------------------------


def item_vector(words, w):
    """Eq. 1: the mean of the words' vectors, two residual blocks, unit length."""
    x = sum(w["words.weight"][word] for word in words) / len(words)
    for block in ("proj.0", "proj.1"):
        inner = relu(w[f"{block}.inner.weight"] @ x + w[f"{block}.inner.bias"])
        x = x + w[f"{block}.outer.weight"] @ inner + w[f"{block}.outer.bias"]
    return x / np.linalg.norm(x)


def nt_xent(x, y, temperature):
    """Eq. 2-3 over A = {x_1, y_1, ..., x_n, y_n}."""

    def g(a, b):
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    everyone = [("x", i) for i in range(len(x))] + [("y", i) for i in range(len(y))]
    value = {"x": x, "y": y}

    def pair_loss(one, other):
        a = value[one[0]][one[1]]
        top = math.exp(g(a, value[other[0]][other[1]]) / temperature)
        bottom = 0.0
        for v in everyone:
            if v != one:
                bottom += math.exp(g(a, value[v[0]][v[1]]) / temperature)
        return -math.log(top / bottom)

    n = len(x)
    total = 0.0
    for i in range(n):
        total += pair_loss(("x", i), ("y", i)) + pair_loss(("y", i), ("x", i))
    return total / (2 * n)


# ---- SMEN, eq. 4-9 -----------------------------------------------------------------------------


def periods(life, span, empty_periods, until=None):
    """The counts of each period, oldest first, to the life's last month or to ``until``."""
    counts = {}
    for month, bag in life.items():
        period = counts.setdefault(month // span, {})
        for interest, count in bag.items():
            period[interest] = period.get(interest, 0.0) + count
    if empty_periods == "skip":
        return [counts[period] for period in sorted(counts)]
    last = max(counts) if until is None else until // span
    return [counts.get(period, {}) for period in range(min(counts), last + 1)]


def alpha(interest, w):
    """Eq. 6: the shares of the anchors in an interest, a list of M numbers that sum to 1."""
    k = w["multi_anchor.key.weight"] @ relu(w["multi_anchor.interests"][interest])
    scores = [math.exp(float(anchor @ k)) for anchor in w["multi_anchor.anchors"]]
    return [score / sum(scores) for score in scores]


def multi_anchor(counts, w):
    """Eq. 4-5: r (M, H) of one bag of counts."""
    m, h = w["multi_anchor.anchors"].shape
    r = np.zeros((m, h))
    for j, count in counts.items():
        b_j, alpha_j = math.log(1 + count), alpha(j, w)
        for i in range(m):
            r[i] += alpha_j[i] * b_j * w["multi_anchor.interests"][j]
    return relu(r)


def gru_step(x, h, w):
    """One step of a gated recurrent unit, as torch defines it."""
    w_r, w_z, w_n = np.split(w["gru.weight_ih_l0"], 3)
    u_r, u_z, u_n = np.split(w["gru.weight_hh_l0"], 3)
    b_r, b_z, b_n = np.split(w["gru.bias_ih_l0"], 3)
    c_r, c_z, c_n = np.split(w["gru.bias_hh_l0"], 3)
    r = sigmoid(w_r @ x + b_r + u_r @ h + c_r)
    z = sigmoid(w_z @ x + b_z + u_z @ h + c_z)
    n = np.tanh(w_n @ x + b_n + r * (u_n @ h + c_n))
    return (1 - z) * n + z * h


def aggregate(sequence, start, steps, aggregation, w):
    """The state (M, H) of each anchor after ``sequence``, going on from ``start`` after ``steps``."""
    if aggregation == "mean":
        return (start * steps + sum(sequence)) / max(steps + len(sequence), 1)
    state = np.array(start, dtype=float)
    for r in sequence:
        for i in range(len(state)):
            state[i] = gru_step(r[i], state[i], w)
    return state


def merge(scales, gate, w):
    """Eq. 7: r^ (M, H) of the scales' states (M, H) each."""
    merged = np.zeros_like(scales[0])
    for i in range(len(merged)):
        together = np.concatenate([scale[i] for scale in scales])
        for k, scale in enumerate(scales):
            of = 0 if gate == "complement" else k
            s = sigmoid(w[f"gates.{of}.weight"] @ together + w[f"gates.{of}.bias"])
            if gate == "complement" and k == 1:
                s = 1 - s
            merged[i] += s * scale[i]
    return merged


def project(user, w):
    """Eq. 8-9: h(v) of a user vector (M, H)."""
    m, h = user.shape
    v = relu(np.concatenate([w["head_anchor"][i] @ user[i] for i in range(m)]))
    mat = v.reshape(m, h)
    mix = (w["head_mix"] @ mat).reshape(m * h)
    return w["head_out.weight"] @ relu(v + mix)


def user_vector(life, settings, w, until=None):
    """The vector (M, H) of a whole life, as of its last month or as of ``until``."""
    states = []
    for span in settings.scales.values():
        bags = periods(life, span, settings.empty_periods, until)
        start = np.zeros((settings.n_anchors, settings.width))
        sequence = [multi_anchor(bag, w) for bag in bags]
        states.append(aggregate(sequence, start, 0, settings.aggregation, w))
    return merge(states, settings.gate, w)


# ---- lives as tables ---------------------------------------------------------------------------


def months_of(lives):
    """All months in which somebody is active, in order."""
    return sorted({month for life in lives.values() for month in life})


def boi_table(lives, month, id_type=None):
    """The month's bags of ``{user id: life}``, sorted by user, then interest."""
    rows = [
        (user, interest, count)
        for user in sorted(lives)
        for interest, count in sorted(lives[user].get(month, {}).items())
    ]
    users, interests, counts = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "user_id": pa.array(users, id_type or pa.array(list(lives)).type),
            "interest": pa.array(interests, pa.int32()),
            "count": pa.array(counts, pa.float32()),
        }
    )


def boi_tables(lives):
    """The bags of every month: ``{month number: table}``."""
    return {month: boi_table(lives, month) for month in months_of(lives)}


def random_lives(n_users, rng, n_interests=6, first=24204, n_months=14):
    """``{user id: life}`` with users who come late, pause, or act once; some counts are fractions."""
    lives = {}
    for user in range(n_users):
        n_active = int(rng.integers(1, n_months))
        life = {}
        for month in first + np.sort(rng.choice(n_months, n_active, replace=False)):
            n_met = int(rng.integers(1, n_interests))
            met = np.sort(rng.choice(n_interests, n_met, replace=False))
            life[int(month)] = {int(j): float(rng.integers(1, 9)) / 2 for j in met}
        lives[user * 3] = life
    return lives


# ---- the projection ----------------------------------------------------------------------------


def random_projection(n_interests, smen_width, width, seed=0):
    """A projection with random weights: all kinds of blocks of interests and of a column of 3 values."""
    rng = np.random.default_rng(seed)
    sizes = {"interest": n_interests, "kind": 3}
    blocks = [Block(kind, source, min(2, size)) for source, size in sizes.items() for kind in KINDS]
    blocks += [Block("activity", "", 6), Block("smen", "", smen_width)]
    targets = {"interest": 2, "kind": 3}
    projection = Projection(ProjectionSettings(width, smen_width, sizes, blocks, targets))
    composition = rng.random((n_interests, 3)) * (rng.random((n_interests, 3)) < 0.7)
    composition /= np.maximum(composition.sum(axis=1, keepdims=True), 1)
    projection.compositions = {"kind": sparse.csr_matrix(composition.astype(np.float32))}
    projection.axes = [
        rng.standard_normal((sizes.get(b.source, b.width), b.width)).astype(np.float32)
        for b in blocks
    ]
    projection.rows = {"interest": np.array([1, 3]), "kind": np.arange(3)}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in projection.state_dict().values():
            tensor.normal_(generator=generator)
        for name in ("pair_scale", "user_scale"):
            getattr(projection.pair_model, name).abs_().add_(0.5)
    return projection.eval()


def history_counts(life, until, newest, n_interests):
    """Counts per interest of the months ``until - newest < m <= until``, (D,)."""
    counts = np.zeros(n_interests)
    for month, bag in life.items():
        if until - newest < month <= until:
            for interest, count in bag.items():
                counts[interest] += count
    return counts


def activity(life, until):
    """The six figures of a history as of a month."""
    months = [month for month in life if month <= until]
    totals = [
        sum(sum(bag.values()) for month, bag in life.items() if until - newest < month <= until)
        for newest in (10**6, 3, 1)
    ]
    span, away = max(months) - min(months) + 1, min(until - max(months), 3)
    return np.log1p([*totals, len(months), span, away])


def projection_vector(life, until, projection, smen_numbers):
    """The published vector of one history as of a month, block by block and pair by pair."""
    w, settings = weights(projection), projection.settings
    d = settings.sizes["interest"]
    windows = {"total": 10**6, "month": 1, "window": 3}
    of_interests = {name: history_counts(life, until, n, d) for name, n in windows.items()}
    counts = {("interest", name): values for name, values in of_interests.items()}
    for source, table in projection.compositions.items():
        for name, values in of_interests.items():
            counts[source, name] = values @ table.toarray().astype(float)
    x = []
    for block, axes in zip(settings.blocks, projection.axes, strict=True):
        if block.kind == "activity":
            values = activity(life, until)
        elif block.kind == "smen":
            values = smen_numbers
        else:
            values = counts[block.source, block.kind if block.kind in windows else "total"]
            if block.kind == "seen":
                values = np.minimum(values, 1)
            elif block.kind == "share":
                values = np.sqrt(values / max(values.sum(), 1))
            else:
                values = np.log1p(values)
        x.extend(values @ axes.astype(float))
    x = np.array(x)
    scores = x @ w["score"] + w["score_bias"]
    m = {name.removeprefix("pair_model."): value for name, value in w.items()}
    user = m["of_user.weight"] @ ((activity(life, until) - m["user_mean"]) / m["user_scale"])
    log_odds, target = [], 0
    for source, rows in projection.rows.items():
        for row in rows:
            pair = [scores[target], *(np.log1p(counts[source, name][row]) for name in windows)]
            pair = (np.array(pair) - m["pair_mean"]) / m["pair_scale"]
            hidden = m["of_pair.weight"] @ pair + m["of_pair.bias"] + user
            hidden = relu(hidden + m["of_target.weight"] @ m["target"][target])
            hidden = relu(m["middle.weight"] @ hidden + m["middle.bias"])
            out = float(m["out.weight"][0] @ hidden + m["out.bias"][0])
            log_odds.append(out + m["bias"][target] + m["slope"][target] * pair[0])
            target += 1
    return x @ w["linear_out"] + np.array(log_odds) @ w["pair_out"] + w["offset"]
