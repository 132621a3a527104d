"""Check 8, shilling: planted users who push an item into the lists of others, and are forgotten afterwards.

Bandwagon attack: each shill has the target and well-known items, so that the users of those items are shown the target. A model that has
forgotten the shills shows the target to as many users as one that never saw them.

Source: Lam and Riedl 2004, "Shilling recommender systems for fun and profit" (WWW), the bandwagon attack as named by Burke et al. 2005.
"""

from typing import NamedTuple

import jax
import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Planted, Row, Subject
from recunlearn_jax.audit.planting import add_users
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import ranks_found, task_on
from recunlearn_jax.verdict import Figure


class Shills(NamedTuple):
    """What was planted."""

    targets: np.ndarray  # int32 [n], pushed items
    users: np.ndarray  # int32 [n * group], the added users, all to be forgotten


def plant_shills(
    dataset: Dataset, count: int, *, group: int = 40, fillers: int = 10, spared: np.ndarray | None = None, seed: int = 0
) -> tuple[Dataset, Shills]:
    """Add groups of users to the train set, each group pushing one little-known item.

    Args:
        dataset: to plant in.
        count: n, number of targets.
        group: users per target.
        fillers: further items per user, drawn by popularity.
        spared: items that must not become targets.
        seed: of all draws.

    Returns:
        The data set with count * group more users, and what was planted.

    Raises:
        InputError: the data has too few little-known items.
    """
    rng = np.random.default_rng([seed, 13])
    popularity = np.bincount(dataset.train[:, 1], minlength=dataset.num_items)
    eligible = np.flatnonzero((popularity >= 3) & (popularity <= 20) & ~dataset.removed_items)
    eligible = np.setdiff1d(eligible, [] if spared is None else spared)
    if not 1 <= count <= len(eligible):
        raise InputError(
            f"{count} shilling targets asked for; with {len(eligible)} items of 3 to 20 interactions, 1 to {len(eligible)} are possible"
        )
    targets = rng.choice(eligible, count, replace=False).astype(np.int32)
    weights = popularity.astype(float)
    weights[targets] = 0  # no shill knows another target
    known = min(fillers, int((weights > 0).sum()))
    histories = [
        np.append(rng.choice(dataset.num_items, known, replace=False, p=weights / weights.sum()), target)
        for target in np.repeat(targets, group)
    ]
    planted, users = add_users(dataset, histories)
    return planted, Shills(targets, users)


def target_exposure(embedding: jax.Array, shills: Shills, retain: Dataset, k: int = 20) -> float:
    """Over all pairs of a target and a retained user who does not have it, the share where the target is among the first k.

    Args:
        embedding: Z, float [|U| + |I|, d].
        shills: what was planted.
        retain: data without the shills.
        k: list length.
    """
    users = np.unique(retain.train[:, 0])
    has = retain.train_matrix[users][:, shills.targets].toarray() > 0
    pairs = np.stack([np.repeat(users, len(shills.targets)), np.tile(shills.targets, len(users))], axis=1)[~has.ravel()]
    return float(np.mean(ranks_found(embedding, task_on(retain, pairs)) <= k))


def plant_for_check(dataset: Dataset, count: int, taken: np.ndarray, seed: int) -> tuple[Dataset, Planted]:
    """`plant_shills` in the form of `Check.plant`."""
    dataset, shills = plant_shills(dataset, count, spared=taken, seed=seed)
    return dataset, Planted(shills.users, shills.targets, shills)


def prepare(case: Case) -> Measure:
    """Exposure of the pushed items."""
    shills: Shills | None = case.planted.get("shilling")

    def measure(subject: Subject) -> Row:
        if shills is None:
            return {}
        return {"shilling exposure@20": target_exposure(subject.model.rows, shills, case.retain, 20)}

    return measure


CHECK = Check(
    8, (Figure("shilling exposure@20", "remembered"),), prepare, plant=plant_for_check, source="Lam and Riedl 2004"
)
