from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lurm.params import load_params
from lurm.reporting.report_page import report_page
from lurm.storage import read_json, write_csv, write_json, write_parquet
from stages.report import main
from tests.reporting.runs import head, make_run

ARGS = "--reports reports --interests interests.parquet --page reports/report.html"
ARGS = [*ARGS.split(), "--scores", "reports/scores.json"]


def write_run(run):
    """The files of the stages before, as they write them; returns the page that is due."""
    Path("params.yaml").write_text(yaml.safe_dump(dict(run.settings), sort_keys=False))
    kinds = {"catalog": run.catalog, "validation": run.months, "assign_items": run.assigned}
    kinds["drift"] = run.drift
    kinds["heads"] = {head["task"]: head for head in run.heads}
    for kind, results in kinds.items():
        for name, result in results.items():
            write_json(result, f"reports/{kind}/{name}.json")
    for name, result in {
        "months": run.comparison,
        "embed_items": run.items,
        "cluster_interests": run.clustering,
        "pretrain_smen": run.smen,
    }.items():
        write_json(result, f"reports/{name}.json")
    rows = list(run.trailing.values())
    write_csv({name: [row[name] for row in rows] for name in rows[0]}, "reports/months.csv")
    for name, unit, losses in (
        ("embed_items", "step", run.item_losses),
        ("pretrain_smen", "epoch", run.smen_losses),
    ):
        write_csv({unit: range(1, len(losses) + 1), "loss": losses}, f"reports/{name}.csv")
    for task, curves in run.roc.items():
        points = [(*point, name) for name, curve in curves.items() for point in curve]
        columns = zip(("fpr", "tpr", "class"), zip(*points, strict=True), strict=True)
        write_csv(dict(columns), f"reports/roc/{task}.csv")
    write_parquet(run.interests, "interests.parquet")
    settings = load_params("params.yaml").model_dump(mode="json")
    return report_page(replace(run, settings=settings), "validation")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run()
    write_run(run)
    return run


def test_the_page_tells_what_the_stages_wrote(run):
    due = write_run(run)
    main(ARGS)
    assert Path("reports/report.html").read_text(encoding="utf-8") == due


def test_scores_of_all_tasks_are_written(run):
    main(ARGS)
    scores = read_json("reports/scores.json")
    assert scores == run.scores | {"mean_auc_by_kind": scores["mean_auc_by_kind"]}
    assert set(scores["mean_auc_by_kind"]) == {"category", "attribute"}
    assert [task["task"] for task in scores["tasks"]] == ["coffee", "age"]


@pytest.mark.usefixtures("run")
def test_links_lead_from_where_the_page_lies():
    args = [a.replace("reports/report.html", "elsewhere/deep/page.html") for a in ARGS]
    main(args)
    page = Path("elsewhere/deep/page.html").read_text(encoding="utf-8")
    assert 'href="../../reports/validation/2017-10.html"' in page


@pytest.mark.usefixtures("run")
def test_a_rerun_gives_the_same_bytes_and_other_months_change_nothing():
    main(ARGS)
    paths = [Path("reports/report.html"), Path("reports/scores.json")]
    first = [path.read_bytes() for path in paths]
    write_json({"anything": 1}, "reports/validation/2018-02.json")
    write_json({"anything": 1}, "reports/heads/forgotten.json")
    main(ARGS)
    assert [path.read_bytes() for path in paths] == first


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("kind", ["catalog", "validation", "assign_items", "drift"])
def test_a_missing_month_is_named_and_nothing_is_written(kind):
    Path(f"reports/{kind}/2017-12.json").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{kind}: .*missing 2017-12\.json"):
        main(ARGS)
    assert not Path("reports/report.html").exists()
    assert not Path("reports/scores.json").exists()


@pytest.mark.usefixtures("run")
def test_classes_that_look_like_numbers_stay_names():
    heads = [head("age", {"01": 20, "2": 21, "2.0": 22})]
    due = write_run(make_run(tasks=heads))
    main(ARGS)
    assert Path("reports/report.html").read_text(encoding="utf-8") == due
