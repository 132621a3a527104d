"""What a request changes in A_hat, edge by edge: the edges that go, and those whose weight changes with the degree of an end."""

from typing import NamedTuple

import numpy as np

from recunlearn_jax.arrays import ranges
from recunlearn_jax.graph import inverse_root
from recunlearn_jax.sides import KINDS, Sides


class Edit(NamedTuple):
    """Edges of A_hat to be rewritten. Places are in the graph as it was laid out, before any edge was removed."""

    pairs: int  # number before; edges from items to users have the first places, those from users to items as many after them
    of_users: np.ndarray  # int [k], places of the edges that change, among the edges of users' rows
    of_items: np.ndarray  # int [k], places of the same pairs, among the edges of items' rows
    weights: np.ndarray  # float32 [k], afterwards; 0 for edges that go, and for no others


def edit(before: Sides, after: Sides, by_item: np.ndarray) -> Edit:
    """The edges that a request changes.

    Args:
        before, after: the pairs by user and by item.
        by_item: place of each pair among the edges of items' rows, int32 [n].
    """
    users, items = before.edges["users"], before.edges["items"]
    assert after.stays is not None
    assert after.lost is not None
    lost = after.lost
    # Every edge of an item that has lost one, those that go included; and of a user that has lost one, those to other items.
    starts, ends = (items.indptr[lost["items"] + more] for more in (0, 1))
    of_items = ranges(starts, ends)
    of_users, user, item = items.data[of_items], items.indices[of_items], np.repeat(lost["items"], ends - starts)
    starts, ends = (users.indptr[lost["users"] + more] for more in (0, 1))
    more = ranges(starts, ends)
    other = before.degree["items"][users.indices[more]] == after.degree["items"][users.indices[more]]
    more = more[other]
    of_items, of_users = np.concatenate([of_items, by_item[more]]), np.concatenate([of_users, more])
    user = np.concatenate([user, np.repeat(lost["users"], ends - starts)[other]])
    item = np.concatenate([item, users.indices[more]])
    roots = (inverse_root(after.degree[kind][ids]) for kind, ids in zip(KINDS, (user, item), strict=True))
    weights = next(roots) * next(roots) * after.stays[of_users]
    return Edit(len(after.stays), of_users, of_items, weights)


def places_by_item(before: Sides) -> np.ndarray:
    """Place of each pair among the edges of items' rows, int32 [n]."""
    order = before.edges["items"].data
    places = np.empty_like(order)
    places[order] = np.arange(len(order), dtype=order.dtype)
    return places
