from dataclasses import replace

import numpy as np
import pytest

from lurm.heads import (
    KINDS,
    BlendedHead,
    HeadSettings,
    carry_heads,
    cross_validate,
    fit,
    fold_heads,
    out_of_fold,
    predict,
    splits,
)
from lurm.heads.folds import nested_splits
from lurm.tasks import TaskLabels

QUICK = HeadSettings(
    hidden=8, max_epochs=6, learning_rate=2e-2, trees=20, penalties=(0.01, 0.1, 1.0)
)


def linear(n_users=240, width=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_users, width)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] + 0.5 * rng.standard_normal(n_users) > 0).astype(np.int64)


def steps(n_users=400, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.poisson(2, (n_users, 5)).astype(np.float32)
    return x, ((x[:, 0] > 2) ^ (x[:, 1] > 2)).astype(np.int64)


def labels_of(y, rows=None):
    names = tuple(map(str, range(int(y.max()) + 1)))
    return TaskLabels(np.arange(len(y)) if rows is None else rows, y, names)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_nested_splits_keep_inner_folds_within_the_training_part_and_test_each_user_once(folds):
    y = np.arange(83) % 3
    nested = nested_splits(y, folds, 2, 0)
    for a, b in zip(nested.outer, splits(y, folds, 2, 0), strict=True):
        assert all(map(np.array_equal, a, b))
    for (train, test), uses in zip(nested.outer, nested.uses, strict=True):
        tested = np.concatenate([rows for _, rows in uses])
        assert np.array_equal(np.sort(tested), train)
        for n, rows in uses:
            seen, held_out = nested.inner[n]
            assert not np.intersect1d(seen, np.concatenate([rows, test])).size
            assert np.isin(rows, held_out).all()


def test_nested_splits_of_many_users_let_some_choose_and_all_be_scored():
    y = (np.arange(4000) % 5 == 0).astype(np.int64)
    nested = nested_splits(y, 3, 1, 0, most=1000)
    assert [len(test) for _, test in nested.outer] == [1334, 1333, 1333]
    for (train, test), uses in zip(nested.outer, nested.uses, strict=True):
        users = np.concatenate([rows for _, rows in uses])
        assert 600 < len(users) < 700
        assert y[users].mean() == pytest.approx(0.2, abs=0.02)
        assert np.isin(users, train).all()
        for n, _ in uses:
            assert not np.intersect1d(nested.inner[n][0], test).size
    rare = (np.arange(4000) < 150).astype(np.int64)
    assert len(nested_splits(rare, 3, 1, 0, most=1000).uses[0][0][1]) > 1300


def test_out_of_fold_scores_all_kinds_of_tasks_with_different_users():
    x, y = linear()
    few = np.flatnonzero(np.arange(240) % 3)
    three = np.digitize(x[few, 2], [-0.5, 0.5])
    tasks = {"all": labels_of(y), "half": labels_of(three, few)}
    found = out_of_fold(x, tasks, kinds=KINDS, folds=3, repeats=2, settings=QUICK)
    assert set(found) == set(KINDS)
    for kind in KINDS:
        for name, labels in tasks.items():
            scores = found[kind][name]
            assert len(scores.auc) == len(scores.chosen) == 6
            assert scores.mean_auc > 0.6
            for p in scores.repeats(len(labels.y)):
                np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
            assert 0 < scores.brier(labels.y) < 0.6


def test_out_of_fold_without_calibration_is_cross_validate():
    x, y = linear()
    how = {"hidden": 8, "max_epochs": 3}
    settings = HeadSettings(**how, calibrate=False)
    found = out_of_fold(x, {"t": labels_of(y)}, kinds=["mlp"], folds=3, settings=settings)
    expected = cross_validate(x, y, folds=3, **how)
    assert found["mlp"]["t"].auc == pytest.approx(expected.auc, abs=1e-3)
    assert all(map(np.array_equal, found["mlp"]["t"].test_rows, expected.test_rows))


@pytest.mark.parametrize("kind", KINDS)
def test_out_of_fold_never_uses_labels_or_inputs_of_the_test_users(kind, monkeypatch):
    x, y = linear()
    nested = nested_splits(y, 3, 1, 0)
    test = nested.outer[0][1]
    how = {"kinds": [kind], "folds": 3, "repeats": 1, "settings": QUICK}
    before = out_of_fold(x, {"t": labels_of(y)}, **how)[kind]["t"]
    swapped, changed = y.copy(), x.copy()
    swapped[test] = 1 - y[test]
    changed[test[:20]] *= -2
    fixed = replace(nested, y=swapped)  # folds depend on the classes, so they are kept by hand
    monkeypatch.setattr("lurm.heads.choice.nested_splits", lambda *_: fixed)
    after = out_of_fold(changed, {"t": labels_of(swapped)}, **how)[kind]["t"]
    np.testing.assert_allclose(after.probabilities[0][20:], before.probabilities[0][20:], atol=2e-3)
    assert after.chosen[0] == before.chosen[0]


def test_out_of_fold_gives_a_task_the_same_whatever_is_beside_it():
    x, y = linear()
    other = (x[:, 3] > 0).astype(np.int64)
    alone = out_of_fold(x, {"a": labels_of(y)}, kinds=["auto"], folds=3, settings=QUICK)
    both = out_of_fold(
        x,
        {"b": labels_of(other), "a": labels_of(y)},
        kinds=["logistic", "auto"],
        folds=3,
        settings=QUICK,
        n_threads=2,
    )
    assert both["auto"]["a"].auc == pytest.approx(alone["auto"]["a"].auc, abs=2e-3)


@pytest.mark.parametrize(("data", "best"), [(linear, "logistic"), (steps, "boosting")])
def test_auto_takes_the_kind_that_fits(data, best):
    x, y = data()
    found = out_of_fold(x, {"t": labels_of(y)}, kinds=KINDS, folds=3, repeats=1, settings=QUICK)
    singles = {kind: found[kind]["t"].mean_auc for kind in KINDS[:3]}
    assert found["auto"]["t"].mean_auc > max(singles.values()) - 0.01
    assert any(best in words for words in found["auto"]["t"].chosen)


def test_a_blend_of_two_blocks_knows_what_both_know():
    rng = np.random.default_rng(0)
    vector, counts = (rng.standard_normal((300, 4)).astype(np.float32) for _ in range(2))
    y = (vector[:, 0] + counts[:, 0] > 0).astype(np.int64)
    tasks = {"t": labels_of(y)}
    both = {"vector": vector, "counts": counts}
    how = {"kinds": ["logistic"], "folds": 3, "repeats": 1, "settings": QUICK}
    apart = [out_of_fold(x, tasks, **how)["logistic"]["t"].mean_auc for x in (vector, counts)]
    together = out_of_fold(both, tasks, **how)["logistic"]["t"]
    assert together.mean_auc > max(apart) + 0.1
    assert "logistic" in together.chosen[0]
    assert "of counts" in together.chosen[0]
    head = fit(both, y, 2, QUICK, kind="logistic", folds=3)
    assert isinstance(head, BlendedHead)
    assert ((predict(head, both)[:, 1] > 0.5) == y).mean() > 0.9
    with pytest.raises(ValueError, match="takes inputs of counts, got vector"):
        predict(head, vector)


def test_calibration_lowers_the_brier_score_of_heads_that_are_too_sure():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 60)).astype(np.float32)
    y = (x[:, 0] + 2 * rng.standard_normal(300) > 0).astype(np.int64)
    brier = {}
    for calibrate in (False, True):
        settings = HeadSettings(penalties=(100.0,), calibrate=calibrate)
        found = out_of_fold(x, {"t": labels_of(y)}, kinds=["logistic"], folds=3, settings=settings)
        brier[calibrate] = found["logistic"]["t"].brier(y)
    assert brier[True] < brier[False] - 0.01


def test_fold_heads_are_those_that_out_of_fold_scores():
    x, y = linear()
    how = {"folds": 3, "repeats": 1, "settings": QUICK}
    scores = out_of_fold(x, {"t": labels_of(y)}, kinds=["blend"], **how)["blend"]["t"]
    heads = list(fold_heads(x, y, kind="blend", **how))
    for (head, test), rows, expected in zip(
        heads, scores.test_rows, scores.probabilities, strict=True
    ):
        assert np.array_equal(test, rows)
        np.testing.assert_allclose(predict(head, x[test]), expected, atol=5e-3)


def test_carry_heads_scores_other_vectors_of_the_same_users():
    x, y = linear()
    how = {"kind": "logistic", "folds": 3, "repeats": 1, "settings": QUICK}
    own, carried = carry_heads(x, {"same": x, "turned": -x}, y, **how)
    assert carried["same"] == own
    assert np.mean(carried["turned"]) < 0.2


@pytest.mark.parametrize(("how", "message"), [
    ({"kinds": ["forest"]}, "expected one of logistic, sparse, mlp, boosting, blend, auto, got 'forest'"),
    ({"folds": 121}, "t: 121 folds need at least two classes with 121 users each"),
])  # fmt: skip
def test_out_of_fold_refuses_what_it_cannot_do(how, message):
    x, y = linear()
    with pytest.raises(ValueError, match=message):
        out_of_fold(x, {"t": labels_of(y)}, **{"folds": 3, "settings": QUICK, **how})
