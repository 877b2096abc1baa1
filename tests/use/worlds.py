"""Users in groups that lie apart, and the published table of their vectors."""

import numpy as np
import pyarrow as pa

from lurm.tables import user_vectors_schema


def grouped(n_users, n_groups, width=8, seed=0, spread=0.5):
    """Vectors (U, d) around the centres of their groups, far from zero, and the group of each (U,)."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_groups, width))
    group = np.arange(n_users) % n_groups
    x = centres[group] + spread * rng.standard_normal((n_users, width)) + 5
    return x.astype(np.float32), group


def vectors_table(x, ids=None, version="v1", n_behaviors=None):
    """The table of the vectors; users are numbered from 100 if nobody names them."""
    ids = pa.array(ids if ids is not None else range(100, 100 + len(x)))
    width = x.shape[1]
    columns = {
        "user_id": ids,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), width),
        "n_behaviors": n_behaviors if n_behaviors is not None else range(1, len(x) + 1),
        "confidence": pa.array([0.5] * len(x), pa.float32()),
        "first_month": ["2017-01"] * len(x),
        "last_month": ["2017-10"] * len(x),
        "model_version": [version] * len(x),
        "space_version": [version] * len(x),
    }
    return pa.table(columns, schema=user_vectors_schema(width, ids.type))
