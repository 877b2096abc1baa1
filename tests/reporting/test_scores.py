import json

import pytest

from lurm.reporting.scores import summary
from lurm.reporting.terminal import main, table
from tests.reporting.runs import head

HEADS = [head("coffee", {"no": 1200, "yes": 34}, auc=0.8), head("age", {"a": 9, "b": 8}, auc=0.6)]


def test_the_summary_holds_the_scores_of_every_task_and_their_mean():
    scores = summary(HEADS, "v")
    assert scores["model_version"] == "v"
    assert scores["mean_auc"] == pytest.approx(0.7)
    assert scores["mean_auc_se"] == pytest.approx(0.00645 * 2**0.5 / 2)
    figures = {"auc": 0.8, "auc_se": 0.00645, "acc": 0.615, "n_users": 1234}
    figures |= {"brier": 0.2345, "calibration_error": 0.0123}
    assert scores["tasks"][0] == {"task": "coffee", **figures}


def test_the_terminal_shows_an_aligned_table_and_where_the_page_lies(tmp_path, capsys):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(summary(HEADS, "v")), encoding="utf-8")
    main([str(path), "reports/report.html"])
    assert capsys.readouterr().out.splitlines() == [
        "Model v, scores in percent",
        "",
        "task    users         AUC   ACC  Brier  calib.",
        "coffee  1,234  80.0 ± 0.6  61.5   23.4     1.2",
        "age        17  60.0 ± 0.6  61.5   23.4     1.2",
        "mean           70.0 ± 0.5",
        "",
        "Report: reports/report.html",
    ]


def test_summary_and_table_show_the_mean_of_each_kind_of_tasks():
    scores = summary(HEADS, "v", {"coffee": "category", "age": "attribute"})
    assert scores["mean_auc_by_kind"] == {"category": 0.8, "attribute": 0.6}
    assert [line.split() for line in table(scores).splitlines()[3:5]] == [
        ["mean,", "category", "80.0"],
        ["mean,", "attribute", "60.0"],
    ]


def test_without_tasks_there_is_no_mean():
    assert summary([], "v")["mean_auc"] is None
    assert table(summary([], "v")) == "task  users  AUC  ACC  Brier  calib."
