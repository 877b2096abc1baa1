"""The validation users: a fixed part of all users, by which settings are chosen and nothing is reported.

Letters: U users.
"""

import hashlib

import numpy as np
import pyarrow as pa


def validation_users(user_ids: pa.Array, share: float = 0.2) -> np.ndarray:
    """Which of the users are set aside for choosing settings, (U,) bool.

    A user belongs to them if the hash of the id, read as a number between 0 and 1, is below ``share``.
    That depends on the id alone, so a user keeps the place when others come or go, in every process
    and on every machine; an id delivered as a number and as its digits falls on the same side.

    Raises:
        ValueError: ``share`` is not between 0 and 1, or a user has no id.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share of validation users: expected 0 to 1, got {share}")
    if user_ids.null_count:
        raise ValueError(f"user ids: expected one for every user, {user_ids.null_count} are null")
    return np.array([_place(str(user)) < share for user in user_ids.to_pylist()], dtype=bool)


def _place(user: str) -> float:
    """The id's hash as a number between 0 and 1."""
    digest = hashlib.blake2b(user.encode(), digest_size=8, person=b"validation").digest()
    return int.from_bytes(digest) / 2**64
