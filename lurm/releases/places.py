"""Where a platform keeps what it works with, as the environment says."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Folders and addresses of one platform.

    home: holds the runs, the DVC cache that they share, and the locks. One filesystem.
    repository: git address of the published branch.
    landing: folder or ``s3://`` address where deliveries arrive.
    """

    home: Path
    repository: str
    landing: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Places":
        """``LURM_HOME``, ``LURM_REPOSITORY`` and ``LURM_LANDING``.

        Raises:
            ValueError: one of them is not set, or the repository's address holds a password or token,
                which would end in logs and in every workspace.
        """
        names = ("LURM_HOME", "LURM_REPOSITORY", "LURM_LANDING")
        absent = [name for name in names if not environment.get(name)]
        if absent:
            raise ValueError(
                f"expected {', '.join(absent)} in the environment; see docs/every-month.md"
            )
        if re.match(r"https?://[^/]*@", environment["LURM_REPOSITORY"]):
            raise ValueError(
                "LURM_REPOSITORY: expected an address without a password or token in it; leave these to "
                "git (a credential helper, GIT_ASKPASS or an ssh key)"
            )
        return cls(
            home=Path(environment["LURM_HOME"]).resolve(),
            repository=environment["LURM_REPOSITORY"],
            landing=environment["LURM_LANDING"],
        )

    @property
    def runs(self) -> Path:
        """A folder per run."""
        return self.home / "runs"

    @property
    def cache(self) -> Path:
        """The DVC cache of all runs."""
        return self.home / "cache"

    def run_folder(self, run: str) -> Path:
        """Where the run with this name works; any name gives a folder directly under :attr:`runs`.

        >>> Places(Path("/p"), "", "").run_folder("scheduled__2017-08-01T00:00:00+00:00").name
        'scheduled__2017-08-01T00_00_00_00_00'
        """
        name = re.sub(r"[^A-Za-z0-9._-]", "_", run).lstrip(".")
        if not name:
            raise ValueError(f"expected the name of a run, got {run!r}")
        return self.runs / name
