"""Item feature files from elsewhere, brought into the order of the items.

    .npz           arrays `ids` (strings or whole numbers) and `features` [n, d]
    .npy           an array [n, d], with FILE.ids.txt beside it, one id per line
    .safetensors   a tensor `features` [n, d], with FILE.ids.txt beside it
    .csv, .tsv     a header; a column of item ids, all others numbers; gzip or plain
    .parquet       the same, or a column of item ids and one column of lists

An item without a row, or with a row of NaN, lacks the feature: its row becomes zero. Nothing is ever unpickled.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from recunlearn_jax.arrays import DAMAGE, as_float32, load_arrays
from recunlearn_jax.errors import InputError, shown
from recunlearn_jax.files import regular
from recunlearn_jax.tables import (
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

FRACTION = re.compile(r"(^|[,\t])-?[0-9]*\.[0-9]+(e-?[0-9]+)?($|[,\t])")  # a first line with one is no header
ENDINGS = (".npz", ".npy", ".safetensors", ".csv", ".tsv", ".parquet", ".pq")


class Features(NamedTuple):
    """ids: of n items, unique; rows: numbers [n, d]."""

    ids: Sequence[str]
    rows: np.ndarray


def read_features(path: Path, item_column: str | None = None) -> Features:
    """Read a feature file.

    Args:
        item_column: the column of ids in a table; the first column if there is no such one.

    Raises:
        InputError: the message names the file and the broken rule.
    """
    regular(path)
    if ending(path) in {".npy", ".npz", ".safetensors"}:
        reader = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}[ending(path)]
        features = reader(path)
    elif ending(path) in {".parquet", ".pq"}:
        features = _read_parquet(path, item_column)
    elif ending(path) in {".csv", ".tsv"}:
        features = _read_text(path, item_column)
    else:
        raise InputError(f"{path}: features are read from {', '.join(ENDINGS)} files")
    return _checked(path, features)


def aligned(features: Features, item_ids: Sequence[str], path: Path) -> tuple[np.ndarray, int, int]:
    """The features in the order of the items.

    Args:
        item_ids: |I| ids.
        path: of the file, for the message.

    Returns:
        float32 [|I|, d], the number of items without the feature, and the number of rows without an item.

    Raises:
        InputError: a row holds inf, or NaN in some places only, or no row belongs to an item.
    """
    places = {name: place for place, name in enumerate(features.ids)}
    chosen = np.array([places.get(name, -1) for name in item_ids], np.int64)
    known = np.flatnonzero(chosen >= 0)
    if not len(known):
        raise InputError(
            f"{path}: none of its {len(places)} ids, such as {shown(features.ids[0])}, is an item; "
            f"items are such as {shown(item_ids[0])}"
        )
    rows = as_float32(features.rows[chosen[known]])
    nan = np.isnan(rows)
    bad = np.isinf(rows).any(axis=1) | (nan.any(axis=1) & ~nan.all(axis=1))
    if bad.any():
        raise InputError(
            f"{path}: item {shown(item_ids[known[np.argmax(bad)]])} has inf (as float32) or some NaN; "
            "finite numbers are allowed, or a whole row of NaN for a missing feature"
        )
    whole = np.zeros((len(item_ids), rows.shape[1]), np.float32)
    whole[known] = np.nan_to_num(rows, copy=False)
    return whole, int((~whole.any(axis=1)).sum()), len(places) - len(known)


def _checked(path: Path, features: Features) -> Features:
    ids, rows = features
    if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: features of shape {rows.shape}, dtype {rows.dtype}; numbers [items, width] are allowed"
        )
    if len(ids) != len(rows):
        raise InputError(f"{path}: {len(ids)} ids, but {len(rows)} rows of features")
    if len(set(ids)) != len(ids) or "" in ids:
        seen = set()
        twice = next(name for name in ids if not name or name in seen or seen.add(name))
        raise InputError(f"{path}: item {shown(twice)} " + ("has two rows; one is allowed" if twice else "is no id"))
    return features


def _load(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name; the array of an .npy file is called features."""
    try:
        content = load_arrays(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}; plain arrays are allowed") from error
    return {"features": content} if isinstance(content, np.ndarray) else content


def _read_npy(path: Path) -> Features:
    return Features(_ids_beside(path), _named(path, _load(path), "features"))


def _read_npz(path: Path) -> Features:
    arrays = _load(path)
    ids = _named(path, arrays, "ids")
    if ids.ndim != 1 or ids.dtype.kind not in "Uiu":
        raise InputError(
            f"{path}: ids of shape {ids.shape}, dtype {ids.dtype}; a row of strings or whole numbers is allowed"
        )
    return Features([str(name) for name in ids.tolist()], _named(path, arrays, "features"))


def _named(path: Path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    if not isinstance(arrays.get(name), np.ndarray):
        raise InputError(f"{path}: no array {name!r}; it holds {listed(list(arrays))}")
    return arrays[name]


def _read_safetensors(path: Path) -> Features:
    from safetensors import SafetensorError, safe_open

    ids = _ids_beside(path)
    try:
        with safe_open(path, framework="numpy") as tensors:
            names = list(tensors.keys())
            if "features" in names:
                return Features(ids, tensors.get_tensor("features"))
    except (SafetensorError, *DAMAGE) as error:
        raise InputError(f"{path}: damaged, or of a type that numpy has not, such as bfloat16 ({error})") from error
    raise InputError(f"{path}: no tensor 'features'; it holds {listed(names)}")


def _ids_beside(path: Path) -> list[str]:
    beside = path.with_name(path.name + ".ids.txt")
    if not beside.exists():
        raise InputError(f"{beside}: no such file; {path.name} needs it, with the item of each row, one id a line")
    with opened(beside) as file:
        return [line.rstrip("\n").removesuffix("\r") for line in decoded(file, beside)]


def _id_name(path: Path, names: Sequence[str], item_column: str | None) -> str:
    if len(names) < 2:
        raise InputError(f"{path}: the columns are {listed(names)}; item ids and at least one of numbers are needed")
    return item_column if item_column is not None and item_column in names else names[0]


def _read_text(path: Path, item_column: str | None) -> Features:
    line = first_line(path)
    form = text_form(path, line)
    names = cells(path, line, form)
    check_names(path, names)
    if FRACTION.search(line):
        raise InputError(f"{path}: line 1 is {shown(line)}, but names of columns are expected there")
    key = names.index(_id_name(path, names, item_column))
    types = [pl.Float32 if place != key else pl.String for place in range(len(names))]
    table = collect_text(scan_text(path, form, types), path, form, types)
    return Features(_ids(path, table[str(key)], 2), table.drop(str(key)).to_numpy())


def _read_parquet(path: Path, item_column: str | None) -> Features:
    lazy, schema = scan_parquet(path)
    name = _id_name(path, list(schema), item_column)
    others = {other: kind for other, kind in schema.items() if other != name}
    ids = id_column(path, name, schema[name])
    lists = [kind for kind in others.values() if isinstance(kind, pl.List | pl.Array)]
    numbers = [kind.inner if isinstance(kind, pl.List | pl.Array) else kind for kind in others.values()]
    if not all(kind.is_numeric() for kind in numbers) or (lists and len(others) > 1):
        raise InputError(
            f"{path}: beside {shown(name)} the columns are {listed([f'{k}: {v}' for k, v in others.items()])}; "
            "numbers, or a single column of lists of numbers, are allowed"
        )
    wide = pl.List(pl.Float32) if lists else pl.Float32
    picked = [column(other).cast(wide).alias(str(place)) for place, other in enumerate(others)]
    table = lazy.select(ids.alias("ids"), *picked).collect(engine="streaming")
    rows = _stacked(path, table["0"]) if lists else table.drop("ids").to_numpy()
    return Features(_ids(path, table["ids"], 1), rows)


def _ids(path: Path, ids: pl.Series, first: int) -> list[str]:
    missing = (ids.is_null() | (ids == "")).arg_true()
    if len(missing):
        raise InputError(f"{path}: row {missing[0] + first} has no item id")
    return ids.to_list()


def _stacked(path: Path, lists: pl.Series) -> np.ndarray:
    """float32 [n, d] of n lists of d numbers; NaN for a list or a number that is missing."""
    widths = lists.list.len()
    width = int(widths.drop_nulls().to_numpy().max(initial=0))
    if not width:
        return np.zeros((len(lists), 0), np.float32)
    wrong = (widths != width).arg_true()
    if len(wrong):
        raise InputError(
            f"{path}: row {wrong[0] + 1} has {widths[wrong[0]]} numbers, others {width}; one width is allowed"
        )
    rows = np.full((len(lists), width), np.nan, np.float32)
    rows[lists.is_not_null().to_numpy()] = lists.drop_nulls().explode().to_numpy().reshape(-1, width)
    return rows
