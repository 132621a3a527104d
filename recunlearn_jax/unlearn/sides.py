"""The pairs of a data set from both sides, as host matrices: what delta reads of users and of items."""

from typing import NamedTuple

import numpy as np
import scipy.sparse

from recunlearn_jax.backbones.base import Nodes

KINDS: tuple[Nodes, ...] = ("users", "items")
ByKind = dict[Nodes, np.ndarray]
# Whose rows move, and their partners.
IN_TURN: tuple[tuple[Nodes, Nodes], ...] = (("items", "users"), ("users", "items"))


class Side(NamedTuple):
    """Users or items, with their edges to the other kind; n rows, m partners."""

    mean: scipy.sparse.csr_array  # float32 [n, m], 1 / degree of the row
    spread: scipy.sparse.csr_array  # float32 [n, m], 1 / sqrt of both degrees, the weights of A_hat
    degree: np.ndarray  # int64 [n]

    def of(self, rows: np.ndarray) -> "Side":
        """The same for some rows, int [k]."""
        return Side(self.mean[rows], self.spread[rows], self.degree[rows])


Sides = dict[Nodes, Side]


def sides(pairs: np.ndarray, num_users: int, num_items: int) -> Sides:
    """Both sides of some pairs, int [n, 2]."""
    ends: dict[Nodes, tuple[np.ndarray, int]] = {"users": (pairs[:, 0], num_users), "items": (pairs[:, 1], num_items)}
    degree = {kind: np.bincount(ids, minlength=size) for kind, (ids, size) in ends.items()}
    root = np.sqrt(degree["users"][pairs[:, 0]].astype(np.float32) * degree["items"][pairs[:, 1]].astype(np.float32))
    found: Sides = {}
    for kind, partners in IN_TURN:
        (rows, n), (columns, m) = ends[kind], ends[partners]
        weights = (np.float32(1) / degree[kind][rows].astype(np.float32), np.float32(1) / root)
        mean, spread = (scipy.sparse.csr_array((w, (rows, columns)), shape=(n, m)) for w in weights)
        found[kind] = Side(mean, spread, degree[kind])
    return found
