"""What must be forgotten: parsing a request, checking it against the data, and splitting the data into retain and forget parts.

A request names users, items, single (user, item) pairs, modality data (the feature rows of some items, or a whole modality), or any mix.
On the command line each part is one word:

    users:5%   users:3,14   items:12,99   pairs:5%   pairs:3-12,3-40   modality:audio   modality:audio:5%   modality:audio:12,99
    users:@FILE with one id per line, pairs:@FILE with a user and an item per line, separated by a tab

In a JSON file: {"users": [3, 14], "items": "5%", "pairs": [[3, 12]], "modality": {"audio": "all", "image": [12, 99]}}.
With the request seed, a share is drawn from the users, items or pairs of train, or from the items that have the modality. Ids are the
operator's own if the data has them.
"""

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recunlearn_jax.arrays import distinct, ranges
from recunlearn_jax.dataset import Dataset, rank
from recunlearn_jax.errors import InputError, check_type, shown
from recunlearn_jax.files import as_path, read_json, read_text
from recunlearn_jax.graph import keep_items
from recunlearn_jax.removed_ids import RemovedIds

KINDS = ("users", "items", "pairs", "modality")
SHARE = re.compile(r"[0-9]+(\.[0-9]*)?(e-?[0-9]+)?%|\.[0-9]+%")
NUMBER = re.compile("0|[1-9][0-9]{0,17}")  # within int64; longer ones are words
_PIECE = 1000  # least average number of pairs copied at once
Id = int | str  # a number, or the operator's own
Ids = str | Sequence[Id]  # a share such as "5%", or ids
Pairs = str | Sequence[Sequence[Id]]  # a share, or (user, item) pairs


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


Asked = Request | Mapping[str, Any] | Sequence[str] | str  # what `as_request` takes


@dataclass(frozen=True, eq=False)
class ForgetSet:
    """A request resolved on one data set. D_r and D_f partition the train pairs.

    Attributes:
        request: the request it came from.
        forget: bool [|train|], the rows of `dataset.train` in D_f.
        users: bool [|U|], items: bool [|I|], removed as a whole.
        features: modality -> bool [|I|], feature rows to forget.
        pairs: int64 [n, 2], the pairs named one by one. One that is not in train changes nothing there (an earlier request may have
            removed it); if it is in valid or test, it is removed from them.
    """

    request: Request
    forget: np.ndarray
    users: np.ndarray
    items: np.ndarray
    features: Mapping[str, np.ndarray]
    pairs: np.ndarray

    @functools.cached_property
    def places(self) -> np.ndarray:
        """Rows of D_f in `dataset.train`, int64 [n], ascending."""
        return np.flatnonzero(self.forget)

    @property
    def checksum(self) -> str:
        """SHA-256 of the resolved sets."""
        digest = hashlib.sha256()
        for mask in (self.forget, self.users, self.items):
            digest.update(np.packbits(mask).tobytes())
        for modality in sorted(self.features):
            digest.update(modality.encode() + np.packbits(self.features[modality]).tobytes())
        if len(self.pairs):  # some of them may be in valid or test only
            digest.update(b"pairs" + np.unique(self.pairs, axis=0).tobytes())
        return digest.hexdigest()

    def counts(self) -> dict[str, int]:
        """Sizes of what is forgotten."""
        sizes = {"users": int(self.users.sum()), "items": int(self.items.sum()), "pairs": int(self.forget.sum())}
        return sizes | {f"{m} feature rows": int(rows.sum()) for m, rows in self.features.items()}

    def notes(self, dataset: Dataset) -> list[str]:
        """What the operator may have got wrong, one sentence each."""
        found, absent = [], self.absent_pairs(dataset)
        for split in ("valid", "test"):
            held_out = _among(absent, getattr(dataset, split))
            found += _told(dataset, absent[held_out], f"stand in {split}, not in train, and leave it")
            absent = absent[~held_out]
        found += _told(dataset, absent, "are nowhere in the data; forgotten earlier, or a mistake?")
        for kind, ids in (("user", self.request.users), ("item", self.request.items)):
            again = [] if isinstance(ids, str) else _removed_earlier(ids, dataset, kind)
            if again:
                found.append(
                    f"{len(again)} named {kind}s (first: {again[0]}) were removed earlier; nothing is left of them to forget"
                )
        again = 0 if isinstance(self.request.pairs, str) else len(self.request.pairs) - len(self.pairs)
        if again:
            found.append(f"{again} named pairs are of users or items that were removed earlier")
        gone = [name for name in self.request.modality if name in dataset.removed_modalities]
        return found + [f"modality {name} was removed earlier; nothing is left of it to forget" for name in gone]

    def absent_pairs(self, dataset: Dataset) -> np.ndarray:
        """Named pairs that are not in train, int64 [n, 2]: forgotten earlier, or a mistake worth reporting."""
        return self.pairs[~_among(self.pairs, dataset.train)]


def _removed_earlier(ids: Sequence[Id], dataset: Dataset, kind: str) -> list[Id]:
    """Those of some known ids that an earlier request removed."""
    removed = dataset.removed_users if kind == "user" else dataset.removed_items
    numbers = [_number(word, dataset, kind) for word in ids]
    return [word for word, number in zip(ids, numbers, strict=True) if number is None or removed[number]]


def _told(dataset: Dataset, pairs: np.ndarray, what: str) -> list[str]:
    if not len(pairs):
        return []
    user, item = pairs[0].tolist()
    return [f"{len(pairs)} named pairs (first: {dataset.word('user', user)}-{dataset.word('item', item)}) {what}"]


def parse(words: Sequence[str] | str, seed: int = 0) -> Request:
    """Request from command line words, from a single word, or from the path of a JSON file.

    Raises:
        InputError: no words, or a word or the file does not follow the grammar.

    Examples:
        >>> parse(["users:5%", "pairs:3-12,3-40"]).describe()
        'users:5% pairs:3-12,3-40'
    """
    given, words = words, [words] if isinstance(words, str) else words
    if not isinstance(words, (Sequence, np.ndarray)) or not all(isinstance(word, str) for word in words):
        raise InputError(
            f"request: {shown(given)} given; expected words such as ['users:3,14'], a mapping such as {{'users': [3, 14]}}, or a Request"
        )
    if len(words) == 1 and words[0].endswith(".json") and words[0].partition(":")[0] not in KINDS:
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
    checked(request)  # refuses wrong shares and seeds; the request keeps the form of its words
    return request


def read_request(path: str | Path, seed: int = 0) -> Request:
    """Request from a JSON file with any of the keys users, items, pairs, modality, seed, or from a kept request.

    Raises:
        InputError: the file is missing or does not follow the grammar.
    """
    return _of_values(read_json(as_path(path, "path")), str(path), seed)


def _of_values(values: Any, where: str, seed: int) -> Request:
    """The request of a JSON object, or of a mapping of the same form."""
    # As kept by `recunlearn unlearn --keep-request`.
    if isinstance(values, Mapping) and {"request", "salt"} <= values.keys():
        values = values["request"]
    if not isinstance(values, Mapping) or not set(values) <= {*KINDS, "seed"}:
        raise InputError(
            f"{where}: a request is an object with the keys users, items, pairs, modality, seed; got {_brief(values)}"
        )
    modality = values.get("modality", {})
    names = [modality] if isinstance(modality, str) else modality
    if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
        modality = dict.fromkeys(names, "all")
    return checked(Request(**{"seed": seed, **values, "modality": modality}), where)


def as_request(given: Asked) -> Request:
    """A request, however it is written.

    Args:
        given: a request; words as `parse` takes them, or a single one; or a mapping with the content of a JSON file.

    Raises:
        InputError: it is anything else, or its words or values have a wrong form.

    Examples:
        >>> as_request({"users": [3, 14], "modality": "audio"}).describe()
        'users:3,14 modality:audio'
    """
    if isinstance(given, Request):
        return given
    return _of_values(given, "request", 0) if isinstance(given, Mapping) else parse(given)


def _parse_selection(value: str, kind: str, word: str) -> Ids | Pairs:
    if value.endswith("%") or (value == "all" and kind == "modality"):
        return value
    separator, entries = "-", value.split(",")
    if value.startswith("@"):
        separator, entries = "\t", read_text(Path(value[1:])).removesuffix("\n").split("\n")
    ids = [entry.split(separator) for entry in entries] if kind == "pairs" else [[entry] for entry in entries]
    bad = next(
        (i for i, parts in enumerate(ids) if len(parts) != (2 if kind == "pairs" else 1) or not all(parts)), None
    )
    if bad is not None:
        shape = "user-item pairs such as 3-12,3-40" if kind == "pairs" else "ids such as 12,99"
        raise InputError(
            f"request {word!r}: entry {bad + 1} is {entries[bad][:60]!r}; expected a share such as 5%, {shape}, or @FILE with one "
            f"{'user, tab, item' if kind == 'pairs' else 'id'} a line"
        )
    named = [tuple(int(part) if NUMBER.fullmatch(part) else part for part in parts) for parts in ids]
    return named if kind == "pairs" else [one for (one,) in named]


def checked(request: Request, where: str = "request") -> Request:
    """The same request in plain lists and numbers, if it has the form that a request must have.

    Every request is checked here, however it was made: the same rules hold for words, files and `Request(...)`.

    Args:
        request: may hold anything at all.
        where: beginning of the error message.

    Raises:
        InputError: a share, an id, a pair, the seed or the modality part is not valid.
    """
    if not isinstance(request.modality, Mapping):
        raise InputError(
            f"{where}: modality {_brief(request.modality)} given; expected modality names, each with 'all', a share or item ids"
        )
    seed = _plain(request.seed)
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InputError(
            f"{where}: seed {_brief(seed)} given; expected a whole number that is not negative, below 2**63"
        )
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
        expected = "(user, item) pairs of ids" if is_entry is _is_pair else "a list of ids"
        raise InputError(f"{where}: {_brief(value)} given; expected a share such as '5%' or {expected}")
    return value


def _plain(value: Any, depth: int = 2) -> Any:
    """Arrays and tuples as lists, numpy's numbers as Python's; anything else, such as values nested deeper than in pairs, unchanged."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return [_plain(entry, depth - 1) for entry in value] if depth and isinstance(value, (list, tuple, range)) else value


def _percent(share: str) -> float:
    """5.0 for '5%', NaN for anything that is not a share."""
    return float(share.removesuffix("%")) if SHARE.fullmatch(share) else math.nan


def _is_all(chosen: Any) -> bool:
    return isinstance(chosen, str) and chosen == "all"


def _is_id(value: Any) -> bool:
    """Whether a value is an id: True is not, nor is a number that Python refuses to write."""
    return value.bit_length() < 1000 if type(value) is int else isinstance(value, str) and value != ""


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_id, value))


def resolve(request: Asked, dataset: Dataset) -> ForgetSet:
    """Check a request against the data and draw its shares.

    Naming an id twice, or one that an earlier request removed, is harmless.

    Args:
        request: as `as_request` takes it.
        dataset: the data the original was trained on.

    Returns:
        The forget set, whose D_f is the union of all parts.

    Raises:
        InputError: ids or a share have a wrong form, ids or modalities are unknown, or the request is empty or leaves nothing to train on.
    """
    check_type(dataset, Dataset, "dataset", "`read_dataset` reads a data folder")
    request = checked(as_request(request))
    if request.describe() == "nothing":
        raise InputError("the request is empty; name users, items, pairs or a modality to forget")
    rng = np.random.default_rng([request.seed, 7])
    train = dataset.train
    users = _mask(request.users, lambda: _present(train[:, 0]), dataset, "user", rng)
    items = _mask(request.items, lambda: _present(train[:, 1]), dataset, "item", rng)
    pairs = _pairs(request.pairs, dataset, rng)
    forget = np.zeros(len(train), bool)
    forget[_standing(train, users, items, pairs)] = True
    features = {}
    for modality, chosen in request.modality.items():
        if modality in dataset.removed_modalities:
            continue
        if modality not in dataset.features:
            known = ", ".join(dataset.modalities) or "none"
            raise InputError(f"request: the data has no modality {modality!r}; it has: {known}")
        table = dataset.features[modality]
        if _is_all(chosen):
            features[modality] = np.ones(dataset.num_items, bool)
        else:
            features[modality] = _mask(chosen, functools.partial(_with_content, table), dataset, "item", rng)
    if forget.all():
        raise InputError(
            f"request {request.describe()}: it forgets all {len(train)} train pairs and leaves nothing to train on; "
            "delete the model instead, or ask for less"
        )
    return ForgetSet(request, forget, users, items, features, pairs)


def _present(ids: np.ndarray) -> np.ndarray:
    """The ids that occur, ascending."""
    return np.flatnonzero(np.bincount(ids))


def _with_content(table: np.ndarray) -> np.ndarray:
    """Rows of a feature table that are not all zero, ascending."""
    return np.flatnonzero(table.any(axis=1))


def _mask(
    chosen: Ids, population: Callable[[], np.ndarray], dataset: Dataset, kind: str, rng: np.random.Generator
) -> np.ndarray:
    """bool [|U|] or [|I|]: the named ids, or those drawn from a population."""
    mask = np.zeros(dataset.num_users if kind == "user" else dataset.num_items, bool)
    drawn = isinstance(chosen, str)
    mask[_share(chosen, population(), f"{kind}s", rng) if drawn else _known(chosen, dataset, kind)] = True
    return mask


def _pairs(chosen: Pairs, dataset: Dataset, rng: np.random.Generator) -> np.ndarray:
    """int64 [n, 2]: the named or drawn pairs."""
    if isinstance(chosen, str):
        return dataset.train[_share(chosen, np.arange(len(dataset.train)), "pairs", rng)].astype(np.int64)
    sides = [(_number(u, dataset, "user", " in a pair"), _number(i, dataset, "item", " in a pair")) for u, i in chosen]
    return np.array([pair for pair in sides if None not in pair], np.int64).reshape(-1, 2)


def _known(ids: Sequence[Id], dataset: Dataset, kind: str) -> np.ndarray:
    """Numbers of the ids, int64 [n], without those that have none any more."""
    numbers = [_number(word, dataset, kind) for word in ids]
    return np.array([number for number in numbers if number is not None], np.int64)


def _number(word: Id, dataset: Dataset, kind: str, place: str = "") -> int | None:
    """The number of an id; None where an earlier request took the operator's id out of the data. Compared as Python numbers, since an id
    may be too large for any array."""
    try:
        return dataset.number(kind, word)
    except InputError as error:
        if dataset.removed_ids.among(kind, [str(word)]):
            return None
        raise InputError(f"request: {str(error).replace(';', f'{place};', 1)}") from error


def _among(pairs: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool [len(pairs)]: which pairs are among the others."""
    base = 1 + max(pairs[:, 1].max(initial=0), others[:, 1].max(initial=0))
    return np.isin(
        pairs[:, 0].astype(np.int64) * base + pairs[:, 1], others[:, 0].astype(np.int64) * base + others[:, 1]
    )


def _standing(among: np.ndarray, users: np.ndarray, items: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Places of the pairs of some users and items, and of single pairs, int64, ascending.

    WHY not one mask over all pairs: a request names few of them, and there may be millions.

    Args:
        among: int [n, 2], in order.
        users, items: bool [|U|] and [|I|].
        pairs: int64 [k, 2]; those that are not in `among` have no place.
    """
    ids = np.flatnonzero(users)
    first, after = (rank(among, np.column_stack([ids + more, np.zeros_like(ids)])) for more in (0, 1))
    single = rank(among, pairs)
    single = single[(among[np.minimum(single, len(among) - 1)] == pairs).all(axis=1)] if len(among) else single[:0]
    of_items = np.flatnonzero(items[among[:, 1]]) if items.any() else single[:0]
    return distinct(np.concatenate([ranges(first, after), of_items, single]))


def _share(share: str, population: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    count = round(len(population) * _percent(share) / 100)
    if count == 0:
        raise InputError(f"request: {share} of {len(population)} {name} is none; ask for a larger share or name ids")
    return rng.choice(population, count, replace=False)


def retained(dataset: Dataset, forget_set: ForgetSet) -> Dataset:
    """The data set once the request is answered: what Gold trains on and what a released model carries.

    Forget pairs leave train; held-out pairs leave valid and test if they are named or their user or item is forgotten; forgotten feature
    rows become zero (a modality with no row left disappears); removed items and forgotten feature rows leave the item graphs by row and
    column.

    Args:
        dataset: the data of the original; with item graphs attached, so that Gold uses the same edited graphs.
        forget_set: resolved on this data set.

    Raises:
        InputError: it was resolved on other data.
    """
    check_type(dataset, Dataset, "dataset", "`read_dataset` reads a data folder")
    if not isinstance(forget_set, ForgetSet):
        raise InputError(f"forget_set: {shown(forget_set)} given; `resolve` makes one of a request")
    sizes = len(forget_set.forget), len(forget_set.users), len(forget_set.items)
    if sizes != (len(dataset.train), dataset.num_users, dataset.num_items) or not _is_of(forget_set, dataset.train):
        raise InputError("request: its forget set was resolved on other data than this; resolve it anew")

    def outside(pairs):
        return _left(pairs, _standing(pairs, forget_set.users, forget_set.items, forget_set.pairs))

    features, similarities, removed_modalities = {}, {}, []
    for modality in dataset.modalities:
        gone = forget_set.items | forget_set.features.get(modality, False)
        rows = dataset.features[modality]
        if gone.any():  # else keep the same array: it may be large, and is on the device already
            kept_rows = np.where(gone[:, None], np.float32(0), rows)
            if (rows.any() or np.all(forget_set.features.get(modality, False))) and not kept_rows.any():
                removed_modalities.append(modality)
                continue
            rows = kept_rows
        features[modality] = rows
        if modality in dataset.similarities:
            graph = dataset.similarities[modality]
            similarities[modality] = keep_items(graph, ~gone) if gone.any() else graph
    return dataset.shrunk(
        train=_left(dataset.train, forget_set.places),
        valid=outside(dataset.valid),
        test=outside(dataset.test),
        features=features,
        similarities=similarities,
        removed_users=dataset.removed_users | forget_set.users,
        removed_items=dataset.removed_items | forget_set.items,
        removed_modalities=(*dataset.removed_modalities, *removed_modalities),
        user_ids=_without(dataset.user_ids, forget_set.users),
        item_ids=_without(dataset.item_ids, forget_set.items),
        removed_ids=remembered(dataset, forget_set),
    )


def _is_of(forget_set: ForgetSet, train: np.ndarray) -> bool:
    """Whether D_f is what the forget set's users, items and pairs give in these data."""
    return np.array_equal(forget_set.places, _standing(train, forget_set.users, forget_set.items, forget_set.pairs))


def _left(pairs: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """The pairs without those at the places `gone`, int [g], ascending.

    WHY one word per pair: numpy selects rows of two several times as slowly. WHY in pieces if few go: a mask is written and read as well.
    """
    words = pairs.view(np.int64)[:, 0]
    if len(gone) < len(pairs) // _PIECE:
        ends, starts = [*gone.tolist(), len(words)], [0, *(gone + 1).tolist()]
        left = np.concatenate([words[start:end] for start, end in zip(starts, ends, strict=True)])
    else:
        kept = np.ones(len(pairs), bool)
        kept[gone] = False
        left = words[kept]
    return left.view(np.int32).reshape(-1, 2)


def _without(ids: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """The operator's ids, with the empty string for those that are gone."""
    return np.where(gone, "", ids).astype(object) if len(ids) else ids


def named(
    dataset: Dataset, users: np.ndarray, items: np.ndarray, pairs: np.ndarray, features: Mapping[str, np.ndarray]
) -> Request:
    """A request given by numbers, written in the ids that its data set uses.

    Args:
        dataset: the data it will be resolved on.
        users, items: int [n], of those removed as a whole.
        pairs: int [n, 2].
        features: modality -> bool [|I|], rows to forget.
    """
    return Request(
        users=dataset.named("user", users),
        items=dataset.named("item", items),
        pairs=list(zip(dataset.named("user", pairs[:, 0]), dataset.named("item", pairs[:, 1]), strict=True)),
        modality={
            m: "all" if rows.all() else dataset.named("item", np.flatnonzero(rows))
            for m, rows in features.items()
            if rows.any()
        },
    )


def remembered(dataset: Dataset, forget_set: ForgetSet) -> RemovedIds:
    """Digests of the removed users and items, with those of earlier requests; none if there are only numbers.

    Single pairs are not among them: there are so few possible pairs that anyone could try them all.
    """
    removed = dataset.removed_ids
    for kind, ids, gone in (("user", dataset.user_ids, forget_set.users), ("item", dataset.item_ids, forget_set.items)):
        removed = removed.with_more(kind, ids[gone & (ids != "")] if len(ids) else ())
    return removed


def difference(before: Dataset, after: Dataset) -> ForgetSet:
    """What was forgotten between two data sets, read from the data alone.

    Args:
        before: data of the original.
        after: data of the answer, with as many users and items.

    Returns:
        The forget set; its request names what was forgotten. Pairs that are gone from valid or test are named in it, too.

    Raises:
        InputError: `after` is not what is left of `before`.
    """
    if (before.num_users, before.num_items) != (after.num_users, after.num_items):
        raise InputError(
            f"data of {after.num_users} users and {after.num_items} items is not what is left of "
            f"{before.num_users} users and {before.num_items} items"
        )
    users, items = after.removed_users & ~before.removed_users, after.removed_items & ~before.removed_items
    forget = ~_among(before.train, after.train)
    held_out = np.concatenate([p[~_among(p, q)] for p, q in ((before.valid, after.valid), (before.test, after.test))])
    gone = np.concatenate([before.train[forget], held_out]).astype(np.int64)
    pairs = gone[~users[gone[:, 0]] & ~items[gone[:, 1]]]
    features = {}
    for modality, rows in before.features.items():
        left = after.features.get(modality)
        still = np.zeros(len(rows), bool) if left is None else left.any(axis=1)
        lost = rows.any(axis=1) & ~items & ~still
        if left is None and modality in after.removed_modalities:
            features[modality] = np.ones(before.num_items, bool)
        elif lost.any():
            features[modality] = lost
    request = named(before, np.flatnonzero(users), np.flatnonzero(items), pairs, features)
    found = ForgetSet(request, forget, users, items, features, pairs)
    if retained(before, found).checksum != after.checksum:
        raise InputError(
            f"data {after.checksum[:12]} is not what is left of data {before.checksum[:12]} after any request"
        )
    return found


def forget_pairs(dataset: Dataset, forget_set: ForgetSet) -> np.ndarray:
    """D_f, int32 [n, 2]."""
    return dataset.train[forget_set.forget]


def to_json(request: Request) -> dict[str, Any]:
    """The request as it is recorded: shares, pairs and ids as they were given.

    Raises:
        InputError: the request does not have the form that a request must have.
    """
    return dataclasses.asdict(checked(request))


def _brief(value: Any) -> str:
    """At most 60 characters for a message or a title; pairs as 3-12."""
    value = _plain(value)
    try:
        if isinstance(value, list):
            value = ",".join("-".join(map(str, e)) if isinstance(e, list) else str(e) for e in value[:60])
        text = str(value)
    except (ValueError, RecursionError):  # a number with thousands of digits, or lists nested too deeply
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 60 else text[:57] + "..."
