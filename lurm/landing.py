"""The landing place: monthly deliveries as a customer's logs arrive (docs/your-own-logs.md).

    behaviors/<month>.parquet   user_id, item_id, timestamp, and more if wanted
    items.parquet               the catalog at the opening of the first month
    items/<month>.parquet       optional: items new or changed in that month
    users.parquet               optional: user_id and attributes

Files are gathered in a folder beside the landing place and published from there, each whole, once
all of them are known to be good. A file whose bytes are already there is not touched.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
import pyarrow as pa
from botocore.exceptions import BotoCoreError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from lurm.behaviors import check_delivery
from lurm.erasure.rows import Found, find_rows, leave_out
from lurm.erasure.tombstones import Tombstones
from lurm.months import is_month, month_name, month_number
from lurm.params import START
from lurm.storage import file_hash, put, read_schema, replacing, scratch
from lurm.tables import LANDED_ITEMS, LANDED_USERS, check_columns, check_same_ids

log = logging.getLogger(__name__)

# How the folder's name begins, on the landing place's disk, in which files wait to be published.
STAGED = ".landing-"


def publish(staged: Path, landing: Path | str) -> dict[str, str]:
    """Move every parquet file under ``staged`` to the same place under ``landing``.

    Returns what became of each, by its path: "new", "replaced" or "unchanged" (not touched).
    Behaviors go last, so that a month that is there has its items there.
    """
    files = [path.relative_to(staged) for path in staged.rglob("*.parquet")]
    done = {}
    for file in sorted(files, key=lambda path: (path.parts[0] == "behaviors", path)):
        target = Path(landing) / file
        if target.exists() and file_hash(target) == file_hash(staged / file):
            done[file.as_posix()] = "unchanged"
            continue
        done[file.as_posix()] = "replaced" if target.exists() else "new"
        put(staged / file, target)
    return done


def land_month(
    month: str,
    source: str,
    landing: Path | str,
    params: Path | str = "params.yaml",
    *,
    users: bool = True,
    tombstones: Tombstones | None = None,
) -> dict[str, str]:
    """Bring one month from the landing place ``source`` into ``landing`` and list it in ``params``.

    Its behaviors, and its items if there are any, come with the opening catalog and the users where
    those are missing here or have changed. Nothing is touched before all files were fetched and
    their columns looked at. Returns what became of each file; see :func:`publish`.

    Args:
        month: to bring in: the one after the last known month, or a known one, delivered again.
        source: folder or ``s3://`` address; credentials and endpoint come from the environment.
        landing: the workspace's own landing place.
        params: file whose ``months`` lists the month; its comments and layout stay.
        users: also bring in the users file, which heads are trained on.
        tombstones: users whose rows are left out, and counted in the landed file's metadata.

    Raises:
        ValueError: the month leaves a gap, a file is truncated or has wrong columns, user ids are of
            another kind than before, or a later month brings another opening catalog.
        FileNotFoundError: the behaviors, or the opening catalog, are in neither place.
        OSError: the source cannot be reached.
    """
    known = list(_load_months(params)[1])
    check_next(month, known)
    behaviors, new_items = f"behaviors/{month}.parquet", f"items/{month}.parquet"
    with scratch(Path(landing).parent, STAGED) as folder:
        wanted = ["items.parquet", new_items, *(["users.parquet"] if users else []), behaviors]
        fetched = fetch(source, folder, wanted)
        if behaviors not in fetched:
            raise FileNotFoundError(
                f"{source}: expected {behaviors}, found none; deliver it, or check the address"
            )
        catalog = (folder if "items.parquet" in fetched else Path(landing)) / "items.parquet"
        if not catalog.exists():
            raise FileNotFoundError(
                f"{source}: expected items.parquet, the catalog at the opening of the first month, "
                f"found it neither there nor in {landing}; deliver it"
            )
        check_files(folder, fetched, catalog, source)
        check_users(folder, fetched, Path(landing), source)
        if known and month != known[0] and "items.parquet" in fetched:
            check_opening(catalog, Path(landing) / "items.parquet", month, source)
        if tombstones:
            leave_out_forgotten(folder, fetched, tombstones)
        done = publish(folder, landing)
    for name, state in done.items():
        log.info("%s: %s", name, state)
    here = [name for name in (new_items, "items.parquet") if (Path(landing) / name).exists()]
    register_month(params, month, (Path(landing) / here[0]).as_posix())
    return done


def leave_out_forgotten(folder: Path, names: list[str], tombstones: Tombstones) -> None:
    """Take the rows of forgotten users out of fetched files; one that has none is not touched."""
    for name in names:
        found = find_rows(folder / name, tombstones)
        if found.rows:
            leave_out(folder / name, folder / name, tombstones, counted=True)
            log.warning("%s: %d rows of forgotten users left out", name, found.rows)


def find_forgotten(source: str, tombstones: Tombstones) -> dict[str, Found]:
    """What the deliveries in ``source`` hold of forgotten users, by file; those that hold any.

    A file that is no parquet is passed over: it cannot be landed either.

    Raises:
        OSError: the source cannot be reached.
    """
    files, root = _place(source)
    found = {}
    with _reaching(source):
        for path in sorted([*files.glob(f"{root}/behaviors/*.parquet"), f"{root}/users.parquet"]):
            if files.exists(path):
                with suppress(pa.ArrowInvalid), files.open(path) as file:
                    found[path.removeprefix(f"{root}/")] = find_rows(file, tombstones)
    return {name: there for name, there in found.items() if there.rows}


def delivered_months(source: str) -> list[str]:
    """The months of which behaviors lie in ``source``, in calendar order.

    Raises:
        OSError: the source cannot be reached.
    """
    files, root = _place(source)
    with _reaching(source):
        names = [Path(path).stem for path in files.glob(f"{root}/behaviors/*.parquet")]
    return sorted(name for name in names if is_month(name))


def fetch(source: str, folder: Path, names: list[str]) -> list[str]:
    """Copy those of ``names`` that ``source`` has into ``folder``; returns which.

    Raises:
        OSError: the source cannot be reached, or a copy is shorter than what it was taken from.
    """
    files, root = _place(source)
    with _reaching(source):
        fetched = [name for name in names if files.exists(f"{root}/{name}")]
        for name in fetched:
            if files.isdir(f"{root}/{name}"):
                raise ValueError(
                    f"{source}/{name}: expected one parquet file, found a folder; deliver its parts "
                    "as one file, with Spark: df.coalesce(1)"
                )
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            files.get_file(f"{root}/{name}", str(folder / name))
            expected, arrived = files.size(f"{root}/{name}"), (folder / name).stat().st_size
            if arrived != expected:
                raise OSError(
                    f"{source}/{name}: expected {expected:,} bytes, got {arrived:,}; retry"
                )
    return fetched


def _place(source: str) -> tuple[fsspec.AbstractFileSystem, str]:
    if "://" in source and not source.startswith("s3://"):
        raise ValueError(f"expected a folder or an s3:// address, got {source}")
    with _reaching(source):
        files, root = fsspec.core.url_to_fs(source)
        files.invalidate_cache()
    return files, root


@contextmanager
def _reaching(source: str) -> Iterator[None]:
    try:
        yield
    except BotoCoreError as error:
        raise OSError(
            f"{source}: cannot be reached: {error}; check the address, AWS_ENDPOINT_URL and the "
            "credentials in the environment"
        ) from error


def check_files(folder: Path, names: list[str], catalog: Path, source: str) -> None:
    """Return if every delivered file is whole and keeps the contract as far as its columns tell.

    What the rows hold is for the stages update_catalog and validate_logs to judge.

    Args:
        folder: where the files lie.
        names: their paths in it, behaviors last.
        catalog: the opening catalog, whose kind of item ids behaviors must share.
        source: where they came from, for messages.

    Raises:
        ValueError: a file is truncated or no parquet, or a column is missing or of another type.
    """
    for name in names:
        try:
            schema = read_schema(folder / name)
        except ValueError as error:
            raise ValueError(str(error).replace(str(folder), source)) from error
        if name.startswith("behaviors/"):
            check_delivery(schema, read_schema(catalog), f"{source}/{name}")
        else:
            contract = LANDED_USERS if name == "users.parquet" else LANDED_ITEMS
            check_columns(schema, contract, f"{source}/{name}")


def check_users(folder: Path, names: list[str], landing: Path, source: str) -> None:
    """Return if user ids are of one kind in all files: delivered now, or landed before.

    Raises:
        ValueError: they are integers in one file and strings in another.
    """
    users = [name for name in names if name == "users.parquet" or name.startswith("behaviors/")]
    landed = [landing / "users.parquet", *sorted(landing.glob("behaviors/*.parquet"))]
    before = [path for path in landed if path.relative_to(landing).as_posix() not in users]
    reference = next((path for path in before if path.exists()), folder / users[0])
    for name in users:
        check_same_ids(
            read_schema(folder / name), read_schema(reference), "user_id", f"{source}/{name}"
        )


def check_opening(delivered: Path, landed: Path, month: str, source: str) -> None:
    """Return if a later month comes with the opening catalog as it was.

    Raises:
        ValueError: it differs. Every month since the first stands on it.
    """
    if landed.exists() and file_hash(delivered) != file_hash(landed):
        raise ValueError(
            f"{source}/items.parquet: expected the catalog at the opening of the first month, which "
            f"is in already, found another with {month}; deliver what is new or changed as "
            f"items/{month}.parquet, or land the first month again to correct the opening"
        )


def check_next(month: str, known: list[str]) -> None:
    """Return if ``month`` is one of the ``known`` months, which follow each other, or the next.

    Raises:
        ValueError: it is malformed, earlier than all, or months between are missing.
    """
    number = month_number(month)
    if not known or month in known:
        return
    following = month_number(known[-1]) + 1
    if number > following:
        missing = [month_name(between) for between in range(following, number)]
        raise ValueError(
            f"expected {month_name(following)}, the month after the last that is in, got {month}; "
            f"land {', '.join(missing)} first"
        )
    if number < following:
        raise ValueError(
            f"{month}: the months begin at {known[0]}, and an earlier one changes every user's "
            "life; to include it, start a new set of months in params.yaml"
        )


def register_month(params: Path | str, month: str, items: str) -> None:
    """List ``month``, with its catalog delivery ``items``, at the end of ``months`` in ``params``.

    A month that is listed already stays as it is. Comments and layout of the file stay.

    Raises:
        ValueError: see :func:`check_next`.
    """
    document, months = _load_months(params)
    known = list(months)
    check_next(month, known)
    if month in known:
        if months[month]["items"] != items:
            log.warning(
                "%s: months.%s.items is %s and stays; to use %s, change it there",
                params, month, months[month]["items"], items,
            )  # fmt: skip
        return
    entry = CommentedMap(previous=known[-1] if known else START, items=items)
    entry.fa.set_flow_style()
    months[month] = entry
    months.fa.set_block_style()
    with replacing(params) as temporary:
        _yaml().dump(document, temporary)
    log.info("%s: month %s added; now run: dvc repro", params, month)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 1000  # never fold a line
    yaml.preserve_quotes = True
    return yaml


def _load_months(params: Path | str) -> tuple[CommentedMap, CommentedMap]:
    """The settings file as it stands, comments included, and its ``months``."""
    try:
        document = _yaml().load(Path(params))
    except YAMLError as error:
        raise ValueError(f"{params}: expected YAML, got {error}") from error
    if not isinstance(document, CommentedMap) or not isinstance(
        document.get("months"), CommentedMap
    ):
        raise ValueError(f"{params}: expected a mapping with a key 'months', found none")
    return document, document["months"]
