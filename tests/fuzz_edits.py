"""Small edits of valid input: of bytes, lines, JSON, tables, arrays, and of arguments."""

import contextlib
import copy
import functools
import gzip
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import safetensors.numpy

from recunlearn_jax import ledger

# Values that are seldom meant. In JSON two of them stand as marks, since no writer would write them.
DEEP, DIGITS = "<deep>", "<digits>"
ODD: dict[str, Any] = {
    **{"none": None, "true": True, "0": 0, "1": 1, "-1": -1, "2**31": 2**31, "2**63": 2**63, "10**30": 10**30},
    **{"0.5": 0.5, "1e308": 1e308, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "digits": DIGITS},
    **{"empty": "", "word": "x", "blank": " ", "tab": "\t", "line break": "\n", "return": "\r", "NUL": "\0"},
    **{"escape": "\x1b[31m", "right to left": "\u202e", "half a pair": "\ud800", "accents": "Zoë", "digit": "\u0661"},
    **{"quote": '"', "comma": ",", "percent": "5%", "underscore": "1_0", "path": "../x", "long": "a" * 50_000},
    **{"list": [], "object": {}, "list of lists": [[0, 1]], "list of words": ["x"], "deep": DEEP},
}
DTYPES = ("f2", "f8", ">f4", "i1", "u1", "i8", "u8", "?", "c8", "U3", "S3", "M8[s]", "V4", "O")
COLUMN_TYPES = (pl.Int8, pl.UInt64, pl.Float32, pl.Boolean, pl.Binary, pl.Date, pl.Datetime, pl.Categorical, pl.Null)


class Edit(NamedTuple):
    """One small change."""

    where: str  # file or argument
    kind: str
    place: int = 0  # of a byte, a line or an entry; counted around
    other: int = 0  # the same of a second one
    odd: str = "none"  # name of a value in ODD


Case = Sequence[Edit]


def text_of(odd: str) -> str:
    """A value as it would be typed."""
    value = {DEEP: "[" * 50_000, DIGITS: "9" * 5_000}.get(str(ODD[odd]), ODD[odd])
    return value if isinstance(value, str) else json.dumps(value)


def value_of(odd: str) -> Any:
    """A value as a program would hand it over."""
    if ODD[odd] == DEEP:
        return functools.reduce(lambda inner, _: [inner], range(5_000), [])
    return 10**5_000 if ODD[odd] == DIGITS else copy.copy(ODD[odd])


# Edits, family by family: what stands in a file, as one family sees it, and the edit -> what stands there then.


def _bytes_gone(content: bytes, edit: Edit) -> bytes:
    at = edit.place % (len(content) + 1)
    return content[:at] + content[at + 1 + edit.other % 64 :]


def _bytes_more(content: bytes, edit: Edit) -> bytes:
    at = edit.place % (len(content) + 1)
    return content[:at] + text_of(edit.odd).encode(errors="surrogatepass") + content[at:]


def _flip(content: bytes, edit: Edit) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[edit.place % len(changed)] ^= 1 << edit.other % 8
    return bytes(changed)


BYTES = {
    "flip a bit": _flip,
    "cut": lambda content, edit: content[: edit.place % (len(content) + 1)],
    "bytes gone": _bytes_gone,
    "bytes more": _bytes_more,
    "twice": lambda content, edit: content * 2,
}

Lines = list[list[str]]  # cells, with what separates them


def _lines_of(content: bytes) -> Lines:
    return [re.split(r"([\t,:=-])", line) for line in content.decode(errors="surrogateescape").split("\n")]


def _bytes_of(lines: Lines) -> bytes:
    return "\n".join("".join(cells) for cells in lines).encode(
        errors="surrogatepass" if _halves(lines) else "surrogateescape"
    )


def _halves(lines: Lines) -> bool:
    return any("\ud800" in cell for cells in lines for cell in cells)


def _line(change: Callable[[Lines, int, int], Any]) -> Callable[[Lines, Edit], Lines]:
    def edited(lines, edit):
        change(lines, edit.place % len(lines), edit.other % len(lines))
        return lines

    return edited


def _cell(change: Callable[[list[str], int, str], Any]) -> Callable[[Lines, Edit], Lines]:
    def edited(lines, edit):
        cells = lines[edit.place % len(lines)]
        change(cells, edit.other % len(cells) // 2 * 2, text_of(edit.odd))
        return lines

    return edited


def _swap(values: list, one: int, other: int) -> None:
    values[one], values[other] = values[other], values[one]


def _columns_swapped(lines: Lines, edit: Edit) -> Lines:
    for cells in lines:
        _swap(cells, *(place % len(cells) // 2 * 2 for place in (edit.place, edit.other)))
    return lines


LINES = {
    "cell set": _cell(lambda cells, at, text: cells.__setitem__(at, text)),
    "cell gone": _cell(lambda cells, at, text: cells.__delitem__(slice(at, at + 2))),
    "cell more": _cell(lambda cells, at, text: cells.insert(at, text + "\t")),
    "line gone": _line(lambda lines, one, other: lines.pop(one)),
    "line again": _line(lambda lines, one, other: lines.insert(other, list(lines[one]))),
    "lines swapped": _line(_swap),
    "columns swapped": _columns_swapped,
}


def slots(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree of dictionaries and lists, as (what holds it, its key)."""
    for key, value in list(
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    ):
        yield tree, key
        yield from slots(value)


def _slot(change: Callable[[Any, Any, Edit], None]) -> Callable[[Any, Edit], Any]:
    def edited(tree, edit):
        whole = {"": tree}
        found = list(slots(whole))
        holder, key = found[edit.place % len(found)]
        change(holder, key, edit)
        return whole.get("")

    return edited


def _renamed(holder: Any, key: Any, edit: Edit) -> None:
    if isinstance(holder, dict):
        name = text_of(edit.odd)
        holder[name] = holder.pop(key)


TREE = {
    "value set": _slot(lambda holder, key, edit: holder.__setitem__(key, _Odd(edit.odd))),
    "value gone": _slot(lambda holder, key, edit: holder.__delitem__(key)),
    "value in a list": _slot(lambda holder, key, edit: holder.__setitem__(key, [holder[key]])),
    "value renamed": _slot(_renamed),
    "value again": _slot(lambda holder, key, edit: isinstance(holder, list) and holder.append(holder[key])),
}


class _Odd(str):
    """Stands for an odd value until it is known how the tree is kept."""


def filled(tree: Any, fill: Callable[[str], Any]) -> Any:
    if isinstance(tree, _Odd):
        return fill(str(tree))
    if isinstance(tree, dict):
        return {key: filled(value, fill) for key, value in tree.items()}
    return [filled(value, fill) for value in tree] if isinstance(tree, list) else tree


def _json_of(tree: Any) -> str:
    text = json.dumps(filled(tree, lambda odd: ODD[odd]))
    return text.replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000).replace(f'"{DIGITS}"', "9" * 5_000)


def _hashed(entries: Any, edit: Edit) -> Any:
    """A ledger that whoever changed it has hashed anew."""
    previous = ledger.FIRST
    entries = filled(entries, lambda odd: ODD[odd])
    for entry in entries:
        entry["previous"] = previous
        entry["hash"] = previous = ledger.hash_of(entry)
    return entries


def _array(change: Callable[[np.ndarray, Edit], Any]) -> Callable[[Any, Edit], Any]:
    def edited(tree, edit):
        whole = {"": tree}
        found = [(holder, key) for holder, key in slots(whole) if isinstance(holder[key], np.ndarray)]
        if found:
            holder, key = found[edit.place % len(found)]
            holder[key] = change(holder[key], edit)
        return whole[""]

    return edited


def _entry(array: np.ndarray, edit: Edit) -> np.ndarray:
    changed = array.copy()
    if changed.size:
        with contextlib.suppress(ValueError, TypeError, OverflowError), np.errstate(all="ignore"):
            changed.flat[edit.other % changed.size] = np.asarray(value_of(edit.odd)).astype(changed.dtype)
    return changed


def _cast(array: np.ndarray, edit: Edit) -> np.ndarray:
    with contextlib.suppress(Exception), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return array.astype(DTYPES[edit.other % len(DTYPES)])
    return array


def _shape(array: np.ndarray, edit: Edit) -> np.ndarray:
    if not array.ndim:
        return array[None]
    shapes = [array[:0], array[:-1], array[..., :0], array[None], array.ravel(), array.ravel()[:1], array.T]
    shapes += [np.repeat(array, 2, axis=-1), np.concatenate([array, array[:1]])]
    return shapes[edit.other % len(shapes)]


def _filled_with(array: np.ndarray, edit: Edit) -> np.ndarray:
    filled = array.copy()
    if array.size:
        filled.fill(_entry(array.ravel()[:1], edit)[0])  # an object entry may be a list, which is not to be spread
    return filled


ARRAYS = {
    "entry set": _array(_entry),
    "type": _array(_cast),
    "shape": _array(_shape),
    "scalar": _array(lambda array, edit: np.asarray(array.ravel()[0] if array.size else 0)),
    "filled": _array(_filled_with),
}


def _column(change: Callable[[pl.DataFrame, str, Edit], pl.DataFrame]) -> Callable[[pl.DataFrame, Edit], pl.DataFrame]:
    return lambda frame, edit: change(frame, frame.columns[edit.place % frame.width], edit)


COLUMNS = {
    "column type": _column(
        lambda frame, name, edit: frame.with_columns(
            pl.col(name).cast(COLUMN_TYPES[edit.other % len(COLUMN_TYPES)], strict=False)
        )
    ),
    "column of lists": _column(lambda frame, name, edit: frame.with_columns(pl.concat_list(pl.col(name)))),
    "column gone": _column(lambda frame, name, edit: frame.drop(name)),
    "column renamed": _column(lambda frame, name, edit: frame.rename({name: text_of(edit.odd)})),
    "rows gone": _column(lambda frame, name, edit: frame.head(edit.other % (len(frame) + 1))),
}


def _nothing(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


FILES: dict[str, Callable[[Path], None]] = {
    "file gone": lambda path: None,
    "file empty": lambda path: path.touch(),
    "folder in its place": lambda path: path.mkdir(),
    "pipe in its place": os.mkfifo,
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
}


class Family(NamedTuple):
    """Edits that see a file in one way."""

    kinds: dict[str, Callable[[Any, Edit], Any]]
    read: Callable[[Path], Any]
    write: Callable[[Path, Any], Any]


def _packed(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _pack(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in _packed(path).splitlines()]


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    with path.open("rb") as file:  # closed also where numpy finds the file damaged
        content = np.load(file)
        return content if isinstance(content, np.ndarray) else dict(content)


def _save(path: Path, tree: Any) -> None:
    tree = filled(tree, lambda odd: np.array(value_of(odd)))
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in tree.items()}, path)
        return
    with path.open("wb") as file:
        np.savez(file, **tree) if path.suffix == ".npz" else np.save(file, tree)


FAMILIES = {
    "bytes": Family(BYTES, Path.read_bytes, Path.write_bytes),
    "lines": Family(LINES, lambda path: _lines_of(_packed(path)), lambda path, lines: _pack(path, _bytes_of(lines))),
    "json": Family(TREE, lambda path: json.loads(path.read_text()), lambda path, tree: path.write_text(_json_of(tree))),
    "json lines": Family(
        {f"{kind} in a line": edited for kind, edited in TREE.items()} | {"hashed anew": _hashed},
        _json_lines,
        lambda path, entries: _pack(path, "".join(_json_of(entry) + "\n" for entry in entries).encode()),
    ),
    "arrays": Family(ARRAYS | {f"array: {kind}": edited for kind, edited in TREE.items()}, _load, _save),
    "columns": Family(COLUMNS, pl.read_parquet, lambda path, frame: frame.write_parquet(path)),
}
OF_SUFFIX = {
    **dict.fromkeys((".npy", ".npz", ".safetensors"), ("arrays", "bytes")),
    **dict.fromkeys((".inter", ".csv", ".tsv", ".txt", ".toml"), ("lines", "bytes")),
    **{".json": ("json", "bytes"), ".parquet": ("columns", "bytes"), ".jsonl": ("json lines", "lines", "bytes")},
    **{".gz": ("json lines", "lines", "bytes")},
}


def kinds_of(where: str) -> list[str]:
    """The edits that a file allows."""
    families = OF_SUFFIX.get(Path(where).suffix, ("bytes",))
    return [kind for family in families for kind in FAMILIES[family].kinds] + list(FILES)


def argument_kinds(value: Any) -> list[str]:
    """The edits that an argument allows."""
    arrays = any(isinstance(holder[key], np.ndarray) for holder, key in slots({"": value}))
    return [*TREE, *(ARRAYS if arrays else ())]


def edit_file(root: Path, edit: Edit) -> None:
    """Change a file; nothing happens where an earlier edit has left nothing that could be edited in this way."""
    path = root / edit.where
    if edit.kind in FILES:
        _nothing(path)
        if not path.is_dir():
            FILES[edit.kind](path)
        return
    family = next((family for family in FAMILIES.values() if edit.kind in family.kinds), None)
    if family is None or path.is_symlink() or not path.is_file():
        return
    before = path.read_bytes()
    try:
        family.write(path, family.kinds[edit.kind](family.read(path), edit))
    except Exception:  # whatever a reader or a writer of damaged files may raise
        path.write_bytes(before)


def edit_argument(arguments: dict[str, Any], edit: Edit) -> None:
    """Change an argument."""
    kinds = TREE | ARRAYS
    if edit.where in arguments and edit.kind in kinds:
        inside = kinds[edit.kind]({edit.where: arguments.pop(edit.where)}, edit)
        arguments |= inside if isinstance(inside, dict) else {}
