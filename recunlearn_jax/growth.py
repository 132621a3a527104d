"""Continued training on data that has grown: new users, items and interactions. Removed users, items and modalities stay removed. Nothing
remembers removed single pairs and feature rows: pairs that come back count as new, and new content of known items is reported.

What the model knows keeps its number and its trained rows; what is new gets the next number and the rows of a fresh model.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse

from recunlearn_jax.backbones.base import Params
from recunlearn_jax.dataset import SPLITS, Dataset, as_ids, pair_keys
from recunlearn_jax.errors import InputError, check_type, counted
from recunlearn_jax.graph import keep_items
from recunlearn_jax.recommender import Recommender, set_up
from recunlearn_jax.removed_ids import RemovedIds
from recunlearn_jax.settings import check_seed
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.train import initial_params, train

KINDS = ("user", "item")


def grow(
    model: Recommender,
    dataset: Dataset,
    *,
    readmit: Sequence[str] = (),
    seed: int = 0,
    run: str | Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
) -> Recommender:
    """Train a model further on data that has grown, with a fresh optimizer and early stopping as in `fit`.

    Args:
        model: an original or a release.
        dataset: from `merged`; its numbers begin with those of the model's data.
        readmit: as for `merged`.
        seed, run, on_epoch: as for `fit`.

    Raises:
        InputError: the data is not what `merged` makes from the model's: it has fewer users or items, different ones under the same
            numbers, other modalities or feature widths, or does not mark what was removed.
    """
    check_type(model, Recommender, "model", "`runs.load` reads a model folder")
    check_type(dataset, Dataset, "dataset", "`merged` makes it")
    check_seed(seed)
    _check_grown(model.dataset, dataset, _readmitted(readmit))
    before, after = ({m: data.features[m].shape[1] for m in data.modalities} for data in (model.dataset, dataset))
    if before != after:
        raise InputError(
            f"the grown data has modalities {after or 'none'}, the model {before or 'none'}; they must be the same"
        )
    with stopwatch() as seconds:
        setup = set_up(dataset, model.config)
        solved = setup.backbone.solve is not None  # solved anew, from the data alone
        start = None if solved else grown_params(model, initial_params(setup, seed), dataset)
        trained = train(setup, seed, start=start, run=run, on_epoch=on_epoch)
    # Without its seed, which alone is not enough to replay the training.
    info = {key: value for key, value in trained.info.items() if key != "seed"}
    return dataclasses.replace(trained, info=info, seconds=seconds + trained.seconds)


def _check_grown(known: Dataset, grown: Dataset, let_in: Mapping[str, set[str]]) -> None:
    """Check that data begins with the users and items of a model, and that the removed ones are still marked.

    Raises:
        InputError: it does not.
    """
    for kind in KINDS:
        before, now = (getattr(data, f"num_{kind}s") for data in (known, grown))
        old, new = (getattr(data, f"{kind}_ids") for data in (known, grown))
        if now < before or bool(len(old)) != bool(len(new)) or not np.array_equal(old, new[: len(old)]):
            raise InputError(
                f"the grown data does not begin with the {before} {kind}s of the model's data; `merged` makes it so"
            )
        gone, still = (getattr(data, f"removed_{kind}s")[:before] for data in (known, grown))
        _refuse(kind, [word for word in np.flatnonzero(gone & ~still).astype(str) if word not in let_in[kind]])


def grown_params(model: Recommender, fresh: Params, dataset: Dataset) -> Params:
    """The parameters of a model, with fresh rows for new and removed users and items, and for new content of items.

    Args:
        model: to continue from.
        fresh: parameters for the grown data, rows of known users and items first.
        dataset: the grown data.
    """
    removed = {"users": model.dataset.removed_users, "items": model.dataset.removed_items}
    grown = {}
    for name, table in fresh.items():
        rows = model.backbone.tables.get(name)
        if rows not in removed:
            grown[name] = model.params[name]
            continue
        stays, modality = ~removed[rows], model.backbone.of_modality(name)
        if rows == "items" and modality is not None:
            before, now = (data.features[modality][: len(stays)] for data in (model.dataset, dataset))
            stays = stays & (before == now).all(axis=1)
        kept = jnp.asarray(np.flatnonzero(stays))
        grown[name] = table.at[kept].set(model.params[name][kept])
    return grown


class Placed(NamedTuple):
    """Users or items of grown data in the numbers of the model."""

    places: np.ndarray  # int64, the model's number for each of the grown data's; -1 for an id without any data
    ids: np.ndarray  # str, one per number; empty if there are only numbers
    removed: np.ndarray  # bool, by number
    removed_ids: RemovedIds


def merged(known: Dataset, grown: Dataset, readmit: Sequence[str] = ()) -> tuple[Dataset, list[str]]:
    """The grown data in the numbers of the model: what is known keeps its number, what is new gets the next one.

    Args:
        known: the model's data.
        grown: the data as it is now, with its own numbers if both have the operator's ids, else with the same numbers.
        readmit: removed users and items that may come back, such as "user:ann".

    Returns:
        The data set, and notes: how much is new, and what is no longer there. Users and items of the model that have no pair left stay in
        the id space. Item graphs are those of the grown data, where it has any.

    Raises:
        InputError: a removed user, item or modality is in the grown data, or only one of the two sets has ids.
    """
    check_type(known, Dataset, "known", "the data of a model")
    check_type(grown, Dataset, "grown", "`read_dataset` reads a data folder")
    let_in = _readmitted(readmit)
    for modality in grown.modalities:
        if modality in known.removed_modalities:
            raise InputError(f"modality {modality} was removed by an earlier request, and the grown data holds it")
    users = _placed("user", known, grown, let_in["user"], known.removed_ids)
    items = _placed("item", known, grown, let_in["item"], users.removed_ids)
    splits = {}
    for split in SPLITS:
        pairs = getattr(grown, split)
        splits[split] = np.stack([users.places[pairs[:, 0]], items.places[pairs[:, 1]]], axis=1)
    features, here = {}, items.places >= 0
    for modality, rows in grown.features.items():
        features[modality] = np.zeros((len(items.removed), rows.shape[1]), np.float32)
        features[modality][items.places[here]] = rows[here]
    similarities = {m: _moved(graph, items, features[m]) for m, graph in grown.similarities.items()}
    dataset = Dataset(
        name=known.name,
        num_users=len(users.removed),
        num_items=len(items.removed),
        train=splits["train"],
        valid=splits["valid"],
        test=splits["test"],
        features=features,
        similarities=similarities,
        removed_users=users.removed,
        removed_items=items.removed,
        removed_modalities=known.removed_modalities,
        user_ids=users.ids,
        item_ids=items.ids,
        removed_ids=items.removed_ids,
    )
    return dataset, _about(known, dataset)


def _placed(kind: str, known: Dataset, grown: Dataset, let_in: set[str], removed_ids: RemovedIds) -> Placed:
    old, new = (getattr(data, f"{kind}_ids") for data in (known, grown))
    gone, occurring = getattr(known, f"removed_{kind}s"), _occurring(grown, kind)
    if bool(len(old)) != bool(len(new)):
        raise InputError(
            f"one of the data sets has {kind} ids of the operator's, the other has not; they must speak the same"
        )
    if not len(old):
        places = np.arange(len(occurring))
        removed = np.pad(gone, (0, max(len(occurring) - len(gone), 0)))
        back = np.flatnonzero(removed[places] & occurring).astype(str).tolist()
        _refuse(kind, [word for word in back if word not in let_in])
        removed[[int(word) for word in back]] = False
        return Placed(places, old, removed, removed_ids)
    back = set(removed_ids.among(kind, new)) - let_in
    _refuse(kind, [word for word, there in zip(new, occurring, strict=True) if there and word in back])
    numbers = {name: i for i, name in enumerate(old) if name}
    unknown = [name for name in new if name and name not in numbers and name not in back]
    numbers |= {name: len(old) + i for i, name in enumerate(unknown)}
    return Placed(
        np.array([numbers.get(name, -1) for name in new]),
        as_ids([*old, *unknown]),
        np.pad(gone, (0, len(unknown))),
        removed_ids.without(kind, let_in),
    )


def _moved(graph: scipy.sparse.csr_array, items: Placed, features: np.ndarray) -> scipy.sparse.csr_array:
    """An item graph of the grown data in the numbers of the model, with edges only between items with content; no removed one has any."""
    edges = graph.tocoo()
    receivers, senders = items.places[edges.row], items.places[edges.col]
    here = (receivers >= 0) & (senders >= 0)
    moved = (edges.data[here], (receivers[here], senders[here]))
    size = len(features)
    return keep_items(scipy.sparse.csr_array(moved, shape=(size, size)), np.any(features != 0, axis=1))


def _about(known: Dataset, dataset: Dataset) -> list[str]:
    """What is new in the merged data, and what is no longer there."""
    before, now = (
        np.concatenate([pair_keys(getattr(data, split), dataset.num_items) for split in SPLITS])
        for data in (known, dataset)
    )
    notes = [
        counted(dataset.num_users - known.num_users, "new user"),
        counted(dataset.num_items - known.num_items, "new item"),
        counted(int(np.isin(now, before, invert=True).sum()), "new interaction"),
    ]
    lost = int(np.isin(before, now, invert=True).sum())
    if lost:
        gone = counted(lost, "interaction")
        notes.append(f"no longer there: {gone} of the model's data; training alone does not forget what it has learned")
    for modality, rows in known.features.items():
        if modality not in dataset.features:
            continue
        came = ~rows.any(axis=1) & ~known.removed_items & dataset.features[modality][: len(rows)].any(axis=1)
        if came.any():
            items = counted(int(came.sum()), "known item")
            notes.append(
                f"{modality} of {items} that had none: new, or removed by an earlier request? Nothing remembers single feature rows"
            )
    return notes


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
