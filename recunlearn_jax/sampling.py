"""Drawing batches on the device: permutations of the pairs there are, and exact negatives without rejection."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from recunlearn_jax.errors import InputError


class Sampler(NamedTuple):
    """Pairs to draw positives from and, for each user, the items a negative may be. Arrays may be longer than what they hold."""

    pairs: jax.Array  # int32 [capacity, 2], (user, item); the first num_pairs are real
    num_pairs: jax.Array  # int32 scalar
    candidates: jax.Array  # int32 [|I|], items allowed as negatives, ascending; the first num_candidates are real
    num_candidates: jax.Array  # int32 scalar
    history_pointers: jax.Array  # int32 [|U| + 1]
    history: jax.Array  # int32 [history capacity], ascending positions in `candidates` of each user's own items


def build_sampler(
    pairs: np.ndarray,
    history: np.ndarray,
    num_users: int,
    num_items: int,
    *,
    candidates: np.ndarray | None = None,
    capacity: int | None = None,
    history_capacity: int | None = None,
) -> Sampler:
    """Sampler on the device.

    Args:
        pairs: int [n, 2], positives (or forget pairs).
        history: int [h, 2], pairs that are never negatives: the user's train history.
        num_users, num_items: size of the id space.
        candidates: items allowed as negatives; by default the items in `history`.
        capacity, history_capacity: lengths to pad to, so that a smaller set reuses a compiled function.

    Raises:
        InputError: a user in `pairs` has every candidate in its history, so no negative exists.
    """
    allowed = np.zeros(num_items, bool)
    allowed[history[:, 1] if candidates is None else candidates] = True
    items = np.flatnonzero(allowed)
    position = np.cumsum(allowed) - 1
    relevant = history[allowed[history[:, 1]]]
    # Data sets hold their pairs in this order; a stable sort only looks then.
    relevant = relevant[np.argsort(relevant[:, 0].astype(np.int64) * num_items + relevant[:, 1], kind="stable")]
    degree = np.bincount(relevant[:, 0], minlength=num_users)
    full = np.flatnonzero(degree[pairs[:, 0]] >= len(items))
    if len(full):
        user = pairs[full[0], 0]
        raise InputError(
            f"user {user} has interacted with all {len(items)} items of the train set, so no negative can be drawn for it"
        )

    def padded(array, size):
        size = max(size or len(array), 1)  # a gather from an empty array cannot be compiled
        return jnp.asarray(np.pad(array.astype(np.int32), [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1)))

    return Sampler(
        pairs=padded(pairs, capacity),
        num_pairs=jnp.int32(len(pairs)),
        candidates=padded(items, num_items),
        num_candidates=jnp.int32(len(items)),
        history_pointers=jnp.asarray(np.concatenate([[0], np.cumsum(degree)]), jnp.int32),
        history=padded(position[relevant[:, 1]], history_capacity),
    )


def draw_negatives(key: jax.Array, sampler: Sampler, users: Int[Array, "B"]) -> Int[Array, "B"]:
    """One negative for each user, uniform over the candidates outside the user's history.

    A rank r among the allowed items is drawn and turned into the r-th candidate that is not in the sorted history by binary search:
    exact, and no loop until success as rejection would need.

    Args:
        key: typed PRNG key.
        users: int32 [B].

    Returns:
        int32 [B] item ids.
    """
    start, end = sampler.history_pointers[users], sampler.history_pointers[users + 1]
    rank = jax.random.randint(key, users.shape, 0, sampler.num_candidates - (end - start))

    def halve(_, bounds):
        low, high = bounds  # the number of history items before the r-th allowed item is in [low, high]
        middle = (low + high) // 2
        before = sampler.history[jnp.minimum(start + middle, len(sampler.history) - 1)] - middle <= rank
        open_ = low < high
        return jnp.where(open_ & before, middle + 1, low), jnp.where(open_ & ~before, middle, high)

    steps = max(1, len(sampler.history)).bit_length()
    skipped, _ = jax.lax.fori_loop(0, steps, halve, (jnp.zeros_like(rank), end - start))
    return sampler.candidates[rank + skipped]


def draw_order(key: jax.Array, sampler: Sampler) -> Int[Array, "capacity"]:
    """A random permutation of the rows of `pairs` in which the real ones come first, int32 [capacity]."""
    capacity = len(sampler.pairs)
    bits = jax.random.bits(key, (capacity,)) >> 1
    real = jnp.arange(capacity) < sampler.num_pairs
    return jnp.argsort(jnp.where(real, bits, jnp.uint32(2**32 - 1))).astype(jnp.int32)


def draw_pairs(
    key: jax.Array, sampler: Sampler, size: int
) -> tuple[Int[Array, "B"], Int[Array, "B"], Int[Array, "B"], Float[Array, "B"]]:
    """A batch drawn with replacement, for loops that are not organised in epochs.

    Returns:
        users, positives, negatives int32 [size] and weights float32 [size], all 0 where there are no pairs.
    """
    choose, negate = jax.random.split(key)
    rows = jax.random.randint(choose, (size,), 0, jnp.maximum(sampler.num_pairs, 1))
    users, positives = sampler.pairs[rows].T
    weights = jnp.full((size,), sampler.num_pairs > 0, jnp.float32)
    return users, positives, draw_negatives(negate, sampler, users), weights
