"""Delta: move each row that the request touches by what its change of data predicts, in closed form. No step is trained.

A trained row has two parts that the data can tell: what its neighbourhood predicts, and the pull of its own pairs. Both are computed on
the data before and after the request, and the row moves by the difference:

    items   E_i += follow [phi(i; D_r, E_U) - phi(i; D, E_U)] W + pull_i
    users   E_u += follow [phi(u; D_r, E_I') - phi(u; D, E_I)] V + pull_u - shrink f_u E_u

phi is the neighbourhood: the mean of the partners' rows, the same weighed as in A_hat, the first times log(1 + degree), log(1 + degree) and
1. W and V are ridge regressions of the trained rows on phi(D). The pull is the difference of the gradients of BPR on the two data sets, at
half of the rows (the middle of their training), scaled so that the whole gradient would move the items by `step` of their size. f_u is the
share of u's pairs that is forgotten.

Rows without a share of forgotten evidence, their own or their neighbours', stay as they are to the bit; rows that are left without any
pair start anew. `docs/unlearning.md` has the experiments behind each part.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Nodes, Params, Triplets
from recunlearn_jax.losses import bpr
from recunlearn_jax.recommender import redraw, shapes
from recunlearn_jax.settings import Checked, NotNegative, Positive, Share
from recunlearn_jax.unlearn.base import Method, Problem, id_tables
from recunlearn_jax.unlearn.removal import like

KINDS: tuple[Nodes, ...] = ("users", "items")
ByKind = dict[Nodes, np.ndarray]
# Whose rows move, and their partners.
IN_TURN: tuple[tuple[Nodes, Nodes], ...] = (("items", "users"), ("users", "items"))


@dataclass(frozen=True)
class Settings(Checked):
    """Found on tiktok with request seed 0 and training seeds that no table reports."""

    step: NotNegative = 1 / 3
    """How far the whole gradient of BPR would move the items, in root mean squares of their rows."""
    follow: NotNegative = 0.9
    """Share of the predicted change that rows follow."""
    shrink: Share = 0.6
    """How much smaller a user's row would be without any of its pairs."""
    penalty: Positive = 1e-3
    """Of the two ridge regressions, in mean squares of their inputs."""


class Side(NamedTuple):
    """Users or items, with their edges to the other kind; n rows, m partners."""

    mean: scipy.sparse.csr_array  # float32 [n, m], 1 / degree of the row
    spread: scipy.sparse.csr_array  # float32 [n, m], 1 / sqrt of both degrees, the weights of A_hat
    degree: np.ndarray  # int64 [n]

    def of(self, rows: np.ndarray) -> "Side":
        """The same for some rows, int [k]."""
        return Side(self.mean[rows], self.spread[rows], self.degree[rows])


def sides(pairs: np.ndarray, num_users: int, num_items: int) -> dict[Nodes, Side]:
    """Both sides of some pairs, int [n, 2]."""
    ends: dict[Nodes, tuple[np.ndarray, int]] = {"users": (pairs[:, 0], num_users), "items": (pairs[:, 1], num_items)}
    degree = {kind: np.bincount(ids, minlength=size) for kind, (ids, size) in ends.items()}
    root = np.sqrt(degree["users"][pairs[:, 0]].astype(np.float32) * degree["items"][pairs[:, 1]].astype(np.float32))
    found: dict[Nodes, Side] = {}
    for kind, partners in IN_TURN:
        (rows, n), (columns, m) = ends[kind], ends[partners]
        weights = (np.float32(1) / degree[kind][rows].astype(np.float32), np.float32(1) / root)
        mean, spread = (scipy.sparse.csr_array((w, (rows, columns)), shape=(n, m)) for w in weights)
        found[kind] = Side(mean, spread, degree[kind])
    return found


def phi(side: Side, partners: np.ndarray) -> np.ndarray:
    """The neighbourhood of some rows, float32 [n, 3 d + 2].

    Args:
        side: of the rows.
        partners: rows of the other kind, float32 [m, d].
    """
    log_degree = np.log1p(side.degree).astype(np.float32)[:, None]
    mean = side.mean @ partners
    return np.hstack([mean, side.spread @ partners, mean * log_degree, log_degree, np.ones_like(log_degree)])


def ridge(inputs: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """W that minimises |X W - Y|^2 + p tr(X^T X) / k |W|^2, float32 [k, d].

    Args:
        inputs: X, float32 [n, k].
        targets: Y, float32 [n, d].
        penalty: p.

    Examples:
        >>> x = np.eye(2, dtype=np.float32)
        >>> ridge(x, 3 * x, 0.5).round(4).tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """
    gram = inputs.T @ inputs
    gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram)
    return np.linalg.solve(gram, inputs.T @ targets)


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


def delta(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Rows follow their change of data."""
    original, retain = problem.original, problem.retain
    before, after = original.dataset, retain.dataset
    seed = int(jax.random.bits(key, dtype=jnp.uint32))
    size = (before.num_users, before.num_items)
    old, new = sides(before.train, *size), sides(after.train, *size)
    share: ByKind = {kind: _share(old[kind].degree, new[kind].degree) for kind in KINDS}
    tables: ByKind = {kind: _stacked(original.params, kind, original.backbone) for kind in KINDS}
    pull = _pull(seed, problem, settings)

    moving = _moving(problem, share, new)
    moved = dict(tables)
    for kind, partners in IN_TURN:
        rows, trained = moving[kind], old[kind].degree > 0
        if not len(rows) or not len(tables[kind][0]):
            continue
        inputs = phi(old[kind], tables[partners])
        weights = ridge(inputs[trained], tables[kind][trained], settings.penalty)
        change = phi(new[kind].of(rows), moved[partners]) - inputs[rows]
        moved[kind] = tables[kind].copy()
        moved[kind][rows] += settings.follow * (change @ weights) + pull[kind][rows]
        if kind == "users":
            moved[kind][rows] -= settings.shrink * share[kind][rows, None].astype(np.float32) * tables[kind][rows]
    params = {**original.params, **_unstacked(moved, original.params, original.backbone)}
    alone = [(new[kind].degree == 0) & (old[kind].degree > 0) for kind in KINDS]
    params = redraw(key, params, original.data, *alone, backbone=original.backbone)
    return params, {"moved_users": len(moving["users"]), "moved_items": len(moving["items"])}


def _share(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of the pairs of each row that are forgotten, by its degrees; 0 for a row that had none."""
    return np.where(before > 0, 1 - after / np.maximum(before, 1), 0)


def _moving(problem: Problem, share: ByKind, new: dict[Nodes, Side]) -> ByKind:
    """Rows with a share of forgotten evidence that have a pair left, int [n]: items with a forgotten pair or feature row; users with a
    forgotten pair, or with an item that has one."""
    lost = [rows for m, rows in problem.forget_set.features.items() if m in problem.original.backbone.modalities]
    items = np.logical_or.reduce([share["items"] > 0, *lost])
    users = (share["users"] > 0) | (new["users"].mean @ (share["items"] > 0).astype(np.float32) > 0)
    moving = dict(zip(KINDS, (users, items), strict=True))
    return {kind: np.flatnonzero(rows & (new[kind].degree > 0)) for kind, rows in moving.items()}


def _pull(seed: int, problem: Problem, settings: Settings) -> ByKind:
    """What the pull of their pairs on the rows changes by, float32 [n, d] for users and items."""
    original, retain, forget = problem.original, problem.retain, problem.forget_set.forget
    pairs, capacity = original.dataset.train, original.sizes.pairs
    # One negative a pair, the same before and after. That a few are the user's own items cancels out, too.
    negatives = np.random.default_rng(seed).choice(np.unique(pairs[:, 1]), len(pairs))
    kept = ~forget & ~retain.dataset.removed_items[negatives]
    padded = np.pad(np.column_stack([pairs, negatives]).astype(np.int32), ((0, capacity - len(pairs)), (0, 0)))
    triplets = (padded[:, 0], padded[:, 1], padded[:, 2])

    def weights(counted: np.ndarray) -> np.ndarray:
        return np.pad(counted.astype(np.float32), (0, capacity - len(pairs)))

    params = original.params if retain.backbone is original.backbone else like(original.params, shapes(retain), "delta")
    before = slope(original.params, original.data, triplets, weights(np.ones_like(forget)), backbone=original.backbone)
    after = slope(params, retain.data, triplets, weights(kept), backbone=retain.backbone)
    after = jax.tree.map(np.zeros_like, before) | after  # a table that goes with its modality has no pull left
    whole, left = ({kind: _stacked(g, kind, original.backbone) for kind in KINDS} for g in (before, after))
    size = np.linalg.norm(_stacked(original.params, "items", original.backbone))
    rate = settings.step * size / max(float(np.linalg.norm(whole["items"])), 1e-30)
    return {kind: np.float32(rate) * (whole[kind] - left[kind]) for kind in KINDS}


def _stacked(params: Params, kind: Nodes, backbone: Backbone) -> np.ndarray:
    """The id tables of users or items side by side, float32 [n, d]."""
    return np.hstack([np.asarray(params[name]) for name, rows in backbone.id_tables().items() if rows == kind])


def _unstacked(stacked: ByKind, params: Params, backbone: Backbone) -> Params:
    """The id tables that `_stacked` put side by side."""
    out, start = {}, dict.fromkeys(KINDS, 0)
    for name, kind in backbone.id_tables().items():
        width = params[name].shape[1]
        out[name] = jnp.asarray(stacked[kind][:, start[kind] : start[kind] + width])
        start[kind] += width
    return out


METHOD = Method(Settings, delta)
