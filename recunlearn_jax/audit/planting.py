"""Adding users to a data set: the part that canaries and shills share."""

import numpy as np

from recunlearn_jax.dataset import Dataset


def add_users(dataset: Dataset, histories: list[np.ndarray]) -> tuple[Dataset, np.ndarray]:
    """A data set with one more user for each history.

    Args:
        dataset: to add to. Its item graphs come from content alone, so they stay as they are.
        histories: the train items of each new user, int [n_i], each item once.

    Returns:
        The larger data set, and the ids of the new users, int32 [len(histories)].
    """
    users = np.arange(dataset.num_users, dataset.num_users + len(histories), dtype=np.int32)
    rows = [(user, item) for user, items in zip(users, histories, strict=True) for item in sorted(items)]
    larger = dataset.replace(
        num_users=dataset.num_users + len(users),
        train=np.concatenate([dataset.train, np.array(rows, np.int32).reshape(-1, 2)]),
        removed_users=np.concatenate([dataset.removed_users, np.zeros(len(users), bool)]),
        user_ids=[*dataset.user_ids, *(f"(planted {user})" for user in users)] if len(dataset.user_ids) else (),
    )
    return larger, users
