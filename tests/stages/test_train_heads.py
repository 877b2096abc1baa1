import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from lurm.heads import load_head, predict, vector_matrix
from lurm.storage import read_json, read_parquet, read_settings, write_parquet
from lurm.tables import user_vectors_schema
from stages.train_heads import main

PARAMS = Path(__file__).parents[2] / "params.yaml"
N_USERS = 120


def write_labels(users, month, value="COFFEE"):
    texts = {"column": "product_category", "value": value}
    columns = {name: pa.array([text] * len(users), pa.string()) for name, text in texts.items()}
    table = pa.table({"user_id": pa.array(users, pa.int64()), **columns})
    write_parquet(table, f"labels/{month}.parquet")


def write_vectors(x, order=None, version="v1"):
    order = np.arange(len(x)) if order is None else order
    n, width = x.shape
    flat = pa.array(x[order].astype(np.float32).ravel())
    columns = [
        order,
        pa.FixedSizeListArray.from_arrays(flat, width),
        [1] * n,
        pa.array([0.5] * n, pa.float32()),
        ["2017-01"] * n,
        ["2017-10"] * n,
        [version] * n,
        ["space"] * n,
    ]
    table = pa.table([pa.array(c) for c in columns], schema=user_vectors_schema(width, pa.int64()))
    write_parquet(table, "vectors.parquet")


@pytest.fixture
def x(tmp_path, monkeypatch):
    """A working folder in which the users whose first number is positive will buy coffee."""
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    settings["evaluation"].update(folds=3, repeats=1, hidden=8, max_epochs=5, learning_rate=0.02)
    Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    x = np.random.default_rng(0).standard_normal((N_USERS, 4))
    buyers = np.flatnonzero(x[:, 0] > 0)
    write_labels(buyers[::2], "2017-11")
    write_labels(buyers[1::2], "2017-12")
    write_vectors(x)
    ages = ["young" if row[1] > 0 else "old" for row in x]
    write_parquet(pa.table({"user_id": np.arange(N_USERS), "age": ages}), "users.parquet")
    return x


def train(task="coffee", labels="labels", to="out"):
    files = f"--head {to}/head.safetensors --result {to}/result.json --roc {to}/roc.csv"
    main(f"--task {task} --labels {labels} --vectors vectors.parquet --bags boi {files}".split())
    return [Path(to, name).read_bytes() for name in ("head.safetensors", "result.json", "roc.csv")]


@pytest.mark.parametrize(
    ("task", "labels", "classes"),
    [("coffee", "labels", ["no", "yes"]), ("age", "users.parquet", ["old", "young"])],
)
@pytest.mark.usefixtures("x")
def test_a_task_gets_its_scores_its_curve_and_a_head_that_knows_what_it_is(task, labels, classes):
    train(task, labels)
    result = read_json("out/result.json")
    assert result["task"] == task
    assert result["n_users"] == sum(c["n_users"] for c in result["classes"]) == N_USERS
    assert [c["class"] for c in result["classes"]] == classes
    assert result["auc"] == pytest.approx(np.mean([fold["auc"] for fold in result["folds"]]))
    assert len(result["folds"]) == 3
    assert result["auc"] > 0.8
    head, settings = load_head("out/head.safetensors")
    assert settings["classes"] == classes
    assert settings["model_version"] == "v1"
    assert settings["space_version"] == "space"
    assert predict(head, vector_matrix(read_parquet("vectors.parquet"))).shape == (N_USERS, 2)
    rows = list(csv.DictReader(Path("out/roc.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 101
    assert {row["class"] for row in rows} == {classes[1]}
    assert [float(row["fpr"]) for row in rows] == [n / 100 for n in range(101)]
    assert (float(rows[0]["tpr"]), float(rows[-1]["tpr"])) == (0, 1)


def test_neither_a_rerun_nor_the_order_of_users_changes_a_byte(x):
    first = train()
    assert train() == first
    write_vectors(x, order=np.random.default_rng(1).permutation(N_USERS))
    assert train() == first


@pytest.mark.usefixtures("x")
def test_months_outside_the_label_months_change_nothing():
    first = train()
    write_labels(range(N_USERS), "2018-01")
    write_labels(range(N_USERS), "2017-10")
    assert train() == first


@pytest.mark.usefixtures("x")
def test_a_missing_label_month_is_named_and_nothing_is_written():
    Path("labels/2017-12.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing 2017-12\.parquet"):
        train()
    assert not Path("out").exists()


@pytest.mark.usefixtures("x")
@pytest.mark.parametrize(("n_buyers", "reason"), [(0, "single class"), (2, "a class of 2 users")])
def test_train_heads_skips_a_task_that_cannot_be_trained(n_buyers, reason, caplog):
    for month in ("2017-11", "2017-12"):
        write_labels(range(n_buyers), month)
    train()
    result = read_json("out/result.json")
    assert result["task"] == "coffee"
    assert reason in result["skipped"]
    assert read_settings("out/head.safetensors")["skipped"] == result["skipped"]
    assert Path("out/roc.csv").read_text(encoding="utf-8").splitlines() == ['"fpr","tpr","class"']
    assert "coffee is skipped" in caplog.text


@pytest.mark.parametrize("kind", ["logistic", "mlp", "boosting", "blend"])
@pytest.mark.usefixtures("x")
def test_train_heads_takes_the_kind_of_the_settings(kind):
    settings = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    settings["evaluation"] |= {"head": kind}
    Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    train()
    result = read_json("out/result.json")
    if kind != "blend":
        assert [part["kind"] for part in result["head"]] == [kind]
    assert 0 < result["brier"] < 0.25
    assert 0 <= result["calibration_error"] < 0.3


@pytest.mark.usefixtures("x")
def test_train_heads_gives_a_task_the_counts_beside_the_vector(x):
    settings = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    settings["tasks"]["coffee"]["inputs"] = "vector+counts"
    settings["evaluation"] |= {"head": "logistic"}
    Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    for month in settings["months"]:
        if month <= settings["evaluation"]["as_of"]:
            met = np.flatnonzero(x[:, 0] > 0) if month == "2017-03" else np.arange(N_USERS)
            columns = {"interest": np.full(len(met), 7 if month == "2017-03" else 3, np.int32)}
            columns |= {"count": np.full(len(met), 2, np.float32)}
            write_parquet(pa.table({"user_id": met, **columns}), f"boi/{month}.parquet")
    write_vectors(
        np.random.default_rng(5).standard_normal((N_USERS, 4))
    )  # the counts tell, these do not
    train()
    result = read_json("out/result.json")
    assert result["auc"] > 0.9
    _, about = load_head("out/head.safetensors")
    assert about["interests"] == [3, 7]


@pytest.mark.usefixtures("x")
def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"expected one of .*coffee, .*got 'coffe'"):
        train("coffe")


@pytest.mark.usefixtures("x")
def test_an_attribute_task_on_a_folder_is_refused():
    with pytest.raises(ValueError, match="labels is a folder of label months"):
        train("age", "labels")
