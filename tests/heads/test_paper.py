import numpy as np
import pyarrow as pa
import pytest
import torch

from lurm.heads import (
    cross_validate,
    load_head,
    normalizer,
    predict,
    roc_curves,
    save_head,
    splits,
    stratified_folds,
    train_head,
    vector_matrix,
    vector_space,
)

QUICK = {"hidden": 8, "max_epochs": 8, "batch_size": 64, "learning_rate": 2e-2}


def planted(n_users=300, width=8, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n_users)
    x = rng.standard_normal((n_users, width)).astype(np.float32)
    x[np.arange(n_users), y] += 3
    return x, y


def test_the_normalizer_centres_and_divides_by_one_number():
    x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    mean, rms = normalizer(x)
    assert mean.tolist() == [2, 20]
    assert rms.item() == pytest.approx(np.sqrt((1 + 1 + 100 + 100) / 4))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(bad):
    x, y = planted()
    x[3, 2] = bad
    with pytest.raises(ValueError, match="found NaN or infinity"):
        train_head(x, y, 2)


def test_vectors_that_are_all_equal_are_refused():
    with pytest.raises(ValueError, match="nothing to learn from"):
        train_head(np.ones((20, 3)), np.arange(20) % 2, 2)


def test_folds_share_out_every_class_evenly():
    y = np.random.default_rng(0).choice(4, 203, p=[0.6, 0.2, 0.15, 0.05])
    fold = stratified_folds(y, 5, np.random.default_rng(1))
    for of_class in [np.ones(len(y), bool), *(y == c for c in range(4))]:
        sizes = np.bincount(fold[of_class], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_every_user_is_tested_once_per_repeat_and_never_trained_on_meanwhile():
    y = np.arange(50) % 3
    parts = list(splits(y, folds=5, repeats=2, seed=0))
    for train, test in parts:
        assert sorted([*train, *test]) == list(range(50))
    for repeat in (parts[:5], parts[5:]):
        assert sorted(np.concatenate([test for _, test in repeat])) == list(range(50))
    assert not np.array_equal(parts[0][1], parts[5][1])


@pytest.mark.parametrize("n_classes", [2, 4])
def test_planted_classes_are_found(n_classes):
    scores = cross_validate(*planted(n_classes=n_classes), repeats=1, **QUICK)
    assert scores.mean_auc > 0.95
    assert scores.mean_accuracy > 0.85


def test_random_vectors_score_about_one_half():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 16)).astype(np.float32)
    scores = cross_validate(x, rng.integers(0, 2, 2000), repeats=1, **QUICK)
    assert abs(scores.mean_auc - 0.5) < 0.05


def test_heads_and_normalizers_never_see_the_test_part(monkeypatch):
    x, y = planted(n_users=60)
    _, test = next(splits(y, folds=5, repeats=1, seed=0))
    corrupt = x.copy()
    corrupt[test] = 1e6
    first_heads = []
    for vectors in (x, corrupt):
        heads = []

        def keep(*args, heads=heads, **kwargs):
            heads.append(train_head(*args, **kwargs))
            return heads[-1]

        monkeypatch.setattr("lurm.heads.paper.train_head", keep)
        cross_validate(vectors, y, repeats=1, **QUICK)
        first_heads.append(heads[0])
    assert torch.equal(first_heads[0].mean, first_heads[1].mean)
    assert torch.equal(first_heads[0].rms, first_heads[1].rms)
    assert torch.equal(first_heads[0].mlp[0].weight, first_heads[1].mlp[0].weight)


def test_a_class_smaller_than_the_folds_is_refused():
    x, _ = planted(n_users=20)
    with pytest.raises(ValueError, match="5 folds need at least two classes with 5 users each"):
        cross_validate(x, np.array([0] * 17 + [1] * 3))


def test_a_single_class_is_refused():
    x, _ = planted(n_users=20)
    with pytest.raises(ValueError, match="at least two classes"):
        cross_validate(x, np.zeros(20, dtype=np.int64))


def test_training_stops_early_and_returns_the_best_epoch():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 50)).astype(np.float32), rng.integers(0, 2, 200)
    patient = train_head(x, y, 2, max_epochs=40, patience=40)  # noise: the best epoch is early
    stopped = train_head(x, y, 2, max_epochs=40, patience=6)
    assert torch.equal(patient.mlp[0].weight, stopped.mlp[0].weight)


def test_a_head_of_few_users_still_holds_one_back():
    x, y = planted(n_users=6)
    untrained = train_head(x, y, 2, max_epochs=1, learning_rate=1e-12, validation_share=0.1)
    trained = train_head(x, y, 2, max_epochs=5, patience=5, learning_rate=0.1, validation_share=0.1)
    assert not torch.allclose(untrained.mlp[0].weight, trained.mlp[0].weight)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    x, y = planted()
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        torch.manual_seed(len(name) + seed)  # the caller's own random state does not matter
        save_head(train_head(x, y, 2, seed=seed, **QUICK), tmp_path / name, {"task": "t"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_training_leaves_the_callers_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    train_head(*planted(n_users=40), 2, **QUICK)
    assert torch.equal(torch.rand(3), expected)


def test_a_head_saved_and_loaded_predicts_the_same(tmp_path):
    x, y = planted(n_classes=3)
    head = train_head(x, y, 3, **QUICK)
    save_head(head, tmp_path / "head.safetensors", {"classes": ["a", "b", "c"]})
    loaded, settings = load_head(tmp_path / "head.safetensors")
    assert (predict(loaded, x) == predict(head, x)).all()
    assert settings == {"classes": ["a", "b", "c"]}


def test_probabilities_of_a_user_sum_to_one():
    x, y = planted(n_classes=3)
    np.testing.assert_allclose(predict(train_head(x, y, 3, **QUICK), x).sum(1), 1, rtol=1e-5)


def test_vectors_of_another_width_are_refused():
    x, y = planted()
    with pytest.raises(ValueError, match="takes vectors of width 8, got 5"):
        predict(train_head(x, y, 2, **QUICK), x[:, :5])


def test_there_is_a_curve_for_the_second_of_two_classes_and_for_each_of_more():
    grid = np.linspace(0, 1, 11)
    for classes in (("no", "yes"), ("a", "b", "c")):
        x, y = planted(n_classes=len(classes))
        curves = roc_curves(y, cross_validate(x, y, repeats=1, **QUICK), classes, grid)
        assert tuple(curves) == (("yes",) if len(classes) == 2 else classes)
        assert all(np.trapezoid(curve, grid) > 0.85 for curve in curves.values())


def vectors_table(rows, versions, spaces=None):
    columns = {
        "vector": pa.array(rows, pa.list_(pa.float32(), 2)),
        "model_version": pa.array(versions, pa.string()),
    }
    if spaces is not None:
        columns["space_version"] = pa.array(spaces, pa.string())
    return pa.table(columns)


def test_the_table_of_vectors_becomes_a_matrix_also_when_sliced():
    table = vectors_table([[0, 0], [1, 2], [3, 4]], ["v"] * 3)
    assert vector_matrix(table.slice(1)).tolist() == [[1, 2], [3, 4]]
    assert vector_matrix(pa.concat_tables([table, table])).shape == (6, 2)


def test_vectors_of_several_models_of_one_space_are_one_matrix():
    table = vectors_table([[0, 0], [1, 2]], ["v", "w"], ["v", "v"])
    assert vector_matrix(table).tolist() == [[0, 0], [1, 2]]
    assert vector_space(table) == "v"


def test_vectors_from_before_there_were_spaces_lie_in_that_of_their_model():
    assert vector_space(vectors_table([[0, 0]], ["v"])) == "v"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"user_id": [1]}), "expected columns vector"),
        (pa.table({"vector": [1.0], "model_version": ["v"]}), "found vector double"),
        (vectors_table([[1, 2], [1, 2]], ["v", "w"]), "expected rows of one space, found 2"),
        (
            vectors_table([[1, 2], [1, 2]], ["v", "v"], ["v", "w"]),
            r"expected rows of one space, found 2 \(v, w\)",
        ),
        (vectors_table([], []), "found a table without rows"),
        (vectors_table([[1, 2], [1, np.nan]], ["v", "v"]), "expected finite numbers"),
        (vectors_table([[1, 2], None], ["v", "v"]), "some users have no vector"),
    ],
)
def test_tables_that_hold_no_vectors_of_one_space_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        vector_matrix(table)
