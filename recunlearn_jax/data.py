"""Data sets: MMRec folders in and out, every check on them, and a checksum of their content.

A folder NAME holds `NAME.inter` (tab separated, header with userID, itemID, x_label; label 0 train, 1 valid, 2 test) and, for each
modality, `<modality>_feat.npy` (one row an item) and optionally `<modality>_knn<k>_adj.npz` (its item graph, a scipy CSR matrix).
Nothing is ever unpickled. A folder written after an unlearning request also holds `retained.json`: the size of the id space and the ids
that are gone, so that a removed item is never shown and the next request can follow.
"""

import dataclasses
import functools
import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse

from recunlearn_jax.errors import InputError

SPLITS = ("train", "valid", "test")
RETAINED = "retained.json"


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
    """Columns userID, itemID, x_label of every row, int64 [n, 3]."""
    with path.open() as lines:
        header = lines.readline().rstrip("\n").split("\t")
        missing = [name for name in ("userID", "itemID", "x_label") if name not in header]
        if missing:
            raise InputError(
                f"{path}: the header is {header}, without {', '.join(missing)}; columns userID, itemID and x_label, "
                "tab separated, are required (rating, timestamp and order are allowed)"
            )
        columns = [header.index(name) for name in ("userID", "itemID", "x_label")]
        first = lines.tell()
        for number, line in enumerate(lines, 2):
            if line.count("\t") != len(header) - 1:
                fields = line.count("\t") + 1
                raise InputError(
                    f"{path}: row {number} has {fields} fields, the header {len(header)}; is the file truncated?"
                )
        lines.seek(first)
        try:
            rows = np.loadtxt(lines, dtype=np.int64, delimiter="\t", usecols=columns, ndmin=2, comments=None)
        except ValueError as error:
            raise InputError(
                f"{path}: an id or label is not a whole number ({error}; row 0 follows the header)"
            ) from error
    if not len(rows):
        raise InputError(f"{path}: no interactions; at least one train pair is needed")
    bad = np.flatnonzero(~np.isin(rows[:, 2], (0, 1, 2)))
    if len(bad):
        row = bad[0]
        raise InputError(
            f"{path}: row {row + 2} has x_label {rows[row, 2]}; allowed are 0 (train), 1 (valid), 2 (test)"
        )
    return rows


def _id_space(folder: Path, rows: np.ndarray, features: Mapping[str, np.ndarray]):
    """Numbers of users and items and the ids that are gone."""
    path = folder / RETAINED
    if not path.exists():
        # The feature rows say how many items there are; without features the largest id does.
        num_items = max((len(x) for x in features.values()), default=int(rows[:, 1].max()) + 1)
        return int(rows[:, 0].max()) + 1, num_items, np.zeros(0, bool), np.zeros(0, bool)
    try:
        space = json.loads(path.read_text())
        num_users, num_items = int(space["num_users"]), int(space["num_items"])
        users, items = np.zeros(num_users, bool), np.zeros(num_items, bool)
        users[space["removed_users"]], items[space["removed_items"]] = True, True
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"{path}: not readable as num_users, num_items, removed_users, removed_items ({error!r})"
        ) from error
    return num_users, num_items, users, items


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


def _read_features(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = (
            "an object array, which would have to be unpickled"
            if "allow_pickle" in str(error)
            else f"unreadable or truncated: {error}"
        )
        raise InputError(f"{path}: {reason}; a plain float array with one row an item is allowed") from error
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: shape {array.shape}, dtype {array.dtype}; a float array [items, width] is allowed")
    array = array.astype(np.float32)
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
        try:
            graph = scipy.sparse.csr_array(scipy.sparse.load_npz(path)).astype(np.float32)
            graph.check_format(full_check=True)
        except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a scipy sparse matrix in npz, or damaged ({error})") from error
        if graph.shape != (num_items, num_items):
            raise InputError(f"{path}: shape {graph.shape}, but there are {num_items} items")
        if not np.isfinite(graph.data).all() or (graph.data < 0).any():
            raise InputError(f"{path}: weights must be finite and not negative")
        graphs[modality] = similarities_from_weights(graph)
    return graphs


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
        scipy.sparse.save_npz(beside / f"{modality}_knn{k}_adj.npz", scipy.sparse.csr_matrix(graph))
    space = {
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
        "removed_users": np.flatnonzero(dataset.removed_users).tolist(),
        "removed_items": np.flatnonzero(dataset.removed_items).tolist(),
    }
    (beside / RETAINED).write_text(json.dumps(space))
    beside.rename(folder)
    return folder
