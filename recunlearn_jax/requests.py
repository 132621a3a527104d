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
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recunlearn_jax.data import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.graph import keep_items

KINDS = ("users", "items", "pairs", "modality")
Ids = str | Sequence[int]  # a share such as "5%", or ids
Pairs = str | Sequence[Sequence[int]]  # a share, or (user, item) pairs


@dataclass(frozen=True)
class Request:
    """What the operator asked for, not yet checked against data.

    Attributes:
        users, items: "5%" or ids.  pairs: "5%" or (user, item) pairs.
        modality: name -> "all", "5%" (of the items that have it) or item ids.
        seed: of the draw of every share.
    """

    users: Ids = ()
    items: Ids = ()
    pairs: Pairs = ()
    modality: Mapping[str, Ids] = field(default_factory=dict)
    seed: int = 0

    def describe(self) -> str:
        """Short text for titles and logs; long lists of ids are counted."""
        parts = [f"{kind}:{_brief(getattr(self, kind))}" for kind in KINDS[:3] if len(getattr(self, kind))]
        parts += [
            f"modality:{name}" + ("" if _is_all(chosen) else f":{_brief(chosen)}")
            for name, chosen in self.modality.items()
            if len(chosen)
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

    def notes(self, dataset: Dataset) -> list[str]:
        """What the operator may have mistaken, a sentence each."""
        absent = self.absent_pairs(dataset)
        if not len(absent):
            return []
        first = "-".join(map(str, absent[0]))
        return [f"{len(absent)} named pairs are not in train (first: {first}); forgotten earlier, or a mistake?"]

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
            target = chosen["modality"]
            key, colon, value = value.partition(":")
            value = value if colon else "all"  # an empty list of ids is a mistake, not the whole modality
        if key in target:
            name = f"modality {key}" if kind == "modality" else kind
            raise InputError(f"request {word!r}: {name} is named twice; join the ids with commas")
        target[key] = _parse_selection(value, kind, word)
    request = Request(**chosen, seed=seed)
    _checked(request, "request")  # refuses shares and seeds; the request keeps the form of its words
    return request


def read_request(path: str | Path, seed: int = 0) -> Request:
    """Request from a JSON file with any of the keys users, items, pairs, modality, seed.

    Raises:
        InputError: the file is missing or does not follow the grammar.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(values, dict) or not set(values) <= {*KINDS, "seed"}:
        raise InputError(
            f"{path}: a request is an object with the keys users, items, pairs, modality, seed; got {_brief(values)}"
        )
    modality = values.get("modality")
    names = [modality] if isinstance(modality, str) else modality
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        values["modality"] = dict.fromkeys(names, "all")
    return _checked(Request(**{"seed": seed, **values}), str(path))


def _parse_selection(value: str, kind: str, word: str) -> Ids | Pairs:
    if value.endswith("%") or (value == "all" and kind == "modality"):
        return value
    try:
        if kind == "pairs":
            return [_parse_pair(entry) for entry in value.split(",")]
        return [int(entry) for entry in value.split(",")]
    except ValueError as error:
        shape = "user-item pairs such as 3-12,3-40" if kind == "pairs" else "ids such as 12,99"
        raise InputError(f"request {word!r}: expected a share such as 5% or {shape}") from error


def _parse_pair(entry: str) -> tuple[int, int]:
    user, item = entry.split("-")
    return int(user), int(item)


def _checked(request: Request, where: str) -> Request:
    """The same request in plain lists and numbers, if it has the form that a request must have.

    However a request came about, this is what checks it: words, files and `Request(...)` are held to the same rules.

    Args:
        request: anything at all may stand in it.
        where: begins the message of a refusal.

    Raises:
        InputError: a share, an id, a pair, the seed or the modality part is not what it must be.
    """
    if not isinstance(request.modality, Mapping):
        raise InputError(
            f"{where}: modality {_brief(request.modality)} given; expected modality names, each with 'all', a share or item ids"
        )
    seed = _plain(request.seed)
    if type(seed) is not int or seed < 0:
        raise InputError(f"{where}: seed {_brief(seed)} given; expected a whole number that is not negative")
    return Request(
        users=_checked_selection(request.users, _is_id, f"{where}: users"),
        items=_checked_selection(request.items, _is_id, f"{where}: items"),
        pairs=_checked_selection(request.pairs, _is_pair, f"{where}: pairs"),
        modality={
            name: chosen if _is_all(chosen) else _checked_selection(chosen, _is_id, f"{where}: modality {name}")
            for name, chosen in request.modality.items()
        },
        seed=seed,
    )


def _checked_selection(value: Any, is_entry: Callable[[Any], bool], where: str) -> Any:
    value = _plain(value)
    if isinstance(value, str):
        if not 0 < _percent(value) < 100:
            raise InputError(f"{where}: {value!r} is no share; more than 0% and less than 100% is allowed")
    elif not isinstance(value, list) or not all(map(is_entry, value)):
        expected = "(user, item) pairs of whole numbers" if is_entry is _is_pair else "a list of whole-number ids"
        raise InputError(f"{where}: {_brief(value)} given; expected a share such as '5%' or {expected}")
    return value


def _plain(value: Any) -> Any:
    """Arrays and tuples as lists, numpy's numbers as Python's; anything else as it is."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple, range)) else value


def _percent(share: str) -> float:
    """5.0 for '5%', NaN for what is no share."""
    try:
        return float(share.removesuffix("%")) if share.endswith("%") else math.nan
    except ValueError:
        return math.nan


def _is_all(chosen: Any) -> bool:
    return isinstance(chosen, str) and chosen == "all"


def _is_id(value: Any) -> bool:
    return type(value) is int  # True is no id


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_id, value))


def resolve(request: Request, dataset: Dataset) -> ForgetSet:
    """Check a request against the data and draw its shares.

    Naming an id twice, or one that an earlier request removed, is harmless.

    Args:
        request: from `parse`, `read_request` or built directly.
        dataset: the data the original was trained on.

    Returns:
        The forget set, whose D_f is the union of all parts.

    Raises:
        InputError: ids or a share of a wrong form, unknown ids or modalities, an empty request, or one that leaves nothing to train on.
    """
    request = _checked(request, "request")
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
        if _is_all(chosen):
            features[modality] = np.ones(dataset.num_items, bool)
        else:
            features[modality] = _mask(chosen, present, dataset.num_items, "item", rng)
    if forget.all():
        raise InputError(
            f"request {request.describe()}: it forgets all {len(train)} train pairs and leaves nothing to train on; "
            "delete the model instead, or ask for less"
        )
    return ForgetSet(request, forget, users, items, features, pairs)


def _mask(chosen: Ids, population: np.ndarray, size: int, name: str, rng: np.random.Generator) -> np.ndarray:
    """bool [size]: the named or drawn ids."""
    ids = _share(chosen, population, f"{name}s", rng) if isinstance(chosen, str) else _known(chosen, size, name)
    mask = np.zeros(size, bool)
    mask[ids] = True
    return mask


def _pairs(chosen: Pairs, dataset: Dataset, rng: np.random.Generator) -> np.ndarray:
    """int64 [n, 2]: the named or drawn pairs."""
    if isinstance(chosen, str):
        return dataset.train[_share(chosen, np.arange(len(dataset.train)), "pairs", rng)].astype(np.int64)
    users = _known([user for user, _ in chosen], dataset.num_users, "user", " in a pair")
    items = _known([item for _, item in chosen], dataset.num_items, "item", " in a pair")
    return np.stack([users, items], axis=1)


def _known(ids: Sequence[int], size: int, name: str, place: str = "") -> np.ndarray:
    """int64 [n]; compared as Python numbers, since an id may be too large for any array."""
    unknown = next((i for i in ids if not 0 <= i < size), None)
    if unknown is not None:
        raise InputError(f"request: unknown {name} {unknown}{place}; the data has {name}s 0 to {size - 1}")
    return np.array(ids, np.int64)


def _among(pairs: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool [len(pairs)]: which pairs stand among the others."""
    base = 1 + max(pairs[:, 1].max(initial=0), others[:, 1].max(initial=0))
    return np.isin(
        pairs[:, 0].astype(np.int64) * base + pairs[:, 1], others[:, 0].astype(np.int64) * base + others[:, 1]
    )


def _share(share: str, population: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    count = round(len(population) * _percent(share) / 100)
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
        if not kept_rows.any():
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
    """The request as it is recorded: shares, pairs and ids as they were given.

    Raises:
        InputError: the request does not have the form that a request must have.
    """
    return dataclasses.asdict(_checked(request, "request"))


def _brief(value: Any) -> str:
    """At most 60 characters for a message or a title; pairs as 3-12."""
    value = _plain(value)
    if isinstance(value, list):
        value = ",".join("-".join(map(str, e)) if isinstance(e, list) else str(e) for e in value[:60])
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
