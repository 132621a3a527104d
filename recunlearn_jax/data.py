"""Data folders (MMRec's), in and out.

A folder NAME holds `NAME.inter` (tab separated, header with userID, itemID, x_label; label 0 train, 1 valid, 2 test) and, for each
modality, `<modality>_feat.npy` (one row per item) and optionally `<modality>_knn<k>_adj.npz` (its item graph, see `item_graph`).
`user_ids.txt` and `item_ids.txt`, if present, hold the operator's own ids in the order of the numbers. Nothing is ever unpickled. A folder
that this package wrote also holds `retained.json`, with the size of the id space and the numbers that are gone, so that a
removed item is never shown and the next request can follow, and `removed_ids.json` (see `removed_ids`), whose length is recorded in both.
"""

import itertools
import operator
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recunlearn_jax import folders
from recunlearn_jax.arrays import as_float32, load_arrays
from recunlearn_jax.dataset import MAX_ID, SPLITS, Dataset
from recunlearn_jax.errors import InputError, Note, check_type
from recunlearn_jax.files import (
    as_path,
    read_json,
    read_text,
    regular,
    unreadable,
    write_json,
    write_text,
)
from recunlearn_jax.item_graph import FORM, SIMILARITIES, read_item_graphs
from recunlearn_jax.removed_ids import FILE as REMOVED_IDS
from recunlearn_jax.removed_ids import read_removed_ids, write_removed_ids

RETAINED, IDS = "retained.json", {"user": "user_ids.txt", "item": "item_ids.txt"}
COLUMNS = ("userID", "itemID", "x_label")
WHOLE_NUMBER = re.compile(r"(-?[0-9]{1,18})(?:\.0+)?")  # within int64; other tools write 0.0 for 0
CONTENT = {".npy", ".npz", ".pt", ".pth", ".safetensors", ".parquet", ".pkl", ".h5"}  # of files that may hold features


class _Space(NamedTuple):
    """The id space of a folder and what is gone from it."""

    num_users: int
    num_items: int
    removed_users: np.ndarray  # bool [|U|] or [0]
    removed_items: np.ndarray
    removed_modalities: tuple[str, ...]


def read_dataset(folder: str | Path) -> Dataset:
    """Read and check a data folder.

    Args:
        folder: holds exactly one `.inter` file and the files of its modalities; names that begin with a dot are ignored.

    Returns:
        The data set; features are float32 whatever the files hold.

    Raises:
        InputError: the message names the file, the row and the broken rule.

    Warns:
        Note: a file looks as if it holds features, but its name is not one that is read.
    """
    folder = as_path(folder, "folder")
    with unreadable(folder):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; expected an MMRec folder with one .inter file in it")
        inter_files = _matching(folder, "*.inter")
    if len(inter_files) != 1:
        raise InputError(f"{folder}: holds {len(inter_files)} .inter files; exactly one is allowed")
    inter = inter_files[0]
    rows = _read_interactions(inter)
    features = {p.name.removesuffix("_feat.npy"): _read_features(p) for p in _matching(folder, "*_feat.npy")}
    ids = {kind: _read_ids(folder / name) for kind, name in IDS.items()}
    space = _id_space(folder, inter, rows, features, ids)
    splits, graphs = _split(rows, space, inter), read_item_graphs(folder, features, space.num_items)
    try:
        dataset = Dataset(
            name=inter.stem,
            num_users=space.num_users,
            num_items=space.num_items,
            **splits,
            features=features,
            similarities=graphs,
            removed_users=space.removed_users,
            removed_items=space.removed_items,
            removed_modalities=space.removed_modalities,
            user_ids=ids["user"],
            item_ids=ids["item"],
            removed_ids=read_removed_ids(folder),
        )
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    _tell_unread(folder, inter, dataset)
    return dataset


def _matching(folder: Path, pattern: str) -> list[Path]:
    return [path for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]


def _tell_unread(folder: Path, inter: Path, dataset: Dataset) -> None:
    def is_read(name: str) -> bool:
        graph = FORM.fullmatch(name)
        return name.endswith("_feat.npy") or (graph is not None and graph[1] in dataset.modalities)

    names = [path.name for path in _matching(folder, "*") if path.suffix.lower() in CONTENT and not is_read(path.name)]
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        warnings.warn(
            f"{folder}: {shown} not read; features are read from <modality>_feat.npy, item graphs from <modality>_knn<k>_adj.npz",
            Note,
            stacklevel=3,
        )


def _read_interactions(path: Path) -> np.ndarray:
    """Columns userID, itemID, x_label of every row, int64 [n, 3]; no id is above MAX_ID, every label is 0, 1 or 2."""
    # A byte that is not UTF-8 becomes an escape, and a field that holds one is refused like any other word.
    with unreadable(path), regular(path).open(encoding="utf-8-sig", errors="backslashreplace") as lines:
        header = lines.readline().rstrip("\n").split("\t")
        numbers = itertools.chain.from_iterable(_parsed(lines, header, path))
        rows = np.fromiter(numbers, np.int64).reshape(-1, len(COLUMNS))
    if not len(rows):
        raise InputError(f"{path}: no interactions; at least one train pair is needed")
    bad = np.flatnonzero((rows[:, :2] > MAX_ID).any(axis=1))
    if len(bad):
        row = bad[0]
        raise InputError(
            f"{path}: row {row + 2} has userID {rows[row, 0]}, itemID {rows[row, 1]}; allowed are ids up to {MAX_ID}"
        )
    bad = np.flatnonzero(~np.isin(rows[:, 2], (0, 1, 2)))
    if len(bad):
        row = bad[0]
        raise InputError(
            f"{path}: row {row + 2} has x_label {rows[row, 2]}; allowed are 0 (train), 1 (valid), 2 (test)"
        )
    return rows


def _parsed(lines: Iterable[str], header: list[str], path: Path) -> Iterator[tuple[int, ...]]:
    """COLUMNS of each line after the header, which is row 1 of the file; empty lines are allowed at its end."""
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}: the header is {str(header[:20])[:200]}, without {', '.join(missing)}; columns userID, itemID and x_label, "
            "tab separated, are required (rating, timestamp and order are allowed); "
            "`recunlearn data prepare` reads other forms"
        )
    twice = next((name for name in header if header.count(name) > 1), None) if len(header) < 100 else None
    if twice is not None or len(header) >= 100:
        raise InputError(
            f"{path}: the header has {f'{twice!r} twice' if twice else f'{len(header)} columns'}; each name once is allowed"
        )
    pick = operator.itemgetter(*(header.index(name) for name in COLUMNS))
    empty = 0
    for number, line in enumerate(lines, 2):
        if line == "\n":
            empty = empty or number
            continue
        if empty:
            raise InputError(f"{path}: row {empty} is empty and others follow; empty lines are allowed at the end only")
        fields = line.rstrip("\n").split("\t")
        if len(fields) != len(header):
            raise InputError(
                f"{path}: row {number} has {len(fields)} fields, the header {len(header)}; is the file truncated?"
            )
        found = [WHOLE_NUMBER.fullmatch(text) for text in pick(fields)]
        if None in found:
            name, text = COLUMNS[found.index(None)], pick(fields)[found.index(None)]
            raise InputError(f"{path}: row {number} has {name} {text[:60]!r}; a whole number up to {MAX_ID} is allowed")
        yield tuple(int(match[1]) for match in found if match)


def _read_ids(path: Path) -> np.ndarray:
    """The operator's ids, one per line; none if there is no such file."""
    if not path.exists():
        return np.zeros(0, object)
    return np.array(read_text(path).removesuffix("\n").split("\n"), object)


def _id_space(
    folder: Path, inter: Path, rows: np.ndarray, features: Mapping[str, np.ndarray], ids: Mapping[str, np.ndarray]
) -> _Space:
    """Sizes from `retained.json`, else from the ids, else from the features, else from the numbers that occur."""
    users, items = (rows[:, :2].max(axis=0, initial=0) + 1).tolist()
    occurring = {"users": len(np.unique(rows[:, 0])), "items": len(np.unique(rows[:, 1]))}
    nothing = np.zeros(0, bool)
    path = folder / RETAINED
    if path.exists():
        space = _read_space(path)
    else:
        heights = {f"{m}_feat.npy": len(x) for m, x in features.items()}
        by_ids = {name: len(ids[kind]) for kind, name in IDS.items() if len(ids[kind])}
        largest = items if items in heights.values() else max([items, *heights.values()])
        space = _Space(by_ids.get(IDS["user"]) or users, by_ids.get(IDS["item"]) or largest, nothing, nothing, ())
    for modality, array in features.items():
        if len(array) != space.num_items:
            raise InputError(
                f"{folder / modality}_feat.npy: {len(array)} feature rows; there are {_counted_by(folder, ids, space.num_items, items)}"
            )
    for kind, size, used in (
        ("users", space.num_users, occurring["users"]),
        ("items", space.num_items, occurring["items"]),
    ):
        gone = int(getattr(space, f"removed_{kind}").sum())
        if size > 10 * (used + gone) + 100_000:
            raise InputError(
                f"{inter}: there are {size} {kind}, and {size - used} of these numbers never occur; number {kind} from 0 without large "
                "gaps (`recunlearn data prepare` does)"
            )
    return space


def _counted_by(folder: Path, ids: Mapping[str, np.ndarray], num_items: int, occurring: int) -> str:
    if (folder / RETAINED).exists():
        return f"{num_items} items by {RETAINED}"
    if len(ids["item"]):
        return f"{num_items} items by {IDS['item']}"
    if num_items != occurring:
        return f"{num_items} items by another feature file"
    return f"items 0 to {occurring - 1} in the interactions"


def _read_space(path: Path) -> _Space:
    try:
        space = read_json(path)
        users, items = _removed(space, "users"), _removed(space, "items")
        modalities = space.get("removed_modalities", [])
        if not isinstance(modalities, list) or not all(isinstance(name, str) for name in modalities):
            raise ValueError(f"removed_modalities is {str(modalities)[:60]}")
    except ValueError as error:
        raise InputError(
            f"{path}: {str(error).removeprefix(f'{path}: ')}; required is a JSON object of num_users, num_items, from 1 to {MAX_ID + 1}, "
            "and of removed_users and removed_items, lists of ids below them"
        ) from error
    there = len(read_removed_ids(path.parent).digests)
    if space.get("removed_ids", there) != there:
        raise InputError(
            f"{path.parent / REMOVED_IDS}: holds {there} removed ids, and by {path.name} there were {space['removed_ids']!r}; an id "
            "that is not known would be taken for a new one when it comes back, so restore the file"
        )
    return _Space(len(users), len(items), users, items, tuple(modalities))


def _removed(space: Any, kind: str) -> np.ndarray:
    """bool [size of the id space]; raises ValueError."""
    if not isinstance(space, dict):
        raise ValueError("not an object")
    size, ids = space.get(f"num_{kind}"), space.get(f"removed_{kind}")
    if type(size) is not int or not 1 <= size <= MAX_ID + 1:
        raise ValueError(f"num_{kind} is {str(size)[:60]}")
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < size for i in ids):
        raise ValueError(f"with {size} {kind}, removed_{kind} is {str(ids)[:60]}")
    mask = np.zeros(size, bool)
    mask[ids] = True
    return mask


def _split(rows: np.ndarray, space: _Space, path: Path) -> dict[str, np.ndarray]:
    for column, name, size in ((0, "userID", space.num_users), (1, "itemID", space.num_items)):
        bad = np.flatnonzero((rows[:, column] < 0) | (rows[:, column] >= size))
        if len(bad):
            told = f" by {RETAINED}" if (path.parent / RETAINED).exists() else ""
            raise InputError(
                f"{path}: row {bad[0] + 2} has {name} {rows[bad[0], column]}; allowed are 0 to {size - 1}{told}"
            )
    keys = rows[:, 0] * space.num_items + rows[:, 1]
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if len(twice):
        first, second = order[twice[0]], order[twice[0] + 1]
        a, b = SPLITS[rows[first, 2]], SPLITS[rows[second, 2]]
        rule = f"a duplicate in {a}" if a == b else f"in both {a} and {b}; the splits must not overlap"
        raise InputError(
            f"{path}: rows {first + 2} and {second + 2} hold the same pair {tuple(rows[first, :2].tolist())}, {rule}"
        )
    ordered = rows[order]
    splits = {s: np.ascontiguousarray(ordered[ordered[:, 2] == label, :2], np.int32) for label, s in enumerate(SPLITS)}
    if not len(splits["train"]):
        raise InputError(f"{path}: no row has x_label 0, so there is nothing to train on")
    return splits


def _read_features(path: Path) -> np.ndarray:
    try:
        array = load_arrays(path)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}; a plain float array with one row an item is allowed") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: a zip archive; a plain float array with one row an item is allowed")
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: shape {array.shape}, dtype {array.dtype}; a float array [items, width] is allowed")
    array = as_float32(array)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise InputError(f"{path}: row {bad[0]} holds NaN or inf (as float32); only finite features are allowed")
    return array


def write_dataset(dataset: Dataset, folder: str | Path) -> Path:
    """Write a folder that `read_dataset` reads back with the same content; written beside, then renamed.

    Raises:
        InputError: the folder exists already, or its place cannot be written to.
    """
    check_type(dataset, Dataset, "dataset", "`read_dataset` reads a data folder")
    folder = as_path(folder, "folder")
    with folders.new(folder) as beside:
        put_dataset(dataset, beside)
    return folder


def put_dataset(dataset: Dataset, folder: Path) -> None:
    """Write the files of a data set into a folder that is being written."""
    with unreadable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{dataset.name}.inter").open("w") as lines:
            lines.write("userID\titemID\tx_label\n")
            for label, split in enumerate(SPLITS):
                labelled = np.pad(getattr(dataset, split), ((0, 0), (0, 1)), constant_values=label)
                np.savetxt(lines, labelled, fmt="%d", delimiter="\t")
        for modality, array in dataset.features.items():
            np.save(folder / f"{modality}_feat.npy", array)
        for modality, graph in dataset.similarities.items():
            k = int(np.diff(graph.indptr).max(initial=0))
            arrays = {"shape": graph.shape, "data": graph.data, "indices": graph.indices, "indptr": graph.indptr}
            np.savez_compressed(folder / f"{modality}_knn{k}_adj.npz", format=b"csr", **arrays, **{SIMILARITIES: True})
        for kind, ids in (("user", dataset.user_ids), ("item", dataset.item_ids)):
            if len(ids):
                write_text(folder / IDS[kind], "\n".join(ids) + "\n")
        space = {
            "num_users": dataset.num_users,
            "num_items": dataset.num_items,
            "removed_users": np.flatnonzero(dataset.removed_users).tolist(),
            "removed_items": np.flatnonzero(dataset.removed_items).tolist(),
            "removed_modalities": list(dataset.removed_modalities),
            "removed_ids": len(dataset.removed_ids.digests),
        }
        write_json(folder / RETAINED, space)
        write_removed_ids(folder, dataset.removed_ids)
