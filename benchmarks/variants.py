"""LURM under other settings, for the ablations: from the standing item vectors to user vectors.

Letters: U users, d width of a user vector, D interests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from benchmarks.data_sets import DataSet
from lurm.boi import boi_query, check_assigned, counted
from lurm.interests.assignment import assign
from lurm.interests.clustering import cluster, fitting_number, sample_items
from lurm.interests.composition import WORDS, compositions, count_items
from lurm.months import month_number
from lurm.params import Params, parse_params
from lurm.pretraining import add_projection, encode_timelines, pretrain
from lurm.smen import SmenSettings
from lurm.storage import month_files, read_array, read_parquet, write_parquet
from lurm.timelines import Timelines, build_timelines, cut_periods


@dataclass(frozen=True)
class Variant:
    """Settings that differ from the run's, and how much of a life is encoded.

    ``changes`` are keys such as ``pretrain_smen.n_anchors``; ``last_months`` of a user's history are
    read, all of it if None.
    """

    changes: Mapping[str, Any]
    last_months: int | None = None


def changed(params: Params, changes: Mapping[str, Any]) -> Params:
    """The settings with some keys changed, checked as a whole.

    Raises:
        ValueError: a key is unknown or a value not allowed.
    """
    settings = params.model_dump()
    for key, value in changes.items():
        section, _, name = key.partition(".")
        settings[section][name] = value
    return parse_params(settings, f"variant {dict(changes)}")


def interests_of(data_set: DataSet, params: Params) -> tuple[np.ndarray, pa.Table]:
    """The interests' centres (D, H) and the items' interests under these settings."""
    settings = params.cluster_interests
    items = read_parquet(data_set.root / "models/items.parquet", ["item_id"])
    vectors = read_array(data_set.root / "models/item_vectors.npy")
    if not params.embed_items.text_width:  # what was learned stands first
        vectors = vectors[:, : params.embed_items.width]
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    sample = sample_items(len(items), settings.sample_size, settings.seed)
    if settings.n_interests == "auto":
        settings = settings.with_number(fitting_number(vectors[sample], len(data_set.behaviors)))
    found = cluster(
        vectors[sample],
        settings.number,
        settings.method,
        rounds=settings.rounds,
        sparsity=settings.sparsity,
        seed=settings.seed,
    )
    return found.centres, assign(
        items["item_id"],
        vectors,
        found.centres,
        settings.interests_per_item,
        settings.soft_temperature,
    )


def timelines_of(
    data_set: DataSet, params: Params, item_interests: pa.Table, scratch: Path
) -> Timelines:
    """The lives of all users of the data set as bags of these interests."""
    path = scratch / "item_interests.parquet"
    write_parquet(item_interests, path)
    bags = {}
    months = list(params.training.months)
    files = month_files(data_set.root / "data/training/behaviors", months)
    for month, behaviors in zip(months, files, strict=True):
        with duckdb.connect() as connection:
            boi = connection.sql(boi_query(connection, behaviors, path)).to_arrow_table()
            check_assigned(connection, counted(connection.from_arrow(boi)), behaviors, path)
        bags[month_number(month)] = boi
    return build_timelines(bags)


def last_bags(timelines: Timelines, months: int | None) -> tuple[np.ndarray, np.ndarray]:
    """First and last + 1 bag (U,) of every user's last ``months`` before the end of all history."""
    first, last = timelines.first_bag[:-1], timelines.first_bag[1:]
    if months is None:
        return first, last
    old = timelines.months <= timelines.months.max() - months
    skipped = np.concatenate([[0], np.cumsum(old)])
    return first + skipped[last] - skipped[first], last


def life_bag(timelines: Timelines, months: int | None, n_interests: int) -> np.ndarray:
    """log(1 + count) per interest over a life (paper eq. 4), (U, D) float32: the BoI itself."""
    first, last = last_bags(timelines, months)
    bags = cut_periods(
        timelines, first, last, span=10**6, empty_periods="skip", n_interests=n_interests
    )
    entries = np.zeros(len(first), dtype=np.int64)
    entries[bags.lengths > 0] = np.diff(bags.offsets)  # a user without bags has no period
    offsets = np.concatenate([[0], np.cumsum(entries)])
    counts = sparse.csr_matrix(
        (bags.counts, bags.interests, offsets), shape=(len(first), n_interests)
    )
    return np.log1p(counts.toarray())


def vectors_of(data_set: DataSet, variant: Variant, scratch: Path) -> np.ndarray:
    """User vectors (U, d) float32 of the variant, trained and encoded here."""
    params = changed(data_set.params, variant.changes)
    centres, item_interests = interests_of(data_set, params)
    timelines = timelines_of(data_set, params, item_interests, scratch)
    chosen = params.pretrain_smen
    settings = SmenSettings(
        n_interests=len(centres),
        n_anchors=chosen.n_anchors,
        width=chosen.width,
        scales=chosen.scales,
        gate=chosen.gate,
        empty_periods=chosen.empty_periods,
        aggregation=chosen.aggregation,
        published_width=chosen.published_width,
    )
    smen, _ = pretrain(
        timelines,
        settings,
        temperature=chosen.temperature,
        batch_size=chosen.batch_size,
        epochs=chosen.epochs,
        learning_rate=chosen.learning_rate,
        min_view_share=chosen.min_view_share,
        max_view_share=chosen.max_view_share,
        min_kept_share=chosen.min_kept_share,
        seed=chosen.seed,
        centres=centres if chosen.interest_start == "centres" else None,
    )
    month = month_number(params.training.through)
    if chosen.published_width:
        training = data_set.root / "data/training"
        composition = compositions(
            (*params.embed_items.text_columns, WORDS)
            if chosen.columns == "auto"
            else chosen.columns,
            data_set.catalog,
            item_interests,
            count_items(month_files(training / "behaviors", list(params.training.months))),
            text_columns=params.embed_items.text_columns,
            n_interests=settings.n_interests,
        )
        add_projection(
            smen,
            timelines,
            composition,
            month=month,
            block_width=chosen.block_width,
            seed=chosen.seed,
        )
    first, _ = last_bags(timelines, variant.last_months)
    vectors = encode_timelines(smen, timelines, month, first)
    return in_order(vectors, timelines.users, data_set.user_ids)


def bags_of(data_set: DataSet, variant: Variant, scratch: Path) -> np.ndarray:
    """The variant's BoI itself, (U, D) float32."""
    params = changed(data_set.params, variant.changes)
    centres, item_interests = interests_of(data_set, params)
    timelines = timelines_of(data_set, params, item_interests, scratch)
    bags = life_bag(timelines, variant.last_months, len(centres))
    return in_order(bags, timelines.users, data_set.user_ids)


def in_order(x: np.ndarray, ids: pa.Array, wanted: pa.Array) -> np.ndarray:
    """The rows of ``x``, which belong to ``ids``, in the order of the ``wanted`` ids."""
    return x[pc.index_in(wanted, value_set=ids).to_numpy()]
