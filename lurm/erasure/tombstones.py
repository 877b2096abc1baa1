"""Tombstones: who was forgotten, known by a keyed hash only.

The key stays outside of everything published: without it nobody can ask of an id whether it was forgotten.
So whoever lands deliveries once users were forgotten needs it, and another key is noticed.
"""

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

KEY, KEY_FILE = "LURM_ERASURE_KEY", "LURM_ERASURE_KEY_FILE"
SHORTEST = 32  # characters; a short key could be found by trying


def erasure_key(environment: Mapping[str, str]) -> bytes:
    """The key: what ``LURM_ERASURE_KEY`` holds, or the file that ``LURM_ERASURE_KEY_FILE`` names.

    Raises:
        ValueError: neither is set, or the key is too short.
        FileNotFoundError: there is no such file.
    """
    text, where = environment.get(KEY, ""), KEY
    if not text and environment.get(KEY_FILE):
        where = environment[KEY_FILE]
        if not Path(where).is_file():
            raise FileNotFoundError(
                f"{KEY_FILE}: expected a file with the key at {where}, found none"
            )
        text = Path(where).read_text("utf-8")
    text = text.strip()
    if not text:
        raise ValueError(
            f"expected the key of erasure in {KEY}, or in the file that {KEY_FILE} names, found "
            "neither; where users were forgotten before, it must be the key of then, or else make one "
            "with `openssl rand -hex 32` and keep it"
        )
    if len(text) < SHORTEST:
        raise ValueError(
            f"{where}: expected a key of at least {SHORTEST} characters, got {len(text)}; make one with "
            "`openssl rand -hex 32`"
        )
    return text.encode()


@dataclass(frozen=True)
class Tombstones:
    """The users that were forgotten, by their keyed hashes (HMAC-SHA-256, hex)."""

    key: bytes = field(repr=False)
    hashes: frozenset[str] = frozenset()

    def hash(self, user: int | str) -> str:
        """The keyed hash of a user id; an integer and its digits are the same id."""
        return self._hash(f"user {user}")

    def adding(self, hashes: Iterable[str]) -> "Tombstones":
        """These tombstones and more."""
        return replace(self, hashes=self.hashes.union(hashes))

    def find(self, users: pa.ChunkedArray) -> tuple[NDArray[np.bool_], frozenset[str]]:
        """Which rows of a column of ids belong to forgotten users, and the hashes of those users."""
        values = users.unique()
        hashes = [None if user is None else self.hash(user) for user in values.to_pylist()]
        forgotten = [hashed in self.hashes for hashed in hashes]
        there = values.filter(pa.array(forgotten, pa.bool_()))
        rows = pc.is_in(users, there, skip_nulls=True).to_numpy()
        return rows, self.hashes.intersection(filter(None, hashes))

    def to_json(self) -> str:
        """The text that :func:`read_tombstones` reads."""
        value = {"key_check": self._hash("key"), "users": sorted(self.hashes)}
        return json.dumps(value, indent=2) + "\n"

    def _hash(self, text: str) -> str:
        return hmac.digest(self.key, text.encode(), "sha256").hex()


def read_tombstones(text: str, key: bytes) -> Tombstones:
    """The tombstones that were written with this key.

    Raises:
        ValueError: they were written with another key, under which every forgotten user would come back.
    """
    value = json.loads(text)
    tombstones = Tombstones(key, frozenset(value["users"]))
    if not hmac.compare_digest(tombstones._hash("key"), value["key_check"]):
        raise ValueError(
            f"{KEY}: expected the key that the {len(tombstones.hashes)} tombstones were made with, got "
            "another; set that one, no other can tell who was forgotten"
        )
    return tombstones
