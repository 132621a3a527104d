"""Going on with training on data that has grown: new users, items and interactions. What was removed stays removed.

What the model knows keeps its number and its trained rows; what is new gets the next numbers and the rows that a fresh model would give it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones.base import Params, flat
from recunlearn_jax.dataset import SPLITS, Dataset, as_ids
from recunlearn_jax.errors import InputError
from recunlearn_jax.recommender import Recommender, set_up
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.train import initial_params, train

KINDS = ("user", "item")


def grow(
    model: Recommender,
    dataset: Dataset,
    *,
    seed: int = 0,
    run: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
) -> Recommender:
    """Train a model further on data that has grown, with a fresh optimizer and early stopping as in `fit`.

    Args:
        model: an original or a release.
        dataset: from `merged`; its numbers begin with those of the model's data.
        seed, run, on_epoch: as for `fit`.

    Raises:
        InputError: the data has other modalities or widths of features than the model.
    """
    before, after = ({m: data.features[m].shape[1] for m in data.modalities} for data in (model.dataset, dataset))
    if before != after:
        raise InputError(
            f"the grown data has modalities {after or 'none'}, the model {before or 'none'}; they must be the same"
        )
    with stopwatch() as seconds:
        setup = set_up(dataset, model.config)
        start = grown_params(model, initial_params(setup, seed))
        trained = train(setup, seed, start=start, run=run, on_epoch=on_epoch)
    # Without its seed: by that alone the training cannot be replayed.
    info = {key: value for key, value in trained.info.items() if key != "seed"}
    return dataclasses.replace(trained, info=info, seconds=seconds + trained.seconds)


def grown_params(model: Recommender, fresh: Params) -> Params:
    """The parameters of a model with the rows of new users and items from fresh ones.

    Args:
        model: to go on from.
        fresh: of the grown data, rows of what is known first.
    """
    removed = {"users": model.dataset.removed_users, "items": model.dataset.removed_items}
    grown = {}
    for name, table in fresh.items():
        rows = model.backbone.tables.get(name)
        if rows not in removed:
            grown[name] = model.params[name]
            continue
        old = model.params[name]
        kept = jnp.asarray(np.flatnonzero(~removed[rows]))
        grown[name] = table.at[kept].set(old[kept])
    if {name: x.dtype for name, x in flat(grown).items()} != {name: x.dtype for name, x in flat(fresh).items()}:
        raise InputError("the model's parameters do not fit the grown data")
    return grown


def merged(known: Dataset, grown: Dataset, readmit: Sequence[str] = ()) -> tuple[Dataset, list[str]]:
    """The grown data in the numbers of the model: what is known keeps its number, what is new gets the next ones.

    Args:
        known: the model's data.
        grown: as it is now, in numbers of its own where both have the operator's ids, else in the same numbers.
        readmit: removed users and items that may come back, such as "user:ann".

    Returns:
        The data set, and notes: how much is new, and what is no longer there. Users and items of the model that have no pair left stay in
        the id space.

    Raises:
        InputError: a removed user or item is in the grown data, or one of the two sets has ids and the other has not.
    """
    let_in = _readmitted(readmit)
    removed_ids, places, ids, removed, notes = known.removed_ids, {}, {}, {}, []
    for kind in KINDS:
        old, new = (getattr(data, f"{kind}_ids") for data in (known, grown))
        if bool(len(old)) != bool(len(new)):
            raise InputError(
                f"one of the data sets has {kind} ids of the operator's, the other has not; they must speak the same"
            )
        count = {data: getattr(data, f"num_{kind}s") for data in (known, grown)}
        gone, occurring = getattr(known, f"removed_{kind}s"), _occurring(grown, kind)
        if len(old):
            back = removed_ids.among(kind, [new[i] for i in np.flatnonzero(occurring)])
            _refuse(kind, [word for word in back if word not in let_in[kind]])
            removed_ids = removed_ids.without(kind, let_in[kind])
            numbers = {name: i for i, name in enumerate(old) if name}
            unknown = [name for name in new if name and name not in numbers]
            numbers |= {name: count[known] + i for i, name in enumerate(unknown)}
            places[kind] = np.array([numbers.get(name, -1) for name in new])
            ids[kind] = as_ids([*old, *unknown])
            removed[kind] = np.pad(gone, (0, len(unknown)))
        else:
            size = max(count.values())
            back = [str(i) for i in np.flatnonzero(gone) if i < count[grown] and occurring[i]]
            _refuse(kind, [word for word in back if word not in let_in[kind]])
            places[kind], ids[kind] = np.arange(count[grown]), np.zeros(0, object)
            removed[kind] = np.pad(gone, (0, size - count[known]))
            removed[kind][[int(word) for word in let_in[kind] if word in back]] = False
        notes.append(_counted(len(removed[kind]) - count[known], f"new {kind}"))
    size = {kind: len(removed[kind]) for kind in KINDS}
    splits = {
        split: np.stack([places[kind][getattr(grown, split)[:, column]] for column, kind in enumerate(KINDS)], axis=1)
        for split in SPLITS
    }
    features = {}
    for modality, rows in grown.features.items():
        table = np.zeros((size["item"], rows.shape[1]), np.float32)
        here = places["item"] >= 0
        table[places["item"][here]] = rows[here]
        table[removed["item"]] = 0
        if modality in known.removed_modalities:
            raise InputError(f"modality {modality} was removed by an earlier request, and the grown data holds it")
        features[modality] = table
    dataset = Dataset(
        name=known.name,
        num_users=size["user"],
        num_items=size["item"],
        train=splits["train"],
        valid=splits["valid"],
        test=splits["test"],
        features=features,
        removed_users=removed["user"],
        removed_items=removed["item"],
        removed_modalities=known.removed_modalities,
        user_ids=ids["user"],
        item_ids=ids["item"],
        removed_ids=removed_ids,
    )
    before, now = (_keys(data, size["item"]) for data in (known, dataset))
    notes.append(_counted(np.isin(now, before, invert=True).sum(), "new interaction"))
    lost = np.isin(before, now, invert=True).sum()
    if lost:
        gone = _counted(lost, "interaction")
        notes.append(f"no longer there: {gone} of the model's data; training alone does not forget what it has learned")
    return dataset, notes


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _keys(dataset: Dataset, num_items: int) -> np.ndarray:
    """int64 [n], one number for each pair of any split."""
    pairs = np.concatenate([getattr(dataset, split) for split in SPLITS]).astype(np.int64)
    return pairs[:, 0] * num_items + pairs[:, 1]


def _occurring(dataset: Dataset, kind: str) -> np.ndarray:
    """bool, by number: whether a user or an item has a pair, or an item a feature."""
    column, size = (0, dataset.num_users) if kind == "user" else (1, dataset.num_items)
    found = np.zeros(size, bool)
    for split in SPLITS:
        found[getattr(dataset, split)[:, column]] = True
    if kind == "item":
        for rows in dataset.features.values():
            found |= rows.any(axis=1)
    return found


def _readmitted(words: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for word in words:
        kind, _, name = word.partition(":")
        if kind not in found or not name:
            raise InputError(f"readmit {word!r}: expected user:ID or item:ID")
        found[kind].add(name)
    return found


def _refuse(kind: str, back: Sequence[str]) -> None:
    if back:
        more = f" and {len(back) - 1} more" if len(back) > 1 else ""
        raise InputError(
            f"{kind} {back[0]}{more} was removed by an earlier request and is in the grown data; take it out, or let it in with "
            f"--readmit {kind}:{back[0]}"
        )
