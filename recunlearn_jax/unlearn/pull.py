"""The pull of pairs on rows: the gradient of BPR by the id tables at half of them, before and after a request.

    Z      = rows at half of the id tables, on the data before or after
    C_ui   = -sigmoid(-(z_ui - z_uj)) / n for a pair (u, i), the opposite for its negative (u, j); n pairs
    G      = [C Z_I; C^T Z_U], the gradient of the mean BPR by the rows
    pull   = 1 / (L + 1) sum_l A_hat^l G, l = 0 .. L

The last line takes the gradient back through the propagation of ids alone, where a backbone's rows are such a mean (`id_layers`): what
content adds to the rows stands in Z and is left out of the way back. Nothing is compiled for it but the rows, which serving needs anyway.
Where a request is for content, or a backbone has other rows, the gradient goes back through the whole model by autodiff.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params, Triplets
from recunlearn_jax.losses import bpr
from recunlearn_jax.recommender import Recommender, Setup, embed, shapes
from recunlearn_jax.unlearn.base import id_tables
from recunlearn_jax.unlearn.removal import like
from recunlearn_jax.unlearn.sides import KINDS, ByKind, Sides

_BLOCK = 2**14  # triplets whose rows fit a cache


def taken_back(
    original: Recommender, retain: Setup, negatives: np.ndarray, kept: np.ndarray, old: Sides, new: Sides
) -> tuple[ByKind, ByKind]:
    """The pull before and after a request for users, items or pairs, float32 [n, d] each, by the propagation of ids alone.

    Args:
        original: of a backbone with `id_layers`.
        retain: the retained data, set up for the same backbone.
        negatives: one of each train pair, int32 [n].
        kept: bool [n], pairs that count afterwards.
        old, new: the pairs before and after.
    """
    backbone, pairs = original.backbone, original.dataset.train
    assert backbone.id_layers is not None
    half = halved(original.params, backbone)
    found = []
    for data, sides, counted in ((original.data, old, slice(None)), (retain.data, new, kept)):
        rows = np.asarray(embed(half, data, backbone=backbone))
        gradient = by_rows(rows, pairs[counted], negatives[counted], backbone.shape.num_users)
        found.append(through_layers(gradient, sides, backbone.id_layers))
    return found[0], found[1]


def halved(params: Params, backbone: Backbone) -> Params:
    """The parameters with half of the id tables."""
    return {**params, **{name: table / 2 for name, table in id_tables(params, backbone).items()}}


def by_rows(rows: np.ndarray, pairs: np.ndarray, negatives: np.ndarray, num_users: int) -> ByKind:
    """G, gradient of the mean BPR by the rows of users and items, float32.

    Args:
        rows: Z, float32 [|U| + |I|, d].
        pairs: int32 [n, 2], by user.
        negatives: int32 [n].
        num_users: |U|.

    Examples:
        >>> rows = np.array([[1.0], [1.0], [1.0]], np.float32)  # a user, its item and a negative, which score alike
        >>> g = by_rows(rows, np.array([[0, 0]]), np.array([1]), 1)
        >>> g["users"].tolist(), g["items"].tolist()
        ([[0.0]], [[-0.5], [0.5]])
    """
    users, items = rows[:num_users], rows[num_users:]
    share = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BLOCK):
        (u, i), j = pairs[start : start + _BLOCK].T, negatives[start : start + _BLOCK]
        margin = np.einsum("nd,nd->n", users[u], items[i] - items[j])
        share[start : start + _BLOCK] = -np.exp(-np.logaddexp(0, margin)) / len(pairs)
    ends = 2 * np.concatenate([[0], np.cumsum(np.bincount(pairs[:, 0], minlength=num_users))])
    columns = np.stack([pairs[:, 1], negatives], axis=1).ravel()
    signed = scipy.sparse.csr_array(
        (np.stack([share, -share], axis=1).ravel(), columns, ends), shape=(num_users, len(items))
    )
    return {"users": signed @ items, "items": signed.T @ users}


def through_layers(gradient: ByKind, sides: Sides, layers: int) -> ByKind:
    """1 / (L + 1) sum_l A_hat^l G: A_hat is symmetric, so what went out along an edge comes back along it."""
    total = layer = gradient
    for _ in range(layers):
        layer = {"users": sides["users"].spread @ layer["items"], "items": sides["items"].spread @ layer["users"]}
        total = {kind: total[kind] + layer[kind] for kind in KINDS}
    return {kind: total[kind] / np.float32(layers + 1) for kind in KINDS}


def differentiated(
    original: Recommender, retain: Setup, negatives: np.ndarray, kept: np.ndarray
) -> tuple[Params, Params]:
    """The pull before and after any request, by the id tables; arguments as for `taken_back`."""
    pairs, capacity = original.dataset.train, original.sizes.pairs
    padded = np.pad(np.column_stack([pairs, negatives]).astype(np.int32), ((0, capacity - len(pairs)), (0, 0)))
    triplets = (padded[:, 0], padded[:, 1], padded[:, 2])

    def weights(counted: np.ndarray) -> np.ndarray:
        return np.pad(counted.astype(np.float32), (0, capacity - len(pairs)))

    params = original.params if retain.backbone is original.backbone else like(original.params, shapes(retain), "delta")
    before = slope(original.params, original.data, triplets, weights(np.ones_like(kept)), backbone=original.backbone)
    after = slope(params, retain.data, triplets, weights(kept), backbone=retain.backbone)
    # A table that goes with its modality has no pull left.
    return before, jax.tree.map(np.zeros_like, before) | after


@functools.partial(jax.jit, static_argnames="backbone")
def slope(params: Params, data: Data, triplets: Triplets, weights: Float[Array, "n"], *, backbone: Backbone) -> Params:
    """Gradient of the mean BPR of some triplets by the id tables, at half of their rows.

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
