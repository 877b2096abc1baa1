"""The month's users as a faiss index, for nearest neighbors in a service.

In:  user vectors as of the month.
Out: the index, which takes vectors as they are; JSON with its kind and its measured recall@10.

How long a query takes is told by `lurm index`: in the JSON it would make every run's bytes its own.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import faiss

from lurm.console import run_stage
from lurm.params import load_params
from lurm.storage import read_parquet, write_json
from lurm.use.index import build_index, write_index
from lurm.vectors import vector_matrix

log = logging.getLogger("index_users")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("vectors", "index", "result"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    settings = load_params("params.yaml").index_users
    faiss.omp_set_num_threads(1)  # the bytes depend on the number of threads

    vectors = read_parquet(args.vectors)
    x = vector_matrix(vectors)
    index, found = build_index(
        x,
        exact_up_to=settings.exact_up_to,
        min_recall=settings.min_recall,
        n_queries=settings.queries,
        seed=settings.seed,
    )
    version = vectors["model_version"][0].as_py()
    write_index(index, args.index)
    write_json({"model_version": version, **found}, args.result)
    log.info("%s: %s", args.index, found)


if __name__ == "__main__":
    run_stage(main)
