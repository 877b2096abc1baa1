from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lurm.params import load_params
from lurm.reporting.cards import data_card, model_card
from lurm.storage import write_json
from stages.cards import main
from tests.reporting.runs import make_run
from tests.reporting.test_cards import make_release

ARGS = [
    "--reports=reports",
    "--confidence=confidence.json",
    "--data-card=data.md",
    "--model-card=model.md",
]


@pytest.fixture
def release(tmp_path, monkeypatch):
    """The files of the stages before, as they write them."""
    monkeypatch.chdir(tmp_path)
    release = make_release(make_run())
    Path("params.yaml").write_text(yaml.safe_dump(dict(release.settings), sort_keys=False))
    kinds = {"catalog": release.catalog, "validation": release.months, "drift": release.drift}
    kinds["heads"] = {head["task"]: head for head in release.heads}
    kinds["index"] = {list(release.months)[-1]: release.index}
    for kind, results in kinds.items():
        for name, result in results.items():
            write_json(result, f"reports/{kind}/{name}.json")
    for name, result in {
        "months": release.comparison,
        "embed_items": release.items,
        "cluster_interests": release.clustering,
        "pretrain_smen": release.smen,
        "scores": release.scores,
    }.items():
        write_json(result, f"reports/{name}.json")
    write_json(release.confidence, "confidence.json")
    return replace(release, settings=load_params("params.yaml").model_dump(mode="json"))


def test_both_cards_tell_what_the_stages_wrote(release):
    main(ARGS)
    assert Path("data.md").read_text("utf-8") == data_card(release)
    assert Path("model.md").read_text("utf-8") == model_card(release)


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("kind", ["catalog", "validation", "drift", "index"])
def test_a_missing_month_is_named_and_nothing_is_written(kind):
    Path(f"reports/{kind}/2018-01.json").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{kind}: .*missing 2018-01\.json"):
        main(ARGS)
    assert not Path("data.md").exists()


@pytest.mark.usefixtures("release")
def test_a_rerun_gives_the_same_bytes():
    main(ARGS)
    first = Path("data.md").read_bytes(), Path("model.md").read_bytes()
    main(ARGS)
    assert (Path("data.md").read_bytes(), Path("model.md").read_bytes()) == first
