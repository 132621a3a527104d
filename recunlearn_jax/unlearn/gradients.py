"""The gradient of BPR with respect to the id tables, taken at half their values, before and after a request.

    Z      = half of the served rows
    C_ui   = -sigmoid(-(z_ui - z_uj)) / n for a pair (u, i), the opposite for its negative (u, j); n pairs
    G      = [C Z_I; C^T Z_U], the gradient of the mean BPR with respect to the rows
    g      = 1 / (L + 1) sum_l A_hat^l G, l = 0 .. L

The last line takes the gradient back through the propagation of ids alone, for a backbone whose rows are such a mean (`id_layers`): what
content adds to the rows is part of Z but is left out on the way back. Nothing is differentiated or compiled.

All layers are computed before a request comes. The request changes them only on the rows that it moves: G by the pairs that go, A_hat by
the degrees of these rows, Z not at all. So the work follows the request. If a request is for content, or a backbone has other rows,
the gradient goes back through the whole model by autodiff.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params, Triplets
from recunlearn_jax.losses import bpr
from recunlearn_jax.recommender import Recommender, Setup, shapes
from recunlearn_jax.sides import KINDS, OTHER, ByKind, Change, Nodes, Sides
from recunlearn_jax.unlearn.base import id_tables
from recunlearn_jax.unlearn.removal import like

_BLOCK = 2**14  # triplets whose rows fit a cache


class Layers(NamedTuple):
    """The gradient of all pairs on its way back, before any request."""

    rows: ByKind  # Z of users and items, float32 [n, d]
    gradients: list[ByKind]  # A_hat^l G, l = 0 .. L

    def whole(self) -> ByKind:
        """g of all pairs, float32 [n, d] for users and items."""
        return {kind: _mean([layer[kind] for layer in self.gradients]) for kind in KINDS}


def backpropagated(served: np.ndarray, pairs: np.ndarray, negatives: np.ndarray, sides: Sides, depth: int) -> Layers:
    """The gradient of all pairs, taken back.

    Args:
        served: rows of users, then of items, float32 [|U| + |I|, d].
        pairs: int32 [n, 2], by user.
        negatives: one for each pair, int32 [n].
        sides: of the pairs.
        depth: L.
    """
    users, items = np.split(served / 2, [len(sides.degree["users"])])
    rows: ByKind = {"users": users, "items": items}
    found = [gradient_by_rows(rows, pairs, negatives, len(pairs))]
    a_hat = {kind: sides.of(kind).spread for kind in KINDS} if depth else {}
    for _ in range(depth):
        found.append({kind: a_hat[kind] @ found[-1][OTHER[kind]] for kind in KINDS})
    return Layers(rows, found)


def gradient_by_rows(rows: ByKind, pairs: np.ndarray, negatives: np.ndarray, count: int) -> ByKind:
    """G of some pairs, float32 [n, d] for users and items.

    Args:
        rows: Z.
        pairs: int32 [n, 2], by user.
        negatives: int32 [n].
        count: number of pairs that the mean is over.

    Examples:
        >>> rows = {"users": np.ones((1, 1), np.float32), "items": np.ones((2, 1), np.float32)}  # an item and a negative that score alike
        >>> g = gradient_by_rows(rows, np.array([[0, 0]]), np.array([1]), 1)
        >>> g["users"].tolist(), g["items"].tolist()
        ([[0.0]], [[-0.5], [0.5]])
    """
    users, items = rows["users"], rows["items"]
    share = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BLOCK):
        (u, i), j = pairs[start : start + _BLOCK].T, negatives[start : start + _BLOCK]
        margin = np.einsum("nd,nd->n", users[u], items[i] - items[j])
        share[start : start + _BLOCK] = -np.exp(-np.logaddexp(0, margin)) / count
    ends = 2 * np.concatenate([[0], np.cumsum(np.bincount(pairs[:, 0], minlength=len(users)))])
    columns = np.stack([pairs[:, 1], negatives], axis=1).ravel()
    signed = scipy.sparse.csr_array(
        (np.stack([share, -share], axis=1).ravel(), columns, ends), shape=(len(users), len(items))
    )
    return {"users": signed @ items, "items": signed.T @ users}


def gradient_after(
    before: Layers,
    pairs: np.ndarray,
    negatives: np.ndarray,
    gone: np.ndarray,
    moving: ByKind,
    changes: dict[Nodes, Change],
    among: dict[Nodes, scipy.sparse.csr_array],
) -> ByKind:
    """g after a request, at the rows that move, float32 [k, d] for users and items.

    Args:
        before: layers of all pairs.
        pairs, negatives: int32 [n, 2], int32 [n].
        gone: int [g], pairs that do not count afterwards.
        moving: rows, int [k].
        changes: of these rows.
        among: see `Sides.between`, for these rows after the request.
    """
    left = len(pairs) - len(gone)
    if not left:  # every pair goes, or has a negative that does
        return {kind: np.zeros_like(before.gradients[0][kind][moving[kind]]) for kind in KINDS}
    lost = [_gradient_of_few(before.rows, pairs[gone], negatives[gone], len(pairs), moving)]
    for layer, following in itertools.pairwise(before.gradients):
        own: ByKind = {kind: following[kind][moving[kind]] for kind in KINDS}
        lost.append(
            {
                kind: own[kind] - changes[kind].spread(own[kind], layer[other]) + among[kind] @ lost[-1][other]
                for kind, other in OTHER.items()
            }
        )
    more = np.float32(len(pairs) / left)  # weight of each pair that stays, since the mean is over fewer
    layers = list(zip(before.gradients, lost, strict=True))
    return {kind: more * _mean([layer[kind][moving[kind]] - own[kind] for layer, own in layers]) for kind in KINDS}


def _gradient_of_few(rows: ByKind, pairs: np.ndarray, negatives: np.ndarray, count: int, wanted: ByKind) -> ByKind:
    """`gradient_by_rows` of a few pairs, for some rows, int [k]; no array as long as the number of users or items is made."""
    users, user = np.unique(pairs[:, 0], return_inverse=True)
    items, item = np.unique(np.concatenate([pairs[:, 1], negatives]), return_inverse=True)
    positive, negative = np.split(item, 2)
    among: ByKind = {"users": users, "items": items}
    local: ByKind = {kind: rows[kind][among[kind]] for kind in KINDS}
    by_rows = gradient_by_rows(local, np.column_stack([user, positive]), negative, count)
    found: ByKind = {kind: np.zeros((len(wanted[kind]), rows[kind].shape[1]), np.float32) for kind in KINDS}
    for kind in KINDS:
        _, place, own = np.intersect1d(wanted[kind], among[kind], return_indices=True)
        found[kind][place] = by_rows[kind][own]
    return found


def _mean(tables: list[np.ndarray]) -> np.ndarray:
    return np.asarray(functools.reduce(np.add, tables) / np.float32(len(tables)))


def differentiated(original: Recommender, data: Setup, negatives: np.ndarray, kept: np.ndarray | None = None) -> Params:
    """g through the whole model, with respect to the id tables that the original has.

    Args:
        original: whose parameters and pairs are used.
        data: the original's own, before a request, or the data after it.
        negatives: one for each train pair, int32 [n].
        kept: bool [n], pairs that count; all where None.
    """
    pairs, capacity = original.dataset.train, original.sizes.pairs
    padded = np.pad(np.column_stack([pairs, negatives]).astype(np.int32), ((0, capacity - len(pairs)), (0, 0)))
    weights = np.ones(len(pairs), np.float32) if kept is None else kept.astype(np.float32)
    weights = np.pad(weights, (0, capacity - len(pairs)))
    params = original.params if data.backbone is original.backbone else like(original.params, shapes(data), "delta")
    found = bpr_gradient(params, data.data, (padded[:, 0], padded[:, 1], padded[:, 2]), weights, backbone=data.backbone)
    # A table that goes with its modality has no gradient left.
    return jax.tree.map(np.zeros_like, id_tables(original.params, original.backbone)) | found


@functools.partial(jax.jit, static_argnames="backbone")
def bpr_gradient(
    params: Params, data: Data, triplets: Triplets, weights: Float[Array, "n"], *, backbone: Backbone
) -> Params:
    """Gradient of the mean BPR of some triplets with respect to the id tables, taken at half their values.

    Args:
        params: of the backbone.
        data: whose graphs the rows are computed on.
        triplets: users, positives, negatives, int32 [n] each.
        weights: of the triplets.
        backbone: static.
    """
    users, positives, negatives = triplets

    def loss(tables):
        rows = backbone.rows({**params, **tables}, data)
        items = rows[backbone.shape.num_users :]
        scores = (jnp.sum(rows[users] * items[chosen], axis=1) for chosen in (positives, negatives))
        return bpr(*scores, weights=weights)

    return jax.grad(loss)({name: table / 2 for name, table in id_tables(params, backbone).items()})
