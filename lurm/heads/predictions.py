"""What heads say of all users, as a table.

Letters: U users.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lurm.heads.choice import Head, predict
from lurm.vectors import vector_matrix, vector_space


def predictions(vectors: pa.Table, heads: Mapping[str, tuple[Head, Mapping[str, Any]]]) -> pa.Table:
    """What every head says of every user: ``user_id``, ``model_version``, then by task, in their order.

    A category task has one column, ``<task>``: the probability of "yes", float32. An attribute task
    has two: ``<task>``, the most likely class, and ``<task>_probability``, its probability, float32.
    vectors: `tables.user_vectors_schema`; heads: by task, each as :func:`load_head` returns it.

    Raises:
        ValueError: a head belongs to another space than the vectors, or two columns share a name.
    """
    x, space = vector_matrix(vectors), vector_space(vectors)
    columns: dict[str, Any] = {name: vectors[name] for name in ("user_id", "model_version")}
    for task, (head, about) in sorted(heads.items()):
        trained_in = about.get("space_version", about["model_version"])
        if trained_in != space:
            raise ValueError(
                f"the head of {task} was trained on vectors of space {trained_in}, these are of "
                f"space {space}; train it anew, or take vectors of its space"
            )
        probabilities = predict(head, x)
        if about["value"] is not None:
            answer = {task: probabilities[:, about["classes"].index("yes")]}
        else:
            likely = pa.array(about["classes"]).take(pa.array(probabilities.argmax(axis=1)))
            answer = {task: likely, f"{task}_probability": probabilities.max(axis=1)}
        taken = ", ".join(columns.keys() & answer.keys())
        if taken:
            raise ValueError(f"tasks: two columns would be called {taken}; rename the task {task}")
        columns |= answer
    return pa.table(columns)
