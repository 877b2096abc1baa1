"""The names of commits from which users were removed: tags get a new revision, branches stay."""

import re
from collections.abc import Collection, Iterable

_REVISION = re.compile(r"(refresh/.+/r|.+-r)(\d+)")


def renamed(tags: Iterable[str], affected: Collection[str]) -> dict[str, str]:
    """The new name of every affected tag.

    A month's tags from its first affected one on get the numbers that follow the last, in their order, so
    that the newest stays the newest; any other tag gets ``-r2``, ``-r3`` and so on.

    >>> renamed(["refresh/2017-08/r1", "refresh/2017-08/r2"], {"refresh/2017-08/r2"})
    {'refresh/2017-08/r2': 'refresh/2017-08/r3'}
    >>> renamed(["release/1", "release/2-r2"], {"release/1", "release/2-r2"})
    {'release/1': 'release/1-r2', 'release/2-r2': 'release/2-r3'}
    """
    series: dict[str, list[tuple[int, str]]] = {}
    for tag in tags:
        found = _REVISION.fullmatch(tag)
        stem, number = (found[1], int(found[2])) if found else (f"{tag}-r", 1)
        series.setdefault(stem, []).append((number, tag))
    new = {}
    for stem, numbered in series.items():
        numbered.sort()
        last = numbered[-1][0]
        first = next((i for i, (_, tag) in enumerate(numbered) if tag in affected), len(numbered))
        for number, (_, tag) in enumerate(numbered[first:], last + 1):
            new[tag] = f"{stem}{number}"
    return new
