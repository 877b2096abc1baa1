"""What heads say of all users, as a table.

Letters: U users.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from lurm.heads.choice import VECTOR, Head, Inputs, predict
from lurm.heads.inputs import COUNTS
from lurm.vectors import vector_matrix, vector_space

Counts = Callable[[pa.Array, np.ndarray], np.ndarray]


def predictions(
    vectors: pa.Table,
    heads: Mapping[str, tuple[Head, Mapping[str, Any]]],
    counts: Counts | None = None,
) -> pa.Table:
    """What every head says of every user: ``user_id``, ``model_version``, then by task, in their order.

    A category task has one column, ``<task>``: the probability of "yes", float32. An attribute task
    has two: ``<task>``, the most likely class, and ``<task>_probability``, its probability, float32.
    vectors: `tables.user_vectors_schema`; heads: by task, each as :func:`load_head` returns it; counts: of
    users' ids and of interests, for heads that take these beside the vector
    (:func:`lurm.heads.inputs.interest_counts`).

    Raises:
        ValueError: a head belongs to another space than the vectors, or two columns share a name.
    """
    x, space = vector_matrix(vectors), vector_space(vectors)
    blocks: dict[tuple[int, ...], np.ndarray] = {}
    columns: dict[str, Any] = {name: vectors[name] for name in ("user_id", "model_version")}
    for task, (head, about) in sorted(heads.items()):
        trained_in = about.get("space_version", about["model_version"])
        if trained_in != space:
            raise ValueError(
                f"the head of {task} was trained on vectors of space {trained_in}, these are of "
                f"space {space}; train it anew, or take vectors of its space"
            )
        inputs: Inputs = x
        if about.get("inputs", VECTOR) != VECTOR:
            if counts is None:
                raise ValueError(
                    f"the head of {task} takes counts beside the vector; hand them over"
                )
            interests = tuple(about["interests"])
            if interests not in blocks:
                ids = vectors["user_id"].combine_chunks()
                blocks[interests] = counts(ids, np.array(interests, dtype=np.int64))
            inputs = {VECTOR: x, COUNTS: blocks[interests]}
        probabilities = predict(head, inputs)
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
