"""The data set type: interactions, item content and item graphs on the host, checked wherever they come from."""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse

from recunlearn_jax.arrays import as_float32
from recunlearn_jax.errors import InputError, shown
from recunlearn_jax.removed_ids import RemovedIds

SPLITS = ("train", "valid", "test")
MAX_ID = 2**31 - 2  # sizes are int32, too
NOT_IN_IDS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)  # control characters and line ends: files hold one id per line
PLAIN_NAME = re.compile(r"[^\W_][\w.+ -]{0,99}")  # of data sets and modalities, which become file names


def _no_ids() -> np.ndarray:
    return np.zeros(0, object)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions, item features and item graphs on the host.

    Attributes:
        name: of the folder.
        num_users, num_items: size of the id space, |U| and |I|.
        train, valid, test: int32 [n, 2], (user, item) pairs, sorted and unique; the splits are disjoint.
        features: modality -> float32 [|I|, d_m]; an all-zero row means that the item lacks the modality.
        similarities: modality -> float32 [|I|, |I|] CSR of item similarities s_ij, not normalised; if the folder holds none, empty
            until `graph.with_item_graphs`.
        removed_users: bool [|U|], removed_items: bool [|I|]: ids that an earlier request removed.
        removed_modalities: names that an earlier request removed.
        user_ids, item_ids: str [|U|], str [|I|], the operator's own ids, empty for a removed one; of length 0 if there are only
            numbers.
        removed_ids: digests of what earlier requests removed, so that it is recognised if it comes back.

    Raises:
        InputError: a name is not a plain name; pairs are not whole numbers, out of range, repeated, in two splits or of something
            removed; or features, graphs or ids have another size. Pairs that are not in order are sorted.

    Examples:
        >>> Dataset("shop", 2, 3, [[0, 1], [1, 0]], [[0, 2]], []).summary()
        'shop: 2 users x 3 items, 2 / 1 / 0 train / valid / test pairs, no modality'
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
    removed_modalities: tuple[str, ...] = ()
    user_ids: np.ndarray = field(default_factory=_no_ids)
    item_ids: np.ndarray = field(default_factory=_no_ids)
    removed_ids: RemovedIds = field(default_factory=RemovedIds)

    def __post_init__(self):
        def keep(name, value):
            object.__setattr__(self, name, value)

        for name in ("features", "similarities"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"{name}: a {type(getattr(self, name)).__name__}; modality -> array is expected")
        for name in (self.name, *self.features, *self.similarities):
            check_plain_name(name)
        for kind in ("users", "items"):
            size = getattr(self, f"num_{kind}")
            if not _is_whole(size) or not 1 <= size <= MAX_ID + 1:
                raise InputError(f"num_{kind} is {shown(size)}; a whole number from 1 to {MAX_ID + 1} is allowed")
            keep(f"removed_{kind}", _mask(getattr(self, f"removed_{kind}"), size, f"removed_{kind}"))
        for split in SPLITS:
            keep(split, _pairs(getattr(self, split), self.num_users, self.num_items, split))
        _check_disjoint(self)
        keep("features", {m: _features(x, self.num_items, m) for m, x in self.features.items()})
        graphs = {m: _similarities(x, self.num_items, m) for m, x in self.similarities.items()}
        without = next((m for m in graphs if m not in self.features), None)
        if without is not None:
            raise InputError(f"similarities of {without!r}: a modality with features is required")
        keep("similarities", graphs)
        for name, size in (("user_ids", self.num_users), ("item_ids", self.num_items)):
            keep(name, _ids(getattr(self, name), size, name))
        modalities = self.removed_modalities
        if not isinstance(modalities, (tuple, list)) or not all(isinstance(name, str) for name in modalities):
            raise InputError(f"removed_modalities is {shown(modalities)}; names of modalities are expected")
        keep("removed_modalities", tuple(modalities))
        if not isinstance(self.removed_ids, RemovedIds):
            raise InputError(f"removed_ids is {shown(self.removed_ids)}; a RemovedIds is expected")
        _check_removed(self)

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
        for ids in (self.user_ids, self.item_ids):
            if len(ids):
                digest.update("\n".join(ids).encode() + b"\0")
        return digest.hexdigest()

    @functools.cached_property
    def train_matrix(self) -> scipy.sparse.csr_array:
        """R, float32 [|U|, |I|], 1 at each train pair."""
        ones = np.ones(len(self.train), np.float32)
        return scipy.sparse.csr_array((ones, tuple(self.train.T)), shape=(self.num_users, self.num_items))

    @functools.cached_property
    def _numbers(self) -> dict[str, dict[str, int]]:
        """Number of each of the operator's ids."""
        return {
            kind: {name: i for i, name in enumerate(ids) if name}
            for kind, ids in (("user", self.user_ids), ("item", self.item_ids))
        }

    def number(self, kind: str, word: str | int) -> int:
        """The number of a user or an item.

        Args:
            kind: "user" or "item".
            word: the operator's id, or the number itself if the data has no such ids.

        Raises:
            InputError: it is not known.
        """
        if len(self.user_ids if kind == "user" else self.item_ids):
            found = self._numbers[kind].get(str(word))
            if found is None:
                known = [name for name in (self.user_ids if kind == "user" else self.item_ids) if name][:2]
                raise InputError(f"unknown {kind} {str(word)!r}; ids of the data are such as {', '.join(known)}")
            return found
        size = self.num_users if kind == "user" else self.num_items
        if not isinstance(word, int) or not 0 <= word < size:
            raise InputError(f"unknown {kind} {word!r}; the data has {kind}s 0 to {size - 1}")
        return word

    def word(self, kind: str, number: int) -> str:
        """What the operator calls the user or item with this number."""
        ids = self.user_ids if kind == "user" else self.item_ids
        return ids[number] if len(ids) else str(number)

    def named(self, kind: str, numbers: np.ndarray) -> list[str] | list[int]:
        """Users or items as a request names them: by the operator's ids, or by number if there are none."""
        ids = self.user_ids if kind == "user" else self.item_ids
        return (ids[numbers] if len(ids) else np.asarray(numbers)).tolist()

    def replace(self, **changes) -> "Dataset":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def shrunk(self, **changes) -> "Dataset":
        """A copy whose changed fields hold part of what they held, in the same order and form, so nothing needs to be checked again."""
        left = object.__new__(Dataset)
        for field_ in dataclasses.fields(self):
            object.__setattr__(left, field_.name, changes.pop(field_.name, getattr(self, field_.name)))
        if changes:
            raise TypeError(f"a data set has no field {next(iter(changes))!r}")
        return left

    def summary(self) -> str:
        """One line for people."""
        modalities = ", ".join(f"{m} {self.features[m].shape[1]}-d" for m in self.modalities) or "no modality"
        return (
            f"{self.name}: {self.num_users:,} users x {self.num_items:,} items, "
            f"{len(self.train):,} / {len(self.valid):,} / {len(self.test):,} train / valid / test pairs, {modalities}"
        )


def check_plain_name(name: object) -> None:
    """Check that something can be the name of a data set or a modality, and so part of a file name.

    Raises:
        InputError: it cannot.
    """
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
        raise InputError(
            f"{shown(name)} is no plain name; letters, digits, spaces and . _ + - after a letter or digit are"
        )


def as_ids(values: Sequence[str] | np.ndarray) -> np.ndarray:
    """str [n], the form in which a data set keeps ids."""
    ids = np.empty(len(values), object)
    ids[:] = values
    return ids


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _mask(given: object, size: int, name: str) -> np.ndarray:
    mask = _array(given, name)
    if not mask.size:
        return np.zeros(size, bool)
    if mask.shape != (size,) or mask.dtype != bool:
        raise InputError(f"{name}: shape {mask.shape}, dtype {mask.dtype}; bool [{size}] is allowed")
    return mask


def _pairs(given: object, num_users: int, num_items: int, split: str) -> np.ndarray:
    """int32 [n, 2], sorted."""
    pairs = _array(given, split)
    if not pairs.size:
        pairs = np.zeros((0, 2), np.int32)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise InputError(f"{split}: shape {pairs.shape}, dtype {pairs.dtype}; whole-number pairs [n, 2] are allowed")
    for column, kind, size in ((0, "user", num_users), (1, "item", num_items)):
        bad = np.flatnonzero((pairs[:, column] < 0) | (pairs[:, column] >= size))
        if len(bad):
            raise InputError(f"{split}: pair {bad[0]} has {kind} {pairs[bad[0], column]}; allowed are 0 to {size - 1}")
    pairs = np.ascontiguousarray(pairs, np.int32)
    steps = np.diff(pair_keys(pairs, num_items))
    if (steps < 0).any():
        pairs = pairs[np.lexsort(pairs.T[::-1])]
        steps = np.diff(pair_keys(pairs, num_items))
    if (steps == 0).any():
        twice = pairs[np.flatnonzero(steps == 0)[0]]
        raise InputError(f"{split}: the pair {tuple(twice.tolist())} stands there twice; each pair once is allowed")
    return pairs


def pair_keys(pairs: np.ndarray, num_items: int) -> np.ndarray:
    """One number for each pair, int64 [n], unique for items below `num_items`; in the order of the pairs."""
    return pairs[:, 0].astype(np.int64) * num_items + pairs[:, 1]


def rank(pairs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many pairs come before each wanted one, int64 [k]: by bisection, so that a few are found at once among millions.

    Args:
        pairs: int [n, 2], in order.
        wanted: int [k, 2], in any order; not necessarily among the pairs.

    Examples:
        >>> rank(np.array([[0, 3], [1, 1], [1, 4]]), np.array([[1, 0], [1, 4], [9, 9]])).tolist()
        [1, 2, 3]
    """
    low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(pairs))
    user, item = wanted.T
    while (searching := low < high).any():
        middle = (low + high) // 2
        found = pairs[np.minimum(middle, len(pairs) - 1)]
        before = (found[:, 0] < user) | ((found[:, 0] == user) & (found[:, 1] < item))
        low = np.where(searching & before, middle + 1, low)
        high = np.where(searching & ~before, middle, high)
    return low


def _check_disjoint(dataset: Dataset) -> None:
    keys = {split: pair_keys(getattr(dataset, split), dataset.num_items) for split in SPLITS}
    if not len(keys["train"]):
        raise InputError("train: no pair; at least one is needed")
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        if not len(keys[first]):
            continue
        at = np.minimum(np.searchsorted(keys[first], keys[second]), len(keys[first]) - 1)
        both = np.flatnonzero(keys[first][at] == keys[second])
        if len(both):
            pair = tuple(getattr(dataset, second)[both[0]].tolist())
            raise InputError(f"the pair {pair} is in both {first} and {second}; the splits must not overlap")


def _check_removed(dataset: Dataset) -> None:
    """Check that nothing removed is still in the data, and that nothing else lacks its id."""
    for kind, ids, gone in (
        ("user", dataset.user_ids, dataset.removed_users),
        ("item", dataset.item_ids, dataset.removed_items),
    ):
        odd = np.flatnonzero((ids == "") != gone) if len(ids) else gone[:0]
        if len(odd):
            row, there = odd[0], ids[odd[0]]
            raise InputError(
                f"{kind}_ids: {kind} {row} was removed by an earlier request, and its id {shown(there)} is still there"
                if there
                else f"{kind}_ids: the id of {kind} {row} (line {row + 1} in a file) is empty, and no request has removed it"
            )
    for column, kind, gone in ((0, "user", dataset.removed_users), (1, "item", dataset.removed_items)):
        for split in SPLITS:
            back = np.flatnonzero(gone[getattr(dataset, split)[:, column]])
            if len(back):
                pair = tuple(getattr(dataset, split)[back[0]].tolist())
                raise InputError(
                    f"{kind} {pair[column]} was removed by an earlier request, and {split} holds the pair {pair}"
                )
    for modality, rows in dataset.features.items():
        gone = np.flatnonzero(dataset.removed_items)
        back = gone[rows[gone].any(axis=1)]
        if len(back):
            raise InputError(
                f"item {back[0]} was removed by an earlier request, and its row of features {modality!r} is not zero"
            )


def _features(given: object, num_items: int, modality: str) -> np.ndarray:
    array = _array(given, f"features of {modality!r}")
    if array.ndim != 2 or len(array) != num_items or not array.shape[1] or array.dtype.kind not in "fiu":
        raise InputError(
            f"features of {modality!r}: shape {array.shape}, dtype {array.dtype}; numbers [{num_items}, width] are allowed"
        )
    array = as_float32(array)
    if not np.isfinite(array).all():
        row = np.flatnonzero(~np.isfinite(array).all(axis=1))[0]
        raise InputError(
            f"features of {modality!r}: row {row} holds NaN or inf (as float32); only finite features are allowed"
        )
    return array


def _similarities(given: object, num_items: int, modality: str) -> scipy.sparse.csr_array:
    """As float32, each entry once and in order; the given matrix itself if it already is so."""
    name = f"similarities of {modality!r}"
    if not isinstance(given, (scipy.sparse.csr_array, scipy.sparse.csr_matrix)):
        raise InputError(f"{name}: a {type(given).__name__}; a CSR matrix of scipy is expected")
    if given.shape != (num_items, num_items) or given.dtype.kind not in "fiu":
        raise InputError(
            f"{name}: shape {given.shape}, dtype {given.dtype}; numbers [{num_items}, {num_items}] are allowed"
        )
    data = as_float32(given.data)
    if not np.isfinite(data).all():
        raise InputError(f"{name}: NaN or inf (as float32); only finite similarities are allowed")
    if isinstance(given, scipy.sparse.csr_array) and data is given.data and given.has_canonical_format:
        return given
    graph = scipy.sparse.csr_array((data, given.indices, given.indptr), shape=given.shape, copy=True)
    graph.sum_duplicates()
    return graph


def _array(given: object, name: str) -> np.ndarray:
    try:
        return np.asarray(given)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{name}: is no array ({error})") from error


def _ids(given: Sequence[str] | np.ndarray, size: int, name: str) -> np.ndarray:
    if not isinstance(given, (list, tuple, np.ndarray)) or (isinstance(given, np.ndarray) and given.ndim != 1):
        raise InputError(f"{name} is {shown(given)}; a list of text is expected")
    if not len(given):
        return _no_ids()
    if len(given) != size:
        raise InputError(f"{name}: {len(given)} ids; {size} are expected")
    bad = [i for i in given if not isinstance(i, str) or NOT_IN_IDS.search(i)]
    if bad:
        raise InputError(f"{name}: {shown(bad[0])} is no id; text without control characters is allowed")
    named = [i for i in given if i]
    if len(set(named)) != len(named):
        raise InputError(f"{name}: an id stands there twice; each id once is allowed")
    return as_ids(given)
