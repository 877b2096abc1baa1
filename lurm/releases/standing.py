"""What a retraining takes over from the standing release: ``standing/release``, which DVC keeps.

It is a dependency of the stages that go on from there, and holds no more than they read: the map of
items to interests and the users' vectors, both as of the last month that the new models learn from, the
lineage of interests, and whose they are. The highest id of an interest is that of any release, also of one
that was taken back, so that none is given twice.
"""

import json
import logging
import shutil

from lurm.interests.lineage import first_lineage
from lurm.releases.workspaces import RELEASE_MODEL, Workspace
from lurm.storage import read_array, read_settings, replacing, write_json, write_parquet

FOLDER = "standing/release"
LINEAGE, REPORT = "models/interest_lineage.parquet", "reports/cluster_interests.json"

log = logging.getLogger(__name__)


def stand_on(workspace: Workspace, month: str) -> None:
    """Fill ``standing/release`` from what is published and lies in the workspace, if anything is.

    Raises:
        ValueError: the standing release has not encoded the month.
    """
    outputs = workspace.outputs()
    if RELEASE_MODEL not in outputs:
        return
    sources = {
        "item_interests.parquet": f"data/item_interests/{month}.parquet",
        "user_vectors.parquet": f"data/user_vectors/{month}.parquet",
    }
    absent = [path for path in sources.values() if path not in outputs]
    if absent:
        raise ValueError(
            f"retraining through {month}: it goes on from what the standing release made of that month, "
            f"but {', '.join(absent)} is not published; let lurm_refresh publish {month} first"
        )
    folder = workspace.root / FOLDER
    for name, path in sources.items():
        _copy(workspace, path, name)
    about = read_settings(workspace.root / RELEASE_MODEL)
    model = about["model_version"]
    if LINEAGE in outputs:
        _copy(workspace, LINEAGE, "interest_lineage.parquet")
    else:  # a release from before interests had ids: they are its rows
        n_interests = len(read_array(workspace.root / "models/interest_centres.npy"))
        lineage = first_lineage([0.0] * n_interests, workspace.params()["training"]["through"])
        write_parquet(lineage, folder / "interest_lineage.parquet")
    write_json(
        {
            "month": month,
            "model_version": model,
            "space_version": about.get("space_version", model),
            "last_interest_id": _last_interest_id(workspace),
        },
        folder / "about.json",
    )
    workspace.do("dvc", "add", FOLDER)


def _last_interest_id(workspace: Workspace) -> int:
    """The highest id of an interest in any release there was, so that none is given twice; -1 without."""
    names = workspace.ask("tag", "--list", "release/*").split()
    reports = (workspace.ask("show", f"{name}:{REPORT}") for name in names)
    return max(
        (json.loads(text).get("last_interest_id", -1) for text in reports if text), default=-1
    )


def _copy(workspace: Workspace, path: str, name: str) -> None:
    """A copy, since what lies in the workspace may be a link into the cache."""
    with replacing(workspace.root / FOLDER / name) as temporary:
        shutil.copyfile(workspace.root / path, temporary)
