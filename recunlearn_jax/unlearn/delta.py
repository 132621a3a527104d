"""Delta: move each row that the request touches as the change in its data predicts, in closed form. Nothing is trained.

A trained row has three parts that can be told apart: what its neighbourhood says about it, where the gradient of its own pairs points, and
the rest, which only its own pairs can have taught. With D and D_r the data before and after, and f the share of the row's pairs forgotten,

    items   c_i = [phi(i; D_r, E_U) - phi(i; D, E_U)] W
            E_i += follow lambda_I c_i + turn_I [g_i(D_r) - g_i(D)] - f_i shed(E_i - phi(i; D, E_U) W)
    users   the same with E_I' (the new rows of the items) in phi(D_r), V, lambda_U and turn_U
    each    E   <- E (size of rows of its new degree / size of rows of its old degree) |E before| / |E|

`neighbourhood` has phi, W and V (ridge regressions of the trained rows on phi(D)), and lambda: how much of that regression is due to the
partners and not an echo of the row itself. g points down the gradient of BPR at half of the rows (the middle of their training) and is as
long as the row (`gradients`). shed(r) is all of r along the direction of c, and a share of r at right angles to it. The last line is there
because training goes on until the remaining pairs are learnt: a row turns, but keeps the size that its degree gives it.

The regressions and the gradient of all pairs depend on the whole data and are prepared before a request comes, so the work for a request
follows what it touches. Rows that lose no evidence, their own or their neighbours', stay the same to the bit; rows left without any pair
start anew. `docs/unlearning.md` has the experiments behind each part.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from recunlearn_jax.arrays import distinct
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Params
from recunlearn_jax.recommender import Recommender, Setup
from recunlearn_jax.settings import Checked, NotNegative, Positive, Share
from recunlearn_jax.sides import KINDS, OTHER, ByKind, Change, Near, Nodes, Sides
from recunlearn_jax.unlearn.base import Memory, Method, Moved, Problem
from recunlearn_jax.unlearn.gradients import Layers, backpropagated, differentiated, gradient_after
from recunlearn_jax.unlearn.neighbourhood import phi, ridge, said_without_echo, strength

REGRESSED = 100_000  # a regression and its lambda read at most this many rows of a kind


@dataclass(frozen=True)
class Settings(Checked):
    """Found on tiktok with request seeds 0 and 3 to 5, which no audit reports."""

    follow: NotNegative = 1.0
    """How far rows follow their neighbourhood, in units of lambda."""
    turn_users: NotNegative = 0.3
    """How much of a user's row turns with the gradient of its pairs."""
    turn_items: NotNegative = 0.2
    """The same for an item's row."""
    shed_users: Share = 1.0
    """Share that a user's row would lose, if all of its pairs went, of the part that its neighbourhood does not explain and that lies at
    right angles to its move."""
    shed_items: Share = 0.2
    """The same for an item's row."""
    resize: Share = 1.0
    """How far a moved row is brought to the size that its new degree gives it; at 0 it keeps the size that the other parts give."""
    penalty: Positive = 1e-3
    """Penalty of the two ridge regressions, in mean squares of their inputs."""
    least: Share = 0.02
    """A user who loses no pair moves if its items have lost more than this share of their pairs, on average."""


class Record(NamedTuple):
    """What is known about the whole data before a request."""

    tables: ByKind  # id tables of users and items side by side, float32 [n, d]
    near: Near  # of all items
    negatives: np.ndarray  # int32 [n], one for each train pair
    weights: ByKind  # W of items and V of users, float32 [3 d + 2, d]
    strengths: dict[Nodes, float]  # lambda
    powers: dict[Nodes, float]  # see `power`
    gradient: ByKind  # of all pairs, float32 [n, d]
    layers: Layers | None  # of the gradient; None if the whole model is differentiated


def pointed(own: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """g: down each row's gradient, and as long as the row.

    Args:
        own: E, float32 [n, d].
        gradient: float32 [n, d]; where it is 0, so is g.

    Examples:
        >>> pointed(np.array([[3.0, 4.0], [1.0, 1.0]]), np.array([[0.0, -2.0], [0.0, 0.0]])).tolist()
        [[-0.0, 5.0], [-0.0, -0.0]]
    """
    sizes, steep = (np.linalg.norm(rows, axis=1, keepdims=True) for rows in (own, gradient))
    return -gradient * (sizes / np.where(steep > 0, steep, 1))


def shed(rest: np.ndarray, direction: np.ndarray, share: float) -> np.ndarray:
    """What a row loses of its rest: all of it along a direction, and a share of it at right angles.

    Args:
        rest: float32 [n, d].
        direction: float32 [n, d], of any length; nothing lies along a row of zeros.
        share: of what lies at right angles.

    Examples:
        >>> shed(np.array([[3.0, 4.0]]), np.array([[-2.0, 0.0]]), 0.5).tolist()
        [[3.0, 2.0]]
    """
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    unit = direction / np.where(length > 0, length, 1)
    along = np.sum(rest * unit, axis=1, keepdims=True) * unit
    return along + share * (rest - along)


def followed(
    own: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    weights: np.ndarray,
    strength: float,
    share: np.ndarray,
    across: float,
) -> np.ndarray:
    """E + strength c - f shed(E - phi W), c = [phi' - phi] W: a row follows its neighbourhood and sheds some of its rest.

    Args:
        own: E, float32 [n, d].
        before, after: phi of the data before and after, float32 [n, k].
        weights: W, float32 [k, d].
        strength: follow times lambda.
        share: f, the share of the row's pairs that go, float32 [n, 1].
        across: the share in `shed`.

    Examples:
        >>> row, there, gone = np.array([[5.0]]), np.array([[2.0]]), np.array([[1.0]])
        >>> followed(row, there, gone, np.array([[1.0]]), 1.0, np.array([[0.5]]), 0.0).tolist()  # 5 - 1, less half of 5 - 2
        [[2.5]]
    """
    predicted = (after - before) @ weights
    return own + np.float32(strength) * predicted - share * shed(own - before @ weights, predicted, across)


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
    # Drawn from all items, so a few are the user's own; the same before and after.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    negatives = rng.choice(np.unique(train[:, 1]), len(train)).astype(np.int32)
    before = original.setup.sides
    tables = _by_kind(original.params, backbone)
    if backbone.id_layers is None:
        layers, gradient = None, _by_kind(differentiated(original, original.setup, negatives), backbone)
    else:
        layers = backpropagated(np.asarray(original.rows), train, negatives, before, backbone.id_layers)
        gradient = layers.whole()
    near: dict[Nodes, Near] = {kind: before.of(kind).near(tables[OTHER[kind]]) for kind in KINDS}
    sampled: ByKind = {kind: _sampled(before.degree[kind]) for kind in KINDS}
    weights: ByKind = {
        kind: ridge(phi(near[kind].of(rows)), tables[kind][rows], settings.penalty) for kind, rows in sampled.items()
    }
    # WHY for items alone: with the turn taken off users too, too much of single pairs would be left (docs/unlearning.md).
    turned: ByKind = {
        "users": tables["users"],
        "items": tables["items"] - np.float32(settings.turn_items) * pointed(tables["items"], gradient["items"]),
    }
    strengths: dict[Nodes, float] = {
        kind: strength(turned[kind][rows], said_without_echo(before, near, tables, kind, rows, weights))
        for kind, rows in sampled.items()
    }
    powers: dict[Nodes, float] = {kind: power(tables[kind], before.degree[kind]) for kind in KINDS}
    return Memory(original, Record(tables, near["items"], negatives, weights, strengths, powers, gradient, layers))


def delta(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Moved, dict[str, Any]]:
    """Move rows as the change in their data predicts."""
    del key
    original, record = problem.original, problem.record
    old = original.setup.sides
    new = problem.left or old.without(original.dataset.train, problem.forget_set.places)
    assert new.lost is not None
    lost = new.lost
    share: ByKind = {kind: _share(old.degree[kind], new.degree[kind], lost[kind]) for kind in KINDS}
    moving = _moving(problem, lost, share, (old, new), settings.least)
    # A user who has lost no pair follows its items and does not turn.
    turns = {
        "users": np.isin(moving["users"], lost["users"], assume_unique=True),
        "items": np.ones(len(moving["items"]), bool),
    }
    turning: ByKind = {kind: moving[kind][turns[kind]] for kind in KINDS}
    changes: dict[Nodes, Change] = {kind: old.change(new, kind, turning[kind]) for kind in KINDS}
    gradients = _gradients(problem, turning, changes, new)

    tables: ByKind = record.tables
    turn = {"items": settings.turn_items, "users": settings.turn_users}
    across = {"items": settings.shed_items, "users": settings.shed_users}

    def moved(kind: Nodes, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The new values of the rows that move, from their neighbourhoods before and after."""
        rows, follow = moving[kind], settings.follow * record.strengths[kind]
        own, lost_share = tables[kind][rows], share[kind][rows, None].astype(np.float32)
        found = followed(own, before, after, record.weights[kind], follow, lost_share, across[kind])
        then, now = (pointed(own[turns[kind]], gradient[kind]) for gradient in gradients)
        found[turns[kind]] += np.float32(turn[kind]) * (now - then)
        ratio = (new.degree[kind][rows] / old.degree[kind][rows]).astype(np.float32)
        return resized(found, own, ratio ** np.float32(record.powers[kind]), settings.resize)

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


def _sampled(degree: np.ndarray) -> np.ndarray:
    """Rows that have a pair, int [k]; only some of them if there are many."""
    trained = np.flatnonzero(degree)
    return trained[:: -(-len(trained) // REGRESSED)]


def _share(before: np.ndarray, after: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Share of each row's pairs that is forgotten, from its degrees; 0 for rows that have lost none."""
    share = np.zeros(len(before))
    share[lost] = 1 - after[lost] / before[lost]
    return share


def _moving(problem: Problem, lost: ByKind, share: ByKind, sides: tuple[Sides, Sides], least: float) -> ByKind:
    """Rows that lose evidence and have a pair left, int [n]: items with a forgotten pair or feature row; users with a
    forgotten pair, or whose items have lost more than the least share on average."""
    content = [rows for m, rows in problem.forget_set.features.items() if m in problem.original.backbone.modalities]
    items = distinct(np.concatenate([lost["items"], *map(np.flatnonzero, content)])) if content else lost["items"]
    old, new = sides
    # What a user's items have lost, summed over the edges of items that have lost anything, since all others add nothing. Edges that go
    # may be among them, since their users move anyway.
    edges = old.edges_of("items", lost["items"])
    users_of = edges.indices
    shares = np.repeat(share["items"][lost["items"]], np.diff(edges.indptr))
    degree = new.degree["users"]
    losses = np.bincount(users_of, shares, minlength=len(degree))
    near = np.flatnonzero(losses)
    near = near[losses[near] > least * degree[near]]
    users = distinct(np.concatenate([lost["users"], near]))
    return {"users": users[degree[users] > 0], "items": items[new.degree["items"][items] > 0]}


def _gradients(problem: Problem, turning: ByKind, changes: dict[Nodes, Change], new: Sides) -> tuple[ByKind, ByKind]:
    """Gradients of BPR before and after the request, at the rows that turn, float32 [k, d] each for users and items."""
    original, retain, record = problem.original, problem.retain, problem.record

    def at(gradient: ByKind) -> ByKind:
        return {kind: gradient[kind][turning[kind]] for kind in KINDS}

    gone = problem.forget_set.places
    if problem.forget_set.items.any():  # a removed item is no longer a negative
        gone = distinct(np.concatenate([gone, np.flatnonzero(problem.forget_set.items[record.negatives])]))
    of_content = any(rows.any() for m, rows in problem.forget_set.features.items() if m in original.backbone.modalities)
    same = retain.backbone is original.backbone  # an item may have been the last with a modality
    if record.layers is not None and same and not of_content:
        pairs, among = original.dataset.train, new.between(turning)
        return at(record.gradient), gradient_after(
            record.layers, pairs, record.negatives, gone, turning, changes, among
        )
    kept = np.ones(len(record.negatives), bool)
    kept[gone] = False

    def through_the_model(data: Setup, counted: np.ndarray | None = None) -> ByKind:
        return at(_by_kind(differentiated(original, data, record.negatives, counted), original.backbone))

    before = at(record.gradient) if record.layers is None else through_the_model(original.setup)
    return before, through_the_model(retain, kept)


def _by_kind(params: Params, backbone: Backbone) -> ByKind:
    return {kind: _stacked(params, kind, backbone) for kind in KINDS}


def _stacked(params: Params, kind: Nodes, backbone: Backbone) -> np.ndarray:
    """The id tables of users or items side by side, float32 [n, d]; d = 0 where there is none."""
    tables = [np.asarray(params[name]) for name, rows in backbone.id_tables().items() if rows == kind]
    size = {"users": backbone.shape.num_users, "items": backbone.shape.num_items}[kind]
    return tables[0] if len(tables) == 1 else np.hstack([np.zeros((size, 0), np.float32), *tables])


def _unstacked(moving: ByKind, values: ByKind, alone: ByKind, problem: Problem) -> Moved:
    """Rows of each id table, split from rows side by side, and rows of a new model for users and items left without a pair.

    Args:
        moving: rows, int [k].
        values: of these rows, side by side as `_stacked` put the tables, float32 [k, d].
        alone: rows that no longer have a pair, int [n].
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
