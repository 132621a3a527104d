"""The lists that users are shown, which checks and streams read."""

import jax
import numpy as np

from recunlearn_jax.dataset import Dataset
from recunlearn_jax.serving import recommend


def top_lists(embedding: jax.Array, dataset: Dataset, users: np.ndarray, k: int = 20, block: int = 2048) -> np.ndarray:
    """The lists that some users are shown, int32 [n, k], best first; -1 where a list ends early.

    Args:
        embedding: Z, float [|U| + |I|, d].
        dataset: the (retained) data; removed items, and items that the user already has in any split, are not shown.
        users: int [n], each with a train pair.
        k: list length.
        block: users at a time.
    """
    parts = [users[start : start + block] for start in range(0, len(users), block)]
    return np.concatenate([recommend(embedding, dataset, part, k) for part in parts])
