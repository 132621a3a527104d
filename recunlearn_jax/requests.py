"""What must be forgotten: parsing a request, checking it against the data, and splitting the data into retain and forget parts.

A request names users, items, single (user, item) pairs, modality data (the feature rows of some items, or a whole modality), or any mix.
On the command line each part is one word:

    users:5%   users:3,14   items:12,99   pairs:5%   pairs:3-12,3-40   modality:audio   modality:audio:5%   modality:audio:12,99

and in a JSON file {"users": [3, 14], "items": "5%", "pairs": [[3, 12]], "modality": {"audio": "all", "image": [12, 99]}}.
A share is drawn from the ids that occur in train, with the request seed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recunlearn_jax.data import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.graph import keep_items

KINDS = ("users", "items", "pairs", "modality")
Selection = str | Sequence[int] | Sequence[Sequence[int]]  # "5%", "all" or explicit ids


@dataclass(frozen=True)
class Request:
    """What the operator asked for, not yet checked against data.

    Attributes:
        users, items: "5%" or ids.  pairs: "5%" or (user, item) pairs.
        modality: name -> "all", "5%" (of the items that have it) or item ids.
        seed: of the draw of every share.
    """

    users: Selection = ()
    items: Selection = ()
    pairs: Selection = ()
    modality: Mapping[str, Selection] = field(default_factory=dict)
    seed: int = 0

    def describe(self) -> str:
        """Short text for titles and logs; long lists of ids are counted."""
        parts = [f"{kind}:{_brief(getattr(self, kind))}" for kind in KINDS[:3] if len(getattr(self, kind))]
        parts += [
            f"modality:{name}" + ("" if chosen == "all" else f":{_brief(chosen)}")
            for name, chosen in self.modality.items()
        ]
        return " ".join(parts) or "nothing"


@dataclass(frozen=True, eq=False)
class ForgetSet:
    """A request resolved on one data set. D_r and D_f partition the train pairs.

    Attributes:
        request: the request it came from.
        forget: bool [|train|], the rows of `dataset.train` in D_f.
        users: bool [|U|], items: bool [|I|], removed as a whole.
        features: modality -> bool [|I|], feature rows to forget.
        pairs: int64 [n, 2], the pairs named one by one. One that is not in train changes nothing there (an earlier request may have
            removed it); it also leaves valid and test.
    """

    request: Request
    forget: np.ndarray
    users: np.ndarray
    items: np.ndarray
    features: Mapping[str, np.ndarray]
    pairs: np.ndarray

    @property
    def checksum(self) -> str:
        """SHA-256 of the resolved sets."""
        digest = hashlib.sha256()
        for mask in (self.forget, self.users, self.items):
            digest.update(np.packbits(mask).tobytes())
        for modality in sorted(self.features):
            digest.update(modality.encode() + np.packbits(self.features[modality]).tobytes())
        return digest.hexdigest()

    def counts(self) -> dict[str, int]:
        """Sizes of what is forgotten."""
        sizes = {"users": int(self.users.sum()), "items": int(self.items.sum()), "pairs": int(self.forget.sum())}
        return sizes | {f"{m} feature rows": int(rows.sum()) for m, rows in self.features.items()}

    def absent_pairs(self, dataset: Dataset) -> np.ndarray:
        """Named pairs that are not in train, int64 [n, 2]: forgotten earlier, or a mistake worth telling."""
        return self.pairs[~_among(self.pairs, dataset.train)]


def parse(words: Sequence[str], seed: int = 0) -> Request:
    """Request from command line words, or from one path of a JSON file.

    Raises:
        InputError: a word or the file does not follow the grammar.

    >>> parse(["users:5%", "pairs:3-12,3-40"]).describe()
    'users:5% pairs:3-12,3-40'
    """
    if len(words) == 1 and words[0].endswith(".json"):
        return read_request(words[0], seed)
    chosen: dict[str, Any] = {"modality": {}}
    for word in words:
        kind, _, value = word.partition(":")
        if kind not in KINDS or not value:
            raise InputError(
                f"request {word!r}: expected users:..., items:..., pairs:..., modality:NAME[:...] or one .json file"
            )
        target, key = chosen, kind
        if kind == "modality":
            key, _, value = value.partition(":")
            target, value = chosen["modality"], value or "all"
        if key in target:
            raise InputError(
                f"request {word!r}: {kind} {key if kind == 'modality' else ''} is named twice; join the ids with commas"
            )
        target[key] = _parse_selection(value, kind, word)
    return Request(**chosen, seed=seed)


def read_request(path: str | Path, seed: int = 0) -> Request:
    """Request from a JSON file with any of the keys users, items, pairs, modality, seed.

    Raises:
        InputError: the file is missing or does not follow the grammar.
    """
    try:
        values = json.loads(Path(path).read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(values, dict) or not set(values) <= {*KINDS, "seed"}:
        raise InputError(
            f"{path}: a request is an object with the keys users, items, pairs, modality, seed; got {_brief(values)}"
        )
    modality = values.get("modality", {})
    if not isinstance(modality, dict):
        modality = {name: "all" for name in ([modality] if isinstance(modality, str) else modality)}
    lists = {kind: _checked_list(values.get(kind, ()), kind, f"{path}: {kind}") for kind in KINDS[:3]}
    modality = {name: _checked_list(v, "modality", f"{path}: modality {name}") for name, v in modality.items()}
    return Request(**lists, modality=modality, seed=values.get("seed", seed))


def _parse_selection(value: str, kind: str, word: str) -> Selection:
    if value == "all" and kind == "modality":
        return value
    if value.endswith("%"):
        return _checked_list(value, kind, f"request {word!r}")
    try:
        if kind == "pairs":
            pairs = [tuple(int(part) for part in entry.split("-")) for entry in value.split(",")]
            return _checked_list(pairs, kind, f"request {word!r}")
        return [int(entry) for entry in value.split(",")]
    except ValueError as error:
        shape = "user-item pairs such as 3-12,3-40" if kind == "pairs" else "ids such as 12,99"
        raise InputError(f"request {word!r}: expected a share such as 5% or {shape}") from error


def _checked_list(value: Any, kind: str, where: str) -> Selection:
    if isinstance(value, str):
        if value == "all" and kind == "modality":
            return value
        try:
            share = float(value.removesuffix("%"))
        except ValueError:
            share = -1.0
        if not (value.endswith("%") and 0 < share < 100):
            raise InputError(f"{where}: {value!r} is no share; more than 0% and less than 100% is allowed")
        return value
    entries = list(value) if isinstance(value, (list, tuple)) else [None]
    if kind == "pairs":
        good = all(isinstance(e, (list, tuple)) and len(e) == 2 and all(type(x) is int for x in e) for e in entries)
        expected = "(user, item) pairs of whole numbers"
    else:
        good, expected = all(type(e) is int for e in entries), "a list of whole-number ids"
    if not good:
        raise InputError(f"{where}: {_brief(value)} given; expected a share such as '5%' or {expected}")
    return entries


def resolve(request: Request, dataset: Dataset) -> ForgetSet:
    """Check a request against the data and draw its shares.

    Naming an id twice, or one that an earlier request removed, is harmless.

    Args:
        request: from `parse`, `read_request` or built directly.
        dataset: the data the original was trained on.

    Returns:
        The forget set, whose D_f is the union of all parts.

    Raises:
        InputError: unknown ids or modalities, an empty request, or one that leaves nothing to train on.
    """
    if request.describe() == "nothing":
        raise InputError("the request is empty; name users, items, pairs or a modality to forget")
    rng = np.random.default_rng([request.seed, 7])
    train = dataset.train
    users = _mask(request.users, np.unique(train[:, 0]), dataset.num_users, "user", rng)
    items = _mask(request.items, np.unique(train[:, 1]), dataset.num_items, "item", rng)
    forget = users[train[:, 0]] | items[train[:, 1]]
    pairs = _pairs(request.pairs, dataset, rng)
    forget |= _among(train, pairs)
    features = {}
    for modality, chosen in request.modality.items():
        if modality not in dataset.features:
            known = ", ".join(dataset.modalities) or "none"
            raise InputError(f"request: the data has no modality {modality!r}; it has: {known}")
        present = np.flatnonzero(dataset.features[modality].any(axis=1))
        everything = chosen == "all"
        features[modality] = _mask(() if everything else chosen, present, dataset.num_items, "item", rng) | everything
    if forget.all():
        raise InputError(
            f"request {request.describe()}: it forgets all {len(train)} train pairs and leaves nothing to train on; "
            "delete the model instead, or ask for less"
        )
    return ForgetSet(request, forget, users, items, features, pairs)


def _mask(chosen: Selection, population: np.ndarray, size: int, name: str, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros(size, bool)
    if isinstance(chosen, str):
        mask[_share(chosen, population, f"{name}s", rng)] = True
        return mask
    ids = np.asarray(chosen, np.int64)
    unknown = ids[(ids < 0) | (ids >= size)]
    if len(unknown):
        raise InputError(f"request: unknown {name} {unknown[0]}; the data has {name}s 0 to {size - 1}")
    mask[ids] = True
    return mask


def _pairs(chosen: Selection, dataset: Dataset, rng: np.random.Generator) -> np.ndarray:
    """int64 [n, 2]: the named or drawn pairs."""
    if isinstance(chosen, str):
        return dataset.train[_share(chosen, np.arange(len(dataset.train)), "pairs", rng)].astype(np.int64)
    pairs = np.asarray(chosen, np.int64).reshape(-1, 2)
    for column, name, size in ((0, "user", dataset.num_users), (1, "item", dataset.num_items)):
        unknown = pairs[(pairs[:, column] < 0) | (pairs[:, column] >= size), column]
        if len(unknown):
            raise InputError(f"request: unknown {name} {unknown[0]} in a pair; the data has {name}s 0 to {size - 1}")
    return pairs


def _among(pairs: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool [len(pairs)]: which pairs stand among the others."""
    base = 1 + max(pairs[:, 1].max(initial=0), others[:, 1].max(initial=0))
    return np.isin(
        pairs[:, 0].astype(np.int64) * base + pairs[:, 1], others[:, 0].astype(np.int64) * base + others[:, 1]
    )


def _share(share: str, population: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    count = round(len(population) * float(share.removesuffix("%")) / 100)
    if count == 0:
        raise InputError(f"request: {share} of {len(population)} {name} is none; ask for a larger share or name ids")
    return rng.choice(population, count, replace=False)


def retained(dataset: Dataset, forget_set: ForgetSet) -> Dataset:
    """The data set as it is once the request is answered: what Gold trains on and what a released model carries.

    Forget pairs leave train; held-out pairs of forgotten users and items leave valid and test; forgotten feature rows become zero (a
    modality with no row left disappears); removed items and forgotten feature rows leave the item graphs by row and column.

    Args:
        dataset: the data of the original; with item graphs attached, so that Gold uses the same edited graphs.
        forget_set: resolved on this data set.
    """

    def outside(pairs):
        gone = forget_set.users[pairs[:, 0]] | forget_set.items[pairs[:, 1]] | _among(pairs, forget_set.pairs)
        return pairs[~gone]

    features, similarities = {}, {}
    for modality in dataset.modalities:
        gone = forget_set.items | forget_set.features.get(modality, False)
        kept_rows = np.where(gone[:, None], np.float32(0), dataset.features[modality])
        if modality in forget_set.features and not kept_rows.any():
            continue
        features[modality] = kept_rows
        if modality in dataset.similarities:
            similarities[modality] = keep_items(dataset.similarities[modality], ~gone)
    return dataset.replace(
        train=dataset.train[~forget_set.forget],
        valid=outside(dataset.valid),
        test=outside(dataset.test),
        features=features,
        similarities=similarities,
        removed_users=dataset.removed_users | forget_set.users,
        removed_items=dataset.removed_items | forget_set.items,
    )


def forget_pairs(dataset: Dataset, forget_set: ForgetSet) -> np.ndarray:
    """D_f, int32 [n, 2]."""
    return dataset.train[forget_set.forget]


def to_json(request: Request) -> dict[str, Any]:
    """The request as it is recorded: explicit pairs and ids as they were given."""
    return dataclasses.asdict(request)


def _brief(value: Any) -> str:
    if not isinstance(value, str) and isinstance(value, Sequence):
        value = ",".join("-".join(map(str, e)) if isinstance(e, Sequence) else str(e) for e in value)
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
