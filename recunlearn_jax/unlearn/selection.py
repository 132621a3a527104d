"""Which rows carry what is forgotten."""

from collections.abc import Collection

import numpy as np

from recunlearn_jax.data import Dataset
from recunlearn_jax.requests import ForgetSet


def touched(
    data: Dataset, forget_set: ForgetSet, limit: int = 0, modalities: Collection[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Users and items whose rows carry what is forgotten, bool [|U|] and [|I|]: the forgotten ones themselves, the two ends of each forget
    pair, and items that lose a feature row; with a limit, only those with at most so many train pairs.

    A popular item's row is held by many others; what one forgotten user left in it is small, and moving it costs everyone.

    Args:
        data: of the original.
        forget_set: resolved on it.
        limit: train pairs; 0 for none.
        modalities: that the model reads; all where None. Content that it never saw touches nothing.
    """
    forgotten = data.train[forget_set.forget]
    masks = []
    for column, whole in ((0, forget_set.users), (1, forget_set.items)):
        mask = np.bincount(forgotten[:, column], minlength=len(whole)) > 0
        if column == 1:
            lost = [rows for m, rows in forget_set.features.items() if modalities is None or m in modalities]
            mask = np.logical_or.reduce([mask, *lost])
        if limit:
            mask &= np.bincount(data.train[:, column], minlength=len(whole)) <= limit
        masks.append(mask | whole)
    return masks[0], masks[1]
