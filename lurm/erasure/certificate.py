"""The certificate of an erasure: what was removed, what got a new name, and what remains until when."""

from collections.abc import Collection, Iterable

from pydantic import BaseModel, ConfigDict


class Rows(BaseModel):
    """What was removed of one kind of artifact, over all its published versions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: int
    rows: int


class Certificate(BaseModel):
    """One erasure. ``users`` are keyed hashes; ``finished`` is None until all old objects are gone.

    removed: by the path of the artifacts.
    reissued: new name by old name, which is gone.
    remains: of what is left, why and until when, in words.
    deliveries: rows in the landing place, which is the customer's.
    purged: what DVC said when it removed the objects.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    users: tuple[str, ...]
    begun: str
    finished: str | None = None
    removed: dict[str, Rows]
    reissued: dict[str, str]
    branches: tuple[str, ...]
    remains: tuple[str, ...]
    deliveries: dict[str, int]
    purged: tuple[str, ...] = ()

    def text(self) -> str:
        """The certificate for people to read."""
        state = (
            f"finished {self.finished}"
            if self.finished
            else "not finished: run `lurm forget` again"
        )
        parts: dict[str, list[str]] = {
            "Forgotten users, by keyed hash": list(self.users),
            "Removed, over all published versions": [
                f"{path}: {found.rows} rows in {found.files} files"
                for path, found in self.removed.items()
            ],
            "Names that are gone, and those in their place": [
                f"{old} -> {new}" for old, new in self.reissued.items()
            ],
            "Branches that moved": list(self.branches),
            "Remains": list(self.remains),
            "Still in the landing place, which is the customer's; no run lets these rows in": [
                f"{name}: {rows} rows" for name, rows in self.deliveries.items()
            ],
            "Purged": list(self.purged),
        }
        lines = [f"Certificate {self.number} of erasure", f"Begun {self.begun}, {state}."]
        for title, entries in parts.items():
            lines += ["", f"{title}:", *(f"  {entry}" for entry in entries or ["nothing"])]
        return "\n".join(lines) + "\n"


def remaining(
    held: Collection[str], outputs: Iterable[str], release: int, stores: Iterable[str]
) -> tuple[str, ...]:
    """What still holds traces of users, as sentences.

    Args:
        held: artifacts of the published branch that users were found in.
        outputs: paths of all that it holds.
        release: number of the standing models.
        stores: addresses where files lay before the store moved.
    """
    left = []
    models = sorted(path for path in outputs if path.startswith("models/"))
    heads = [path for path in models if path.startswith("models/heads/")]
    until = f"learned with the users of release {release}; until the next retraining"
    if not {"data/training/behaviors", "data/timelines"}.isdisjoint(held):
        weights = ", ".join(path for path in models if path not in heads)
        left.append(
            f"model weights, item vectors and interests ({weights}), and with them the space of all "
            f"vectors, {until}"
        )
    if not {"data/labels", "data/landing/users.parquet", "data/timelines"}.isdisjoint(held):
        left.append(f"heads ({', '.join(heads)}) and their scores, {until}")
    if held:
        left += [
            f"{store}, which the store was before: nothing was removed there" for store in stores
        ]
        left += [
            "models and heads under the names of older releases, as long as these names exist",
            "sums over all users in profiles and reports, as they were published, until the month is "
            "validated again",
            "copies outside of this platform's cache and store: consumers', other machines' caches, "
            "backups, versions that an S3 bucket keeps",
        ]
    return tuple(left)
