"""The extrapolation to the paper's size, on figures that can be followed by hand."""

import pytest

from benchmarks import paper_size
from lurm.storage import write_json


def measured(users, seconds):
    stages = [(name, 1) for name in paper_size.TRAINING] + [(n, 24) for n in paper_size.MONTHLY]
    rows = [
        {"stage": name, "users": users, "runs": runs, "cpu_seconds": seconds}
        for name, runs in stages
    ]
    kinds = dict.fromkeys(paper_size.MONTHLY_DATA, 5 * users)
    return {"rows": rows, "bytes": [{"users": users, **kinds}]}


@pytest.fixture
def found():
    small, large = measured(1000, 10 + 24), measured(10_000, 10 + 240)
    return {key: small[key] + large[key] for key in small}


def test_what_every_process_takes_to_start_is_not_in_it(found):
    row = paper_size.cost(found, "pretrain_smen", 10**6)  # 24 ms a user
    assert row["cpu_s_per_1e6_users"] == pytest.approx(24_000)
    assert row["cpu_hours"] == pytest.approx(24_000 / 3600)
    assert row["hours_on_64_cores"] == pytest.approx(24_000 / 3600 / 64)


def test_a_monthly_stage_costs_a_month_and_an_index_more_than_in_proportion(found):
    assert paper_size.cost(found, "encode_users", 10**6)["cpu_hours"] == pytest.approx(1000 / 3600)
    index = paper_size.cost(found, "index_users", 10**6)
    assert index["cpu_hours"] == pytest.approx(10 * 1000 / 3600)  # a hundred times the users


def test_both_tables_are_printed_and_one_size_is_not_enough(found, tmp_path, capsys):
    assert paper_size.storage(found, "states", 10**12)["terabytes"] == pytest.approx(5)
    write_json(found, tmp_path / "whole.json")
    paper_size.main([f"--measured={tmp_path / 'whole.json'}"])
    told = capsys.readouterr().out
    assert all(name in told for name in (*paper_size.MONTHLY, *paper_size.MONTHLY_DATA))
    write_json(measured(1000, 1.0), tmp_path / "one.json")
    with pytest.raises(ValueError, match="expected two sizes or more, found one"):
        paper_size.main([f"--measured={tmp_path / 'one.json'}"])
