"""The commands ``lurm lookalike``, ``lurm export`` and ``lurm index``: what consumers do with vectors.

Tables go to standard output as CSV or TSV, or whole into the file that ``--out`` names; what is to be said
about them goes to standard error.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lurm.months import month_number

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

VECTORS, INDEX = "data/user_vectors/{}.parquet", "data/index/{}.faiss"
DELIMITERS = {"csv": ",", "tsv": "\t"}


def add_use(commands: argparse._SubParsersAction) -> None:
    """Announce the commands."""
    parser = _command(
        commands,
        "lookalike",
        _lookalike,
        "rank all users by how like the seeds they are",
        "Rank all other users by how like the seeds they are: by `similarity`, the cosine to the seeds' "
        "mean, and by `classifier`, the chance that a small classifier of the seeds against the others "
        "gives them (0.5: as likely as not). Both are in the table.",
        epilog="examples: lurm lookalike seeds.txt --top 1000 > audience.csv; "
        "cut -d, -f1 crm.csv | lurm lookalike - --tsv | head; "
        "lurm lookalike 1029 1364 --out audience.parquet",
    )
    parser.add_argument(
        "seeds",
        nargs="+",
        metavar="SEEDS",
        help="user ids; or one file of them: text with an id a line, or parquet with a column "
        "user_id; or - for lines on standard input",
    )
    parser.add_argument("--top", type=_count, metavar="N", help="so many users (default: all)")
    parser.add_argument(
        "--by",
        choices=("classifier", "similarity"),
        default="classifier",
        help="what ranks them (default: %(default)s)",
    )
    _add_table(parser)

    parser = _command(
        commands,
        "export",
        _export,
        "one month's vectors as one plain table",
        "Write one month's vectors as one plain table: the user, what is known of the vector, and one "
        "column per number, v00, v01, and so on.",
        epilog="examples: lurm export --out vectors.csv; lurm export --month 2017-10 --tsv | head",
    )
    _add_table(parser)

    parser = _command(
        commands,
        "index",
        _index,
        "measure one month's faiss index",
        "Measure one month's faiss index: recall@10 against comparing with every user, and milliseconds "
        "for a query, one at a time on one thread. Prints JSON.",
    )
    parser.add_argument("--index", type=Path, metavar="FILE", help="instead of the month's own")
    parser.add_argument(
        "--queries",
        type=_count,
        default=1000,
        metavar="N",
        help="users asked (default: %(default)s)",
    )


def _command(
    commands: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
    description: str,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=description, epilog=epilog
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--month", type=_month, help="whose vectors (default: the last month in params.yaml)"
    )
    which.add_argument("--vectors", type=Path, metavar="FILE", help="a file of vectors instead")
    parser.set_defaults(run=run)
    return parser


def _add_table(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--tsv", action="store_true", help="tabs instead of commas")
    how.add_argument(
        "--out", type=Path, metavar="FILE", help="a .csv, .tsv or .parquet file to write instead"
    )


def _month(text: str) -> str:
    try:
        month_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


# ---- the commands -------------------------------------------------------------------------------


def _lookalike(args: argparse.Namespace) -> None:
    import numpy as np

    from lurm.use.lookalike import audience
    from lurm.use.vectors import like_ids, rows_of
    from lurm.vectors import vector_matrix

    _check_out(args.out)
    path, vectors = _vectors(args)
    seeds = read_seeds(args.seeds)
    rows = rows_of(like_ids(seeds, vectors, "lookalike"), vectors)
    if rows.null_count == len(rows):
        raise ValueError(
            f"lookalike: expected seeds with a vector in {path}, none of {len(rows):,} has one; check "
            "the ids, or choose a later month"
        )
    if rows.null_count:
        log.warning("%d of %d seeds have no vector in %s", rows.null_count, len(rows), path)
    known = np.asarray(rows.drop_null(), dtype=np.int64)
    found = audience(vectors, vector_matrix(vectors), known, args.by, args.top)
    log.info("%s: %d seeds, %d users ranked by %s", path, len(set(known)), len(found), args.by)
    write_table(found, args.out, tsv=args.tsv)


def _export(args: argparse.Namespace) -> None:
    from lurm.use.vectors import plain_table
    from lurm.vectors import vector_matrix

    _check_out(args.out)
    path, vectors = _vectors(args)
    log.info("%s: %d users, %d numbers each", path, *vector_matrix(vectors).shape)
    write_table(plain_table(vectors), args.out, tsv=args.tsv)


def _index(args: argparse.Namespace) -> None:
    import faiss

    from lurm.use.index import measure, read_index
    from lurm.vectors import vector_matrix

    if args.vectors and not args.index:
        raise ValueError("index: expected --index beside --vectors, to say which is measured")
    _, vectors = _vectors(args)
    path = args.index or Path(INDEX.format(args.month))
    faiss.omp_set_num_threads(1)
    figures = measure(read_index(path), vector_matrix(vectors), args.queries, 0)
    _print(lambda: print(json.dumps(figures, indent=2), flush=True))


# ---- what comes in, what goes out ---------------------------------------------------------------


def _vectors(args: argparse.Namespace) -> "tuple[Path, pa.Table]":
    """The file of vectors that was asked for, and what is in it; fills ``args.month`` in."""
    from lurm.params import load_params
    from lurm.storage import read_parquet

    if args.vectors:
        return args.vectors, read_parquet(args.vectors)
    args.month = args.month or list(load_params("params.yaml").months)[-1]
    path = Path(VECTORS.format(args.month))
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: expected the month's vectors, found none; run `dvc pull {path}` or `dvc repro`, or "
            "name a file with --vectors"
        )
    return path, read_parquet(path)


def read_seeds(words: Sequence[str]) -> list[str]:
    """The ids as text: the words themselves, or the lines of the one file they name, or of ``-``.

    Ids are taken exactly as they are, blanks included. Empty lines do not count, nor does a first line that
    says ``user_id``.

    Raises:
        ValueError: there is no id, or a parquet file has no column ``user_id``.
    """
    from lurm.tables import ids_of_lines  # pyarrow takes a while to import

    if len(words) > 1:
        return list(words)
    (word,) = words
    if word.endswith(".parquet"):
        import pyarrow as pa

        from lurm.storage import read_parquet

        table = read_parquet(word)
        if "user_id" not in table.column_names:
            raise ValueError(
                f"{word}: expected a column user_id, found {', '.join(table.column_names)}"
            )
        lines = table["user_id"].drop_null().cast(pa.string()).to_pylist()
    elif word == "-":
        lines = ids_of_lines(sys.stdin.read())
    elif Path(word).is_file():
        try:
            lines = ids_of_lines(Path(word).read_text("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{word}: expected text in UTF-8, one id a line: {error}") from error
    elif Path(word).suffix in (".txt", ".csv", ".tsv") or os.sep in word:
        raise FileNotFoundError(f"{word}: expected a file of user ids, found none")
    else:
        lines = [word]
    ids = lines[1:] if lines[:1] == ["user_id"] else lines
    if not ids:
        raise ValueError(f"{word}: expected user ids, one a line, found none")
    return ids


def _check_out(out: Path | None) -> None:
    if out and out.suffix not in (".csv", ".tsv", ".parquet"):
        raise ValueError(f"--out: expected a name ending in .csv, .tsv or .parquet, got {out}")


def write_table(table: "pa.Table", out: Path | None, *, tsv: bool) -> None:
    """Write the table to ``out``, as its ending says, or to standard output."""
    import pyarrow.csv as csv

    from lurm.storage import replacing, write_parquet

    if out and out.suffix == ".parquet":
        write_parquet(table, out)
        return
    kind = out.suffix[1:] if out else "tsv" if tsv else "csv"
    # Text is quoted in CSV, where it may hold a comma; with tabs it stays as it is, for cut and awk.
    quotes = {"csv": "needed", "tsv": "none"}[kind]
    options = csv.WriteOptions(
        delimiter=DELIMITERS[kind], quoting_style=quotes, quoting_header="none"
    )
    if out:
        with replacing(out) as temporary:
            csv.write_csv(table, temporary, options)
        return
    _print(lambda: (csv.write_csv(table, sys.stdout.buffer, options), sys.stdout.buffer.flush()))


def _print(write: Callable[[], object]) -> None:
    """Write to standard output; who reads it may stop early, as ``head`` does: that is no fault."""
    try:
        write()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
