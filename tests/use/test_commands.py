"""The commands as a person or a shell script calls them."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lurm.cli import main
from lurm.storage import read_parquet, write_parquet
from lurm.use.commands import read_seeds
from lurm.vectors import vector_matrix
from stages.index_users import main as index_users
from tests.use.worlds import grouped, vectors_table

COLUMNS = ["rank", "user_id", "similarity", "classifier", "n_behaviors", "confidence"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def x(tmp_path, monkeypatch):
    """A workspace with two months of vectors, of which the settings name the later one last."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text("utf-8"), encoding="utf-8")
    x, _ = grouped(60, 3)
    write_parquet(vectors_table(x), "data/user_vectors/2017-12.parquet")
    write_parquet(vectors_table(x[:50]), "data/user_vectors/2017-11.parquet")
    return x


def shown(capfdbinary, *words):
    """What the command writes to standard output."""
    main(list(words))
    return capfdbinary.readouterr().out.decode()


def test_an_audience_reads_as_csv_and_as_tsv(x, capfdbinary):
    csv = pd.read_csv(io.StringIO(shown(capfdbinary, "lookalike", "100", "103", "--top", "5")))
    assert list(csv) == COLUMNS
    assert len(csv) == 5
    tsv = shown(capfdbinary, "lookalike", "100", "103", "--top", "5", "--tsv").splitlines()
    assert tsv[0].split("\t") == list(csv)
    assert [int(line.split("\t")[1]) for line in tsv[1:]] == csv["user_id"].tolist()


def test_seeds_come_as_words_from_a_file_from_parquet_or_from_standard_input(
    x, capfdbinary, monkeypatch
):
    due = shown(capfdbinary, "lookalike", "100", "103")
    Path("seeds.txt").write_text("user_id\n100\n\n103\n")
    write_parquet(pa.table({"user_id": [100, 103]}), "seeds.parquet")
    assert shown(capfdbinary, "lookalike", "seeds.txt") == due
    assert shown(capfdbinary, "lookalike", "seeds.parquet") == due
    monkeypatch.setattr("sys.stdin", io.StringIO("100\n103\n"))
    assert shown(capfdbinary, "lookalike", "-") == due


def test_read_seeds_takes_ids_exactly_as_they_are(tmp_path, monkeypatch):
    path = tmp_path / "seeds.txt"
    path.write_text("user_id\nann \n ben\n\n\u2028cy\n", encoding="utf-8")
    assert read_seeds([str(path)]) == ["ann ", " ben", "\u2028cy"]
    monkeypatch.setattr("sys.stdin", io.StringIO("ann \n"))
    assert read_seeds(["-"]) == ["ann "]


def test_the_month_and_the_ranking_can_be_chosen(x, capfdbinary, caplog):
    caplog.set_level(logging.INFO)
    assert len(shown(capfdbinary, "lookalike", "100").splitlines()) == 60
    assert len(shown(capfdbinary, "lookalike", "100", "--month", "2017-11").splitlines()) == 50
    assert "2017-11.parquet: 1 seeds, 49 users ranked by classifier" in caplog.text
    similar = pd.read_csv(io.StringIO(shown(capfdbinary, "lookalike", "100", "--by", "similarity")))
    assert similar["similarity"].is_monotonic_decreasing


def test_seeds_without_a_vector_are_counted_and_none_with_one_is_a_mistake(x, capfdbinary, caplog):
    shown(capfdbinary, "lookalike", "100", "7")
    assert "1 of 2 seeds have no vector in data/user_vectors/2017-12.parquet" in caplog.text
    for words, told in (
        (["7"], "none of 1 has one"),
        (["somebody"], "expected user ids of type int64"),
        (["100", "--month", "2017-10"], "expected the month's vectors, found none"),
        (["100", "--out", "a.txt"], r"expected a name ending in .csv, .tsv or .parquet, got a.txt"),
        (["empty.txt"], "expected user ids, one a line, found none"),
        (["latin.txt"], "latin.txt: expected text in UTF-8"),
        (["nothing.txt"], "nothing.txt: expected a file of user ids, found none"),
    ):
        Path("empty.txt").write_text("\n")
        Path("latin.txt").write_bytes("Jörg\n".encode("latin-1"))
        with pytest.raises(SystemExit, match="1"):
            main(["lookalike", *words])
        assert told in caplog.text


@pytest.mark.parametrize("name", ["all.csv", "all.tsv", "all.parquet"])
def test_an_export_holds_every_number_in_a_column_of_its_own(x, name):
    main(["export", "--out", name])
    if name.endswith("parquet"):
        table = read_parquet(name).to_pandas()
    else:
        table = pd.read_csv(name, sep="\t" if name.endswith("tsv") else ",")
    vectors = read_parquet("data/user_vectors/2017-12.parquet")
    numbers = [f"v{k}" for k in range(8)]
    assert list(table) == [n for n in vectors.column_names if n != "vector"] + numbers
    assert table["user_id"].tolist() == vectors["user_id"].to_pylist()
    np.testing.assert_allclose(table[numbers].to_numpy(), vector_matrix(vectors), rtol=1e-6)


def test_ids_with_commas_survive_csv_and_vectors_of_two_spaces_are_refused(x, caplog):
    ids = [f'Müller, "{k}"' for k in range(len(x))]
    write_parquet(vectors_table(x, ids), "named.parquet")
    main(["export", "--vectors", "named.parquet", "--out", "named.csv"])
    assert pd.read_csv("named.csv")["user_id"].tolist() == ids
    both = pa.concat_tables([vectors_table(x), vectors_table(x, version="v2")])
    write_parquet(both, "both.parquet")
    with pytest.raises(SystemExit, match="1"):
        main(["export", "--vectors", "both.parquet", "--out", "both.csv"])
    assert "expected rows of one space, found 2 (v1, v2)" in caplog.text


@pytest.mark.usefixtures("x")
@pytest.mark.parametrize("words", ["export", "lookalike 100"])
def test_a_reader_who_stops_early_is_no_fault(words):
    command = f"{sys.executable} -c 'from lurm.cli import main; main()' {words} | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "user_id," in done.stdout
    assert "rror" not in done.stderr


def test_an_index_is_measured(x, capfdbinary):
    inputs = ["--vectors=data/user_vectors/2017-12.parquet"]
    index_users(
        [*inputs, "--index=data/index/2017-12.faiss", "--result=reports/index/2017-12.json"]
    )
    found = json.loads(shown(capfdbinary, "index", "--queries", "20"))
    assert (found["users"], found["queries"], found["recall_at_10"]) == (60, 20, 1.0)
    told = json.loads(Path("reports/index/2017-12.json").read_text())
    assert told["model_version"] == "v1"
    assert not any("milliseconds" in name for name in told)


def test_the_heads_example_of_the_readme_runs(x, capsys):
    readme = (ROOT / "README.md").read_text("utf-8")
    example = readme.split("## A head of one's own")[1].split("```python\n")[1].split("```")[0]
    assert len(example.strip().splitlines()) <= 12
    write_parquet(
        vectors_table(x, n_behaviors=[1000 * (row[0] > 5) for row in x]),
        "data/user_vectors/2017-10.parquet",
    )
    exec(example, {})  # what a reader would paste
    assert 0 <= float(capsys.readouterr().out.split()[0]) <= 1
