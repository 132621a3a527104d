"""Serving: the best items for a user, with nothing among them that was forgotten."""

import jax
import numpy as np

from recunlearn_jax.arrays import power_of_two
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError, check_type
from recunlearn_jax.evaluate import described, list_length, top_items

_lists = jax.jit(top_items, static_argnames="k")


def recommend(embedding: jax.Array, dataset: Dataset, users: np.ndarray, k: int = 20) -> np.ndarray:
    """The k best items for some users; removed items, and items that a user already has in any split, are never shown.

    Args:
        embedding: Z, float [|U| + |I|, d].
        dataset: the (retained) data of the model.
        users: int [n], each named once.
        k: length of the lists, at least 1; cut to |I|.

    Returns:
        int32 [n, k], best first; -1 where fewer than k items are left for a user.

    Raises:
        InputError: a user is not a whole number, is unknown or named twice, or has no train interaction to recommend from; k is not a whole
            number of at least 1; or the rows are not those of this data.
    """
    check_type(dataset, Dataset, "dataset", "the data of a model")
    nodes = dataset.num_users + dataset.num_items
    if getattr(embedding, "shape", ())[:-1] != (nodes,):
        raise InputError(
            f"embedding: {described(embedding)}; [{nodes}, d] is allowed, a row for each user and item of the data, such as `model.rows`"
        )
    users = np.asarray(users)
    if users.ndim != 1:
        raise InputError(f"users: shape {users.shape}; a list of users is allowed")
    if len(users) and users.dtype.kind not in "iu":
        raise InputError(f"users are {users.dtype}; whole numbers are allowed")
    users = users.astype(np.int64)
    k = list_length(k)
    if len(np.unique(users)) != len(users):
        raise InputError("a user is named twice; name each user once")
    unknown = users[~np.isin(users, dataset.train[:, 0])]
    if len(unknown):
        first = int(unknown[0])
        name = dataset.word("user", first) if 0 <= first < dataset.num_users else ""
        raise InputError(
            f"user {name or first} has no interaction in the data this model holds (unknown or forgotten), so nothing can be recommended"
        )
    row = np.full(dataset.num_users, -1)
    row[users] = np.arange(len(users))
    every = np.concatenate([dataset.train, dataset.valid, dataset.test])
    own = every[row[every[:, 0]] >= 0]
    # Sizes are padded to powers of two, so that the next users are served by a program that is already compiled.
    wanted, known = power_of_two(len(users)), power_of_two(len(own))
    masked = np.full((known, 2), (wanted, 0), np.int32)
    masked[: len(own)] = np.stack([row[own[:, 0]], own[:, 1]], axis=1)
    rows, items = np.pad(users, (0, wanted - len(users))), embedding[dataset.num_users :]
    lists = _lists(embedding[rows], items, masked, dataset.removed_items, k=min(k, dataset.num_items))
    return np.asarray(lists)[: len(users)]
