"""Serving: the best items for a user, with nothing in them that was forgotten."""

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import top_items


def recommend(embedding: jax.Array, dataset: Dataset, users: np.ndarray, k: int = 20) -> np.ndarray:
    """The k best items for some users: nothing they already have, in whichever split, and no removed item, is ever shown.

    Args:
        embedding: Z, float [|U| + |I|, d].
        dataset: the (retained) data of the model.
        users: int [n], each named once.
        k: length of the lists, at least 1; cut to |I|.

    Returns:
        int32 [n, k], best first; -1 where fewer than k items are left for a user.

    Raises:
        InputError: a user is unknown or named twice, or has no train interaction to recommend from; or k < 1.
    """
    users = np.asarray(users)
    if k < 1:
        raise InputError(f"k is {k}; at least 1 is allowed")
    if len(np.unique(users)) != len(users):
        raise InputError("a user is named twice; name each user once")
    unknown = users[~np.isin(users, dataset.train[:, 0])]
    if len(unknown):
        raise InputError(
            f"user {unknown[0]} has no interaction in the data this model holds (unknown or forgotten), so nothing can be recommended"
        )
    row = np.full(dataset.num_users, -1)
    row[users] = np.arange(len(users))
    every = np.concatenate([dataset.train, dataset.valid, dataset.test])
    own = every[row[every[:, 0]] >= 0]
    masked = np.stack([row[own[:, 0]], own[:, 1]], axis=1)
    items = embedding[dataset.num_users :]
    hidden = jnp.asarray(dataset.removed_items)
    return np.asarray(
        top_items(embedding[jnp.asarray(users)], items, jnp.asarray(masked), hidden, min(k, dataset.num_items))
    )
