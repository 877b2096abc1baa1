"""Settings: what is wrong is named by its key, one line each, and nothing wrong gets through."""

import re
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from lurm.params import load_params, parse_params

FILE = Path(__file__).parents[1] / "params.yaml"
SETTINGS = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def changed(key, value):
    """The project's settings with one key, written with dots, set anew or (``...``) taken out."""
    settings = deepcopy(SETTINGS)
    *sections, last = key.split(".")
    here = settings
    for section in sections:
        here = here[section]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return settings


def refusal(settings):
    with pytest.raises(ValueError, match="is not valid") as error:
        parse_params(settings)
    return str(error.value).splitlines()


def test_the_projects_own_settings_are_valid_and_frozen():
    params = load_params(FILE)
    assert list(params.months) == list(SETTINGS["months"])
    assert params.pretrain_smen.scales == SETTINGS["pretrain_smen"]["scales"]
    with pytest.raises(ValidationError, match="frozen"):
        params.training.release = 2


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        # misspelt, missing
        ("embed_items.widht", 128, "no such setting; is it misspelt?"),
        ("embed_itemz", {"width": 128}, "no such setting; is it misspelt?"),
        ("embed_items.width", ..., "Field required"),
        ("pretrain_smen", ..., "Field required"),
        # out of range
        ("embed_items.width", 0, "greater than or equal to 1 (got 0)"),
        ("embed_items.covered_items", 1.5, "less than or equal to 1 (got 1.5)"),
        ("embed_items.covered_items", 0, "greater than 0 (got 0)"),
        ("evaluation.head", "forest", "Input should be 'auto', 'logistic', 'mlp'"),
        ("tasks.coffee.inputs", "counts", "Input should be 'vector' or 'vector+counts'"),
        ("embed_items.batch_size", 1, "greater than or equal to 2 (got 1)"),
        ("embed_items.beta_days", -5, "greater than 0 (got -5)"),
        ("embed_items.beta_days", float("inf"), "finite number (got inf)"),
        ("embed_items.temperature", float("nan"), "finite number (got nan)"),
        ("embed_items.text_columns", [], "at least 1 item"),
        ("validate_logs.tolerance_hours", 200, "less than or equal to 168 (got 200)"),
        ("cluster_interests.n_interests", 1, "greater than or equal to 2 (got 1)"),
        ("evaluation.validation_share", 1, "less than 1 (got 1)"),
        ("pretrain_smen.seed", -1, "greater than or equal to 0 (got -1)"),
        ("pretrain_smen.scales.year", 0, "greater than or equal to 1 (got 0)"),
        ("pretrain_smen.scales", {}, "at least 1 item"),
        # of another kind
        ("embed_items.width", "128", "valid integer (got '128')"),
        ("embed_items.steps", 10.5, "valid integer (got 10.5)"),
        ("embed_items.steps", True, "valid integer (got True)"),
        ("embed_items.text_columns", "name", "valid tuple (got 'name')"),
        ("build_boi.memory_limit", "1 gig", "match pattern"),
        ("build_boi.memory_limit", "0GB", "match pattern"),
        ("build_boi.memory_limit", "99999999999GB", "match pattern"),
        ("pretrain_smen.gate", "both", "'per_scale' or 'complement' (got 'both')"),
        ("pretrain_smen.empty_periods", "keep", "'skip' or 'zeros' (got 'keep')"),
        ("pretrain_smen.aggregation", None, "'gru' or 'mean' (got None)"),
        ("build_boi.engine", "hive", "'duckdb'"),
        ("embed_items", [1, 2, 3], "valid dictionary"),
        ("calendar.timezone", "Mars/Olympus", "IANA time zone such as 'Europe/Paris'"),
        ("calendar.timezone", "../etc/passwd", "IANA time zone such as 'Europe/Paris'"),
        # months
        ("training.through", "2017-13", "expected a month such as '2017-05', got '2017-13'"),
        ("evaluation.as_of", "May", "expected a month such as '2017-05', got 'May'"),
        ("months", {}, "at least 1 item"),
    ],
)
def test_a_wrong_setting_is_named_by_its_key_in_one_short_line(key, value, told):
    _, *faults = refusal(changed(key, value))
    assert len(faults) == 1
    assert faults[0].startswith(f"  {key}: ")
    assert told in faults[0]
    assert len(faults[0]) < 200


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (
            "training.months",
            ["2017-08", "2017-10"],
            "training.months: 2017-08 must be followed by 2017-09, found 2017-10",
        ),
        ("training.through", "2017-09", "training.months must end at training.through (2017-09)"),
        (
            "training.months",
            ["2017-09", "2017-10"],
            "training.months must begin with the first month (2017-01)",
        ),
        (
            "evaluation.label_months",
            ["2017-10", "2017-11"],
            "evaluation.label_months must begin after evaluation.as_of (2017-10), begin at 2017-10",
        ),
        (
            "evaluation.label_months",
            [],
            "evaluation.label_months: expected the months that coffee, beers_ales, ",
        ),
        (
            "evaluation.penalties",
            [0.1, 0.01],
            "evaluation.penalties: expected ascending numbers, got [0.1, 0.01]",
        ),
        (
            "evaluation.label_months",
            ["2018-01"],
            "evaluation.label_months: 2018-01 not among months",
        ),
        ("evaluation.as_of", "2016-12", "evaluation.as_of: 2016-12 not among months"),
        ("evaluation.as_of", "2017-09", "must not lie before training.through (2017-10)"),
        ("months.2017-05", ..., "months: 2017-04 must be followed by 2017-05, found 2017-06"),
        (
            "months.2017-05",
            {"previous": "2017-03", "items": "x"},
            "months.2017-05.previous: expected '2017-04', got '2017-03'",
        ),
        (
            "months.2017-01",
            {"previous": "2016-12", "items": "x"},
            "months.2017-01.previous: expected 'start', got '2016-12'",
        ),
        (
            "pretrain_smen.min_view_share",
            0.9,
            "pretrain_smen.min_view_share (0.9) must not exceed max_view_share (0.4)",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_told_apart_in_one_line(key, value, told):
    _, *faults = refusal(changed(key, value))
    assert len(faults) == 1
    assert told in faults[0]
    assert "Value error" not in faults[0]
    assert len(faults[0]) < 200


def test_parse_params_needs_no_label_months_for_attributes():
    settings = changed("evaluation.label_months", [])
    settings["tasks"] = {"age": SETTINGS["tasks"]["age"]}
    settings["evaluation"]["as_of"] = settings["training"]["through"]
    assert parse_params(settings).evaluation.label_months == ()


def test_months_and_names_that_are_none_are_refused_as_keys():
    entry = {"previous": "start", "items": "x"}
    assert any("months.2017-1" in line for line in refusal(changed("months", {"2017-1": entry})))
    scales = refusal(changed("pretrain_smen.scales", {"../month": 1}))
    assert any("pretrain_smen.scales.../month" in line for line in scales)
    task = SETTINGS["tasks"]["coffee"]
    assert any("tasks.Coffee!" in line for line in refusal(changed("tasks", {"Coffee!": task})))


def test_every_fault_has_a_line_of_its_own_and_settings_are_not_dumped():
    settings = changed("embed_items.width", 0)
    settings["pretrain_smen"]["gates"] = "x"
    del settings["calendar"]
    settings["tasks_"] = settings.pop("tasks")
    first, *faults = refusal(settings)
    assert first == "params.yaml is not valid:"
    keys = [re.match(r"  ([\w.]+): ", fault)[1] for fault in faults]
    assert sorted(keys) == [
        "calendar",
        "embed_items.width",
        "pretrain_smen.gates",
        "tasks",
        "tasks_",
    ]
    assert "COFFEE" not in "".join(faults)


@pytest.mark.parametrize("settings", [None, [], "text", {}])
def test_settings_that_are_no_sections_are_refused(settings):
    assert len(refusal(settings)) >= 2


def test_a_file_that_is_not_yaml_is_refused_by_its_name_and_line(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("calendar:\n  timezone: [UTC\nmonths:\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"params\.yaml is not YAML: (?s:.*)line 3"):
        load_params(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"params\.yaml is not YAML"):
        load_params(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        load_params(tmp_path / "absent.yaml")


def test_a_key_written_twice_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(FILE.read_text() + "\nbuild_boi: {engine: duckdb}\n")
    with pytest.raises(ValueError, match="build_boi"):
        load_params(path)
