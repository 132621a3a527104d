"""Table files from elsewhere: opened only if they are regular files, decompressed, and read into polars frames.

A text table is CSV or TSV, UTF-8, gzip or plain, and its cells stay text. Whatever is wrong with a file is reported in one sentence,
which names the line if there is one.
"""

import contextlib
import csv
import gzip
import io
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import polars as pl
from polars import selectors

from recunlearn_jax.errors import InputError, shown
from recunlearn_jax.files import regular, unreadable

BLOCK = 2**20  # the first line must end within it
MAX_COLUMNS = 2**16
READ_ALL = """
import sys, polars
frame = polars.scan_parquet(sys.argv[1], glob=False, hive_partitioning=False)
frame.select(polars.any_horizontal(polars.all().is_null()).sum()).collect(engine="streaming")
"""
POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError)


class TextForm(NamedTuple):
    """How a text table is written."""

    separator: str = ","
    quote: str | None = '"'
    header: bool = True


def listed(names: Sequence[object]) -> str:
    """The first ten of some names, as a message quotes them."""
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(shown, names[:10])) + rest


def ending(path: Path) -> str:
    """The ending of a file name, in lower case and without .gz.

    Examples:
        >>> ending(Path("Books.JSON.gz"))
        '.json'
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a regular file, decompressed if they are gzip.

    Raises:
        InputError: it cannot be read, here or in the `with` block.
    """
    with unreadable(path), regular(path).open("rb") as file:
        packed = file.peek(2).startswith(b"\x1f\x8b")
        try:
            yield io.BufferedReader(gzip.GzipFile(fileobj=file), BLOCK) if packed else file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path}: a damaged or truncated gzip file ({error})") from error


def beginning(path: Path) -> bytes:
    """The first MiB of a file, decompressed.

    Raises:
        InputError: there is nothing in the file.
    """
    with opened(path) as file:
        head = file.read(BLOCK)
    if not head.strip():
        raise InputError(f"{path}: the file is empty")
    return head


def first_line(path: Path) -> str:
    """The first line, without its end.

    Raises:
        InputError: the file is not UTF-8 text, or the line does not end.
    """
    head = beginning(path)
    if b"\0" in head:
        raise InputError(f"{path}: holds NUL bytes, as binary files and UTF-16 do; UTF-8 text is allowed")
    line, end, _ = head.partition(b"\n")
    if not end and len(head) == BLOCK:
        raise InputError(f"{path}: line 1 is longer than {BLOCK} bytes; is it a table?")
    return next(decoded([line], path)).rstrip("\r")


def decoded(lines: Iterable[bytes], path: Path) -> Iterator[str]:
    """Each line as text; a byte order mark before the first is skipped.

    Raises:
        InputError: a line is not UTF-8.
    """
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: line {number} holds {shown(line[error.start : error.end])}; only UTF-8 text is allowed"
            ) from error


def text_form(path: Path, line: str) -> TextForm:
    """TSV where the file name or the first line says so, CSV otherwise."""
    tabs = ending(path) in {".tsv", ".inter"} or ("\t" in line and "," not in line)
    return TextForm("\t" if tabs else ",")


def cells(path: Path, line: str, form: TextForm) -> list[str]:
    """Cells of the first line.

    Raises:
        InputError: it cannot be split into cells, or has too many.
    """
    quoting = csv.QUOTE_NONE if form.quote is None else csv.QUOTE_MINIMAL
    try:
        found = next(csv.reader([line], delimiter=form.separator, quoting=quoting, strict=True), [])
    except csv.Error as error:
        raise InputError(f"{path}: line 1 is no header ({error}); it begins {shown(line)}") from error
    if len(found) > MAX_COLUMNS:
        raise InputError(f"{path}: {len(found)} columns; at most {MAX_COLUMNS} are allowed")
    return found


def check_names(path: Path, names: Sequence[str]) -> None:
    """Check that no two columns have the same name; raises InputError."""
    seen = set()
    for name in names:
        if name in seen:
            raise InputError(f"{path}: two columns are called {shown(name)}; each name is allowed once")
        seen.add(name)


def scan_text(path: Path, form: TextForm, types: Sequence[pl.DataType | type[pl.DataType]]) -> pl.LazyFrame:
    """A text table with columns "0", "1", ... of the given types; short lines end in nulls."""
    return pl.scan_csv(
        path.resolve(),
        has_header=False,
        skip_rows=int(form.header),
        separator=form.separator,
        quote_char=form.quote,
        schema={str(n): kind for n, kind in enumerate(types)},
        missing_columns="insert",  # otherwise the first line would have to be complete
        glob=False,
    )


def collect_text(frame: pl.LazyFrame, path: Path, form: TextForm, types: Sequence) -> pl.DataFrame:
    """Collect a frame from `scan_text`.

    Raises:
        InputError: the table is damaged; the file is then read a second time, for the line.
    """
    try:
        return frame.collect(engine="streaming")
    except POLARS_ERRORS as error:
        _explain(path, form, types, error)


def _explain(path: Path, form: TextForm, types: Sequence, error: BaseException) -> NoReturn:
    quoting = csv.QUOTE_NONE if form.quote is None else csv.QUOTE_MINIMAL
    with opened(path) as file:
        rows = csv.reader(decoded(file, path), delimiter=form.separator, quoting=quoting, strict=True)
        line = 1
        try:
            for row in rows:
                if line > form.header:
                    _check_row(path, line, row, types)
                line = rows.line_num + 1
        except csv.Error as fault:
            raise InputError(f"{path}: line {line} has a cell with a broken quote ({fault})") from fault
    raise InputError(f"{path}: cannot be read as a table ({shown(str(error))})") from error


def _check_row(path: Path, line: int, row: Sequence[str], types: Sequence) -> None:
    if len(row) > len(types):
        raise InputError(f"{path}: line {line} has {len(row)} cells, but the table {len(types)} columns")
    for cell, kind in zip(row, types, strict=False):
        if kind.is_numeric() and cell:
            try:
                float(cell)
            except ValueError as error:
                raise InputError(f"{path}: line {line} has {shown(cell)}; a number is allowed there") from error


def scan_parquet(path: Path) -> tuple[pl.LazyFrame, pl.Schema]:
    """A Parquet file and the types of its columns.

    Some damage kills the process that reads the file. So another process reads the whole file first, and nothing is left to go wrong here.

    Raises:
        InputError: it is not a Parquet file, or is damaged.
    """
    place = regular(path).resolve()
    if subprocess.run([sys.executable, "-P", "-c", READ_ALL, place], capture_output=True, check=False).returncode:
        raise InputError(f"{path}: no Parquet file, or a damaged one")
    frame = pl.scan_parquet(place, glob=False, hive_partitioning=False)
    return frame, frame.collect_schema()


def column(name: str) -> pl.Expr:
    """A column by its name alone; `pl.col` would take ^...$ and * for patterns."""
    return selectors.by_name(name).as_expr()


def id_column(path: Path, name: str, kind: pl.DataType) -> pl.Expr:
    """Ids of a Parquet file as text.

    Raises:
        InputError: they are neither strings nor whole numbers.
    """
    if not (kind.is_integer() or isinstance(kind, pl.String | pl.Categorical | pl.Enum)):
        raise InputError(f"{path}: column {shown(name)} is of type {kind}; ids are strings or whole numbers")
    return column(name).cast(pl.String)
