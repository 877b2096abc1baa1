"""The files of published commits, as DVC keeps them by their hash, and the same without forgotten users.

DVC's layout (version 3): an object lies at ``files/md5/<two>/<thirty>``; a folder is an object too, whose
name ends in ``.dir``: a JSON list of its files' hashes and paths. Objects never change, so an object that
holds a user becomes a new one, and a commit's ``dvc.lock`` names the new in place of the old.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from lurm.erasure.artifacts import FOLDERS, RULES, Freeing, Rule, pattern_of, rows, users_beside
from lurm.erasure.rows import Found
from lurm.erasure.tombstones import Tombstones
from lurm.releases.workspaces import Workspace
from lurm.storage import file_hash, replacing

_RECORDED = re.compile(r"md5: '?([0-9a-f]{32}(?:\.dir)?)'?\n(\s+)size: (\d+)")


@dataclass(frozen=True)
class Cache:
    """A DVC cache."""

    folder: Path

    def path(self, md5: str) -> Path:
        """Where the object lies."""
        return self.folder / "files/md5" / md5[:2] / md5[2:]

    def entries(self, md5: str) -> dict[str, str]:
        """The files of a folder: hash by path."""
        listed = json.loads(self.path(md5).read_text("utf-8"))
        return {entry["relpath"]: entry["md5"] for entry in listed}

    def has(self, md5: str) -> bool:
        """Whether the object is there, and if it is a folder, all that lies in it."""
        there = self.path(md5).exists()
        return there and (not _is_folder(md5) or all(map(self.has, self.entries(md5).values())))

    def objects(self) -> set[str]:
        """The hashes of all objects."""
        return {path.parent.name + path.name for path in self.folder.glob("files/md5/??/*")}

    def add(self, content: Path | bytes) -> str:
        """Keep a file's content; returns its hash. What is there already is left alone."""
        if isinstance(content, Path):
            with content.open("rb") as file:
                md5 = hashlib.file_digest(file, "md5").hexdigest()
        else:
            md5 = f"{_md5(content)}.dir"
        if not self.path(md5).exists():
            with replacing(self.path(md5)) as temporary:
                if isinstance(content, Path):
                    shutil.copyfile(content, temporary)
                else:
                    temporary.write_bytes(content)
            self.path(md5).chmod(0o444)  # as DVC does, which links workspaces to it
        return md5


class Replaced(NamedTuple):
    """What took an object's place, and by how many bytes it is larger."""

    md5: str
    growth: int


@dataclass(frozen=True)
class Commit:
    """A published commit and what DVC keeps of it: hash by path, of files and of folders."""

    name: str
    tracked: dict[str, str]
    beside: dict[str, str] = field(default_factory=dict)  # texts that git keeps in folders of DVC's

    def files(self, cache: Cache) -> dict[str, str]:
        """Hash of every single file, by its path."""
        found: dict[str, str] = {}
        for path, md5 in self.tracked.items():
            inside = cache.entries(md5) if _is_folder(md5) else {}
            found |= {f"{path}/{name}": entry for name, entry in inside.items()} or {path: md5}
        return found


def read_commit(workspace: Workspace, name: str) -> Commit | None:
    """The commit, None if there is no pipeline in it yet."""
    paths = _paths(workspace, name)
    if "dvc.lock" not in paths:
        return None
    tracked = {path: md5 for path, md5 in workspace.outputs(name).items() if path not in paths}
    for path in pointers(workspace, name):
        for out in yaml.safe_load(workspace.ask("show", f"{name}:{path}"))["outs"]:
            tracked[(PurePosixPath(path).parent / out["path"]).as_posix()] = out["md5"]
    beside = {
        path: workspace.ask("show", f"{name}:{path}") + "\n"
        for path in paths
        if path.startswith("standing/")
    }
    return Commit(name, tracked, beside)


def pointers(workspace: Workspace, commit: str) -> list[str]:
    """The files of a commit by which DVC tracks what no stage writes."""
    return [path for path in _paths(workspace, commit) if path.endswith(".dvc")]


def _paths(workspace: Workspace, commit: str) -> list[str]:
    return workspace.ask("ls-tree", "-r", "--name-only", commit).splitlines()


@dataclass(frozen=True)
class Removed:
    """What was removed of one kind of artifact: files, of all their published versions, and rows."""

    files: int = 0
    rows: int = 0


@dataclass
class Freed:
    """Objects without forgotten users, made one after the other.

    replaced: what took the place of an object, by its hash.
    removed: by kind of artifact, such as ``data/behaviors``.
    held: the objects of each kind that held forgotten users.
    users: hashes of the users that were found.
    """

    cache: Cache
    tombstones: Tombstones
    scratch: Path
    replaced: dict[str, Replaced] = field(default_factory=dict)
    removed: dict[str, Removed] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    held: dict[str, set[str]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    users_of: dict[str, str] = field(default_factory=dict)

    def free(self, commits: Iterable[Commit]) -> None:
        """Make what takes the place of every object that holds a forgotten user.

        Raises:
            ValueError: an artifact is of an unknown kind.
        """
        artifacts: dict[str, set[tuple[str, str]]] = {pattern: set() for pattern in RULES}
        folders = set()
        for commit in commits:
            for path, md5 in commit.tracked.items():
                parts = {path: md5}
                if _is_folder(md5) and RULES.get(_pattern(path)) not in FOLDERS:
                    folders.add(md5)
                    parts = {f"{path}/{name}": e for name, e in self.cache.entries(md5).items()}
                for part, part_md5 in parts.items():
                    artifacts[pattern_of(part)].add((part, part_md5))
                    if table := users_beside(part):
                        self.users_of[part_md5] = commit.tracked[table]
        known: dict[tuple[Rule, str], Found] = {}
        for pattern, found in artifacts.items():
            rule = RULES[pattern]
            for _, md5 in sorted(found):
                if (rule, md5) not in known:
                    known[rule, md5] = self._free(rule, md5)
            self._count(pattern.removesuffix("/*"), {md5: known[rule, md5] for _, md5 in found})
        for md5 in folders:
            self._put_folder(md5, self._renamed(self.cache.entries(md5)))

    def _free(self, rule: Rule, md5: str) -> Found:
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            source, target = self.cache.path(md5), Path(name, "freed")
            if _is_folder(md5):
                source = Path(name, "folder")
                for entry, part in self.cache.entries(md5).items():
                    (source / entry).parent.mkdir(parents=True, exist_ok=True)
                    (source / entry).symlink_to(self.cache.path(part))
            users = self.cache.path(self.users_of[md5]) if md5 in self.users_of else None
            found = rule(source, target, Freeing(self.tombstones, self.hashes, users))
            if target.is_dir():
                files = {
                    p.relative_to(target).as_posix(): p for p in target.rglob("*") if p.is_file()
                }
                self._put_folder(md5, {entry: self.cache.add(p) for entry, p in files.items()})
            elif target.exists():
                if rule is rows:
                    self.hashes[file_hash(source)] = file_hash(target)
                growth = target.stat().st_size - source.stat().st_size
                self.replaced[md5] = Replaced(self.cache.add(target), growth)
            return found

    def _count(self, kind: str, found: Mapping[str, Found]) -> None:
        held = {md5: one for md5, one in found.items() if one.rows}
        if held:
            self.removed[kind] = Removed(len(held), sum(one.rows for one in held.values()))
            self.held[kind] = set(held)
            self.users.update(*(one.users for one in held.values()))

    def _put_folder(self, md5: str, entries: Mapping[str, str]) -> None:
        """Replace a folder, if it changed, by one with these files."""
        before = self.cache.entries(md5)
        if dict(entries) != before:
            growth = self._size(entries.values()) - self._size(before.values())
            self.replaced[md5] = Replaced(self.cache.add(_folder(entries)), growth)

    def _size(self, objects: Iterable[str]) -> int:
        return sum(self.cache.path(md5).stat().st_size for md5 in objects)

    def _renamed(self, entries: Mapping[str, str]) -> dict[str, str]:
        return {path: self.replaced.get(md5, Replaced(md5, 0)).md5 for path, md5 in entries.items()}

    def touches(self, commit: Commit) -> bool:
        """Whether something of the commit was replaced."""
        return not self.replaced.keys().isdisjoint(commit.tracked.values())

    def kinds(self, commit: Commit | None) -> set[str]:
        """Kinds of artifacts in which the commit held forgotten users."""
        if commit is None:
            return set()
        objects = {*commit.tracked.values(), *commit.files(self.cache).values()}
        return {kind for kind, held in self.held.items() if held & objects}

    def rewritten(self, text: str, commit: Commit) -> str:
        """A ``dvc.lock`` or ``.dvc`` file of the commit, with the new objects in place of the old.

        What was up to date is up to date, and what was not is not: dependencies are renamed as outputs are.
        """
        return _renamed_in(text, self.replaced | self._dependencies(text, commit))

    def _dependencies(self, text: str, commit: Commit) -> dict[str, Replaced]:
        """Folders that stages read and no stage writes as one, such as that of all labels."""
        files, found = commit.files(self.cache), {}
        texts = {p: (text, _renamed_in(text, self.replaced)) for p, text in commit.beside.items()}
        stages: dict[str, Any] = (yaml.load(text, _LOADER) or {}).get("stages", {})
        deps = {
            d["path"]: d["md5"] for s in stages.values() for d in s.get("deps", []) if "md5" in d
        }
        for folder, md5 in deps.items():
            start = f"{folder}/"
            if not _is_folder(md5) or md5 in self.replaced:
                continue
            before = {p.removeprefix(start): m for p, m in files.items() if p.startswith(start)}
            after = self._renamed(before)
            growth = sum(self.replaced[m].growth for m in before.values() if m in self.replaced)
            for path, (old, new) in texts.items():
                if path.startswith(start):
                    before[path.removeprefix(start)] = _md5(old.encode())
                    after[path.removeprefix(start)] = _md5(new.encode())
                    growth += len(new.encode()) - len(old.encode())
            stands = f"{_md5(_folder(before))}.dir" == md5
            if stands and after != before:
                found[md5] = Replaced(f"{_md5(_folder(after))}.dir", growth)
        return found


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _pattern(path: str) -> str:
    try:
        return pattern_of(path)
    except ValueError:  # a folder of artifacts of several kinds
        return ""


def _renamed_in(text: str, replaced: Mapping[str, Replaced]) -> str:
    """A ``dvc.lock`` or ``.dvc`` file with new objects in place of old ones."""

    def new(match: re.Match[str]) -> str:
        md5, space, size = match.groups()
        if md5 not in replaced:
            return match[0]
        name, growth = replaced[md5]
        return f"md5: {yaml.safe_dump(name).splitlines()[0]}\n{space}size: {int(size) + growth}"

    return _RECORDED.sub(new, text)


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def _is_folder(md5: str) -> bool:
    return md5.endswith(".dir")


def _folder(entries: Mapping[str, str]) -> bytes:
    """The object of a folder, as DVC writes it."""
    listed = [{"md5": entries[path], "relpath": path} for path in sorted(entries)]
    return json.dumps(listed, sort_keys=True).encode()
