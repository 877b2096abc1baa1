from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lurm.heads import HeadSettings, fit, load_head, predict, save_head, train_head
from lurm.storage import read_parquet, write_parquet, write_tensors
from lurm.tables import user_vectors_schema
from stages.apply_heads import main

PARAMS = Path(__file__).parents[2] / "params.yaml"
N_USERS, WIDTH = 60, 4
TASKS = {
    "coffee": {"labels": "labels", "column": "product_category", "value": "COFFEE"},
    "age": {"labels": "users.parquet", "column": "age"},
}
ARGS = [
    *("--month=2017-10", "--vectors=vectors.parquet", "--bags=boi", "--heads=heads"),
    "--predictions=predictions.parquet",
]


def write_settings(tasks):
    settings = yaml.safe_load(PARAMS.read_text(encoding="utf-8")) | {"tasks": tasks}
    Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def write_vectors(x, version="v1", space=None):
    columns = [
        [f"u{n:02d}" for n in range(len(x))],
        pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), WIDTH),
        [1] * len(x),
        pa.array([0.5] * len(x), pa.float32()),
        *([month] * len(x) for month in ("2017-01", "2017-10")),
        [version] * len(x),
        [space or version] * len(x),
    ]
    schema = user_vectors_schema(WIDTH, pa.string())
    write_parquet(pa.table([pa.array(c) for c in columns], schema=schema), "vectors.parquet")


def write_head(task, x, y, classes, version="v1"):
    about = {"task": task, "classes": classes, "model_version": version}
    about |= {"value": TASKS.get(task, {}).get("value")}
    head = train_head(x, y, len(classes), hidden=8, max_epochs=3)
    save_head(head, f"heads/{task}.safetensors", about)


@pytest.fixture
def x(tmp_path, monkeypatch):
    """A working folder with user vectors, and heads for a category and for an attribute."""
    monkeypatch.chdir(tmp_path)
    write_settings(TASKS)
    x = np.random.default_rng(0).standard_normal((N_USERS, WIDTH)).astype(np.float32)
    write_vectors(x)
    write_head("coffee", x, (x[:, 0] > 0).astype(int), ["no", "yes"])
    write_head("age", x, np.arange(N_USERS) % 3, ["19-24", "25-34", "35-44 | 45-54"])
    return x


def test_every_user_has_one_row_with_the_answer_to_every_task_by_name(x):
    main(ARGS)
    found = read_parquet("predictions.parquet")
    assert {field.name: str(field.type) for field in found.schema} == {
        "user_id": "string",
        "model_version": "string",
        "age": "string",
        "age_probability": "float",
        "coffee": "float",
    }
    assert found.column_names[2:] == sorted(found.column_names[2:])
    assert found["user_id"].equals(read_parquet("vectors.parquet")["user_id"])
    assert set(found["model_version"].to_pylist()) == {"v1"}
    coffee, _ = load_head("heads/coffee.safetensors")
    np.testing.assert_allclose(found["coffee"].to_numpy(), predict(coffee, x)[:, 1], rtol=1e-5)
    age, about = load_head("heads/age.safetensors")
    expected = predict(age, x)
    assert found["age"].to_pylist() == [about["classes"][row.argmax()] for row in expected]
    np.testing.assert_allclose(found["age_probability"].to_numpy(), expected.max(1), rtol=1e-5)


def test_users_in_many_groups_of_rows_have_the_same_answers(x, monkeypatch):
    main(ARGS)
    found = read_parquet("predictions.parquet")
    pq.write_table(read_parquet("vectors.parquet"), "vectors.parquet", row_group_size=7)
    monkeypatch.setattr("stages.apply_heads.ROWS", 10)
    main(ARGS)
    again = read_parquet("predictions.parquet")
    assert pq.ParquetFile("predictions.parquet").num_row_groups == 5
    assert again.select(["user_id", "age"]).equals(found.select(["user_id", "age"]))
    np.testing.assert_allclose(again["coffee"], found["coffee"], rtol=1e-5)


@pytest.mark.usefixtures("x")
def test_the_same_heads_and_vectors_give_the_same_bytes():
    main(ARGS)
    first = Path("predictions.parquet").read_bytes()
    main(ARGS)
    assert Path("predictions.parquet").read_bytes() == first


def test_a_user_is_scored_alike_in_any_company(x):
    main(ARGS)
    whole = read_parquet("predictions.parquet").slice(0, 5)
    write_vectors(x[:5])
    main(ARGS)
    alone = read_parquet("predictions.parquet")
    np.testing.assert_allclose(alone["coffee"].to_numpy(), whole["coffee"].to_numpy(), rtol=1e-5)
    assert alone["age"].to_pylist() == whole["age"].to_pylist()


def test_a_head_of_another_space_is_refused(x):
    write_vectors(x, version="v2")
    with pytest.raises(
        ValueError, match="head of age was trained on vectors of space v1, these are"
    ):
        main(ARGS)
    assert not Path("predictions.parquet").exists()


def test_apply_heads_leaves_out_a_task_that_was_skipped(x, caplog):
    write_tensors({}, "heads/age.safetensors", {"task": "age", "skipped": "a class of 2 users"})
    main(ARGS)
    assert read_parquet("predictions.parquet").column_names[2:] == ["coffee"]
    assert "age has no predictions: a class of 2 users" in caplog.text


def test_apply_heads_counts_interests_up_to_the_month_only(x):
    counts = np.log1p(np.where(x[:, :1] > 0, 4, 0)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    blocks = {"vector": x, "counts": counts}
    settings = HeadSettings(candidates=("logistic",))
    head = fit(blocks, y, 2, settings, kind="logistic", folds=3)
    about = {"task": "coffee", "classes": ["no", "yes"], "model_version": "v1", "value": "COFFEE"}
    about |= {"inputs": "vector+counts", "interests": [5]}
    save_head(head, "heads/coffee.safetensors", about)
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for month in params["months"]:
        late = month > "2017-10"
        met = [f"u{n:02d}" for n in range(N_USERS) if late or (month == "2017-02" and y[n])]
        columns = [
            met,
            pa.array([5] * len(met), pa.int32()),
            pa.array([4.0] * len(met), pa.float32()),
        ]
        names = ["user_id", "interest", "count"]
        write_parquet(pa.table(columns, names=names), f"boi/{month}.parquet")
    main(ARGS)
    found = read_parquet("predictions.parquet")["coffee"].to_numpy()
    np.testing.assert_allclose(found, predict(head, blocks)[:, 1], rtol=1e-5)


def test_a_head_serves_a_later_model_that_keeps_its_space(x):
    write_vectors(x)
    main(ARGS)
    before = read_parquet("predictions.parquet")
    write_vectors(x, version="v2", space="v1")
    main(ARGS)
    after = read_parquet("predictions.parquet")
    assert set(after["model_version"].to_pylist()) == {"v2"}
    assert after["coffee"].equals(before["coffee"])


@pytest.mark.usefixtures("x")
def test_vectors_that_do_not_say_whose_they_are_are_refused():
    write_parquet(read_parquet("vectors.parquet").drop(["user_id"]), "vectors.parquet")
    with pytest.raises(ValueError, match=r"vectors\.parquet: column 'user_id' is missing"):
        main(ARGS)


@pytest.mark.usefixtures("x")
def test_a_missing_head_is_named():
    Path("heads/age.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing age\.safetensors"):
        main(ARGS)
    assert not Path("predictions.parquet").exists()


@pytest.mark.usefixtures("x")
def test_the_head_of_a_task_that_is_gone_is_named_and_not_applied(caplog):
    write_settings({"coffee": TASKS["coffee"]})
    main(ARGS)
    assert read_parquet("predictions.parquet").column_names[2:] == ["coffee"]
    assert "age not among the tasks any more, not applied" in caplog.text


def test_two_columns_of_one_name_are_refused(x):
    write_settings(TASKS | {"age_probability": TASKS["coffee"]})
    write_head("age_probability", x, np.arange(N_USERS) % 2, ["no", "yes"])
    with pytest.raises(ValueError, match="two columns would be called age_probability"):
        main(ARGS)
