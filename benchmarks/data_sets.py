"""The data sets of the scorecard: what methods are trained on, and the users that are reported.

A data set is the workspace of a finished run. Every method sees the behaviors of the training months and
the catalog as pinned; scores are taken on all users but the validation users, by whom settings are chosen.

Letters: U users.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lurm.competitors.lives import Lives, read_lives
from lurm.heads import vector_matrix
from lurm.holdout import validation_users
from lurm.params import Params, load_params
from lurm.storage import file_hash, month_files, read_array, read_parquet
from lurm.tasks import TaskLabels, task_labels

Users = Literal["reported", "validation", "all"]


@dataclass(frozen=True)
class DataSet:
    """A workspace, its settings, and what lies in it."""

    name: str
    root: Path
    params: Params

    @cached_property
    def behaviors(self) -> pa.Table:
        """Behaviors of the training months."""
        return read_months(self.root / "data/training/behaviors", self.params.training.months)

    @cached_property
    def catalog(self) -> pa.Table:
        """The catalog at the end of training."""
        return read_parquet(self.root / "data/training/catalog.parquet")

    @cached_property
    def user_ids(self) -> pa.Array:
        """Users with a behavior in the training months, sorted, (U,)."""
        return pc.unique(self.behaviors["user_id"]).sort()

    @cached_property
    def lives(self) -> Lives:
        """The users' behaviors one after the other, for the rivals that read sequences."""
        return read_lives(self.behaviors, self.catalog, self.user_ids, self.text_columns)

    @cached_property
    def n_distinct_items(self) -> int:
        """Items that their vectors tell apart: at most so many interests can be found."""
        return len(np.unique(read_array(self.root / "models/item_vectors.npy"), axis=0))

    @property
    def text_columns(self) -> Sequence[str]:
        """Catalog columns that hold the items' words."""
        return self.params.embed_items.text_columns

    @property
    def category_column(self) -> str:
        """The catalog column that the category tasks ask about."""
        return next(task.column for task in self.params.tasks.values() if task.value is not None)

    @cached_property
    def published(self) -> np.ndarray:
        """The vectors of the run, (U, d).

        Raises:
            ValueError: a user has none, so that scores would not compare.
        """
        path = self.root / f"data/user_vectors/{self.params.evaluation.as_of}.parquet"
        vectors = read_parquet(path)
        rows = pc.index_in(self.user_ids, value_set=vectors["user_id"].combine_chunks())
        if rows.null_count:
            raise ValueError(
                f"{path}: {rows.null_count} of {len(self.user_ids)} users with behaviors in the "
                "training months have no vector; encode them as of the end of these months"
            )
        return vector_matrix(vectors)[rows.to_numpy()]

    def tasks(
        self, users: Users = "all", min_share: float = 0.05, max_share: float = 0.95
    ) -> dict[str, TaskLabels]:
        """Users and classes of every task: wide tasks, found from the data, and the attributes.

        A wide task is a value of the category column that between ``min_share`` and ``max_share`` of the
        users chose in the label months; its name is that value after the column, ``column=value``.
        Settings are chosen on the validation users; the reported users are all others. Classes that are too
        small for the folds among these users are left out.
        """
        settings = self.params.evaluation
        aside = validation_users(self.user_ids)
        wanted = {"reported": ~aside, "validation": aside, "all": np.ones_like(aside)}[users]
        found = wide_tasks(
            self.user_ids, self.later_categories(), self.category_column, min_share, max_share
        )
        attributes = self.root / "data/landing/users.parquet"
        known = read_parquet(attributes) if attributes.exists() else None
        for name, task in self.params.tasks.items():
            if task.value is not None:
                continue
            if known is None:
                raise ValueError(f"tasks.{name}: {attributes} is missing; land the users file")
            found[name] = task_labels(
                self.user_ids,
                known,
                task.column,
                None,
                min_class_size=settings.min_class_size,
                folds=settings.folds,
            )
        reduced = {name: among(task, wanted, 2 * settings.folds) for name, task in found.items()}
        return {name: task for name, task in reduced.items() if len(task.classes) > 1}

    def later_categories(self) -> pa.Table:
        """Who chose an item of which category in the label months: `user_id` and `value`, distinct rows.

        Each month is read with the catalog as known that month.
        """
        parts = []
        for month in self.params.evaluation.label_months:
            behaviors = read_parquet(self.root / f"data/behaviors/{month}.parquet")
            catalog = read_parquet(self.root / f"data/catalog/{month}.parquet")
            item = pc.index_in(behaviors["item_id"], value_set=catalog["item_id"].combine_chunks())
            value = catalog[self.category_column].take(item)
            parts.append(pa.table({"user_id": behaviors["user_id"], "value": value}).drop_null())
        return pa.concat_tables(parts).group_by(["user_id", "value"]).aggregate([])

    def fingerprint(self) -> dict[str, str]:
        """Hashes of all that scores depend on but the method: behaviors, catalog, labels."""
        training, labels = self.params.training.months, self.params.evaluation.label_months
        files = [
            *month_files(self.root / "data/training/behaviors", list(training)),
            self.root / "data/training/catalog.parquet",
            *month_files(self.root / "data/behaviors", list(labels)),
            *month_files(self.root / "data/catalog", list(labels)),
        ]
        return {str(path.relative_to(self.root)): file_hash(path)[:16] for path in files}


def open_data_set(name: str, root: Path) -> DataSet:
    """The data set in a workspace."""
    return DataSet(name, root, load_params(root / "params.yaml"))


def read_months(folder: Path, months: Sequence[str]) -> pa.Table:
    """The tables of the listed months, one after the other."""
    return pa.concat_tables([read_parquet(path) for path in month_files(folder, list(months))])


def wide_tasks(
    user_ids: pa.Array, later: pa.Table, column: str, min_share: float, max_share: float
) -> dict[str, TaskLabels]:
    """One task for each value that between two shares of the users chose later, in the order of the values.

    Args:
        user_ids: (U,) users with a history; others are left out of ``later``.
        later: `user_id` and `value`, distinct rows.
        column: of the values, for the tasks' names.
        min_share: least share of the users.
        max_share: largest share of the users.

    Raises:
        ValueError: the shares are not in order between 0 and 1, or no value is between them.
    """
    if not 0 < min_share < max_share < 1:
        raise ValueError(
            f"shares of wide tasks: expected 0 < least < largest < 1, got {min_share} and {max_share}"
        )
    user = pc.index_in(later["user_id"], value_set=user_ids)
    known = pa.table({"user": user, "value": later["value"]}).drop_null()
    values = known["value"].combine_chunks().dictionary_encode()
    names = values.dictionary.to_pylist()
    rows, codes = known["user"].to_numpy(), values.indices.to_numpy()
    shares = np.bincount(codes, minlength=len(names)) / len(user_ids)
    every = np.arange(len(user_ids))
    tasks = {}
    for value in sorted(
        code for code in range(len(names)) if names[code] and min_share <= shares[code] <= max_share
    ):
        y = np.zeros(len(user_ids), dtype=np.int64)
        y[rows[codes == value]] = 1
        tasks[f"{column}={names[value]}"] = TaskLabels(every, y, ("no", "yes"))
    if not tasks:
        raise ValueError(
            f"wide tasks: no value of {column} was chosen by {min_share:.0%} to {max_share:.0%} of "
            f"{len(user_ids):,} users in the label months; widen the shares"
        )
    return dict(sorted(tasks.items()))


def among(task: TaskLabels, wanted: np.ndarray, smallest: int) -> TaskLabels:
    """The task for the ``wanted`` users (U,) alone, without classes of fewer than ``smallest`` of them."""
    kept = wanted[task.rows]
    rows, y = task.rows[kept], task.y[kept]
    large = np.flatnonzero(np.bincount(y, minlength=len(task.classes)) >= smallest)
    kept = np.isin(y, large)
    return replace(
        task,
        rows=rows[kept],
        y=np.searchsorted(large, y[kept]),
        classes=tuple(task.classes[c] for c in large),
    )
