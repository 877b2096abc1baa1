"""What the quick form draws, and records that outlive a process."""

import numpy as np
import pytest

from benchmarks import scorecard
from lurm.tasks import TaskLabels


def test_drawn_users_are_the_same_in_every_task():
    rng = np.random.default_rng(0)
    tasks = {
        name: TaskLabels(np.arange(200), rng.integers(0, 2, 200), ("no", "yes"))
        for name in ("tea", "coffee")
    }
    drawn = scorecard.drawn_users(tasks, 200, 80)
    assert drawn["tea"].rows.tolist() == drawn["coffee"].rows.tolist()
    assert len(drawn["tea"].rows) == 80
    assert (drawn["tea"].y == tasks["tea"].y[drawn["tea"].rows]).all()
    assert scorecard.drawn_users(tasks, 200, 200) == tasks


def test_read_record_gives_each_task_its_own_influence_whatever_the_order_of_tasks(tmp_path):
    record = {
        "key": "k",
        "tasks": {"tea": {"auc": [0.5]}, "age": {"auc": [0.6]}},
        "influence": {"tea": np.ones(3, np.float32), "age": np.zeros(3, np.float32)},
    }
    scorecard.write_record(record, tmp_path / "m.json")
    result = scorecard.read_record(tmp_path / "m.json")
    assert result["influence"]["tea"].tolist() == [1, 1, 1]
    assert result["influence"]["age"].tolist() == [0, 0, 0]
    assert result["tasks"] == record["tasks"]


@pytest.mark.parametrize("missing", ["m.json", "m.npy"])
def test_read_record_of_which_a_file_is_missing_has_no_key(tmp_path, missing):
    record = {"key": "k", "tasks": {"tea": {}}, "influence": {"tea": np.ones(3, np.float32)}}
    scorecard.write_record(record, tmp_path / "m.json")
    (tmp_path / missing).unlink()
    assert scorecard.read_record(tmp_path / "m.json") == {"key": None}
