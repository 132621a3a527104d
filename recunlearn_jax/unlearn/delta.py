"""Delta: move each row that the request touches by what its change of data predicts, in closed form. No step is trained.

A trained row has two parts that the data can tell: what its neighbourhood predicts, and the pull of its own pairs. Both are computed on
the data before and after the request, and the row moves by the difference:

    items   E_i += follow [phi(i; D_r, E_U) - phi(i; D, E_U)] W + pull_i
    users   E_u += follow [phi(u; D_r, E_I') - phi(u; D, E_I)] V + pull_u - shrink f_u E_u

phi is the neighbourhood: the mean of the partners' rows, the same weighed as in A_hat, the first times log(1 + degree), log(1 + degree) and
1. W and V are ridge regressions of the trained rows on phi(D). The pull is the difference of the gradients of BPR on the two data sets, at
half of the rows (the middle of their training), scaled so that the whole gradient would move the items by `step` of their size; `pull` has
its equations. f_u is the share of u's pairs that is forgotten.

What is of the whole data, the regressions and the gradient of all pairs, is prepared before a request comes. What a request computes then
follows what it touches. Rows without a share of forgotten evidence, their own or their neighbours', stay as they are to the bit; rows
that are left without any pair start anew. `docs/unlearning.md` has the experiments behind each part.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Nodes, Params
from recunlearn_jax.recommender import Recommender, replace_rows
from recunlearn_jax.settings import Checked, NotNegative, Positive, Share
from recunlearn_jax.unlearn.base import Memory, Method, Problem
from recunlearn_jax.unlearn.pull import Layers, change, differentiated, taken_back
from recunlearn_jax.unlearn.sides import KINDS, OTHER, ByKind, Side, Sides, sides

REGRESSED = 100_000  # rows of a kind that a regression reads at most


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
    least: Share = 0.02
    """A user who loses no pair moves where its items have lost more than this share of theirs, on average."""


class Record(NamedTuple):
    """What is known of the whole data before a request."""

    sides: Sides
    negatives: np.ndarray  # int32 [n], one of each train pair
    weights: ByKind  # W of items and V of users, float32 [3 d + 2, d]
    layers: Layers | None  # the gradient of all pairs; None where the whole model is differentiated
    size: float  # of the items' table, its norm


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
    # WHY float64: where all degrees are nearly the same, so are columns of X, and rounding would show.
    wide = inputs.astype(np.float64)
    gram = wide.T @ wide
    gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram)
    return np.linalg.solve(gram, wide.T @ targets).astype(np.float32)


def prepare(key: jax.Array, original: Recommender, settings: Settings, work: Path | None) -> Memory:
    """The regressions, and the gradient of all pairs."""
    del work
    train, backbone = original.dataset.train, original.backbone
    # That a few negatives are the user's own items cancels out: they are the same before and after.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    negatives = rng.choice(np.unique(train[:, 1]), len(train)).astype(np.int32)
    before = sides(train, original.dataset.num_users, original.dataset.num_items)
    tables: ByKind = {kind: _stacked(original.params, kind, backbone) for kind in KINDS}
    weights: ByKind = {kind: _regressed(before, tables, kind, settings.penalty) for kind in KINDS}
    layers = None
    if backbone.id_layers is not None:
        layers = taken_back(np.asarray(original.rows), train, negatives, before, backbone.id_layers)
    return Memory(original, Record(before, negatives, weights, layers, float(np.linalg.norm(tables["items"]))))


def delta(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Rows follow their change of data."""
    del key
    original, backbone, record = problem.original, problem.original.backbone, problem.record
    old: Sides = record.sides
    new = old.without(original.dataset.train, problem.forget_set.forget)
    share: ByKind = {kind: _share(old.degree[kind], new.degree[kind]) for kind in KINDS}
    moving = _moving(problem, share, new, settings.least)
    before, after = (data.of_rows(moving) for data in (old, new))
    pull = _pull(problem, settings, moving, after)

    tables: ByKind = {kind: _stacked(original.params, kind, backbone) for kind in KINDS}
    moved = dict(tables)
    for kind in reversed(KINDS):  # items first, then users by the items' new rows
        rows, partners = moving[kind], OTHER[kind]
        if not len(rows) or not tables[kind].shape[1]:
            continue
        nearby = phi(after[kind], moved[partners]) - phi(before[kind], tables[partners])
        step = settings.follow * (nearby @ record.weights[kind]) + pull[kind]
        if kind == "users":
            step -= settings.shrink * share[kind][rows, None].astype(np.float32) * tables[kind][rows]
        moved[kind] = tables[kind].copy()
        moved[kind][rows] += step
    changed: ByKind = {kind: table for kind, table in moved.items() if table is not tables[kind]}
    params = {**original.params, **_unstacked(changed, original.params, backbone)}
    alone = {kind: (new.degree[kind] == 0) & (old.degree[kind] > 0) for kind in KINDS}
    if any(rows.any() for rows in alone.values()):
        masks = {name: alone[backbone.id_tables()[name]] for name in problem.fresh}  # a table may go with its modality
        params = replace_rows(params, problem.fresh, masks)
    return params, {"moved_users": len(moving["users"]), "moved_items": len(moving["items"])}


def _regressed(before: Sides, tables: ByKind, kind: Nodes, penalty: float) -> np.ndarray:
    """W or V."""
    trained = np.flatnonzero(before.degree[kind])
    rows = trained[:: -(-len(trained) // REGRESSED)]
    return ridge(phi(before.of(kind, rows), tables[OTHER[kind]]), tables[kind][rows], penalty)


def _share(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of the pairs of each row that are forgotten, by its degrees; 0 for a row that had none."""
    return np.where(before > 0, 1 - after / np.maximum(before, 1), 0)


def _moving(problem: Problem, share: ByKind, new: Sides, least: float) -> ByKind:
    """Rows with a share of forgotten evidence that have a pair left, int [n]: items with a forgotten pair or feature row; users with a
    forgotten pair, or whose items have lost more than the least share on average."""
    lost = [rows for m, rows in problem.forget_set.features.items() if m in problem.original.backbone.modalities]
    items = np.flatnonzero(np.logical_or.reduce([share["items"] > 0, *lost]))
    near = new.partners("items", np.flatnonzero(share["items"]))
    near = near[new.of("users", near).mean @ share["items"] > least]
    users = np.union1d(np.flatnonzero(share["users"]), near)
    return {"users": users[new.degree["users"][users] > 0], "items": items[new.degree["items"][items] > 0]}


def _pull(problem: Problem, settings: Settings, moving: ByKind, after: dict[Nodes, Side]) -> ByKind:
    """What the pull of their pairs on the moving rows changes by, float32 [k, d] for users and items."""
    original, retain, record = problem.original, problem.retain, problem.record
    # A removed item is no negative any more.
    gone = problem.forget_set.forget | retain.dataset.removed_items[record.negatives]
    of_content = any(rows.any() for rows in problem.forget_set.features.values())
    same = retain.backbone is original.backbone  # an item may have been the last with a modality
    if record.layers is not None and same and not of_content:
        found = change(record.layers, original.dataset.train, record.negatives, np.flatnonzero(gone), moving, after)
        pulled = record.layers.size
    else:
        slopes = differentiated(original, retain, record.negatives, ~gone)
        full, left = ({kind: _stacked(g, kind, original.backbone) for kind in KINDS} for g in slopes)
        found = {kind: (full[kind] - left[kind])[moving[kind]] for kind in KINDS}
        pulled = float(np.linalg.norm(full["items"]))
    rate = np.float32(settings.step * record.size / max(pulled, 1e-30))
    return {kind: rate * found[kind] for kind in KINDS}


def _stacked(params: Params, kind: Nodes, backbone: Backbone) -> np.ndarray:
    """The id tables of users or items side by side, float32 [n, d]; d = 0 where there is none."""
    tables = [np.asarray(params[name]) for name, rows in backbone.id_tables().items() if rows == kind]
    size = {"users": backbone.shape.num_users, "items": backbone.shape.num_items}[kind]
    return tables[0] if len(tables) == 1 else np.hstack([np.zeros((size, 0), np.float32), *tables])


def _unstacked(stacked: ByKind, params: Params, backbone: Backbone) -> Params:
    """The id tables that `_stacked` put side by side, of the kinds given."""
    out, start = {}, dict.fromkeys(KINDS, 0)
    for name, kind in backbone.id_tables().items():
        if kind not in stacked:
            continue
        width = params[name].shape[1]
        out[name] = jnp.asarray(stacked[kind][:, start[kind] : start[kind] + width])
        start[kind] += width
    return out


METHOD = Method(Settings, delta, prepare)
