"""Forgetting users: from every published name, the cache and the store, and for good.

    1  every object that the published commits name is looked into, and written again without the users
    2  the new objects go to the store
    3  one atomic push: new revisions in place of the affected tags, moved branches, tombstones, and the
       certificate, not finished yet
    4  the workspaces of runs go, then from cache and store what no name needs any more
    5  the certificate is finished

Before 3 nothing that anybody can see has changed. After it, a second call goes on from 4, so whatever
ends one call, the next converges. Tombstones and certificates lie on a branch of their own, which a
rollback of the published branch leaves alone.
"""

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lurm.erasure.certificate import Certificate, Rows, remaining
from lurm.erasure.names import renamed
from lurm.erasure.objects import Cache, Commit, Freed, pointers, read_commit
from lurm.erasure.tombstones import Tombstones, read_tombstones
from lurm.landing import find_forgotten
from lurm.releases.locks import locked
from lurm.releases.places import Places
from lurm.releases.retention import collect_garbage
from lurm.releases.workspaces import BRANCH, FORGOTTEN, TOMBSTONES, Workspace, tombstones_text
from lurm.storage import write_json, write_text

CERTIFICATES = "certificates"  # folder on the branch of tombstones

log = logging.getLogger(__name__)


def forget(places: Places, users: Sequence[str], key: bytes) -> dict[str, Any]:
    """Forget the users; returns what was done. Who is forgotten already stays so, and nothing changes.

    Waits until no run is at work, and holds off others while it is.

    Args:
        places: of the platform.
        users: their ids; an integer as its digits.
        key: of the tombstones; see :func:`lurm.erasure.tombstones.erasure_key`.

    Raises:
        ValueError: none of the users is known, an artifact is of an unknown kind, the key is not that of
            the tombstones, or the published code would let forgotten users in.
        CommandError: the repository or the store cannot be reached, or others published meanwhile.
    """
    with (
        locked(places.home / "cache.lock") as cache,
        locked(places.home / "publish.lock") as publishing,
    ):
        for left in places.home.glob(".forget.*"):  # by a call that was killed
            shutil.rmtree(left)
        with _clone(places, (cache, publishing)) as workspace:
            done = _reissue(workspace, places, users, key)
        with _clone(places, (cache, publishing)) as workspace:
            unfinished = [one for one in read_certificates(workspace) if one.finished is None]
            if unfinished:
                _clear_runs(places)
                said = collect_garbage(places, cache, [], store=True)
                _check_gone(workspace, Cache(places.cache), published_tombstones(workspace, key))
                _finish(workspace, unfinished, said)
    return done | {"finished": [one.number for one in unfinished]}


# ---- what is published ---------------------------------------------------------------------------


@contextmanager
def _clone(places: Places, locks: tuple[int, ...]) -> Iterator[Workspace]:
    """What is published, in a workspace that no run has, on the platform's cache."""
    with tempfile.TemporaryDirectory(dir=places.home, prefix=".forget.") as name:
        workspace = Workspace(
            Places(Path(name), places.repository, places.landing), "forget", locks
        )
        workspace.folder.mkdir(parents=True)
        workspace.do(
            "git", "clone", "--quiet", "--branch", BRANCH, places.repository, str(workspace.root),
            at=workspace.folder,
        )  # fmt: skip
        workspace.do("dvc", "config", "--local", "cache.dir", str(places.cache))
        yield workspace


def published_tombstones(workspace: Workspace, key: bytes) -> Tombstones:
    """Who is forgotten so far; nobody if there are none. Raises as :func:`read_tombstones` does."""
    text = tombstones_text(workspace)
    return read_tombstones(text, key) if text else Tombstones(key)


def read_certificates(workspace: Workspace) -> list[Certificate]:
    """All certificates, in their order."""
    names = workspace.ask("ls-tree", "--name-only", f"origin/{FORGOTTEN}", f"{CERTIFICATES}/")
    texts = [
        workspace.ask("show", f"origin/{FORGOTTEN}:{name}")
        for name in names.splitlines()
        if name.endswith(".json")
    ]
    return sorted(map(Certificate.model_validate_json, texts), key=lambda one: one.number)


def _names(workspace: Workspace, kind: str) -> dict[str, str]:
    """The commit of every published name of a kind: ``tags`` or ``remotes/origin``."""
    form = "--format=%(refname) %(objectname) %(*objectname)"
    lines = workspace.ask("for-each-ref", form, f"refs/{kind}").splitlines()
    found = {line.split()[0].removeprefix(f"refs/{kind}/"): line.split()[-1] for line in lines}
    return {name: commit for name, commit in found.items() if name not in ("HEAD", FORGOTTEN)}


def _commits(workspace: Workspace) -> dict[str, Commit]:
    """The commits that names stand for, by their hash; those without a pipeline left out."""
    names = {*_names(workspace, "tags").values(), *_names(workspace, "remotes/origin").values()}
    read = (read_commit(workspace, name) for name in sorted(names))
    return {commit.name: commit for commit in read if commit}


# ---- new revisions -------------------------------------------------------------------------------


def _reissue(
    workspace: Workspace, places: Places, users: Sequence[str], key: bytes
) -> dict[str, Any]:
    """Push the published names without the users, and say so; nothing if there is nothing new."""
    if not workspace.ask("ls-tree", "--name-only", f"origin/{BRANCH}", "lurm/erasure/"):
        raise ValueError(
            f"{places.repository}: expected code on branch {BRANCH} that leaves forgotten users out, found "
            "an older version, whose next run would let them back in; merge this version into it first"
        )
    before = published_tombstones(workspace, key)
    asked = {before.hash(user): user for user in users}
    wanted = before.adding(asked)
    commits, cache = _commits(workspace), Cache(places.cache)
    for commit in commits.values():
        _fetch(workspace, cache, commit)
    freed = Freed(cache, wanted, workspace.folder)
    freed.free(commits.values())
    deliveries = find_forgotten(places.landing, wanted)
    known = before.hashes.union(freed.users, *(found.users for found in deliveries.values()))
    unknown = [f"{hashed[:12]}" for hashed in asked if hashed not in known]
    if unknown:
        places_of = [n for n, user in enumerate(users, 1) if before.hash(user) not in known]
        log.warning(
            "%d of %d users are in nothing published and in no delivery, so that nothing was removed of "
            "them: those given as number %s (keyed hashes %s); check their ids",
            len(unknown), len(asked), ", ".join(map(str, places_of)), ", ".join(unknown),
        )  # fmt: skip
    if len(unknown) == len(asked):
        raise ValueError(
            "expected at least one user that is known, found none; nothing was changed"
        )
    new = sorted(asked.keys() & known - before.hashes)
    told: dict[str, Any] = {
        "forgotten": new,
        "unknown": unknown,
        "reissued": {},
        "certificate": None,
    }
    if not new and not freed.replaced:
        log.info("all of them are forgotten already")
        return told
    number = len(read_certificates(workspace)) + 1
    moved = {
        name: _rewrite(workspace, commit, freed, number)
        for name, commit in commits.items()
        if freed.touches(commit)
    }
    tags, branches = _names(workspace, "tags"), _names(workspace, "remotes/origin")
    reissued = renamed(tags, {tag for tag, commit in tags.items() if commit in moved})
    workspace.do("git", "checkout", "--quiet", "--detach", branches[BRANCH])
    certificate = Certificate(
        number=number,
        users=tuple(sorted(freed.users.union(new))),
        begun=_now(),
        removed={kind: Rows(**asdict(found)) for kind, found in freed.removed.items()},
        reissued=reissued,
        branches=tuple(sorted(name for name, commit in branches.items() if commit in moved)),
        remains=remaining(
            freed.kinds(commits.get(branches[BRANCH])),
            workspace.outputs(),
            workspace.params()["training"]["release"],
            _other_stores(workspace),
        ),
        deliveries={name: found.rows for name, found in deliveries.items()},
    )
    for old, new_commit in moved.items():
        workspace.do("git", "tag", f"reissued/{old}", new_commit)  # here only, for DVC to see
    workspace.do("git", "checkout", "--quiet", "--detach", moved.get(branches[BRANCH], "HEAD"))
    workspace.do("dvc", "push", "--all-tags")
    head = _record(workspace, [certificate], before.adding(new))
    workspace.do(
        "git", "push", "--quiet", "--atomic", "origin", f"{head}:refs/heads/{FORGOTTEN}",
        *(f":refs/tags/{old}" for old in reissued),
        *(f"{moved.get(tags[old], tags[old])}:refs/tags/{name}" for old, name in reissued.items()),
        *(f"{moved[c]}:refs/heads/{name}" for name, c in branches.items() if c in moved),
    )  # fmt: skip
    return told | {"reissued": reissued, "certificate": number}


def _fetch(workspace: Workspace, cache: Cache, commit: Commit) -> None:
    """Have all that the commit names in the cache, from where the store is now."""
    if not all(map(cache.has, commit.tracked.values())):
        _check_out(workspace, commit)
        workspace.do("dvc", "fetch")


def _check_out(workspace: Workspace, commit: Commit) -> None:
    """The commit, whose files are sought where the store is now."""
    workspace.do("git", "checkout", "--quiet", "--force", "--detach", commit.name)
    workspace.do("git", "checkout", "--quiet", f"origin/{BRANCH}", "--", ".dvc/config")


def _rewrite(workspace: Workspace, commit: Commit, freed: Freed, number: int) -> str:
    """A commit on top of this one that names the new objects in place of the old."""
    _check_out(workspace, commit)
    for path in ("dvc.lock", *pointers(workspace, commit.name)):
        text = (workspace.root / path).read_text("utf-8")
        write_text(freed.rewritten(text, commit), workspace.root / path)
    title = workspace.ask("log", "-1", "--format=%s", commit.name)
    message = f"{title}, without the users of erasure {number}"
    workspace.do("git", "commit", "--quiet", "--all", "--message", message)
    return workspace.ask("rev-parse", "HEAD")


def _other_stores(workspace: Workspace) -> list[str]:
    """Addresses of stores that older commits name, and the published branch does not any more."""

    def addresses(commit: str) -> set[str]:
        text = workspace.ask("show", f"{commit}:.dvc/config")
        return set(re.findall(r"^\s*url = (.+)$", text, re.MULTILINE))

    commits = workspace.ask("rev-list", "--all", "--", ".dvc/config").split()
    return sorted(set().union(*map(addresses, commits)) - addresses(f"origin/{BRANCH}"))


# ---- the old ones go -----------------------------------------------------------------------------


def _clear_runs(places: Places) -> None:
    """Remove what runs work in; those that have not published begin again at their next step."""
    for folder in sorted(path for path in places.runs.glob("*") if path.is_dir()):
        keeps = (
            set() if Workspace(places, folder.name).has_done("publish") else {"plan.json", "lock"}
        )
        for path in [path for path in folder.iterdir() if path.name not in keeps]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not keeps:
            folder.rmdir()


def _check_gone(workspace: Workspace, cache: Cache, tombstones: Tombstones) -> None:
    """Look into all that is left once more.

    Raises:
        ValueError: a forgotten user is still there, or an object is that nothing published names.
    """
    commits = _commits(workspace).values()
    named = {md5 for commit in commits for md5 in commit.tracked.values()}
    for md5 in [md5 for md5 in named if md5.endswith(".dir")]:
        named.update(cache.entries(md5).values())
    freed = Freed(cache, tombstones, workspace.folder)
    freed.free(commits)
    left = sorted(cache.objects() - named)
    if freed.users or left:
        raise ValueError(
            f"{cache.folder}: expected no forgotten user and no object that nothing published names, found "
            f"{len(freed.users)} users in {', '.join(freed.removed) or 'nothing'} and objects "
            f"{', '.join(left[:3]) or 'none'}; end what else works on this platform, and run "
            "`lurm forget` again"
        )


def _finish(workspace: Workspace, unfinished: Sequence[Certificate], said: str) -> None:
    """Publish that the certificates hold."""
    purged = tuple(re.findall(r"^(Removed \d+ objects from .*)\.$", said, re.MULTILINE))
    finished = [one.model_copy(update={"finished": _now(), "purged": purged}) for one in unfinished]
    head = _record(workspace, finished, None)
    workspace.do("git", "push", "--quiet", "origin", f"{head}:refs/heads/{FORGOTTEN}")
    for one in finished:
        log.info("to read it: git show %s:%s/%d.txt", FORGOTTEN, CERTIFICATES, one.number)


def _record(
    workspace: Workspace, certificates: Sequence[Certificate], tombstones: Tombstones | None
) -> str:
    """A commit on the branch of tombstones with these certificates, and tombstones if they are new."""
    if tombstones_text(workspace):
        workspace.do("git", "checkout", "--quiet", "--force", "--detach", f"origin/{FORGOTTEN}")
    else:
        workspace.do("git", "switch", "--quiet", "--orphan", FORGOTTEN)
    if tombstones is not None:
        write_text(tombstones.to_json(), workspace.root / TOMBSTONES)
    for one in certificates:
        place = workspace.root / CERTIFICATES / str(one.number)
        write_json(one.model_dump(mode="json"), place.with_suffix(".json"))
        write_text(one.text(), place.with_suffix(".txt"))
    state = "finished" if all(one.finished for one in certificates) else "begun"
    numbers = ", ".join(str(one.number) for one in certificates)
    workspace.do("git", "add", "--force", TOMBSTONES, CERTIFICATES)
    workspace.do("git", "commit", "--quiet", "--message", f"erasure {numbers} {state}")
    return workspace.ask("rev-parse", "HEAD")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
