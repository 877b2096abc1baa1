"""Tasks: who belongs to which class, built from what was known at the time.

Two kinds. *Category*: will the user have a behavior with an item of a category during the label
months (paper 3.1)? *Attribute*: what is the user's attribute, such as the age band?

Letters: U users with a vector, n users of the task.
"""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lurm.tables import LABELS


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
        ValueError: the catalog lacks a column, or no item has a value.
    """
    user_id = behaviors.schema.field("user_id").type
    schema = pa.schema({**LABELS, "user_id": user_id})
    parts = [schema.empty_table()]
    with duckdb.connect() as connection:
        connection.register("behaviors", behaviors)
        connection.register("catalog", catalog)
        for column, value in sorted(set(categories)):
            _check_category(catalog, column, value)
            users = connection.sql(
                "select distinct user_id from behaviors join catalog using (item_id) "
                f"where {_quoted(column)} = $1",
                params=[value],
            ).to_arrow_table()["user_id"]
            texts = [pa.repeat(pa.scalar(text), len(users)) for text in (column, value)]
            parts.append(pa.table([users, *texts], schema=schema))
    return pa.concat_tables(parts).sort_by([(name, "ascending") for name in LABELS])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _check_category(catalog: pa.Table, column: str, value: str) -> None:
    if column not in catalog.column_names:
        raise ValueError(
            f"tasks: the catalog has no column {column!r}; it has "
            f"{', '.join(name for name in catalog.column_names if name != 'item_id')}"
        )
    known = [known for known in pc.unique(catalog[column]).to_pylist() if known is not None]
    if value not in known:
        near = get_close_matches(value, known, n=3)
        raise ValueError(
            f"tasks: no item of the catalog has {column} {value!r}"
            + (
                f"; did you mean {' or '.join(map(repr, near))}?"
                if near
                else "; check its spelling"
            )
        )


def category_labels(
    user_ids: pa.ChunkedArray | pa.Array, labels: pa.Table, column: str, value: str, folds: int
) -> TaskLabels:
    """Class "yes" for every user with a label of that category, "no" for all others.

    user_ids: (U,) ids of the user vectors; labels: label months together (`tables.LABELS`).

    Raises:
        ValueError: ids are of another type or repeated, or a class has fewer users than ``folds``.
    """
    _check_ids(user_ids, labels, "labels")
    of_task = labels.filter((pc.field("column") == column) & (pc.field("value") == value))
    yes = pc.is_in(user_ids, value_set=pc.unique(of_task["user_id"])).to_numpy(zero_copy_only=False)
    order = pc.sort_indices(user_ids).to_numpy().astype(np.int64)
    task = TaskLabels(order, yes[order].astype(np.int64), ("no", "yes"))
    return _check_classes(task, folds, f"{column} {value!r}")


def attribute_labels(
    user_ids: pa.ChunkedArray | pa.Array,
    users: pa.Table,
    column: str,
    min_class_size: int,
    folds: int,
) -> TaskLabels:
    """The attribute's values as classes in the order of their text; users without one are left out.

    Classes of fewer than ``min_class_size`` users become one, named after all of them.
    user_ids: (U,) ids of the user vectors; users: one row per user, `user_id` and attributes.

    Raises:
        ValueError: the attribute is unknown, ids are of another type or repeated, only one class is
            there, or a class has fewer users than ``folds``.
    """
    if column not in users.column_names or column == "user_id":
        attributes = [name for name in users.column_names if name != "user_id"]
        raise ValueError(
            f"tasks: the users file has no attribute {column!r}; it has {', '.join(attributes)}"
        )
    _check_ids(user_ids, users, "users file")
    known = users.select(["user_id", column]).filter(pc.field(column).is_valid())
    if pc.count_distinct(known["user_id"]).as_py() != len(known):
        raise ValueError(f"users file: a user has more than one row with {column!r}; keep one")
    found = pc.index_in(user_ids, value_set=known["user_id"].combine_chunks())
    order = pc.sort_indices(user_ids).to_numpy().astype(np.int64)
    order = order[pc.is_valid(found).to_numpy(zero_copy_only=False)[order]]
    text = known[column].cast(pa.string()).take(found.take(pa.array(order)))
    values = np.array(text.to_pylist(), dtype=object)
    names, sizes = np.unique(values.astype(str), return_counts=True)
    small = names[sizes < min_class_size]
    merged = " | ".join(small)
    name_of = {name: merged if name in small else name for name in names.tolist()}
    classes = tuple(dict.fromkeys(name_of.values()))
    y = np.array([classes.index(name_of[value]) for value in values], dtype=np.int64)
    return _check_classes(TaskLabels(order, y, classes), folds, column)


def task_labels(
    user_ids: pa.ChunkedArray | pa.Array,
    source: pa.Table,
    column: str,
    value: str | None,
    *,
    min_class_size: int,
    folds: int,
) -> TaskLabels:
    """:func:`category_labels` for a task with a value, :func:`attribute_labels` for one without."""
    if value is None:
        return attribute_labels(user_ids, source, column, min_class_size, folds)
    return category_labels(user_ids, source, column, value, folds)


def _check_ids(user_ids: pa.ChunkedArray | pa.Array, table: pa.Table, where: str) -> None:
    if pc.count_distinct(user_ids).as_py() != len(user_ids):
        raise ValueError("user vectors: a user appears more than once; expected one row per user")
    kind = table.schema.field("user_id").type
    if kind != user_ids.type:
        raise ValueError(
            f"{where}: user_id should be {user_ids.type}, as in the vectors, is {kind}"
        )


def _check_classes(task: TaskLabels, folds: int, what: str) -> TaskLabels:
    sizes = np.bincount(task.y, minlength=len(task.classes))
    if len(task.classes) < 2 or (sizes > 0).sum() < 2:
        raise ValueError(
            f"tasks: {what} has a single class among {len(task.y):,} users, expected at least two; "
            "check the task's column and value, or take it out of params.yaml"
        )
    if sizes.min() < folds:
        raise ValueError(
            f"tasks: {what} has a class of {sizes.min()} users ({task.classes[sizes.argmin()]!r}), "
            f"too few for {folds} folds; lower evaluation.folds or raise evaluation.min_class_size"
        )
    return task
