"""Every benchmark of speed and scale runs at a tiny size, so that none can rot."""

import importlib

import faiss
import pytest

from benchmarks import bags
from benchmarks.interests import ROUNDS, H, flat_kmeans, item_vectors
from lurm.storage import read_json

BENCHMARKS = ["anchor_sum", "bags", "encoding", "interests"]


def tiny(name, result, *options):
    """The rows of a tiny run."""
    importlib.import_module(f"benchmarks.{name}").main(["--tiny", f"--result={result}", *options])
    rows = read_json(result)["rows"]
    assert rows
    seconds = "month_seconds" if name == "encoding" else "seconds"
    assert all(row[seconds] > 0 and row["peak_mb"] > 0 for row in rows)
    return rows


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_benchmark_runs_and_leaves_its_figures(name, tmp_path, capsys):
    rows = tiny(name, tmp_path / "result.json")
    assert len(capsys.readouterr().out.splitlines()) > len(rows)


def test_interests_of_bags_stay_where_their_number_is_given(tmp_path):
    rows = tiny("bags", tmp_path / "result.json", "--interests=20")
    assert {row["interests"] for row in rows} == {20}
    assert len({row["behaviors"] for row in rows}) == 2


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
