"""What every published file holds of users, and how it is written again without some of them.

A file that no rule knows is refused: no certificate may speak of what nobody looked into. Who adds an
output to dvc.yaml adds its rule here.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lurm.erasure.rows import Found, find_rows, leave_out
from lurm.erasure.tombstones import Tombstones
from lurm.storage import (
    map_arrow,
    read_json,
    read_parquet,
    read_schema,
    write_json,
    write_text,
)

HASH_OF_BEHAVIORS = "sha256"  # in a profile
HASH_OF_LABELS = b"behaviors_sha256"  # in the metadata of labels


@dataclass(frozen=True)
class Freeing:
    """What frees an artifact: the tombstones, what clean months hashed to before and after, and the file
    that tells who the users are where the artifact itself does not (:func:`users_beside`)."""

    tombstones: Tombstones
    hashes: dict[str, str]
    users: Path | None = None


# Writes the file or folder at the first path to the second without forgotten users, unless it holds none
# and says nothing about a file that did.
Rule = Callable[[Path, Path, Freeing], Found]


def rows(source: Path, target: Path, freeing: Freeing) -> Found:
    """A table with a column ``user_id``."""
    found = find_rows(source, freeing.tombstones)
    if found.rows:
        leave_out(source, target, freeing.tombstones)
    return found


def landed(source: Path, target: Path, freeing: Freeing) -> Found:
    """A landed table, which tells how many rows were left out."""
    found = find_rows(source, freeing.tombstones)
    if found.rows:
        leave_out(source, target, freeing.tombstones, counted=True)
    return found


def labels(source: Path, target: Path, freeing: Freeing) -> Found:
    """Labels, which name the behaviors that they were made from by their hash."""
    found = find_rows(source, freeing.tombstones)
    made_from = (read_schema(source).metadata or {}).get(HASH_OF_LABELS, b"").decode()
    now = freeing.hashes.get(made_from, made_from)
    if found.rows or now != made_from:
        metadata = {HASH_OF_LABELS: now.encode()}
        leave_out(source, target, freeing.tombstones, metadata=metadata)
    return found


def profile(source: Path, target: Path, freeing: Freeing) -> Found:
    """A month's profile, which names the clean month by its hash; its sums stay as published."""
    known: dict[str, Any] = read_json(source)
    now = freeing.hashes.get(known[HASH_OF_BEHAVIORS])
    if now:
        write_json(known | {HASH_OF_BEHAVIORS: now}, target)
    return Found()


def page(source: Path, target: Path, freeing: Freeing) -> Found:
    """A validation page, which shows some rows as delivered and the heaviest users by their ids."""
    tombstones, users = freeing.tombstones, set()

    def without(table: re.Match[str]) -> str:
        heads = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", table[0], flags=re.DOTALL)
        (column,) = (n for n, head in enumerate(heads) if head in ("user_id", "User"))

        def row(match: re.Match[str]) -> str:
            cells = re.findall(r"<td[^>]*>(.*?)</td>", match[0], flags=re.DOTALL)
            hashed = tombstones.hash(html.unescape(cells[column])) if cells else ""
            if hashed not in tombstones.hashes:
                return match[0]
            users.add(hashed)
            return ""

        return re.sub(r"<tr>.*?</tr>\s*", row, table[0], flags=re.DOTALL)

    tables = r'<table class="examples">.*?</table>|<p>Unusually active.*?</table>'
    text = re.sub(tables, without, source.read_text("utf-8"), flags=re.DOTALL)
    if users:
        write_text(text, target)
    return Found(len(users), frozenset(users))


def states(source: Path, target: Path, freeing: Freeing) -> Found:
    """A folder of a month's user states; see :mod:`lurm.states`."""
    from lurm.states import finish_month, growing_states, load_shard, shard_of

    about = read_json(source / "about.json")
    numbers = range(len(about["shards"]))
    users = [map_arrow(shard_of(source, number))["user_id"] for number in numbers]
    found, _ = _of_shards(users, freeing.tombstones)
    for number in numbers if found.rows else ():
        with growing_states(shard_of(target, number), about["scales"]) as append:
            for states in load_shard(source, number):
                forgotten, _ = freeing.tombstones.find(pa.chunked_array([states.users]))
                append(states.take(np.flatnonzero(~forgotten)))
    if found.rows:
        told = {key: about[key] for key in ("month", "model_version", "n_interests", "scales")}
        finish_month(target, len(numbers), **told)
    return found


def timelines(source: Path, target: Path, freeing: Freeing) -> Found:
    """A folder of timelines; see :mod:`lurm.timelines`."""
    from lurm.timelines import finish, load_shard, save_shard, shards_of

    shards = shards_of(source)
    users = [read_parquet(shard / "users.parquet")["user_id"] for shard in shards]
    found, kept = _of_shards(users, freeing.tombstones)
    told = []
    for shard, rows in zip(shards, kept, strict=True) if found.rows else ():
        before = load_shard(shard)
        lives = replace(before.take(rows), users=before.users.take(pa.array(rows)))
        told.append(save_shard(lives, target / shard.name))
    if told:
        finish(target, told)
    return found


def _of_shards(
    users: list[pa.ChunkedArray], tombstones: Tombstones
) -> tuple[Found, list[NDArray[np.int64]]]:
    """What is found among the users of all shards, and for each shard which rows stay."""
    forgotten, hashes = zip(*map(tombstones.find, users), strict=True)
    found = Found(sum(int(rows.sum()) for rows in forgotten), frozenset().union(*hashes))
    return found, [np.flatnonzero(~rows) for rows in forgotten]


def index(source: Path, target: Path, freeing: Freeing) -> Found:
    """An index of vectors, whose rows are those of the table; its mean and cells stay as published."""
    from lurm.use.index import read_index, write_index
    from lurm.vectors import vector_matrix

    vectors = _beside(source, freeing)
    found = find_rows(vectors, freeing.tombstones)
    if found.rows:
        table = read_parquet(vectors)
        forgotten, _ = freeing.tombstones.find(table["user_id"])
        kept = read_index(source)
        kept.reset()
        kept.add(vector_matrix(table)[~forgotten])
        write_index(kept, target)
    return found


def explorer(source: Path, target: Path, freeing: Freeing) -> Found:
    """The explorer, in which each user's life is an element of its own, under another name."""
    users = read_parquet(_beside(source, freeing))
    forgotten, hashes = freeing.tombstones.find(users["user_id"])
    text = source.read_text("utf-8")
    for name in users.filter(pa.array(forgotten))["name"].to_pylist():
        of_user = f'data-life="{re.escape(html.escape(name))}"'
        text = re.sub(
            rf"<(button|script)[^>]*{of_user}[^>]*>.*?</\1>\s*", "", text, flags=re.DOTALL
        )
    if hashes:
        write_text(text, target)
    return Found(int(forgotten.sum()), hashes)


def nothing(_: Path, __: Path, ___: Freeing) -> Found:
    """A file that holds items, models, or sums over all users."""
    return Found()


def _beside(source: Path, freeing: Freeing) -> Path:
    if freeing.users is None:
        raise ValueError(f"{source}: expected the table of its users beside it, found none")
    return freeing.users


# In the order in which they are freed: clean months before what names them by their hash.
RULES: dict[str, Rule] = {
    "data/behaviors/*": rows,
    "data/landing/items.parquet": nothing,
    "data/landing/items/*": nothing,
    "data/landing/users.parquet": landed,
    "data/landing/behaviors/*": landed,
    "data/quarantine/items/*": nothing,
    "data/quarantine/behaviors/*": rows,
    "data/training/catalog.parquet": nothing,
    "data/training/behaviors/*": rows,
    "data/boi/*": rows,
    "data/states/*": states,
    "data/timelines": timelines,
    "data/user_vectors/*": rows,
    "data/predictions/*": rows,
    "data/index/*": index,
    "reports/explorer.html": explorer,
    "data/explored/*": rows,
    "data/drift/*/predictions/*": rows,
    "data/drift/*/labels/*": rows,
    "data/drift/*": nothing,
    "standing/release/user_vectors.parquet": rows,
    "standing/*": nothing,
    "data/labels/*": labels,
    "data/profiles/*": profile,
    "reports/validation/*.html": page,
    "data/catalog/*": nothing,
    "data/item_interests/*": nothing,
    "data/accepted/*": nothing,
    "data/encoded/*": nothing,
    "models/*": nothing,
    "reports/*": nothing,
}
FOLDERS = (states, timelines)  # rules for a folder as a whole


def users_beside(path: str) -> str | None:
    """The published table that tells whose rows an artifact holds, if the artifact does not itself.

    >>> users_beside("data/index/2017-05.faiss")
    'data/user_vectors/2017-05.parquet'
    """
    rule = RULES.get(pattern_of(path))
    if rule is index:
        return f"data/user_vectors/{PurePosixPath(path).stem}.parquet"
    return "data/explored/users.parquet" if rule is explorer else None


def pattern_of(path: str) -> str:
    """The key of the rule for a published path.

    Raises:
        ValueError: there is none.
    """
    for pattern in RULES:
        if fnmatch(path, pattern):
            return pattern
    raise ValueError(
        f"{path}: expected an artifact of which it is known what it holds of users, found another; say so "
        "in lurm/erasure/artifacts.py"
    )
