"""Interaction files from elsewhere: every format gives one polars frame.

    csv, tsv   a header, then one row per interaction
    recbole    an atomic file: tab separated, with a header such as user_id:token, item_id:token, rating:float
    ratings    no header: user, item, rating and perhaps timestamp, as in the ratings of the Amazon reviews of 2014
    json       one object per line, as in the Amazon reviews of 2014, 2018 and 2023; lines that are Python dictionaries are read too
    parquet

All except Parquet may be compressed with gzip. Columns are found by name; names are compared without case and separators.
"""

import ast
import itertools
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import polars as pl

from recunlearn_jax.errors import InputError, shown
from recunlearn_jax.files import regular
from recunlearn_jax.tables import (
    TextForm,
    beginning,
    cells,
    check_names,
    collect_text,
    column,
    decoded,
    ending,
    first_line,
    id_column,
    listed,
    opened,
    scan_parquet,
    scan_text,
    text_form,
)

Format = Literal["auto", "csv", "tsv", "recbole", "ratings", "json", "parquet"]
ALIASES = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid"),
    "item": ("itemid", "item", "iid", "parentasin", "asin", "productid", "businessid", "movieid"),
    "rating": ("rating", "overall", "stars", "score"),
    "time": ("timestamp", "time", "unixreviewtime", "unixtime", "sorttimestamp"),
}
RATINGS = ("user", "item", "rating", "timestamp")  # the columns of a file without a header
TYPES = {"rating": pl.Float64, "time": pl.Int64}
SAMPLE = 1000  # JSON lines whose keys give the column names
CHUNK = 2**16  # JSON lines held as Python objects at once, only the columns that are read
LONGEST_LINE = 2**24
LONGEST_LITERAL = 2**20  # the parser takes some hundred times the memory


class Wanted(NamedTuple):
    """Which columns are read.

    Attributes:
        named: kind -> name of the column in the file, where the operator gives it.
        required, optional: kinds, of user, item, rating and time.
    """

    named: Mapping[str, str]
    required: Sequence[str] = ("user", "item")
    optional: Sequence[str] = ()


class Source(NamedTuple):
    """What a file held.

    Attributes:
        rows: row (its place in the file), user and item (String), and, if read, rating (Float64) and time (Int64); null = missing.
        unit: what `row` counts, "line" or "row"; the first of the file is 1.
        columns: kind -> name in the file.
    """

    rows: pl.DataFrame
    unit: str
    columns: Mapping[str, str]


def read_interactions(path: Path, wanted: Wanted, file_format: Format = "auto") -> Source:
    """Read an interaction file.

    Raises:
        InputError: the message names the file, the line and the broken rule.
    """
    regular(path)
    chosen = recognise(path) if file_format == "auto" else file_format
    reader = {"json": _read_json, "parquet": _read_parquet, "ratings": _read_ratings, "recbole": _read_recbole}
    return _typed(reader[chosen](path, wanted) if chosen in reader else _read_table(path, wanted, chosen), path)


def recognise(path: Path) -> str:
    """The format, recognised from the content and the file name."""
    if ending(path) in {".parquet", ".pq"} or beginning(path).startswith(b"PAR1"):
        return "parquet"
    line = first_line(path)
    if ending(path) in {".json", ".jsonl", ".ndjson"} or line.startswith(("{", "[")):
        return "json"
    form = text_form(path, line)
    names = cells(path, line, form)
    if form.separator == "\t" and all(_is_typed(name) for name in names):
        return "recbole"
    if len(names) in (3, 4) and all(map(_is_number, names[2:])):
        return "ratings"
    return "tsv" if form.separator == "\t" else "csv"


def _is_typed(name: str) -> bool:
    return name.endswith((":token", ":token_seq", ":float", ":float_seq"))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def choose(path: Path, names: Sequence[str], wanted: Wanted) -> dict[str, str]:
    """Which column is which.

    Args:
        names: of all columns in the file.

    Returns:
        kind -> name.

    Raises:
        InputError: a column is not there, or several might be meant.
    """
    chosen = {}
    for kind in (*wanted.required, *wanted.optional):
        named = [name for name in names if name == wanted.named.get(kind)]
        found = named if kind in wanted.named else _by_alias(kind, names)
        if len(found) > 1:
            raise InputError(f"{path}: {listed(found)} may each be the {kind} column; name one with --{kind}-column")
        if not found and (kind in wanted.named or kind in wanted.required):
            called = f" called {shown(wanted.named[kind])}" if kind in wanted.named else ""
            raise InputError(f"{path}: no {kind} column{called}; the columns are {listed(names)} (--{kind}-column)")
        if found:
            chosen[kind] = found[0]
    for name in chosen.values():
        kinds = [kind for kind in chosen if chosen[kind] == name]
        if len(kinds) > 1:
            raise InputError(f"{path}: column {shown(name)} is to be {' and '.join(kinds)}; each needs its own")
    return chosen


def _by_alias(kind: str, names: Sequence[str]) -> list[str]:
    plain = {name: "".join(filter(str.isalnum, name)).lower() for name in names}
    found = [name for name in names if plain[name] in ALIASES[kind]]
    if sorted(plain[name] for name in found) == ["asin", "parentasin"]:
        # In the reviews of 2023 the asin is a colour or a size; its parent is the product, and what feature files are keyed by.
        return [name for name in found if plain[name] == "parentasin"]
    return found


def _read_table(path: Path, wanted: Wanted, chosen: str) -> Source:
    form = TextForm("\t" if chosen == "tsv" else ",")
    names = cells(path, first_line(path), form)
    return _read_text(path, wanted, form, names)


def _read_recbole(path: Path, wanted: Wanted) -> Source:
    form = TextForm("\t", quote=None)
    typed = cells(path, first_line(path), form)
    if not all(map(_is_typed, typed)):
        raise InputError(f"{path}: line 1 is {listed(typed)}; a RecBole header is allowed, such as user_id:token")
    return _read_text(path, wanted, form, [name.rpartition(":")[0] for name in typed])


def _read_ratings(path: Path, wanted: Wanted) -> Source:
    line = first_line(path)
    form = text_form(path, line)._replace(header=False)
    found = cells(path, line, form)
    if len(found) not in (3, 4):
        raise InputError(f"{path}: line 1 has {len(found)} cells; user, item, rating and perhaps timestamp are allowed")
    return _read_text(path, wanted, form, RATINGS[: len(found)])


def _read_text(path: Path, wanted: Wanted, form: TextForm, names: Sequence[str]) -> Source:
    check_names(path, names)
    columns = choose(path, names, wanted)
    types = [pl.String] * len(names)
    picked = [pl.col(str(names.index(name))).alias(kind) for kind, name in columns.items()]
    # polars checks for lines that are too long, and checks the text of other columns, only if every column is read.
    every = pl.any_horizontal(pl.all().is_null()).alias("every")
    lazy = scan_text(path, form, types).select(*picked, every).with_row_index("row", 1 + form.header)
    return Source(collect_text(lazy, path, form, types).drop("every"), "row", columns)


def _read_parquet(path: Path, wanted: Wanted) -> Source:
    lazy, schema = scan_parquet(path)
    columns = choose(path, list(schema), wanted)
    picked = []
    for kind, name in columns.items():
        if kind in TYPES:
            if not (schema[name].is_numeric() or schema[name].is_temporal() or schema[name] == pl.String):
                raise InputError(f"{path}: column {shown(name)} is of type {schema[name]}; numbers are allowed")
            picked.append(column(name).alias(kind))
        else:
            picked.append(id_column(path, name, schema[name]).alias(kind))
    rows = lazy.select(picked).with_row_index("row", 1).collect(engine="streaming")
    return Source(rows, "row", columns)


def _read_json(path: Path, wanted: Wanted) -> Source:
    with opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parser of Python literals warns of odd escapes
        objects = _objects(file, path)
        sample = list(itertools.islice(objects, SAMPLE))
        names = list(dict.fromkeys(key for _, values in sample for key in values if isinstance(key, str)))
        columns = choose(path, names, wanted)
        rows = _picked(itertools.chain(sample, objects), columns, path)
        schema = {"row": pl.UInt32, **dict.fromkeys(columns, pl.String)}
        frames = []
        while chunk := list(itertools.islice(rows, CHUNK)):
            frames.append(pl.DataFrame(chunk, schema, orient="row"))
    return Source(pl.concat(frames), "line", columns)


def _objects(file: BinaryIO, path: Path) -> Iterator[tuple[int, dict]]:
    """Each line's number and object; blank lines are skipped."""
    for number, line in enumerate(decoded(_lines(file, path), path), 1):
        if line and not line.isspace():
            yield number, _parsed(line, number, path)


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1):
        if len(line) > LONGEST_LINE:
            raise InputError(f"{path}: line {number} is longer than {LONGEST_LINE} bytes")
        yield line


def _parsed(line: str, number: int, path: Path) -> dict:
    try:
        values = json.loads(line)
    except RecursionError:
        values = None
    except ValueError:
        values = _literal(line)
    if not isinstance(values, dict):
        raise InputError(f"{path}: line {number} is {shown(line.strip())}; one JSON object a line is allowed")
    return values


def _literal(line: str) -> Any:
    """The value of a Python literal, as in some lines of the older dumps; None if the line is not one."""
    if len(line) > LONGEST_LITERAL:
        return None
    try:
        return ast.literal_eval(line.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _picked(objects: Iterable[tuple[int, dict]], columns: Mapping[str, str], path: Path) -> Iterator[tuple]:
    for number, values in objects:
        yield (number, *[_as_text(values.get(name), kind, number, path) for kind, name in columns.items()])


def _as_text(value: Any, kind: str, number: int, path: Path) -> str | None:
    """A value of a JSON object as the text it stands for; raises InputError."""
    if value is None:
        return None
    try:
        if type(value) is str:
            if not value.isascii():
                value.encode()  # half of a surrogate pair stands for no character
            return value
        if type(value) is int or (type(value) is float and kind in TYPES):
            return str(value)
    except ValueError:
        pass
    allowed = "a number" if kind in TYPES else "a string of characters or a whole number"
    what = shown(value) if isinstance(value, str | float | bool) else f"a {type(value).__name__}"
    raise InputError(f"{path}: line {number} has {what} as {kind}; {allowed} is allowed")


def _typed(source: Source, path: Path) -> Source:
    """Ratings and times as numbers, empty cells as nulls."""
    rows = source.rows
    text = [name for name, kind in rows.schema.items() if kind == pl.String]
    rows = rows.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in text)
    for kind in TYPES:
        if kind in rows.columns:
            numbers = _numbers(rows[kind], kind)
            wrong = (rows[kind].is_not_null() & numbers.is_null()).arg_true()
            if len(wrong):
                row, value = rows["row"][wrong[0]], rows[kind][wrong[0]]
                allowed = "a finite number" if kind == "rating" else "a whole number within 64 bits"
                raise InputError(f"{path}: {source.unit} {row} has {kind} {shown(value)}; {allowed} is allowed")
            rows = rows.with_columns(numbers.alias(kind))
    return source._replace(rows=rows)


def _numbers(values: pl.Series, kind: str) -> pl.Series:
    """Null where there is no finite number."""
    numbers = values.cast(pl.Float64, strict=False)
    if kind == "rating":
        return numbers.set(~numbers.is_finite(), None)
    # Only what is written as a float goes through one: nanoseconds have more digits than a float holds.
    return values.cast(pl.Int64, strict=False).fill_null(numbers.cast(pl.Int64, strict=False))
