"""All methods of the scorecard, each with its budget.

Two kinds. A method of *vectors* makes one vector per user without labels; the same heads score all of
them. A method *by task* is trained for each task and fold on the users of the training part.

Letters: U users, d width, n users of a part, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from scipy.sparse import csr_matrix, identity

from benchmarks.coles.events import coles, events
from benchmarks.data_sets import DataSet
from benchmarks.variants import Variant, bags_of, vectors_of
from lurm.competitors.als import als
from lurm.competitors.category_counts import category_counts
from lurm.competitors.clue import clue
from lurm.competitors.counts import item_counts, word_counts
from lurm.competitors.doc2vec import doc2vec
from lurm.competitors.han import HAN
from lurm.competitors.history_counts import history_counts, membership, svd_of_counts
from lurm.competitors.icl import icl
from lurm.competitors.lives import last_days
from lurm.competitors.ptum import ptum
from lurm.competitors.sumn import sumn
from lurm.competitors.supervised import classify
from lurm.competitors.text_cnn import TextCNN
from lurm.competitors.tf_idf import tf_idf

LIMIT = 50  # behaviors that the paper's rivals read
LONG = 500  # the most of them that is read where they are not limited: four lives in five, whole
TWO_MONTHS = 61  # days

Vectors = Callable[[DataSet, Path], np.ndarray]
# What heads read: one block of numbers, or several by name (:func:`lurm.heads.out_of_fold`).
Inputs = Callable[[DataSet, Path], np.ndarray | Mapping[str, np.ndarray]]
# Training rows, their classes, test rows, number of classes: class probabilities of the test rows.
Fold = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
ByTask = Callable[[DataSet, Path], Fold]


@dataclass(frozen=True)
class Method:
    """How a method is run, and what a reader should know of it.

    ``repeats`` bounds the repeats of cross-validation; ``quick`` methods are part of the quick form,
    which gives those with ``trees`` boosted heads;
    ``from_run`` vectors are those that the pipeline made, so that no time can be told.
    """

    title: str
    family: str  # LURM, rival, simple, ablation
    vectors: Inputs | None = None
    by_task: ByTask | None = None
    repeats: int | None = None
    quick: bool = False
    trees: bool = False
    from_run: bool = False
    budget: Mapping[str, Any] = field(default_factory=dict)


def _published(data_set: DataSet, _: Path) -> np.ndarray:
    return data_set.published


def _variant(changes: Mapping[str, Any], last_months: int | None = None) -> Vectors:
    return lambda data_set, scratch: vectors_of(data_set, Variant(changes, last_months), scratch)


def _bag(data_set: DataSet, scratch: Path) -> np.ndarray:
    return bags_of(data_set, Variant({}), scratch)


def _categories(data_set: DataSet, _: Path | None = None) -> np.ndarray:
    source = (data_set.behaviors, data_set.catalog, data_set.user_ids)
    return category_counts(*source, data_set.category_column)


def _tf_idf(data_set: DataSet, _: Path) -> np.ndarray:
    source = (data_set.behaviors, data_set.catalog, data_set.user_ids)
    return tf_idf(*source, data_set.text_columns)


def _doc2vec(data_set: DataSet, _: Path) -> np.ndarray:
    source = (data_set.behaviors, data_set.catalog, data_set.user_ids)
    return doc2vec(*source, data_set.text_columns)


def _als(data_set: DataSet, _: Path) -> np.ndarray:
    return als(data_set.behaviors, data_set.catalog, data_set.user_ids)


def _sequential(
    make: Callable[..., np.ndarray], longest: int, days: float | None = None
) -> Vectors:
    def vectors(data_set: DataSet, _: Path) -> np.ndarray:
        lives = data_set.lives if days is None else last_days(data_set.lives, days)
        return make(lives, longest=longest)

    return vectors


COLES = {
    "epochs": 12,
    "width": 256,
    "slices": 5,
    "shortest": 25,
    "longest": 200,
    "batch_size": 64,
    "seed": 0,
}


def _coles(data_set: DataSet, scratch: Path) -> np.ndarray:
    source = (data_set.behaviors, data_set.catalog, data_set.user_ids)
    columns = [name for name in data_set.catalog.column_names if name != "item_id"]
    found = events(*source, columns, data_set.params.calendar.timezone)
    return coles(found, len(data_set.user_ids), scratch, **COLES)


WINDOWS = (1, 3, 6)  # months
MIN_USER_SHARE = {"categories": 0.0, "items": 0.02, "words": 0.1}
Features = Literal["categories", "items", "words"]


def _features(data_set: DataSet, of: Features) -> csr_matrix:
    """The features of each item, (I, F)."""
    if of == "categories":
        return membership(data_set.catalog, data_set.category_column)
    if of == "words":
        return word_counts(data_set.catalog, data_set.text_columns)
    return csr_matrix(identity(len(data_set.catalog), dtype=np.float32))


def _counts(of: Features, windows: Sequence[int] = ()) -> Vectors:
    def vectors(data_set: DataSet, _: Path) -> np.ndarray:
        source = (data_set.behaviors, data_set.catalog, data_set.user_ids)
        return history_counts(*source, _features(data_set, of), windows, MIN_USER_SHARE[of])

    return vectors


def _svd(of: Features, width: int) -> Vectors:
    def vectors(data_set: DataSet, _: Path) -> np.ndarray:
        source = (data_set.behaviors, data_set.catalog, data_set.user_ids)
        counts = csr_matrix(item_counts(*source) @ _features(data_set, of))
        return svd_of_counts(counts, width, idf=of == "items")

    return vectors


def _supervised(make: Callable[..., Any], longest: int) -> ByTask:
    def by_task(data_set: DataSet, _: Path) -> Fold:
        return lambda train, y, test, n_classes: classify(
            make, data_set.lives, train, y, test, n_classes, longest=longest
        )

    return by_task


def _vector_and_counts(data_set: DataSet, scratch: Path) -> Mapping[str, np.ndarray]:
    return {
        "vector": data_set.published,
        "counts": _counts("categories", WINDOWS)(data_set, scratch),
    }


# The paper's choices where ours depart.
PAPER = {
    "embed_items.text_width": 0,
    "pretrain_smen.interest_start": "random",
    "pretrain_smen.width": 128,
    "pretrain_smen.published_width": 0,
    "pretrain_smen.temperature": 0.1,
    "pretrain_smen.min_kept_share": 1,
}

METHODS: dict[str, Method] = {
    "lurm": Method("LURM", "LURM", _published, quick=True, trees=True, from_run=True),
    "lurm_counts": Method(
        "LURM beside counts with windows",
        "LURM",
        _vector_and_counts,
        quick=True,
        from_run=True,
    ),
    "lurm_64": Method("LURM, 64 numbers", "LURM", _variant({"pretrain_smen.published_width": 64})),
    "lurm_whole": Method(
        "LURM, all M x H numbers",
        "LURM",
        _variant({"pretrain_smen.published_width": 0}),
    ),
    "lurm_paper": Method("LURM, paper preset", "LURM", _variant(PAPER), budget=PAPER),
    "boi": Method("Bag-of-Interests itself", "LURM", _bag, quick=True),
    "tf_idf": Method("TF-IDF", "rival", _tf_idf, quick=True),
    "doc2vec": Method("Doc2Vec", "rival", _doc2vec, quick=True, budget={"epochs": 5}),
    "ptum": Method(
        f"PTUM, {LIMIT} behaviors", "rival", _sequential(ptum, LIMIT), budget={"steps": 1000}
    ),
    "ptum_long": Method(
        "PTUM, 200 behaviors", "rival", _sequential(ptum, 200), budget={"steps": 1000}
    ),
    "sumn": Method(
        "SUMN, two months",
        "rival",
        _sequential(sumn, LONG, TWO_MONTHS),
        budget={"steps": 1000},
    ),
    "sumn_long": Method(
        f"SUMN, {LONG} behaviors", "rival", _sequential(sumn, LONG), budget={"steps": 1000}
    ),
    "text_cnn": Method(
        f"TextCNN, {LIMIT} behaviors", "rival", by_task=_supervised(TextCNN, LIMIT), repeats=1
    ),
    "han": Method(f"HAN, {LIMIT} behaviors", "rival", by_task=_supervised(HAN, LIMIT), repeats=1),
    "icl": Method("ICL, 320 behaviors", "rival", _sequential(icl, 320), budget={"steps": 600}),
    "clue": Method("CLUE, 128 behaviors", "rival", _sequential(clue, 128), budget={"steps": 200}),
    "coles": Method(f"CoLES, {COLES['epochs']} epochs", "rival", _coles, budget=COLES),
    "category_counts": Method("category counts", "simple", _categories, quick=True, trees=True),
    "category_windows": Method(
        f"category counts, last {WINDOWS} months, volume",
        "simple",
        _counts("categories", WINDOWS),
        quick=True,
        trees=True,
        budget={"windows": WINDOWS},
    ),
    "item_counts": Method(
        "item counts",
        "simple",
        _counts("items"),
        budget={"min_user_share": MIN_USER_SHARE["items"]},
    ),
    "item_windows": Method(
        f"item counts, last {WINDOWS} months, volume",
        "simple",
        _counts("items", WINDOWS),
        budget={"windows": WINDOWS, "min_user_share": MIN_USER_SHARE["items"]},
    ),
    "word_counts": Method(
        "word counts",
        "simple",
        _counts("words"),
        budget={"min_user_share": MIN_USER_SHARE["words"]},
    ),
    "word_windows": Method(
        f"word counts, last {WINDOWS} months, volume",
        "simple",
        _counts("words", WINDOWS),
        budget={"windows": WINDOWS, "min_user_share": MIN_USER_SHARE["words"]},
    ),
    "als": Method("ALS", "simple", _als, quick=True, budget={"iterations": 15}),
} | {
    f"svd_{of}_{width}": Method(
        f"truncated SVD of {'idf-normalised items' if of == 'items' else 'category counts'}, {width}",
        "simple",
        _svd(of, width),
        quick=True,
    )
    for of in cast(tuple[Features, ...], ("categories", "items"))
    for width in (64, 256)
}

# The paper's claims (b) to (g), one thing changed at a time; `claims.py` judges them.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "no_words": ("items without their words", {"embed_items.text_width": 0}),
    "whole_views": ("views not thinned", {"pretrain_smen.min_kept_share": 1}),
    "temperature_01": ("temperature 0.1", {"pretrain_smen.temperature": 0.1}),
    "random_start": ("W^e from random numbers", {"pretrain_smen.interest_start": "random"}),
    "interests_100": ("D = 100", {"cluster_interests.n_interests": 100}),
    "interests_300": ("D = 300", {"cluster_interests.n_interests": 300}),
    "interests_2000": ("D = 2000", {"cluster_interests.n_interests": 2000}),
    "anchors_1": (
        "one anchor",
        {"pretrain_smen.n_anchors": 1, "pretrain_smen.published_width": 64},
    ),
    "anchors_1_wide": (
        "one anchor of equal width",
        {"pretrain_smen.n_anchors": 1, "pretrain_smen.width": 640},
    ),
    "month_only": ("month alone", {"pretrain_smen.scales": {"month": 1}}),
    "year_only": ("year alone", {"pretrain_smen.scales": {"year": 12}}),
    "quarter_too": (
        "month, quarter and year",
        {"pretrain_smen.scales": {"month": 1, "quarter": 3, "year": 12}},
    ),
    "soft": ("soft assignment", {"cluster_interests.interests_per_item": 3}),
    "hdsc": ("interests by HDSC", {"cluster_interests.method": "hdsc"}),
    "kmeans": ("interests by k-means", {"cluster_interests.method": "kmeans"}),
    "zeros": ("empty periods as zeros", {"pretrain_smen.empty_periods": "zeros"}),
    "mean_pooling": ("mean instead of GRU", {"pretrain_smen.aggregation": "mean"}),
    "complement": ("one gate and its complement", {"pretrain_smen.gate": "complement"}),
}
HISTORY = (6, 3, 2, 1)  # months
ABLATIONS: dict[str, Method] = {
    name: Method(title, "ablation", _variant(changes), budget=changes)
    for name, (title, changes) in CHANGES.items()
} | {
    f"history_{months}": Method(
        f"history of {months} month{'s' * (months > 1)}", "ablation", _variant({}, months)
    )
    for months in HISTORY
}


def possible(name: str, data_set: DataSet) -> bool:
    """Whether the data set is large enough for the method: for its interests, for its months of history."""
    months = int(name.removeprefix("history_")) if name.startswith("history_") else 0
    n_interests = (
        ABLATIONS[name].budget.get("cluster_interests.n_interests") if name in ABLATIONS else 0
    )
    if months >= len(data_set.params.training.months):
        return False
    return not n_interests or n_interests <= data_set.n_distinct_items
