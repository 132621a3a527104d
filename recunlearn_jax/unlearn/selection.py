"""Which rows carry what is forgotten."""

from collections.abc import Collection

import numpy as np

from recunlearn_jax.dataset import Dataset
from recunlearn_jax.requests import ForgetSet


def touched(
    data: Dataset, forget_set: ForgetSet, modalities: Collection[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Users and items whose rows carry what is forgotten, bool [|U|] and [|I|]: the forgotten ones themselves, the two ends of each forget
    pair, and items that lose a feature row.

    Args:
        data: of the original.
        forget_set: resolved on it.
        modalities: those that the model reads; all if None. Content that it never saw touches nothing.
    """
    users, items = data.train[forget_set.forget].T
    lost = [rows for m, rows in forget_set.features.items() if modalities is None or m in modalities]
    return (
        forget_set.users | (np.bincount(users, minlength=data.num_users) > 0),
        np.logical_or.reduce([forget_set.items, np.bincount(items, minlength=data.num_items) > 0, *lost]),
    )
