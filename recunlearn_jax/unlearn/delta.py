"""Delta: move each row that the request touches by what its change of data predicts, in closed form. No step is trained.

A trained row has three parts that can be told apart: what its neighbourhood predicts, the pull of its own pairs, and the rest, which
only its own pairs can have taught. The first two are computed on the data before and after the request and change by the difference;
the rest goes with the share f of the row's pairs that is forgotten:

    items   E_i += follow [phi(i; D_r, E_U) - phi(i; D, E_U)] W + pull_i - shed f_i [E_i - phi(i; D, E_U) W]
    users   E_u += follow [phi(u; D_r, E_I') - phi(u; D, E_I)] V + pull_u - shed f_u [E_u - phi(u; D, E_I) V]
    each    E   <- E (size of rows of its new degree / size of rows of its old degree) |E before| / |E|

phi is the neighbourhood: the mean of the partners' rows, the same weighed as in A_hat, the first times log(1 + degree), log(1 + degree) and
1. W and V are ridge regressions of the trained rows on phi(D). The pull is the difference of the gradients of BPR on the two data sets, at
half of the rows (the middle of their training), at the rates that `rates` gives; `pull` has its equations. The last line is there since
training goes on until the pairs that are left are learnt: a row turns, and keeps the size that its degree gives it.

What is of the whole data, the regressions and the gradient of all pairs, is prepared before a request comes. What a request computes then
follows what it touches. Rows without a share of forgotten evidence, their own or their neighbours', stay as they are to the bit; rows
that are left without any pair start anew. `docs/unlearning.md` has the experiments behind each part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from recunlearn_jax.arrays import distinct
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Params
from recunlearn_jax.recommender import Recommender
from recunlearn_jax.settings import Checked, NotNegative, Positive, Share
from recunlearn_jax.sides import KINDS, ByKind, Change, Near, Nodes, Sides
from recunlearn_jax.unlearn.base import Memory, Method, Moved, Problem
from recunlearn_jax.unlearn.pull import Layers, change, differentiated, taken_back

REGRESSED = 100_000  # rows of a kind that a regression reads at most


@dataclass(frozen=True)
class Settings(Checked):
    """Found on tiktok with request seed 0 and training seeds that no table reports."""

    step_items: NotNegative = 1 / 3
    """How far the whole gradient of BPR would move the items, in root mean squares of their rows."""
    step_users: NotNegative = 2 / 3
    """How far users are moved, in units of their rate in `rates`."""
    follow: NotNegative = 1.0
    """Share of the predicted change that rows follow."""
    shed_users: Share = 1.0
    """How much of what its neighbourhood does not explain a user's row would lose with all of its pairs."""
    shed_items: Share = 0.5
    """The same of an item's row."""
    resize: Share = 1.0
    """How far a row that has moved is brought to the size that its new degree gives it; at 0 it keeps the one that the other parts give."""
    penalty: Positive = 1e-3
    """Of the two ridge regressions, in mean squares of their inputs."""
    least: Share = 0.02
    """A user who loses no pair moves where its items have lost more than this share of theirs, on average."""


class Record(NamedTuple):
    """What is known of the whole data before a request."""

    tables: ByKind  # id tables of users and items side by side, float32 [n, d]
    near: Near  # of all items
    negatives: np.ndarray  # int32 [n], one of each train pair
    weights: ByKind  # W of items and V of users, float32 [3 d + 2, d]
    powers: dict[Nodes, float]  # see `power`
    # The gradient of all pairs with its rates; None where the whole model is differentiated.
    whole: tuple[Layers, dict[Nodes, float]] | None


def phi(near: Near) -> np.ndarray:
    """The neighbourhood of n rows, float32 [n, 3 d + 2]."""
    log_degree = np.log1p(near.degree).astype(np.float32)[:, None]
    return np.hstack([near.mean, near.spread, near.mean * log_degree, log_degree, np.ones_like(log_degree)])


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


def turned(
    own: np.ndarray, before: np.ndarray, after: np.ndarray, weights: np.ndarray, follow: float, share: np.ndarray
) -> np.ndarray:
    """E + follow [phi' - phi] W - share [E - phi W]: rows follow their neighbourhood, and lose a share of what it does not explain.

    Args:
        own: E, float32 [n, d].
        before, after: phi of the data before and after, float32 [n, k].
        weights: W, float32 [k, d].
        follow: 0 or more.
        share: of the rest that goes, float32 [n, 1].

    Examples:
        >>> row, there, gone = np.array([[5.0]]), np.array([[2.0]]), np.array([[1.0]])
        >>> turned(row, there, gone, np.array([[1.0]]), 1.0, np.array([[0.5]])).tolist()  # 5 - 1, less half of 5 - 2
        [[2.5]]
    """
    return own + follow * ((after - before) @ weights) - share * (own - before @ weights)


def rates(tables: ByKind, gradient: ByKind) -> dict[Nodes, float]:
    """How far to go down the gradient, for items and for users.

        items   r_I = |E_I| / |G_I|, of the whole matrices
        users   r_U = sqrt(r_I / mean of |G_u| / |E_u|)

    At r_I the whole gradient moves the items by their size. Users are moved at the geometric mean of that and of the rate that moves a
    user by its own size: the first alone is too little where users have few pairs, the second too much (docs/unlearning.md).

    Args:
        tables: E, float32 [n, d].
        gradient: G, float32 [n, d].

    Examples:
        >>> tables = {"users": np.array([[3.0, 0.0]]), "items": np.array([[8.0, 0.0]])}
        >>> rates(tables, {"users": np.array([[0.0, 3.0]]), "items": np.array([[0.0, 2.0]])})
        {'items': 4.0, 'users': 2.0}
    """
    of_items = float(np.linalg.norm(tables["items"]) / max(np.linalg.norm(gradient["items"]), 1e-30))
    sizes, pulls = (np.linalg.norm(rows["users"], axis=1) for rows in (tables, gradient))
    counted = (sizes > 0) & (pulls > 0)
    if not counted.any():
        return {"items": of_items, "users": of_items}
    return {"items": of_items, "users": float(np.sqrt(of_items / np.mean(pulls[counted] / sizes[counted])))}


def power(rows: np.ndarray, degree: np.ndarray) -> float:
    """p of |E| ~ degree^p, by least squares on the logarithms; 0 where the degrees tell nothing.

    Args:
        rows: E, float32 [n, d]; those that are 0 or have no pair are left out.
        degree: int [n].

    Examples:
        >>> round(power(np.array([[1.0], [2.0], [-4.0], [9.0]], np.float32), np.array([1, 4, 16, 0])), 6)
        0.5
    """
    size = np.linalg.norm(rows, axis=1)
    counted = (size > 0) & (degree > 0)
    if len(np.unique(degree[counted])) < 2:
        return 0.0
    log_degree = np.log(degree[counted])
    apart = log_degree - log_degree.mean()
    return float(apart @ np.log(size[counted]) / (apart @ apart))


def resized(moved: np.ndarray, before: np.ndarray, ratio: np.ndarray, share: float) -> np.ndarray:
    """Rows brought to `ratio` times the size that they had, or a share of the way there.

    Args:
        moved, before: float32 [n, d].
        ratio: float32 [n].
        share: of the way, on the logarithm of the size.

    Examples:
        >>> resized(np.array([[0.0, 6.0]], np.float32), np.array([[3.0, 0.0]], np.float32), np.ones(1, np.float32), 1.0).tolist()
        [[0.0, 3.0]]
    """
    now, then = (np.linalg.norm(rows, axis=1) for rows in (moved, before))
    there = (now > 0) & (then > 0)
    factor = np.where(there, then * ratio / np.where(there, now, 1), 1) ** np.float32(share)
    return moved * factor[:, None]


def prepare(key: jax.Array, original: Recommender, settings: Settings, work: Path | None) -> Memory:
    """The regressions, and the gradient of all pairs."""
    del work
    train, backbone = original.dataset.train, original.backbone
    # That a few negatives are the user's own items cancels out: they are the same before and after.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    negatives = rng.choice(np.unique(train[:, 1]), len(train)).astype(np.int32)
    before = original.setup.sides
    tables = _by_kind(original.params, backbone)
    near = before.of("items").near(tables["users"])
    weights: ByKind = {
        "items": _regressed(before, tables, "items", near.of, settings.penalty),
        "users": _regressed(
            before, tables, "users", lambda rows: before.of("users", rows).near(tables["items"]), settings.penalty
        ),
    }
    whole = None
    if backbone.id_layers is not None:
        layers = taken_back(np.asarray(original.rows), train, negatives, before, backbone.id_layers)
        whole = layers, rates(tables, layers.whole())
    powers: dict[Nodes, float] = {kind: power(tables[kind], before.degree[kind]) for kind in KINDS}
    return Memory(original, Record(tables, near, negatives, weights, powers, whole))


def delta(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Moved, dict[str, Any]]:
    """Rows follow their change of data."""
    del key
    original, record = problem.original, problem.record
    old = original.setup.sides
    new = problem.left or old.without(original.dataset.train, problem.forget_set.places)
    assert new.lost is not None
    lost = new.lost
    share: ByKind = {kind: _share(old.degree[kind], new.degree[kind], lost[kind]) for kind in KINDS}
    moving = _moving(problem, lost, share, (old, new), settings.least)
    # A user who has lost no pair follows its items and is not pulled.
    pulls = {
        "users": np.isin(moving["users"], lost["users"], assume_unique=True),
        "items": np.ones(len(moving["items"]), bool),
    }
    pulled: ByKind = {kind: moving[kind][pulls[kind]] for kind in KINDS}
    changes: dict[Nodes, Change] = {kind: old.change(new, kind, pulled[kind]) for kind in KINDS}
    pull = _pull(problem, settings, pulled, changes, new)

    tables: ByKind = record.tables
    sheds = {"items": settings.shed_items, "users": settings.shed_users}

    def moved(kind: Nodes, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The rows that move, by their neighbourhoods before and after."""
        rows = moving[kind]
        own, rest = tables[kind][rows], sheds[kind] * share[kind][rows, None].astype(np.float32)
        found = turned(own, before, after, record.weights[kind], settings.follow, rest)
        found[pulls[kind]] += pull[kind]
        left = new.degree[kind][rows] / np.maximum(old.degree[kind][rows], 1)
        return resized(found, own, left.astype(np.float32) ** np.float32(record.powers[kind]), settings.resize)

    near = record.near.of(moving["items"])
    values: ByKind = {
        "items": moved("items", phi(near), phi(changes["items"].near(near, tables["users"]))),
        "users": tables["users"][moving["users"]],
    }
    if len(moving["users"]):
        items = tables["items"].copy()
        items[moving["items"]] = values["items"]
        before, after = (data.of("users", moving["users"]) for data in (old, new))
        values["users"] = moved("users", phi(before.near(tables["items"])), phi(after.near(items)))
    alone: ByKind = {kind: lost[kind][new.degree[kind][lost[kind]] == 0] for kind in KINDS}
    return _unstacked(moving, values, alone, problem), {
        "moved_users": len(moving["users"]),
        "moved_items": len(moving["items"]),
    }


def _regressed(
    before: Sides, tables: ByKind, kind: Nodes, near: Callable[[np.ndarray], Near], penalty: float
) -> np.ndarray:
    """W or V."""
    trained = np.flatnonzero(before.degree[kind])
    rows = trained[:: -(-len(trained) // REGRESSED)]
    return ridge(phi(near(rows)), tables[kind][rows], penalty)


def _share(before: np.ndarray, after: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Of the pairs of each row that are forgotten, by its degrees; 0 but for the rows that have lost one."""
    share = np.zeros(len(before))
    share[lost] = 1 - after[lost] / before[lost]
    return share


def _moving(problem: Problem, lost: ByKind, share: ByKind, sides: tuple[Sides, Sides], least: float) -> ByKind:
    """Rows with a share of forgotten evidence that have a pair left, int [n]: items with a forgotten pair or feature row; users with a
    forgotten pair, or whose items have lost more than the least share on average."""
    content = [rows for m, rows in problem.forget_set.features.items() if m in problem.original.backbone.modalities]
    items = distinct(np.concatenate([lost["items"], *map(np.flatnonzero, content)])) if content else lost["items"]
    old, new = sides
    # What the items of a user have lost, summed over the edges of those that have lost anything: all others add nothing. Edges that go may
    # stay among them, since their users move anyway.
    edges = old.edges_of("items", lost["items"])
    users_of = edges.indices
    shares = np.repeat(share["items"][lost["items"]], np.diff(edges.indptr))
    degree = new.degree["users"]
    losses = np.bincount(users_of, shares, minlength=len(degree))
    near = np.flatnonzero(losses)
    near = near[losses[near] > least * degree[near]]
    users = distinct(np.concatenate([lost["users"], near]))
    return {"users": users[degree[users] > 0], "items": items[new.degree["items"][items] > 0]}


def _pull(problem: Problem, settings: Settings, rows: ByKind, changes: dict[Nodes, Change], new: Sides) -> ByKind:
    """What the pull of their pairs on some rows changes by, float32 [k, d] for users and items."""
    original, retain, record = problem.original, problem.retain, problem.record
    gone = problem.forget_set.places
    if problem.forget_set.items.any():  # a removed item is no negative any more
        gone = distinct(np.concatenate([gone, np.flatnonzero(problem.forget_set.items[record.negatives])]))
    of_content = any(rows.any() for rows in problem.forget_set.features.values())
    same = retain.backbone is original.backbone  # an item may have been the last with a modality
    if record.whole is not None and same and not of_content:
        layers, rate = record.whole
        found = change(layers, original.dataset.train, record.negatives, gone, rows, changes, new.between(rows))
    else:
        kept = np.ones(len(record.negatives), bool)
        kept[gone] = False
        slopes = differentiated(original, retain, record.negatives, kept)
        full, left = (_by_kind(slope, original.backbone) for slope in slopes)
        found = {kind: (full[kind] - left[kind])[rows[kind]] for kind in KINDS}
        rate = rates(record.tables, full)
    steps = {"users": settings.step_users, "items": settings.step_items}
    return {kind: np.float32(steps[kind] * rate[kind]) * found[kind] for kind in KINDS}


def _by_kind(params: Params, backbone: Backbone) -> ByKind:
    return {kind: _stacked(params, kind, backbone) for kind in KINDS}


def _stacked(params: Params, kind: Nodes, backbone: Backbone) -> np.ndarray:
    """The id tables of users or items side by side, float32 [n, d]; d = 0 where there is none."""
    tables = [np.asarray(params[name]) for name, rows in backbone.id_tables().items() if rows == kind]
    size = {"users": backbone.shape.num_users, "items": backbone.shape.num_items}[kind]
    return tables[0] if len(tables) == 1 else np.hstack([np.zeros((size, 0), np.float32), *tables])


def _unstacked(moving: ByKind, values: ByKind, alone: ByKind, problem: Problem) -> Moved:
    """Rows of each id table from those side by side, with rows of a new model for users and items that are left alone.

    Args:
        moving: rows, int [k].
        values: theirs, as `_stacked` put tables side by side, float32 [k, d].
        alone: rows that have no pair any more, int [n].
        problem: of the request.
    """
    rows, found, start = {}, {}, dict.fromkeys(KINDS, 0)
    for name, kind in problem.original.backbone.id_tables().items():
        width = problem.original.params[name].shape[1]
        own = values[kind][:, start[kind] : start[kind] + width]
        start[kind] += width
        anew = alone[kind] if name in problem.fresh else alone[kind][:0]  # a table may go with its modality
        if len(moving[kind]) or len(anew):
            new = np.asarray(problem.fresh[name])[anew] if len(anew) else own[:0]
            rows[name], found[name] = np.concatenate([moving[kind], anew]), np.concatenate([own, new])
    return Moved(rows, found)


METHOD = Method(Settings, delta, prepare, in_place=True)
