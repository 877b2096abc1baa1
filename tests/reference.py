"""LURM as slow loops in float64, written straight from the paper's formulas: what fast code is held to.

A *life* is ``{month number: {interest: count}}``; ``w`` are the weights of a SMEN or of an item encoder
as float64 arrays by name (:func:`weights`).
"""

import math

import numpy as np
import pyarrow as pa


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
