"""Retention: what no published name and no unfinished run needs is removed.

Every tag keeps everything: whatever a published commit names stays in the cache and in the store.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lurm.releases.locks import locked
from lurm.releases.places import Places
from lurm.releases.workspaces import Workspace

log = logging.getLogger(__name__)


def prune(places: Places, days: float, *, store: bool) -> dict[str, Any]:
    """Remove the workspaces of finished or abandoned runs, then what nothing names from the cache.

    Waits until no run is at work. Returns the runs removed and kept.

    Args:
        places: of the platform.
        days: a run that has not published is abandoned when it has not been touched for so long.
        store: also clean the DVC store, which other platforms must then not share.
    """
    removed, kept = [], []
    with locked(places.home / "cache.lock") as lock:
        for folder in sorted(path for path in places.runs.glob("*") if path.is_dir()):
            run = Workspace(places, folder.name)
            if run.has_done("publish") or time.time() - _touched(folder) > days * 86_400:
                shutil.rmtree(folder)
                removed.append(folder.name)
            else:
                kept.append(folder.name)
        collect_garbage(places, lock, kept, store=store)
    log.info("%d runs removed, %d kept", len(removed), len(kept))
    return {"removed": removed, "kept": kept}


def collect_garbage(places: Places, lock: int, runs: Sequence[str], *, store: bool) -> str:
    """Remove from the cache what no published name and none of the runs needs; returns what DVC says.

    Args:
        places: of the platform.
        lock: descriptor of the cache's lock, held alone.
        runs: that go on.
        store: also clean the DVC store, which other platforms must then not share.
    """
    with tempfile.TemporaryDirectory(dir=places.home, prefix=".prune.") as name:
        whole = Workspace(Places(Path(name), places.repository, ""), "prune", (lock,))
        whole.folder.mkdir(parents=True)
        whole.do("git", "clone", "--quiet", places.repository, str(whole.root), at=whole.folder)
        heads = "+refs/heads/*:refs/heads/*"  # DVC looks at local branches only
        whole.do("git", "fetch", "--quiet", "--update-head-ok", "origin", heads)
        whole.do("dvc", "config", "--local", "cache.dir", str(places.cache))
        workspaces = [places.runs / run / "workspace" for run in runs]
        projects = [str(path) for path in workspaces if (path / ".dvc").exists()]
        using = ["--projects", *projects] if projects else []
        where = ["--cloud"] if store else []
        return whole.do("dvc", "gc", "--all-tags", "--all-branches", "--force", *where, *using)


def _touched(folder: Path) -> float:
    """When the run last began a step, in seconds since 1970."""
    return max(path.stat().st_mtime for path in (folder, *folder.glob("steps/*.json")))
