"""A world small enough for every stage: two kinds of items, two kinds of users, four months."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from lurm.storage import write_array, write_parquet
from lurm.tables import ITEM_INTERESTS, TIMESTAMP

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))
MONTHS = ["2017-01", "2017-02", "2017-03", "2017-04"]
TRAINING = MONTHS[:3]
SMALL = {
    "months": {
        month: {"previous": before, "items": "items.parquet"}
        for month, before in zip(MONTHS, ["start", *MONTHS], strict=False)
    },
    "training": {"release": 1, "through": "2017-03", "months": TRAINING},
    "evaluation": SETTINGS["evaluation"] | {"as_of": "2017-03", "label_months": ["2017-04"]},
    "embed_items": {
        "text_columns": ["name", "kind"],
        "width": 5,
        "text_width": 3,
        "batch_size": 8,
        "steps": 10,
    },
    "cluster_interests": {"n_interests": 4},
    "pretrain_smen": {
        "n_anchors": 2,
        "width": 4,
        "published_width": 5,
        "columns": ["kind", "words"],
        "block_width": 8,
        "batch_size": 8,
        "epochs": 2,
    },
}
N_USERS, N_ITEMS = 12, 20


def write_settings(**sections):
    """Write params.yaml of this world here, with single keys of its sections changed."""
    settings = deepcopy(SETTINGS)
    for changes in (SMALL, sections):
        for section, keys in deepcopy(changes).items():
            replaced = section == "months"
            settings[section] = keys if replaced else settings[section] | keys
    Path("params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def user_name(number):
    return f"użytkownik {number:02d}"


def write_catalog(path="training/catalog.parquet"):
    """Items by number; every fifth has no text."""
    names = [None if i % 5 == 4 else ("綠茶 чай" if i % 2 else "soap bar") for i in range(N_ITEMS)]
    kinds = ["food" if i % 2 else "care" for i in range(N_ITEMS)]
    kinds = [None if name is None else kind for name, kind in zip(names, kinds, strict=True)]
    write_parquet(pa.table({"item_id": range(N_ITEMS), "name": names, "kind": kinds}), path)


def write_behaviors(month, folder="training/behaviors", seed=0):
    """A month in which even users take even items; user 11 only acts in the first month."""
    rng = np.random.default_rng([seed, MONTHS.index(month)])
    start = datetime(2017, MONTHS.index(month) + 1, 2, 12, tzinfo=UTC)
    rows = sorted(
        (user_name(user), start + timedelta(hours=int(rng.integers(0, 600))), item)
        for user in range(N_USERS - (month != MONTHS[0]))
        for item in (rng.integers(0, N_ITEMS // 2, 6) * 2 + user % 2).tolist()
    )
    users, times, items = zip(*rows, strict=True)
    columns = {"user_id": users, "item_id": items, "timestamp": pa.array(times, TIMESTAMP)}
    write_parquet(pa.table(columns), f"{folder}/{month}.parquet")


def write_centres(n_interests=4, path="centres.npy"):
    """Centres of the interests in the space of items, drawn at random."""
    centres = np.random.default_rng(0).standard_normal((n_interests, 8)).astype(np.float32)
    write_array(centres / np.linalg.norm(centres, axis=1, keepdims=True), path)


def write_item_interests(path="item_interests.parquet", n_items=N_ITEMS):
    """Four interests, two for each kind of item."""
    table = pa.table(
        {
            "item_id": range(n_items),
            "interest": pa.array([i % 4 for i in range(n_items)], pa.int32()),
            "weight": pa.array([1.0] * n_items, pa.float32()),
            "cosine": pa.array([0.5] * n_items, pa.float32()),
        }
    )
    assert table.column_names == list(ITEM_INTERESTS)
    write_parquet(table, path)


def write_training():
    """The pinned catalog and months, and the items' interests, as pretrain_smen reads them."""
    write_catalog()
    write_item_interests()
    for month in TRAINING:
        write_behaviors(month)


def files(folder="."):
    """The bytes of every file below ``folder`` by name."""
    return {str(p): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}
