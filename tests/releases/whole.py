"""That nothing published is ever half there."""

import json
from pathlib import Path

from tests.releases.platforms import Platform, vectors


def check_whole(platform: Platform, *, names_only: bool = False) -> None:
    """Every commit and name that anybody can see has all its months, and all its files are stored.

    After an erasure this holds for the names only.
    """
    seen: dict[str, bool] = {}
    everything = platform.git("rev-list", "--all").splitlines()
    for commit in platform.names() if names_only else everything:
        if "dvc.lock" not in platform.git("ls-tree", "--name-only", commit).splitlines():
            continue
        hashes = platform.hashes(commit)
        months = platform.at(commit, "params.yaml")["months"]
        assert months
        assert {vectors(month) for month in months} <= set(hashes), commit
        (landed,) = platform.at(commit, "data/landing.dvc")["outs"]
        for md5 in {*hashes.values(), landed["md5"]}:
            if md5 not in seen:
                seen[md5] = is_stored(platform.store, md5)
        in_git = {path for path in hashes if is_in_git(platform, commit, path)}
        missing = [p for p, md5 in hashes.items() if not seen[md5] and p not in in_git]
        assert missing == [], commit
        assert seen[landed["md5"]], commit


def is_in_git(platform: Platform, commit: str, path: str) -> bool:
    """Whether git keeps the file, not DVC."""
    return bool(platform.git("ls-tree", "--name-only", commit, path))


def is_stored(store: Path, md5: str) -> bool:
    """Whether the store has the object, and if it is a folder, all that lies in it."""
    path = store / "files/md5" / md5[:2] / md5[2:]
    if not path.exists():
        return False
    if not md5.endswith(".dir"):
        return True
    return all(is_stored(store, entry["md5"]) for entry in json.loads(path.read_text("utf-8")))
