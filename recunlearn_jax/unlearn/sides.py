"""The pairs of a data set from both sides, as host matrices: what delta reads of users and of items, for all rows or for some."""

from typing import NamedTuple

import numpy as np
import scipy.sparse

from recunlearn_jax.backbones.base import Nodes
from recunlearn_jax.graph import keep_entries

KINDS: tuple[Nodes, ...] = ("users", "items")
ByKind = dict[Nodes, np.ndarray]
OTHER: dict[Nodes, Nodes] = {"users": "items", "items": "users"}


class Side(NamedTuple):
    """Some users or items, k rows, with their edges to the other kind, m partners."""

    mean: scipy.sparse.csr_array  # float32 [k, m], 1 / degree of the row
    spread: scipy.sparse.csr_array  # float32 [k, m], 1 / sqrt of both degrees, the weights of A_hat
    degree: np.ndarray  # int64 [k]


class Sides(NamedTuple):
    """Pairs, compressed by user and by item. What is taken away is left out when rows are read, so that a request edits no matrix."""

    edges: dict[Nodes, scipy.sparse.csr_array]  # int32 [n, m], which pair it is
    degree: ByKind  # int64 [n], of the pairs that stay
    stays: np.ndarray | None = None  # bool, of each pair; all where None

    def without(self, pairs: np.ndarray, gone: np.ndarray) -> "Sides":
        """The sides without some pairs.

        Args:
            pairs: int [n, 2], all of them, as given to `sides`.
            gone: bool [n].
        """
        lost = dict(zip(KINDS, pairs[gone].T, strict=True))
        degree: ByKind = {
            kind: self.degree[kind] - np.bincount(lost[kind], minlength=len(self.degree[kind])) for kind in KINDS
        }
        return Sides(self.edges, degree, ~gone)

    def of(self, kind: Nodes, rows: np.ndarray | slice = slice(None)) -> Side:
        """Some users or items, int [k], or all."""
        edges = self.edges[kind][rows]
        if self.stays is not None:
            edges = keep_entries(edges, self.stays[edges.data])
        starts, partners = edges.indptr, edges.indices
        degree = self.degree[kind][rows]
        own = np.repeat(degree.astype(np.float32), np.diff(starts))
        both = own * self.degree[OTHER[kind]][partners].astype(np.float32)
        mean, spread = (
            scipy.sparse.csr_array((np.float32(1) / weights, partners, starts), shape=edges.shape)
            for weights in (own, np.sqrt(both))
        )
        return Side(mean, spread, degree)

    def of_rows(self, rows: ByKind) -> dict[Nodes, Side]:
        """Some users and some items, int [k] each."""
        return {kind: self.of(kind, rows[kind]) for kind in KINDS}

    def partners(self, kind: Nodes, rows: np.ndarray) -> np.ndarray:
        """Those that some users or items have, int [k], ascending."""
        return np.unique(self.of(kind, rows).mean.indices)


def sides(pairs: np.ndarray, num_users: int, num_items: int) -> Sides:
    """Both sides of some pairs, int [n, 2], sorted by user and item."""
    degree: ByKind = {
        "users": np.bincount(pairs[:, 0], minlength=num_users),
        "items": np.bincount(pairs[:, 1], minlength=num_items),
    }
    starts = np.concatenate([[0], np.cumsum(degree["users"])]).astype(np.int32)
    which = np.arange(len(pairs), dtype=np.int32)
    by_user = scipy.sparse.csr_array((which, pairs[:, 1], starts), shape=(num_users, num_items))
    return Sides({"users": by_user, "items": by_user.T.tocsr()}, degree)
