"""Closeness to Gold: the same lists, the same scores, the same distribution over items."""

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.data import Dataset
from recunlearn_jax.serving import recommend


def top_lists(embedding: jax.Array, dataset: Dataset, users: np.ndarray, k: int = 20, block: int = 2048) -> np.ndarray:
    """The lists that some users are shown, int32 [n, k], best first; -1 where a list ends early.

    Args:
        embedding: Z, float [|U| + |I|, d].
        dataset: the (retained) data; train items and removed items are not shown.
        users: int [n], each with a train pair.
        k: list length.
        block: users at a time.
    """
    parts = [users[start : start + block] for start in range(0, len(users), block)]
    return np.concatenate([recommend(embedding, dataset, part, k) for part in parts])


def overlap(lists: np.ndarray, others: np.ndarray) -> float:
    """Mean share of a list that is in the other list of the same user.

    Args:
        lists, others: int [n, k]; -1 is no item.
    """
    common = ((lists[:, :, None] == others[:, None, :]) & (lists[:, :, None] >= 0)).any(axis=2).sum(axis=1)
    return float(np.mean(common / np.maximum((lists >= 0).sum(axis=1), 1)))


@jax.jit
def kl_divergence(embedding: jax.Array, other: jax.Array, users: jax.Array, items: jax.Array) -> jax.Array:
    """Mean over users of KL(p || q), p and q the softmax of the scores of all items under two models.

    Args:
        embedding, other: Z of the two models, float [N, d]; p comes from the first.
        users, items: int32 nodes.

    Returns:
        float scalar, >= 0.

    >>> z = jnp.array([[1.0], [1.0], [0.0]])
    >>> float(kl_divergence(z, z, jnp.array([0]), jnp.array([1, 2])))
    0.0
    """

    def of_user(user):
        p = jax.nn.log_softmax(embedding[items] @ embedding[user])
        q = jax.nn.log_softmax(other[items] @ other[user])
        return jnp.sum(jnp.exp(p) * (p - q))

    return jnp.mean(jax.lax.map(of_user, users, batch_size=64))
