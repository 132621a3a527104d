"""Drawing batches on the device: permutations of the pairs, and exact negatives.

Draws are made so that training can be replayed without some of its pairs: the remaining pairs keep their places and their negatives, except
where a negative is allowed only now.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from recunlearn_jax.dataset import pair_keys

PROPOSALS = 4  # items proposed for a negative before one is drawn among those allowed


class Sampler(NamedTuple):
    """Pairs to draw positives from and, for each user, the items allowed as negatives. Arrays may be longer than what they hold."""

    pairs: jax.Array  # int32 [capacity, 2], (user, item); the first num_pairs are real
    num_pairs: jax.Array  # int32 scalar
    candidates: jax.Array  # int32 [|I|], items allowed as negatives, ascending; the first num_candidates are real
    num_candidates: jax.Array  # int32 scalar
    candidate_position: jax.Array  # int32 [|I|], of each item in `candidates`; -1 for one that is not in it
    history_pointers: jax.Array  # int32 [|U| + 1]
    history: jax.Array  # int32 [history capacity], ascending positions in `candidates` of each user's own items
    places: (
        jax.Array
    )  # int32 [capacity], the row of `pairs` at each place of an epoch; -1 for a place that a replay leaves empty
    num_places: jax.Array  # int32 scalar


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

    If a user has every candidate in its history, its pairs have weight 0, see `has_negative`.
    """
    allowed = np.zeros(num_items, bool)
    allowed[history[:, 1] if candidates is None else candidates] = True
    items = np.flatnonzero(allowed)
    position = np.cumsum(allowed, dtype=np.int32) - 1
    relevant = history if candidates is None else history[allowed[history[:, 1]]]
    keys = pair_keys(relevant, num_items)
    if (keys[1:] < keys[:-1]).any():  # data sets hold their pairs in order
        relevant = relevant[np.argsort(keys, kind="stable")]
    degree = np.bincount(relevant[:, 0], minlength=num_users)

    def padded(array, size):
        size = max(size or len(array), 1)  # a gather from an empty array cannot be compiled
        array = array.astype(np.int32, copy=False)
        return jnp.asarray(np.pad(array, [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1)))

    rows = padded(pairs, capacity)
    return Sampler(
        pairs=rows,
        num_pairs=jnp.int32(len(pairs)),
        candidates=padded(items, num_items),
        num_candidates=jnp.int32(len(items)),
        candidate_position=jnp.asarray(np.where(allowed, position, -1), jnp.int32),
        history_pointers=jnp.asarray(np.concatenate([[0], np.cumsum(degree)]), jnp.int32),
        history=padded(position[relevant[:, 1]], history_capacity),
        places=jnp.arange(len(rows), dtype=jnp.int32),
        num_places=jnp.int32(len(pairs)),
    )


def replayed(sampler: Sampler, kept: np.ndarray) -> Sampler:
    """The sampler with its pairs at the places that they had in a larger set; the other places stay empty.

    Args:
        sampler: of the pairs that are kept, in their order.
        kept: bool [n], of the larger set's pairs; n is at most the sampler's capacity.
    """
    places = np.where(kept, np.cumsum(kept) - 1, -1)
    places = np.pad(places, (0, len(sampler.places) - len(places)), constant_values=-1)
    return sampler._replace(places=jnp.asarray(places, jnp.int32), num_places=jnp.int32(len(kept)))


def has_negative(sampler: Sampler, users: Int[Array, "B"]) -> Bool[Array, "B"]:
    """For each user, whether there is an item that may be a negative."""
    own = sampler.history_pointers[users + 1] - sampler.history_pointers[users]
    return own < sampler.num_candidates


def draw_negatives(key: jax.Array, sampler: Sampler, users: Int[Array, "B"]) -> Int[Array, "B"]:
    """One negative for each user, uniform over the candidates outside the user's history; any item if there is none.

    Proposals are drawn from all items, by the key alone, and the first that is allowed is taken: two samplers that differ in a few pairs
    draw the same except for those. If none of the proposals is allowed, a rank r is drawn, and the r-th allowed candidate is found by
    binary search in the sorted history: exact, without a loop until success.

    Args:
        key: typed PRNG key.
        users: int32 [B].

    Returns:
        int32 [B] item ids.
    """
    propose, choose = jax.random.split(key)
    proposals = jax.random.randint(propose, (PROPOSALS, *users.shape), 0, len(sampler.candidate_position))
    start, end = sampler.history_pointers[users], sampler.history_pointers[users + 1]
    position = sampler.candidate_position[proposals]
    allowed = (position >= 0) & ~_in_history(sampler, start, end, position)
    rank = jax.random.randint(choose, users.shape, 0, sampler.num_candidates - (end - start))
    drawn = sampler.candidates[rank + _skipped(sampler, start, end, rank)]
    first = jnp.argmax(allowed, axis=0)
    return jnp.where(jnp.any(allowed, axis=0), jnp.take_along_axis(proposals, first[None], axis=0)[0], drawn)


def _in_history(sampler: Sampler, start: jax.Array, end: jax.Array, position: Int[Array, "n B"]) -> jax.Array:
    """Whether positions among the candidates are in a user's history, bool [n, B]."""

    def entry(at):
        return sampler.history[jnp.minimum(at, len(sampler.history) - 1)]

    start, end = (jnp.broadcast_to(bound, position.shape) for bound in (start, end))
    at = start + _bisect(start, end, lambda middle: entry(start + middle) < position)
    return (at < end) & (entry(at) == position)


def _skipped(sampler: Sampler, start: jax.Array, end: jax.Array, rank: Int[Array, "B"]) -> Int[Array, "B"]:
    """Number of history items before the rank-th candidate outside the history."""

    def before(middle):
        return sampler.history[jnp.minimum(start + middle, len(sampler.history) - 1)] - middle <= rank

    return _bisect(start, end, before)


def _bisect(start: jax.Array, end: jax.Array, before: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Number of entries of each history for whose index `before` holds; these come first. int32, in the shape of `start`."""

    def halve(bounds):
        low, high = bounds
        middle = (low + high) // 2
        go_on, open_ = before(middle), low < high
        return jnp.where(open_ & go_on, middle + 1, low), jnp.where(open_ & ~go_on, middle, high)

    bounds = jnp.zeros_like(start), end - start
    return jax.lax.while_loop(lambda bounds: jnp.any(bounds[0] < bounds[1]), halve, bounds)[0]


def draw_order(key: jax.Array, sampler: Sampler) -> Int[Array, "capacity"]:
    """A random permutation of the places in which the real ones come first, int32 [capacity]."""
    capacity = len(sampler.places)
    bits = jax.random.bits(key, (capacity,)) >> 1
    real = jnp.arange(capacity) < sampler.num_places
    return jnp.argsort(jnp.where(real, bits, jnp.uint32(2**32 - 1))).astype(jnp.int32)


def draw_pairs(
    key: jax.Array, sampler: Sampler, size: int
) -> tuple[Int[Array, "B"], Int[Array, "B"], Int[Array, "B"], Float[Array, "B"]]:
    """A batch drawn with replacement, for loops that are not organised in epochs.

    Returns:
        users, positives, negatives int32 [size] and weights float32 [size], 0 where there are no pairs or no negative.
    """
    choose, negate = jax.random.split(key)
    rows = jax.random.randint(choose, (size,), 0, jnp.maximum(sampler.num_pairs, 1))
    users, positives = sampler.pairs[rows].T
    weights = (has_negative(sampler, users) & (sampler.num_pairs > 0)).astype(jnp.float32)
    return users, positives, draw_negatives(negate, sampler, users), weights
