"""A page to look around in the release: interests, lives, anchors, quality, drift, lineage.

In:  the maps of interests and anchors, the interests and their lineage; every month's bags; the catalog
     and the items' interests of the last month, the behaviors of the training months; the last vectors;
     what the stages reported.
Out: one HTML page that needs nothing from outside; a table of who the users shown there are, which appear
     in it under other names.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lurm.catalog import item_texts
from lurm.console import run_stage
from lurm.database import database
from lurm.lives import bags_of_users, example_users, famous_items, masses_by_month
from lurm.params import load_params
from lurm.reporting.explorer import Life, Release, explorer_page
from lurm.storage import month_files, read_json, read_parquet, write_parquet, write_text

log = logging.getLogger("explore")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("boi", "catalog", "item-interests", "training", "vectors", "models", "reports"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--users", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    settings, months = params.explorer, list(params.months)
    last = months[-1]
    (catalog,), (vectors,), (item_interests,) = (
        month_files(folder, [last]) for folder in (args.catalog, args.vectors, args.item_interests)
    )
    bags = dict(zip(months, month_files(args.boi, months), strict=True))
    interests = read_parquet(args.models / "interests.parquet")
    drift = month_files(args.reports / "drift", months, ".json")

    with database(settings.memory_limit, args.boi) as connection:
        known = read_parquet(catalog)
        users = example_users(connection, bags, settings.lives, settings.seed)
        lives = bags_of_users(connection, bags, users)
        masses = masses_by_month(connection, bags, len(interests))
        items = famous_items(
            connection,
            month_files(args.training / "behaviors", list(params.training.months)),
            item_interests,
            pa.table(
                {
                    "item_id": known["item_id"],
                    "text": item_texts(known, params.embed_items.text_columns),
                }
            ),
            settings.items,
        )
    ids = pa.array(users, read_parquet(vectors, ["user_id"])["user_id"].type)
    told = read_parquet(vectors, ["user_id", "n_behaviors", "confidence"])
    told = told.take(pc.index_in(ids, told["user_id"].combine_chunks())).to_pylist()
    names = [f"user {number}" for number in range(1, len(users) + 1)]
    page = explorer_page(
        Release(
            months=months,
            through=params.training.through,
            interests=interests,
            lineage=read_parquet(args.models / "interest_lineage.parquet"),
            since_standing=read_json(args.reports / "cluster_interests.json").get("since_standing"),
            interest_map=read_parquet(args.models / "interest_map.parquet"),
            anchor_map=read_parquet(args.models / "anchor_map.parquet"),
            masses=masses,
            items=items,
            lives=[
                Life(name, row["n_behaviors"], row["confidence"], life)
                for name, row, life in zip(names, told, lives, strict=True)
            ],
            scores=read_json(args.reports / "scores.json"),
            drift={month: read_json(path) for month, path in zip(months, drift, strict=True)},
        )
    )
    write_text(page, args.page)
    write_parquet(pa.table({"user_id": ids, "name": names}), args.users)
    log.info(
        "%s: %d interests, %d items, %d users, %.1f MB",
        *(args.page, len(interests), len(items), len(users), len(page) / 1e6),
    )


if __name__ == "__main__":
    run_stage(main)
