"""How long the forget terms count: while forgotten pairs stand out more than pairs that no training step has seen.

The forget terms see forgotten pairs with their edges in place. The valid pairs of retained users, put into the edited graph, are in the
same situation: the graph knows them, the parameters do not. A forgotten pair with their margin d stands out no more than they do. Neither
Gold nor test is looked at.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import losses
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Linear, Params
from recunlearn_jax.losses import Views
from recunlearn_jax.sampling import Sampler, draw_negatives
from recunlearn_jax.unlearn.base import Problem


def unseen_pairs(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Valid pairs of users who still have train pairs.

    Returns:
        The pairs, int [n, 2]; the same padded to the original's number of valid pairs; and weights float32 of the padded rows by which
        every user counts alike.
    """
    data = problem.retain.dataset
    trained = np.bincount(data.train[:, 0], minlength=data.num_users) > 0
    pairs = data.valid[trained[data.valid[:, 0]]]
    rows = np.pad(pairs, ((0, problem.original.sizes.valid - len(pairs)), (0, 0)))
    # Padding names user 0, who may have no pair: its share is 0 all the same, not 0 * inf.
    share = 1 / np.maximum(np.bincount(pairs[:, 0], minlength=data.num_users), 1)
    weights = share[rows[:, 0]] * (np.arange(len(rows)) < len(pairs))
    return pairs, rows, weights.astype(np.float32)


def linear_margin_of_unseen(problem: Problem, params: Params, edited: Any, gates: Any) -> jax.Array | np.float32:
    """Mean over users of the margin of unseen pairs before the first step, for a backbone that is linear in its id tables.

    Args:
        problem: of the request.
        params: before the first step.
        edited: graphs of the retained data, for every modality of the original.
        gates: of the parameters.

    Returns:
        float32 scalar; -inf where there is no such pair, so that the forget terms always count.
    """
    original, linear = problem.original, problem.original.backbone.linear
    assert linear is not None
    pairs, rows, weights = unseen_pairs(problem)
    if not len(pairs):
        return np.float32(-np.inf)
    linked = np.concatenate([problem.retain.dataset.train, pairs])
    graphs = linear.relink(edited, linked, original.sizes.pairs + original.sizes.valid)
    return _linear_margin(params, graphs, gates, problem.retain.data.sampler, rows, weights, linear=linear)


def margin_of_unseen(problem: Problem, params: Params) -> jax.Array | np.float32:
    """The same for any backbone."""
    original, retain = problem.original, problem.retain
    pairs, rows, weights = unseen_pairs(problem)
    if not len(pairs):
        return np.float32(-np.inf)
    linked = retain.dataset.replace(train=np.concatenate([retain.dataset.train, pairs]))
    linked = linked.replace(train=linked.train[np.lexsort((linked.train[:, 1], linked.train[:, 0]))])
    sizes = original.sizes._replace(pairs=original.sizes.pairs + original.sizes.valid)
    data = retain.data._replace(graphs=retain.backbone.graphs(linked, sizes))
    return _margin(params, data, rows, weights, backbone=retain.backbone)


@functools.partial(jax.jit, static_argnames="linear")
def _linear_margin(params, graphs, gates, sampler, pairs, weights, *, linear: Linear) -> jax.Array:
    rows = linear.propagated(params, graphs, gates)
    return _mean_margin(functools.partial(linear.views, params, rows), sampler, pairs, weights)


@functools.partial(jax.jit, static_argnames="backbone")
def _margin(params, data: Data, pairs, weights, *, backbone: Backbone) -> jax.Array:
    return _mean_margin(functools.partial(backbone.views, params, data), data.sampler, pairs, weights)


def _mean_margin(views: Callable[..., Views], sampler: Sampler, pairs: jax.Array, weights: jax.Array) -> jax.Array:
    users, items = pairs.T
    positive, negative = losses.scores(views(users, items, draw_negatives(jax.random.key(0), sampler, users)))
    return jnp.sum((positive - negative) * weights) / jnp.sum(weights)
