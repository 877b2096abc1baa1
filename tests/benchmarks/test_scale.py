"""Every benchmark of speed and scale runs at a tiny size, so that none can rot."""

import importlib

import pytest

from lurm.storage import read_json

BENCHMARKS = ["anchor_sum", "bags", "encoding", "interests"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_benchmark_runs_and_leaves_its_figures(name, tmp_path, capsys):
    if name == "bags":
        pytest.importorskip("polars")
    result = tmp_path / "result.json"
    importlib.import_module(f"benchmarks.{name}").main(["--tiny", f"--result={result}"])
    rows = read_json(result)["rows"]
    assert rows
    assert all(row["seconds"] > 0 and row["peak_mb"] > 0 for row in rows if "seconds" in row)
    assert len(capsys.readouterr().out.splitlines()) > len(rows)
