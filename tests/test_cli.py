"""The command ``lurm`` reads well, and a user's mistake ends in one line and exit status 1."""

import logging
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lurm.cli import main


@pytest.mark.parametrize(
    "words", [[], ["land"], ["forget"], ["land-example"], ["land-example", "ta-feng"]]
)
def test_help_is_there_for_every_command(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--help"])
    assert "usage: lurm" in capsys.readouterr().out


def test_a_month_lands_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, params = tmp_path / "source", tmp_path / "params.yaml"
    moments = pa.array([0], pa.timestamp("s", "UTC"))
    for name, table in {
        "items": pa.table({"item_id": [1]}),
        "behaviors/2020-01": pa.table({"user_id": [1], "item_id": [1], "timestamp": moments}),
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, source / f"{name}.parquet")
    params.write_text("months: {}\n")
    landing = tmp_path / "landing"
    monkeypatch.chdir(tmp_path)
    pages = [tmp_path / f"reports/refused/{month}.html" for month in ("2020-01", "2020-02")]
    for page in pages:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("refused")
    main(f"land 2020-01 --from {source} --landing {landing} --params {params}".split())
    assert (landing / "behaviors" / "2020-01.parquet").exists()
    assert "2020-01: {previous: start" in params.read_text()
    assert [page.exists() for page in pages] == [False, True]  # another delivery, another verdict


def test_a_mistake_is_one_line_without_traceback(tmp_path: Path) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from lurm.cli import main; main()",
            "land",
            "2020-01",
            "--from",
            "x",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "params.yaml" in run.stderr


def test_a_malformed_month_is_refused_before_anything_is_read(
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["land", "2020-13", "--from", "x"])
    assert "expected a month such as '2017-05', got '2020-13'" in capsys.readouterr().err


def test_an_example_tells_its_figures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    landing = tmp_path / "landing"
    main(f"land-example complete-journey --landing {landing} --through 2017-01".split())
    assert "2017-01: 124,744 behaviors" in caplog.text
    assert "calendar.timezone: America/New_York" in caplog.text
    assert (landing / "items.parquet").exists()
    assert not (landing / "items").exists()


def test_check_tells_whether_the_settings_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    main(["check", "--params", str(Path(__file__).parents[1] / "params.yaml")])
    assert "12 months, all settings hold" in caplog.text
    misspelt = tmp_path / "params.yaml"
    misspelt.write_text("calender: {}\n")
    with pytest.raises(SystemExit):
        main(["check", "--params", str(misspelt)])
    assert "calender: no such setting" in caplog.text
