"""Founding a platform: the repository of what is published, before anything is."""

import logging
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from lurm.releases.places import Places
from lurm.releases.workspaces import BRANCH, Workspace
from lurm.storage import replacing

log = logging.getLogger(__name__)


def found(project: Path, repository: Path, store: str, endpoint: str | None) -> None:
    """Make the bare git repository ``repository``: the project as committed, with no month in it.

    Args:
        project: a clone of this project, whose HEAD is taken.
        repository: folder to make.
        store: folder or ``s3://`` address where DVC keeps the files.
        endpoint: address of S3 storage that is not Amazon's.

    Raises:
        ValueError: there is a repository already.
        CommandError: git or DVC could not do it.
    """
    if repository.exists():
        raise ValueError(
            f"{repository}: expected nothing there, found a repository; it stays as it is"
        )
    repository.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=repository.parent, prefix=".founding.") as name:
        new = Workspace(Places(Path(name), "", ""), "founding")
        new.folder.mkdir(parents=True)
        new.do(
            "git",
            "clone",
            "--quiet",
            "--no-local",
            str(project.resolve()),
            str(new.root),
            at=new.folder,
        )
        new.do("git", "switch", "--quiet", "--force-create", BRANCH)
        new.do(
            "git", "rm", "-r", "--quiet", "--ignore-unmatch",
            "data/landing.dvc", "standing/release.dvc", "dvc.lock", "reports",
        )  # fmt: skip
        parser = YAML()
        parser.width = 1000
        parser.preserve_quotes = True
        settings = parser.load(new.root / "params.yaml")
        settings["months"].clear()
        settings["training"]["release"] = 1
        with replacing(new.root / "params.yaml") as temporary:
            parser.dump(settings, temporary)
        new.do("dvc", "remote", "add", "--force", "--default", "store", store)
        if endpoint:
            new.do("dvc", "remote", "modify", "store", "endpointurl", endpoint)
        new.do("git", "add", "--all")
        new.do("git", "commit", "--quiet", "--message", "a platform before its first month")
        bare = new.folder / "published.git"
        new.do("git", "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(bare))
        new.do("git", "push", "--quiet", str(bare), BRANCH)
        bare.rename(repository)
    log.info("%s: founded; files go to %s", repository, store)
