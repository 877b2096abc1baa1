import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from lurm.storage import file_hash, read_json, write_json, write_parquet, write_text
from stages.compare_months import main

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
MONTHS = ["2017-01", "2017-02", "2017-03", "2017-04", "2017-05"]
ARGS = [
    *("--profiles=profiles", "--training=training", "--labels=labels"),
    *("--result=months.json", "--plot=months.csv"),
]


def profile(month, behaviors=100, mix=None, user_id_type="BIGINT"):
    pinned = Path("training/behaviors") / f"{month}.parquet"
    if not pinned.exists():
        write_text(month, pinned)
    values = {"behaviors": behaviors, "users": 10, "items": 5, "mix": mix or {"A": 0.5, "B": 0.5}}
    values |= {"sha256": file_hash(pinned), "user_id_type": user_id_type}
    write_json(values, f"profiles/{month}.json")


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """Five even months, of which three were trained on and the fourth gave the labels."""
    monkeypatch.chdir(tmp_path)
    params = json.loads(json.dumps(PARAMS))
    params["months"] = {
        month: {"previous": before, "items": "data/landing/items.parquet"}
        for month, before in zip(MONTHS, ["start", *MONTHS], strict=False)
    }
    params["training"] |= {"through": "2017-03", "months": MONTHS[:3]}
    params["evaluation"] |= {"as_of": "2017-03", "label_months": ["2017-04"]}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for month in MONTHS:
        profile(month)
    source = {"behaviors_sha256": read_json("profiles/2017-04.json")["sha256"]}
    labels = pa.table({"user_id": [1]}).replace_schema_metadata(source)
    write_parquet(labels, "labels/2017-04.parquet")


def test_even_months_give_no_warning():
    main(ARGS)
    assert read_json("months.json") == {
        "months": 5,
        "n_warnings": 0,
        "warnings": [],
        "n_due_for_retraining": 0,
        "due_for_retraining": [],
    }
    frame = pd.read_csv("months.csv")
    assert frame["month"].tolist() == MONTHS
    assert frame["volume_change"].tolist()[1:] == [0, 0, 0, 0]


def test_a_month_of_unusual_volume_and_one_of_unusual_mix_are_named():
    profile("2017-03", behaviors=50)
    profile("2017-04", behaviors=80, mix={"A": 0.9, "C": 0.1})
    main(ARGS)
    assert [
        (w["month"], w["figure"], round(w["value"], 3))
        for w in read_json("months.json")["warnings"]
        if w["month"] < "2017-05"
    ] == [
        ("2017-03", "volume_change", -0.5),
        ("2017-04", "mix_distance", 0.5),
    ]


def test_corrected_training_and_label_months_are_due_and_one_that_taught_nothing_is_not():
    for month in ("2017-02", "2017-04", "2017-05"):
        changed = read_json(f"profiles/{month}.json") | {"sha256": "0" * 64}
        write_json(changed, f"profiles/{month}.json")
    main(ARGS)
    assert read_json("months.json")["due_for_retraining"] == ["2017-02", "2017-04"]


@pytest.mark.parametrize(
    "lost",
    ["profiles/2017-02.json", "training/behaviors/2017-02.parquet", "labels/2017-04.parquet"],
)
def test_a_missing_month_is_refused(lost):
    Path(lost).unlink()
    with pytest.raises(FileNotFoundError, match=f"missing {Path(lost).name}"):
        main(ARGS)
    assert not Path("months.json").exists()


def test_a_file_of_a_month_that_is_not_listed_is_not_read():
    write_text("not json", "profiles/2016-12.json")
    main(ARGS)
    assert read_json("months.json")["months"] == 5


def test_user_ids_that_change_their_type_between_months_are_refused():
    profile("2017-03", user_id_type="VARCHAR")
    with pytest.raises(ValueError, match="expected user_id to be of one type"):
        main(ARGS)
