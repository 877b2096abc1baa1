"""The runs that tests start from: small, each in a folder with its deliveries, workspace and cache."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lurm.examples import complete_journey, ta_feng
from lurm.storage import read_parquet, write_parquet
from tests.pipeline.workspaces import ROOT, Workspace, new_workspace

# Settings under which a run takes seconds; what they leave out stays as it is in params.yaml.
SMALL: dict[str, dict[str, Any]] = {
    "embed_items": {"width": 16, "batch_size": 64, "steps": 20},
    "cluster_interests": {"n_interests": 30, "rounds": 5},
    "pretrain_smen": {
        "n_anchors": 3,
        "width": 16,
        "published_width": 20,
        "block_width": 20,
        "batch_size": 64,
        "epochs": 2,
        "min_view_share": 0.5,
        "max_view_share": 0.8,
    },
    "evaluation": {"folds": 2, "repeats": 1, "hidden": 8, "max_epochs": 3},
}


def part_of(landing: Path, users: pa.Array, deliveries: Path) -> None:
    """Write the deliveries in ``landing`` again with the behaviors of ``users`` and their items only."""
    behaviors = {
        path: table.filter(pc.is_in(table["user_id"], users))
        for path in sorted(landing.glob("behaviors/*.parquet"))
        for table in [read_parquet(path)]
    }
    taken = pa.concat_tables(behaviors.values())["item_id"].unique()
    for path, table in behaviors.items():
        write_parquet(table, deliveries / path.relative_to(landing))
    for path in [landing / "items.parquet", *landing.glob("items/*.parquet")]:
        items = read_parquet(path)
        kept = items.filter(pc.is_in(items["item_id"], taken))
        write_parquet(kept, deliveries / path.relative_to(landing))
    write_parquet(read_parquet(landing / "users.parquet"), deliveries / "users.parquet")


# ---- three hundred households of the Complete Journey -------------------------------------------


def deliver_households(folder: Path, last: str) -> Path:
    """Write the months up to ``last``, a third of the households in no users file; returns where."""
    complete_journey.land(folder / "all", "2017-01", last)
    known = read_parquet(folder / "all/users.parquet")["user_id"].combine_chunks()
    everyone = read_parquet(folder / "all/behaviors/2017-01.parquet")["user_id"].unique().sort()
    others = everyone.filter(pc.invert(pc.is_in(everyone, known)))
    users = pa.concat_arrays([known[:200], others[:100]])
    part_of(folder / "all", users, folder / "deliveries")
    shutil.rmtree(folder / "all")
    return folder / "deliveries"


def small_project(folder: Path) -> Workspace:
    """The project before its first month, with settings under which a run takes seconds, committed."""
    project = new_workspace(folder)
    project.set(**SMALL)
    project.set(
        months={},
        training={"through": "2017-02", "months": ["2017-01", "2017-02"]},
        evaluation={"as_of": "2017-02", "label_months": ["2017-03"]},
        tasks={name: project.settings()["tasks"][name] for name in ("coffee", "age")},
    )
    project.commit("small settings")
    return project


def run_complete_journey(folder: Path) -> None:
    """Run three months, trained through the second, and commit; a fourth month is delivered."""
    deliveries = deliver_households(folder, "2017-04")
    workspace = small_project(folder)
    workspace.land(deliveries, ["2017-01", "2017-02", "2017-03"])
    workspace.repro()
    workspace.commit("a clean run")


# ---- three hundred customers of Ta-Feng ---------------------------------------------------------

THROUGH, FUTURE = "2001-01", "2001-02"  # the cut-off in Ta-Feng's settings, and the label month


def deliver_ta_feng(folder: Path) -> Path:
    """Write the deliveries of the last three months; returns where."""
    ta_feng.land(folder / "all", "2000-12")
    first = read_parquet(folder / "all/behaviors/2000-12.parquet")["user_id"].value_counts()
    busiest = pc.sort_indices(pc.negate(first.field("counts")))[:300]
    part_of(folder / "all", first.field("values").take(busiest), folder / "deliveries")
    return folder / "deliveries"


def run_on_ta_feng(folder: Path, deliveries: Path) -> None:
    """Run with Ta-Feng's own settings, but for sizes, its first month, and two tasks."""
    workspace = new_workspace(folder)
    shutil.copyfile(ROOT / "examples/ta_feng/params.yaml", workspace.root / "params.yaml")
    tasks = workspace.settings()["tasks"]
    workspace.set(**SMALL)
    workspace.set(
        months={},
        training={"months": ["2000-12", THROUGH]},
        tasks={name: tasks[name] for name in ("class_1101", "age")},
    )
    workspace.land(deliveries, ["2000-12", THROUGH, FUTURE])
    workspace.repro()


def run_ta_feng(folder: Path) -> None:
    """Run on what was delivered."""
    run_on_ta_feng(folder, deliver_ta_feng(folder))


def run_false_future(folder: Path) -> None:
    """Run on what was delivered up to the cut-off, and nonsense after it."""
    true, false = deliver_ta_feng(folder), folder / "false"
    shutil.copytree(true, false)
    rng = np.random.default_rng(0)

    items = read_parquet(true / "items.parquet")
    changed = items.take(rng.choice(len(items), 200, replace=False))
    for number in (1, 2):  # known items take each other's texts
        texts = changed.column(number).take(rng.permutation(len(changed)))
        changed = changed.set_column(number, changed.schema.names[number], texts)
    new_ids = pa.array([f"new-{n}" for n in range(300)])
    words = pa.array([f"word{n % 50}" for n in range(300)])
    new = pa.table([new_ids, words, words], items.schema.names)
    write_parquet(
        pa.concat_tables([changed, new.cast(items.schema)]), false / f"items/{FUTURE}.parquet"
    )

    bought = read_parquet(true / f"behaviors/{FUTURE}.parquet")
    n = len(bought) // 2
    users = rng.choice(bought["user_id"].to_numpy(), n)
    users[rng.random(n) < 0.2] = "someone new"
    ids = np.concatenate([items["item_id"].to_numpy(), new_ids.to_numpy(zero_copy_only=False)])
    times = bought["timestamp"].take(rng.integers(0, len(bought), n))
    delays = pa.array(rng.integers(0, 3600 * 10**6, n)).cast(pa.duration("us"))
    rows = pa.table([users, rng.choice(ids, n), pc.add(times, delays)], bought.schema.names)
    write_parquet(rows.cast(bought.schema), false / f"behaviors/{FUTURE}.parquet")

    customers = read_parquet(true / "users.parquet")
    others = customers["user_id"].take(rng.permutation(len(customers)))
    write_parquet(customers.set_column(0, "user_id", others), false / "users.parquet")
    run_on_ta_feng(folder, false)


# ---- a small shop -------------------------------------------------------------------------------

SHOP_MONTHS = ["2023-11", "2023-12", "2024-01"]
TEA = ["緑茶", "ほうじ茶", "抹茶", "麦茶"]
SOUP = ["борщ", "щи", "σούπα", "شوربة"]
N_SHOPPERS, ONCE = 90, "só uma vez"


def run_small_shop(folder: Path) -> None:
    """Run with string ids, words of many scripts, a month without items, and no users file."""
    deliveries, rng = folder / "deliveries", np.random.default_rng(0)
    write_parquet(shop_items(range(60), rng), deliveries / "items.parquet")
    later = shop_items(range(60, 70), rng)
    write_parquet(later, deliveries / f"items/{SHOP_MONTHS[2]}.parquet")
    for month, n_items in zip(SHOP_MONTHS, (60, 60, 70), strict=True):
        bought = shop_behaviors(month, n_items, rng)
        write_parquet(bought, deliveries / f"behaviors/{month}.parquet")
    workspace = shop_workspace(folder)
    workspace.set(
        training={"through": SHOP_MONTHS[1], "months": SHOP_MONTHS[:2]},
        evaluation={"as_of": SHOP_MONTHS[1], "label_months": [SHOP_MONTHS[2]]},
        tasks={"tea": {"labels": "data/labels", "column": "title", "value": "緑茶 抹茶"}},
    )
    workspace.land(deliveries, SHOP_MONTHS)
    workspace.repro()


def shop_workspace(folder: Path) -> Workspace:
    """A workspace with the settings that runs on the small shop share."""
    workspace = new_workspace(folder)
    workspace.set(**SMALL)
    workspace.set(
        calendar={"timezone": "Asia/Tokyo"},
        months={},
        compare_months={"mix_column": "category"},
        embed_items={"text_columns": ["title"], "min_word_count": 1},
        pretrain_smen={"columns": "auto"},
        cluster_interests={"n_interests": 6},
    )
    return workspace


def run_attributes(folder: Path) -> None:
    """The small shop trained through its last month, with attributes only; one of them on one user."""
    deliveries, rng = folder / "deliveries", np.random.default_rng(0)
    write_parquet(shop_items(range(60), rng), deliveries / "items.parquet")
    for month in SHOP_MONTHS:
        write_parquet(shop_behaviors(month, 60, rng), deliveries / f"behaviors/{month}.parquet")
    attributes = {
        "user_id": [f"用户{n}" for n in range(N_SHOPPERS)],
        "taste": ["tea" if n % 2 else "soup" for n in range(N_SHOPPERS)],
        "guild": ["smith" if n else "baker" for n in range(N_SHOPPERS)],
    }
    write_parquet(pa.table(attributes), deliveries / "users.parquet")
    workspace, users = shop_workspace(folder), "data/landing/users.parquet"
    workspace.set(
        training={"through": SHOP_MONTHS[2], "months": SHOP_MONTHS},
        evaluation={"as_of": SHOP_MONTHS[2], "label_months": []},
        tasks={
            "taste": {"labels": users, "column": "taste", "inputs": "vector+counts"},
            "guild": {"labels": users, "column": "guild"},
        },
    )
    workspace.land(deliveries, SHOP_MONTHS)
    workspace.repro()


def shop_items(numbers: range, rng: np.random.Generator) -> pa.Table:
    """Teas and soups in turn; of ten items one has no text."""
    titles: list[str | None] = [
        " ".join(rng.choice(TEA if n % 2 else SOUP, 2, replace=False)) for n in numbers
    ]
    for row, n in enumerate(numbers):
        if n % 10 == 0:
            titles[row] = "" if n % 20 else None
    return pa.table(
        {
            "item_id": [f"Артикул {n}" for n in numbers],
            "title": pa.array(titles, pa.string()),
            "category": ["お茶" if n % 2 else "суп" for n in numbers],
            "price": [float(n) for n in numbers],
        }
    )


def shop_behaviors(month: str, n_items: int, rng: np.random.Generator) -> pa.Table:
    """Shoppers buy ten times, mostly what they like; one buys once, in the first month."""
    likes_tea = np.repeat(np.arange(N_SHOPPERS) % 2, 10)
    takes_tea = np.where(rng.random(len(likes_tea)) < 0.2, 1 - likes_tea, likes_tea)
    items = [f"Артикул {n}" for n in 2 * rng.integers(0, n_items // 2, len(takes_tea)) + takes_tea]
    users = [f"用户{n // 10}" for n in range(len(items))]
    if month == SHOP_MONTHS[0]:
        items, users = [*items, "Артикул 0"], [*users, ONCE]
    start = datetime.fromisoformat(f"{month}-02").replace(tzinfo=UTC)
    times = [start + timedelta(minutes=37 * n) for n in range(len(items))]
    return pa.table(
        {
            "store": ["Zürich"] * len(items),
            "user_id": users,
            "item_id": items,
            "timestamp": pa.array(times, pa.timestamp("ms", tz="Asia/Tokyo")),
            "behavior_type": ["view"] * len(items),
            "line": list(range(len(items))),
        }
    )


# Longest first.
RUNS: dict[str, Callable[[Path], None]] = {
    "ta_feng": run_ta_feng,
    "false_future": run_false_future,
    "complete_journey": run_complete_journey,
    "small_shop": run_small_shop,
    "attributes": run_attributes,
}
