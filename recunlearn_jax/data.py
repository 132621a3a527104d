"""Data sets: MMRec folders in and out, every check on them, and a checksum of their content.

A folder NAME holds `NAME.inter` (tab separated, header with userID, itemID, x_label; label 0 train, 1 valid, 2 test) and, for each
modality, `<modality>_feat.npy` (one row an item) and optionally `<modality>_knn<k>_adj.npz` (its item graph, a scipy CSR matrix).
Nothing is ever unpickled. A folder written after an unlearning request also holds `retained.json`: the size of the id space and the ids
that are gone, so that a removed item is never shown and the next request can follow.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import lzma
import operator
import re
import shutil
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from recunlearn_jax.errors import InputError

SPLITS = ("train", "valid", "test")
RETAINED = "retained.json"
COLUMNS = ("userID", "itemID", "x_label")
SIMILARITIES = "similarities"  # beside the matrix in an npz: its weights are the s_ij, as they were in memory
MAX_ID = 2**31 - 2  # sizes are int32, too
WHOLE_NUMBER = re.compile("-?[0-9]{1,18}")  # within int64
# What numpy and the zip reader raise on a damaged file, depending on the byte that is wrong.
DAMAGE = (
    *(ValueError, TypeError, LookupError, ArithmeticError, OSError, EOFError, MemoryError, RuntimeError, SyntaxError),
    *(struct.error, tokenize.TokenError, lzma.LZMAError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions, item features and item graphs on the host.

    Attributes:
        name: of the folder.
        num_users, num_items: size of the id space, |U| and |I|.
        train, valid, test: int32 [n, 2], (user, item) pairs, sorted and unique; the splits are disjoint.
        features: modality -> float32 [|I|, d_m]; an all-zero row means that the item lacks the modality.
        similarities: modality -> [|I|, |I|] CSR of item similarities s_ij, not normalised; empty until `graph.with_item_graphs` where
            the folder holds none.
        removed_users: bool [|U|], removed_items: bool [|I|]: ids that an earlier request removed.
    """

    name: str
    num_users: int
    num_items: int
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    similarities: Mapping[str, scipy.sparse.csr_array] = field(default_factory=dict)
    removed_users: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    removed_items: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self):
        for name, size in (("removed_users", self.num_users), ("removed_items", self.num_items)):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.zeros(size, bool))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, sorted: the order in which the model takes them."""
        return tuple(sorted(self.features))

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of the content; the order of rows in the files does not matter."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items}".encode())
        for split in SPLITS:
            digest.update(split.encode() + np.ascontiguousarray(getattr(self, split), np.int64).tobytes())
        for modality in self.modalities:
            digest.update(modality.encode() + np.ascontiguousarray(self.features[modality], np.float32).tobytes())
        for modality in sorted(self.similarities):
            graph = self.similarities[modality]
            digest.update(b"graph" + modality.encode() + graph.indptr.astype(np.int64).tobytes())
            digest.update(graph.indices.astype(np.int64).tobytes() + graph.data.astype(np.float32).tobytes())
        digest.update(np.packbits(self.removed_users).tobytes() + np.packbits(self.removed_items).tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def train_matrix(self) -> scipy.sparse.csr_array:
        """R, float32 [|U|, |I|], 1 where a train pair is."""
        ones = np.ones(len(self.train), np.float32)
        return scipy.sparse.csr_array((ones, tuple(self.train.T)), shape=(self.num_users, self.num_items))

    def replace(self, **changes) -> "Dataset":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def summary(self) -> str:
        """One line for people."""
        modalities = ", ".join(f"{m} {self.features[m].shape[1]}-d" for m in self.modalities) or "no modality"
        return (
            f"{self.name}: {self.num_users:,} users x {self.num_items:,} items, "
            f"{len(self.train):,} / {len(self.valid):,} / {len(self.test):,} train / valid / test pairs, {modalities}"
        )


def read_dataset(folder: str | Path) -> Dataset:
    """Read and check an MMRec folder.

    Args:
        folder: holds exactly one `.inter` file and the files of its modalities.

    Returns:
        The data set; features are float32 whatever the files hold.

    Raises:
        InputError: naming the file, the row and the rule that is broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected an MMRec folder with one .inter file in it")
    inter_files = sorted(folder.glob("*.inter"))
    if len(inter_files) != 1:
        raise InputError(f"{folder}: holds {len(inter_files)} .inter files; exactly one is allowed")
    inter = inter_files[0]
    rows = _read_interactions(inter)
    features = {p.name.removesuffix("_feat.npy"): _read_features(p) for p in sorted(folder.glob("*_feat.npy"))}
    num_users, num_items, removed_users, removed_items = _id_space(folder, rows, features)
    for path, array in ((folder / f"{m}_feat.npy", x) for m, x in features.items()):
        if len(array) != num_items:
            raise InputError(
                f"{path}: {len(array)} feature rows, but the items are 0 to {num_items - 1} ({num_items} rows)"
            )
    splits = _split(rows, num_users, num_items, inter)
    return Dataset(
        name=inter.stem,
        num_users=num_users,
        num_items=num_items,
        **splits,
        features=features,
        similarities=_read_similarities(folder, features, num_items),
        removed_users=removed_users,
        removed_items=removed_items,
    )


def _read_interactions(path: Path) -> np.ndarray:
    """Columns userID, itemID, x_label of every row, int64 [n, 3]; no id is above MAX_ID, every label is 0, 1 or 2."""
    try:
        # A byte that is no ASCII becomes an escape, and a field that holds one is refused like any other word.
        with path.open(encoding="ascii", errors="backslashreplace") as lines:
            header = lines.readline().rstrip("\n").split("\t")
            numbers = itertools.chain.from_iterable(_parsed(lines, header, path))
            rows = np.fromiter(numbers, np.int64).reshape(-1, len(COLUMNS))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
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
    """COLUMNS of each line after the header, which is row 1 of the file."""
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}: the header is {str(header)[:200]}, without {', '.join(missing)}; columns userID, itemID and x_label, "
            "tab separated, are required (rating, timestamp and order are allowed)"
        )
    pick = operator.itemgetter(*(header.index(name) for name in COLUMNS))
    for number, line in enumerate(lines, 2):
        fields = line.rstrip("\n").split("\t")
        if len(fields) != len(header):
            raise InputError(
                f"{path}: row {number} has {len(fields)} fields, the header {len(header)}; is the file truncated?"
            )
        chosen = pick(fields)
        if not all(map(WHOLE_NUMBER.fullmatch, chosen)):
            name, text = next(x for x in zip(COLUMNS, chosen, strict=True) if not WHOLE_NUMBER.fullmatch(x[1]))
            raise InputError(f"{path}: row {number} has {name} {text!r}; a whole number up to {MAX_ID} is allowed")
        yield tuple(map(int, chosen))


def _id_space(folder: Path, rows: np.ndarray, features: Mapping[str, np.ndarray]):
    """Numbers of users and items and the ids that are gone."""
    path = folder / RETAINED
    if not path.exists():
        # The feature rows say how many items there are; without features the largest id does.
        num_users, num_items = (rows[:, :2].max(axis=0, initial=0) + 1).tolist()
        num_items = max((len(x) for x in features.values()), default=num_items)
        return num_users, num_items, np.zeros(0, bool), np.zeros(0, bool)
    try:
        space = json.loads(path.read_text(encoding="utf-8"))
        users, items = _removed(space, "users"), _removed(space, "items")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: {error}; required is a JSON object of num_users and num_items, from 1 to {MAX_ID + 1}, "
            "and of removed_users and removed_items, lists of ids below them"
        ) from error
    return len(users), len(items), users, items


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


def _split(rows: np.ndarray, num_users: int, num_items: int, path: Path) -> dict[str, np.ndarray]:
    for column, name, size in ((0, "userID", num_users), (1, "itemID", num_items)):
        bad = np.flatnonzero((rows[:, column] < 0) | (rows[:, column] >= size))
        if len(bad):
            raise InputError(f"{path}: row {bad[0] + 2} has {name} {rows[bad[0], column]}; allowed are 0 to {size - 1}")
    keys = rows[:, 0] * num_items + rows[:, 1]
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


def _load(path: Path) -> Any:
    """The array in an .npy, or name -> array of an .npz; raises ValueError, whatever is wrong with the file."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd header that can be read all the same; what it leads to is checked
            content = np.load(file, allow_pickle=False)
            return content if isinstance(content, np.ndarray) else dict(content)
    except DAMAGE as error:
        # Not the error's own text, which recommends to unpickle.
        raise ValueError("unreadable or truncated, or an object array, which would have to be unpickled") from error


def _as_float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # gives inf, which is refused
        return array.astype(np.float32)


def _read_features(path: Path) -> np.ndarray:
    try:
        array = _load(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}; a plain float array with one row an item is allowed") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: a zip archive; a plain float array with one row an item is allowed")
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: shape {array.shape}, dtype {array.dtype}; a float array [items, width] is allowed")
    array = _as_float32(array)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise InputError(f"{path}: row {bad[0]} holds NaN or inf (as float32); only finite features are allowed")
    return array


def _read_similarities(
    folder: Path, features: Mapping[str, np.ndarray], num_items: int
) -> dict[str, scipy.sparse.csr_array]:
    graphs = {}
    for path in sorted(folder.glob("*_adj.npz")):
        match = re.fullmatch(r"(.+)_knn\d+_adj\.npz", path.name)
        modality = match and match[1]
        if modality not in features:
            raise InputError(
                f"{path}: no feature file {modality}_feat.npy beside it; graphs are named <modality>_knn<k>_adj.npz"
            )
        if modality in graphs:
            raise InputError(f"{path}: a second item graph for {modality}; keep one of them in the folder")
        graphs[modality] = _read_graph(path, num_items)
    return graphs


def _read_graph(path: Path, num_items: int) -> scipy.sparse.csr_array:
    try:
        arrays = _load(path)
        graph = _csr(arrays)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged, or no scipy CSR matrix of real numbers in npz ({error})") from error
    if graph.shape != (num_items, num_items):
        raise InputError(f"{path}: shape {graph.shape}, but there are {num_items} items")
    normalised = SIMILARITIES not in arrays
    if not np.isfinite(graph.data).all() or (normalised and (graph.data < 0).any()):
        raise InputError(f"{path}: weights must be finite and not negative")
    if not normalised:
        return graph  # cosines, which may be negative
    with np.errstate(over="ignore", invalid="ignore"):
        similarities = similarities_from_weights(graph)
    if not np.isfinite(similarities.data).all():
        raise InputError(
            f"{path}: the weights do not come from a normalised graph, since its degrees are beyond float32; "
            "allowed are w_ij = s_ij / sqrt(deg_i deg_j), or plain s_ij with s_ii = 1"
        )
    return similarities


def _csr(arrays: Mapping[str, np.ndarray]) -> scipy.sparse.csr_array:
    """The matrix that `scipy.sparse.save_npz` wrote, every index checked, float32, sorted; raises ValueError, TypeError.

    Other formats are refused: scipy converts them with compiled code that trusts their indices.
    """
    names = ("format", "shape", "data", "indices", "indptr")
    missing = set(names).difference(arrays)
    if missing:
        raise ValueError(f"without {', '.join(sorted(missing))}")
    form, shape, data, indices, indptr = (np.asarray(arrays[name]) for name in names)  # a member may be mere bytes
    if form.item() not in ("csr", b"csr"):
        raise ValueError(f"format {form}")
    if data.dtype.kind not in "fiub" or indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise ValueError(f"data, indices and indptr are {data.dtype}, {indices.dtype} and {indptr.dtype}")
    graph = scipy.sparse.csr_array((_as_float32(data), indices, indptr), shape=shape.tolist())
    graph.check_format(full_check=True)
    graph.sum_duplicates()
    return graph


def similarities_from_weights(graph: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Undo the normalisation w_ij = s_ij / sqrt(deg_i deg_j) of a stored item graph, so that it can be edited and normalised anew.

    A self loop gives deg_i = 1 / w_ii, since s_ii = 1. Where ties pushed it out, deg follows from deg_i = sum_j s_ij, which is
    v = W v for v = sqrt(deg): a few sweeps over those rows. A graph whose weights or self loops are all 1 is not normalised and is
    returned as it is.

    Args:
        graph: float32 [|I|, |I|] CSR, non-negative.

    Returns:
        float32 CSR with the same edges, the s_ij.
    """
    diagonal = graph.diagonal()
    loops = diagonal > 0
    if not loops.any() or np.allclose(graph.data, 1) or np.allclose(diagonal[loops], 1, atol=1e-4):
        return graph
    root_degree = np.where(loops, 1 / np.sqrt(np.where(loops, diagonal, 1.0)), 1.0)
    for _ in range(100):
        root_degree = np.where(loops, root_degree, graph @ root_degree)
    edges = graph.tocoo()
    data = edges.data * root_degree[edges.row] * root_degree[edges.col]
    return scipy.sparse.csr_array((data.astype(np.float32), (edges.row, edges.col)), shape=graph.shape)


def write_dataset(dataset: Dataset, folder: str | Path) -> Path:
    """Write an MMRec folder that `read_dataset` reads back to the same content; written beside, then renamed.

    Raises:
        InputError: the folder exists already.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder}: exists already; choose another folder or remove it first")
    beside = folder.with_name(folder.name + ".writing")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    with (beside / f"{dataset.name}.inter").open("w") as lines:
        lines.write("userID\titemID\tx_label\n")
        for label, split in enumerate(SPLITS):
            np.savetxt(
                lines,
                np.pad(getattr(dataset, split), ((0, 0), (0, 1)), constant_values=label),
                fmt="%d",
                delimiter="\t",
            )
    for modality, array in dataset.features.items():
        np.save(beside / f"{modality}_feat.npy", array)
    for modality, graph in dataset.similarities.items():
        k = int(np.diff(graph.indptr).max(initial=0))
        arrays = {"shape": graph.shape, "data": graph.data, "indices": graph.indices, "indptr": graph.indptr}
        np.savez_compressed(beside / f"{modality}_knn{k}_adj.npz", format=b"csr", **arrays, **{SIMILARITIES: True})
    space = {
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
        "removed_users": np.flatnonzero(dataset.removed_users).tolist(),
        "removed_items": np.flatnonzero(dataset.removed_items).tolist(),
    }
    (beside / RETAINED).write_text(json.dumps(space), encoding="utf-8")
    beside.rename(folder)
    return folder
