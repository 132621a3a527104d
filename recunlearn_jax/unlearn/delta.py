"""Delta: move each row that the request touches by what its change of data predicts, in closed form. No step is trained.

A trained row has two parts that the data can tell: what its neighbourhood predicts, and the pull of its own pairs. Both are computed on
the data before and after the request, and the row moves by the difference:

    items   E_i += follow [phi(i; D_r, E_U) - phi(i; D, E_U)] W + pull_i
    users   E_u += follow [phi(u; D_r, E_I') - phi(u; D, E_I)] V + pull_u - shrink f_u E_u

phi is the neighbourhood: the mean of the partners' rows, the same weighed as in A_hat, the first times log(1 + degree), log(1 + degree) and
1. W and V are ridge regressions of the trained rows on phi(D). The pull is the difference of the gradients of BPR on the two data sets, at
half of the rows (the middle of their training), scaled so that the whole gradient would move the items by `step` of their size; `pull` has
its equations. f_u is the share of u's pairs that is forgotten.

Rows without a share of forgotten evidence, their own or their neighbours', stay as they are to the bit; rows that are left without any
pair start anew. `docs/unlearning.md` has the experiments behind each part.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Nodes, Params
from recunlearn_jax.recommender import redraw
from recunlearn_jax.settings import Checked, NotNegative, Positive, Share
from recunlearn_jax.unlearn.base import Method, Problem
from recunlearn_jax.unlearn.pull import differentiated, taken_back
from recunlearn_jax.unlearn.sides import IN_TURN, KINDS, ByKind, Side, Sides, sides


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


def delta(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Rows follow their change of data."""
    original, retain = problem.original, problem.retain
    before, after = original.dataset, retain.dataset
    seed = int(jax.random.bits(key, dtype=jnp.uint32))
    size = (before.num_users, before.num_items)
    old, new = sides(before.train, *size), sides(after.train, *size)
    share: ByKind = {kind: _share(old[kind].degree, new[kind].degree) for kind in KINDS}
    tables: ByKind = {kind: _stacked(original.params, kind, original.backbone) for kind in KINDS}
    pull = _pull(seed, problem, settings, old, new)

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


def _moving(problem: Problem, share: ByKind, new: Sides) -> ByKind:
    """Rows with a share of forgotten evidence that have a pair left, int [n]: items with a forgotten pair or feature row; users with a
    forgotten pair, or with an item that has one."""
    lost = [rows for m, rows in problem.forget_set.features.items() if m in problem.original.backbone.modalities]
    items = np.logical_or.reduce([share["items"] > 0, *lost])
    users = (share["users"] > 0) | (new["users"].mean @ (share["items"] > 0).astype(np.float32) > 0)
    moving = dict(zip(KINDS, (users, items), strict=True))
    return {kind: np.flatnonzero(rows & (new[kind].degree > 0)) for kind, rows in moving.items()}


def _pull(seed: int, problem: Problem, settings: Settings, old: Sides, new: Sides) -> ByKind:
    """What the pull of their pairs on the rows changes by, float32 [n, d] for users and items."""
    original, retain = problem.original, problem.retain
    items = original.dataset.train[:, 1]
    # One negative a pair, the same before and after. That a few are the user's own items cancels out, too.
    negatives = np.random.default_rng(seed).choice(np.unique(items), len(items)).astype(np.int32)
    kept = ~problem.forget_set.forget & ~retain.dataset.removed_items[negatives]
    of_content = any(rows.any() for rows in problem.forget_set.features.values())
    same = retain.backbone is original.backbone  # an item may have been the last with a modality
    if original.backbone.id_layers is not None and same and not of_content:
        whole, left = taken_back(original, retain, negatives, kept, old, new)
    else:
        slopes = differentiated(original, retain, negatives, kept)
        whole, left = ({kind: _stacked(g, kind, original.backbone) for kind in KINDS} for g in slopes)
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
