"""Every benchmark of speed and scale runs at a tiny size, so that none can rot."""

import argparse
import importlib
from pathlib import Path

import faiss
import pytest

from benchmarks import bags
from benchmarks.interests import ROUNDS, H, flat_kmeans, item_vectors
from benchmarks.measure import result_path
from lurm.storage import read_json

BENCHMARKS = ["anchor_sum", "bags", "encoding", "interests"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_benchmark_runs_and_leaves_its_figures(name, tmp_path, capsys):
    result = tmp_path / "result.json"
    importlib.import_module(f"benchmarks.{name}").main(["--tiny", f"--result={result}"])
    rows = read_json(result)["rows"]
    assert rows
    seconds = "month_seconds" if name == "encoding" else "seconds"
    assert all(row[seconds] > 0 and row["peak_mb"] > 0 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) > len(rows)


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ([], "reports/benchmarks"),
        (["--device=cuda", "--size=5"], "reports/benchmarks"),
        (["--size=6"], "reports/benchmarks/other"),
        (["--tiny"], "reports/benchmarks/other"),
        (["--size=6", "--result=mine/it.json"], "mine"),
    ],
)
def test_a_run_of_another_size_overwrites_no_record(options, folder):
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--result", type=Path)
    path = result_path("it", parser, parser.parse_args(options))
    assert path == Path(folder, "it.json")


@pytest.mark.usefixtures("java")
def test_bags_by_spark_are_measured_beside_the_others(tmp_path):
    rows = bags.compare(10_000, 10, tmp_path, "1GB", repeats=1, with_spark=True, soft=False)
    assert {row["engine"] for row in rows} == {"lurm", "duckdb", "polars", "pandas", "spark"}


def test_the_rounds_taken_on_a_gpu_end_where_faiss_itself_ends():
    items = item_vectors(n_items=2000, n_interests=100)[:2000]
    rival = faiss.Kmeans(H, 100, niter=ROUNDS, spherical=True, min_points_per_centroid=1)
    rival.train(items)
    assert flat_kmeans(items, 100, "cpu") == pytest.approx(
        rival.index.search(items, 1)[0].mean(), rel=0.01
    )
