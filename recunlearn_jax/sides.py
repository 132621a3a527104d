"""The pairs of a data set from both sides, as host matrices: the edges of users and of items, all or some, before a request and after."""

from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse

from recunlearn_jax.arrays import distinct
from recunlearn_jax.graph import inverse_root, keep_entries

Nodes = Literal["users", "items"]
KINDS: tuple[Nodes, ...] = ("users", "items")
ByKind = dict[Nodes, np.ndarray]
OTHER: dict[Nodes, Nodes] = {"users": "items", "items": "users"}


class Near(NamedTuple):
    """The partners' rows of k users or items, summarised."""

    mean: np.ndarray  # float32 [k, d]
    spread: np.ndarray  # float32 [k, d], their sum with the weights of A_hat
    degree: np.ndarray  # [k], number of partners

    def of(self, rows: np.ndarray) -> "Near":
        """The same for some of them, int [n]."""
        return Near(*(part[rows] for part in self))


class Side(NamedTuple):
    """Some users or items, k rows, with their edges to the other kind, m partners."""

    mean: scipy.sparse.csr_array  # float32 [k, m], 1 / degree of the row
    spread: scipy.sparse.csr_array  # float32 [k, m], 1 / sqrt of both degrees, the weights of A_hat
    degree: np.ndarray  # int64 [k]

    def near(self, partners: np.ndarray) -> Near:
        """Their `Near`, from the rows of all partners, float32 [m, d]."""
        return Near(self.mean @ partners, self.spread @ partners, self.degree)


class Change(NamedTuple):
    """What some users or items, k rows, lose with the pairs that go; it holds only what changes, however much stays.

    With X the partners' rows, d and d' the degrees of a row before and after, and 1/sqrt(d_j) a partner's factor in A_hat:

        mean'   = (d mean - sum X_j of the edges that go) / d'
        spread' = (sqrt(d) spread - sum (1/sqrt(d_j) - 1/sqrt(d'_j)) X_j) / sqrt(d'), where 1/sqrt(d'_j) is 0 for an edge that goes

    Where more goes than stays, the difference would be nothing but rounding: there d is 0, and the edges that stay count as lost, with the
    opposite sign.
    """

    gone: scipy.sparse.csr_array  # float32 [k, m], 1 for an edge that goes
    weights: scipy.sparse.csr_array  # float32 [k, m], what is lost of 1 / sqrt(d_j)
    before: np.ndarray  # d, float32 [k, 1], or 0
    after: np.ndarray  # d', at least 1

    def near(self, before: Near, partners: np.ndarray) -> Near:
        """`Near` afterwards, from the one before and the rows of all partners, float32 [m, d]."""
        mean = (self.before * before.mean - self.gone @ partners) / self.after
        return Near(mean, self.spread(before.spread, partners), self.after[:, 0])

    def spread(self, before: np.ndarray, partners: np.ndarray) -> np.ndarray:
        """Their sum with the weights of A_hat afterwards, from the one before, float32 [k, d]."""
        return (np.sqrt(self.before) * before - self.weights @ partners) / np.sqrt(self.after)


class Sides(NamedTuple):
    """Pairs, compressed by user and by item. Removed pairs are left out when rows are read, so that a request edits no matrix."""

    edges: dict[Nodes, scipy.sparse.csr_array]  # int32 [n, m], which pair an edge is
    degree: ByKind  # int64 [n], of the pairs that stay
    stays: np.ndarray | None = None  # bool, for each pair; all if None
    lost: ByKind | None = None  # int [k], users and items that have lost a pair, ascending

    def without(self, pairs: np.ndarray, gone: np.ndarray) -> "Sides":
        """The sides without some pairs.

        Args:
            pairs: int [n, 2], all of them, as given to `sides`.
            gone: places of those that go, int [g].
        """
        ends = dict(zip(KINDS, pairs[gone].T, strict=True))
        degree: ByKind = {kind: self.degree[kind].copy() for kind in KINDS}
        for kind in KINDS:
            np.subtract.at(degree[kind], ends[kind], 1)
        stays = np.ones(len(pairs), bool)
        stays[gone] = False
        return Sides(self.edges, degree, stays, {kind: distinct(ends[kind]) for kind in KINDS})

    def of(self, kind: Nodes, rows: np.ndarray | slice = slice(None)) -> Side:
        """Some users or items, int [k], or all."""
        edges = self.edges_of(kind, rows)
        starts, partners = edges.indptr, edges.indices
        degree = self.degree[kind][rows]
        own = np.repeat(degree.astype(np.float32), np.diff(starts))
        both = own * self.degree[OTHER[kind]][partners].astype(np.float32)
        mean, spread = (
            scipy.sparse.csr_array((np.float32(1) / weights, partners, starts), shape=edges.shape)
            for weights in (own, np.sqrt(both))
        )
        return Side(mean, spread, degree)

    def change(self, after: "Sides", kind: Nodes, rows: np.ndarray) -> Change:
        """What some users or items lose.

        Args:
            after: the same pairs without some.
            kind, rows: which users or items, int [k].
        """
        assert after.stays is not None
        edges, other = self.edges_of(kind, rows), OTHER[kind]
        before, left = self.degree[kind][rows], after.degree[kind][rows]
        few = 2 * left < before
        anew = np.repeat(few, np.diff(edges.indptr))
        # The partner of an edge that goes has lost one.
        changes = self.degree[other][edges.indices] != after.degree[other][edges.indices]
        kept = np.where(anew, after.stays[edges.data], changes) if few.any() else changes
        edges, anew = keep_entries(edges, kept), anew[kept]
        stays = after.stays[edges.data]
        was, now = (inverse_root(degree[other][edges.indices]) for degree in (self.degree, after.degree))
        gone, weights = (
            scipy.sparse.csr_array((values.astype(np.float32), edges.indices, edges.indptr), shape=edges.shape)
            for values in (np.where(anew, -1, ~stays), np.where(anew, -now, was - now * stays))
        )
        degrees = (np.where(few, 0, before), np.maximum(left, 1))
        return Change(gone, weights, *(degree.astype(np.float32)[:, None] for degree in degrees))

    def between(self, rows: ByKind) -> dict[Nodes, scipy.sparse.csr_array]:
        """The edges of A_hat among some users and items, to each kind from the other, float32 [k, k']."""
        found: dict[Nodes, scipy.sparse.csr_array] = {}
        for kind, other in OTHER.items():
            if not len(rows[other]):  # as in a request for a few of many users: their items' edges need not be read
                found[kind] = scipy.sparse.csr_array(np.zeros((len(rows[kind]), 0), np.float32))
                continue
            edges = self.edges_of(kind, rows[kind])[:, rows[other]]
            roots = (inverse_root(self.degree[side][rows[side]]) for side in (kind, other))
            own, partner = np.repeat(next(roots), np.diff(edges.indptr)), next(roots)[edges.indices]
            found[kind] = scipy.sparse.csr_array((own * partner, edges.indices, edges.indptr), shape=edges.shape)
        return found

    def edges_of(self, kind: Nodes, rows: np.ndarray | slice = slice(None)) -> scipy.sparse.csr_array:
        """The pairs of some users or items that stay, int32 [k, m]."""
        edges = self.edges[kind][rows]
        return edges if self.stays is None else keep_entries(edges, self.stays[edges.data])


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
