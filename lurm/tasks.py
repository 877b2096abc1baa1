"""Tasks: who belongs to which class, built from what was known at the time.

Two kinds. *Category*: will the user have a behavior with an item of a category during the label
months (paper 3.1)? *Attribute*: what is the user's attribute, such as the age band?

Letters: U users with a vector, n users of the task.
"""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lurm.storage import month_files, read_parquet
from lurm.tables import LABELS, LANDED_USERS, check_columns


class UntrainableTaskError(ValueError):
    """A task without two classes that are large enough: there is nothing that a head could learn."""


@dataclass(frozen=True)
class TaskLabels:
    """The users of a task in the order of their ids, and their classes."""

    rows: np.ndarray  # (n,) int64 row numbers into the user vectors
    y: np.ndarray  # (n,) int64 class index
    classes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Users of every class."""
        return dict(zip(self.classes, np.bincount(self.y).tolist(), strict=True))


def collect_labels(
    behaviors: pa.Table, catalog: pa.Table, categories: Collection[tuple[str, str]]
) -> pa.Table:
    """Who had a behavior with an item of which category: distinct rows, sorted (`tables.LABELS`).

    behaviors, catalog: clean behaviors of one month and the catalog as known that month;
    categories: pairs of a catalog column and a value.

    Raises:
        ValueError: the catalog lacks a column.
    """
    for column in {column for column, _ in categories} - set(catalog.column_names):
        raise ValueError(
            f"tasks: the catalog has no column {column!r}; it has "
            f"{', '.join(name for name in catalog.column_names if name != 'item_id')}"
        )
    user_id = behaviors.schema.field("user_id").type
    schema = pa.schema({**LABELS, "user_id": user_id})
    parts = [schema.empty_table()]
    with duckdb.connect() as connection:
        connection.register("behaviors", behaviors)
        connection.register("catalog", catalog)
        for column, value in sorted(set(categories)):
            users = connection.sql(
                "select distinct behaviors.user_id from behaviors join catalog using (item_id) "
                f"where catalog.{_quoted(column)} = $1",
                params=[value],
            ).to_arrow_table()["user_id"]
            texts = [pa.repeat(pa.scalar(text), len(users)) for text in (column, value)]
            parts.append(pa.table([users, *texts], schema=schema))
    return pa.concat_tables(parts).sort_by([(name, "ascending") for name in LABELS])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def unknown_categories(catalog: pa.Table, categories: Collection[tuple[str, str]]) -> list[str]:
    """The categories that no item of the catalog has, in words, with known ones of a like spelling.

    A catalog may learn of a category later, so this is no fault by itself.
    """
    told = []
    for column, value in sorted(set(categories)):
        known = pc.unique(catalog[column]).drop_null().to_pylist()
        if value not in known:
            near = " or ".join(map(repr, get_close_matches(value, known, n=3)))
            advice = f"did you mean {near}?" if near else "check its spelling"
            told.append(f"no item of the catalog has {column} {value!r}; {advice}")
    return told


def category_labels(
    user_ids: pa.Array,
    labels: pa.Table,
    column: str,
    value: str,
    folds: int,
    most_users: int | None = None,
    seed: int = 0,
) -> TaskLabels:
    """Class "yes" for every user with a label of that category, "no" for all others.

    user_ids: (U,) ids of the user vectors; labels: all label months together (`tables.LABELS`). Of more
    than ``most_users`` so many are drawn.

    Raises:
        UntrainableTaskError: a class has fewer users than ``folds``.
        ValueError: ids are of another type or repeated.
    """
    every = _by_id(user_ids)
    rows = _drawn(every, most_users, seed)
    of_task = labels.filter((pc.field("column") == column) & (pc.field("value") == value))
    yes = pc.is_in(user_ids.take(rows), value_set=_ids_like(user_ids, of_task, "labels"))
    y = np.asarray(yes, dtype=np.int64)
    what = f"{column} {value!r}"
    return _check_classes(TaskLabels(rows, y, ("no", "yes")), folds, what, len(every))


def attribute_labels(
    user_ids: pa.Array,
    users: pa.Table,
    column: str,
    min_class_size: int,
    folds: int,
    most_users: int | None = None,
    seed: int = 0,
) -> TaskLabels:
    """The attribute's values as classes in the order of their text; users without one are left out.

    Classes of fewer than ``min_class_size`` users become one, named after all of them. Of more than
    ``most_users`` with the attribute so many are drawn.
    user_ids: (U,) ids of the user vectors; users: one row per user, `user_id` and attributes.

    Raises:
        UntrainableTaskError: there is only one class, or a class has fewer users than ``folds``.
        ValueError: the attribute is unknown, ids are of another type or repeated.
    """
    if column not in users.column_names:
        raise ValueError(
            f"tasks: the users file has no attribute {column!r}; it has "
            f"{', '.join(name for name in users.column_names if name != 'user_id')}"
        )
    known = users.select(["user_id", column]).drop_null()
    ids = _ids_like(user_ids, known, "users file")
    if len(pc.unique(ids)) < len(ids):
        raise ValueError(f"users file: some users have several rows with {column!r}; keep one each")
    rows = _by_id(user_ids)
    there = pc.is_in(user_ids.take(rows), value_set=ids)
    every = rows[np.asarray(there)]
    rows = _drawn(every, most_users, seed)
    found = pc.index_in(user_ids.take(rows), value_set=ids)
    values = np.asarray(known[column].take(found).cast(pa.string()), dtype=str)
    names, index, sizes = np.unique(values, return_inverse=True, return_counts=True)
    merged = " | ".join(names[sizes < min_class_size])
    renamed = [
        merged if few else str(name)
        for name, few in zip(names, sizes < min_class_size, strict=True)
    ]
    classes = tuple(dict.fromkeys(renamed))
    y = np.array([classes.index(name) for name in renamed], dtype=np.int64)[index]
    return _check_classes(TaskLabels(rows, y, classes), folds, column, len(every))


def task_labels(
    user_ids: pa.Array,
    source: pa.Table,
    column: str,
    value: str | None,
    *,
    min_class_size: int,
    folds: int,
    most_users: int | None = None,
    seed: int = 0,
) -> TaskLabels:
    """:func:`category_labels` for a task with a value, :func:`attribute_labels` for one without."""
    if value is None:
        return attribute_labels(user_ids, source, column, min_class_size, folds, most_users, seed)
    return category_labels(user_ids, source, column, value, folds, most_users, seed)


def _drawn(rows: np.ndarray, most: int | None, seed: int) -> np.ndarray:
    """At most so many of the rows (n,), drawn by chance, in their order; all of them for None."""
    if most is None or len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])]


def _by_id(user_ids: pa.Array) -> np.ndarray:
    if len(pc.unique(user_ids)) < len(user_ids):
        raise ValueError("user vectors: some users have several rows; expected one row each")
    return np.asarray(pc.sort_indices(user_ids), dtype=np.int64)


def _ids_like(user_ids: pa.Array, table: pa.Table, where: str) -> pa.Array:
    """The table's user ids as the type that the vectors use."""
    ids, kind = table["user_id"].combine_chunks(), user_ids.type
    if pa.types.is_integer(ids.type) != pa.types.is_integer(kind):
        raise ValueError(f"{where}: user_id should be {kind} as in the user vectors, is {ids.type}")
    return ids.cast(kind)


def _check_classes(task: TaskLabels, folds: int, what: str, n_users: int) -> TaskLabels:
    rare = (
        f", drawn from {n_users:,}: the class may be too rare for so few, so raise evaluation.most_users"
        if len(task.y) < n_users
        else ""
    )
    sizes = np.bincount(task.y, minlength=len(task.classes))
    if (sizes > 0).sum() < 2:
        raise UntrainableTaskError(
            f"tasks: {what} has a single class among {len(task.y):,} users{rare}, expected two or more; "
            "check the column and the value of the task, or take it out of params.yaml"
        )
    if sizes.min() < folds:
        raise UntrainableTaskError(
            f"tasks: {what} has a class of {sizes.min()} users ({task.classes[sizes.argmin()]!r}), "
            f"too few for {folds} folds{rare}; lower evaluation.folds or raise evaluation.min_class_size"
        )
    return task


def read_source(task: str, labels: Path, months: list[str] | None) -> pa.Table:
    """The label months of a category task together, or the users file of an attribute task."""
    if months is None:
        if labels.is_dir():
            raise ValueError(
                f"tasks.{task}: {labels} is a folder of label months, so a value is "
                "expected beside the column; for an attribute, name the users file"
            )
        source = read_parquet(labels)
        check_columns(source.schema, LANDED_USERS, str(labels))
    else:
        source = pa.concat_tables(map(read_parquet, month_files(labels, months)))
        check_columns(source.schema, LABELS, str(labels))
    return source
