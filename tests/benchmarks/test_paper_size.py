"""The extrapolation to the paper's size, on figures that can be followed by hand."""

import pytest

from benchmarks import paper_size
from lurm.storage import write_json

STAGES = {"pretrain_smen": 1, "train_heads": 1, "encode_users": 24, "index_users": 24}


def measured(users, seconds):
    rows = [
        {
            "stage": name,
            "users": users,
            "runs": runs,
            "cpu_seconds": seconds,
            "seconds": seconds,
            "longest": seconds / runs,
            "peak_mb": 500 + users / 1000,
        }
        for name, runs in STAGES.items()
    ]
    rows.append(rows[0] | {"stage": "report", "cpu_seconds": 1})
    kinds = dict.fromkeys(paper_size.DATA, 5 * users)
    return {"rows": rows, "bytes": [{"users": users, **kinds}]}


@pytest.fixture
def found():
    small, large = measured(1000, 10 + 24), measured(10_000, 10 + 240)
    return {key: small[key] + large[key] for key in small}


def test_what_every_process_takes_to_start_is_not_in_it(found):
    row = paper_size.cost(found, "pretrain_smen", 10**6)  # 24 ms a user
    assert row["once"] == "a training"
    assert row["cpu_s_per_1e6_users"] == pytest.approx(24_000)
    assert row["cpu_hours"] == pytest.approx(24_000 / 3600)


def test_stages_add_up_by_how_often_they_run(found):
    rows = paper_size.costs(found, 10**6)
    month, training = (paper_size.together(rows, once) for once in ("a month", "a training"))
    assert month["cpu_s_per_1e6_users"] == training["cpu_s_per_1e6_users"] / 24
    assert training["hours"] == pytest.approx(2 * 24_000 / 3600)


def test_a_monthly_stage_costs_a_month_and_an_index_more_than_in_proportion(found):
    row = paper_size.cost(found, "encode_users", 10**6)
    assert row["once"] == "a month"
    assert row["cpu_hours"] == pytest.approx(1000 / 3600)
    index = paper_size.cost(found, "index_users", 10**6)
    assert index["cpu_hours"] == pytest.approx(10 * 1000 / 3600)  # a hundred times the users


def test_a_month_costs_what_the_longest_did_when_all_users_had_come_in(found):
    mean = paper_size.cost(found, "encode_users", 10**6)["cpu_hours"]
    for row in found["rows"]:
        row["longest"] *= 1.5
    assert paper_size.cost(found, "encode_users", 10**6)["cpu_hours"] == pytest.approx(1.5 * mean)


def test_hours_are_those_on_the_cores_that_a_stage_can_use(found):
    spread = {name: paper_size.cost(found, name, 10**6) for name in ("encode_users", "train_heads")}
    assert spread["encode_users"]["hours"] == pytest.approx(1000 / 3600 / 640)
    assert spread["train_heads"]["hours"] == spread["train_heads"]["cpu_hours"]


def test_memory_grows_as_it_did_between_the_sizes(found):
    assert paper_size.cost(found, "index_users", 10**6)["memory_gb"] == pytest.approx(1.5)
    assert paper_size.cost(found, "train_heads", 10**6)["memory_gb"] == "bounded"


def test_stages_that_do_not_follow_users_are_left_out(found):
    assert [row["stage"] for row in paper_size.costs(found, 10**6)] == list(STAGES)


def test_both_tables_are_printed_and_one_size_is_not_enough(found, tmp_path, capsys):
    assert paper_size.storage(found, "states", 10**12)["terabytes"] == pytest.approx(5)
    write_json(found, tmp_path / "whole.json")
    paper_size.main([f"--measured={tmp_path / 'whole.json'}"])
    told = capsys.readouterr().out
    assert all(name in told for name in (*STAGES, *paper_size.DATA))
    write_json(measured(1000, 1.0), tmp_path / "one.json")
    with pytest.raises(ValueError, match="expected two sizes or more, found one"):
        paper_size.main([f"--measured={tmp_path / 'one.json'}"])
