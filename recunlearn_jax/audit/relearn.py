"""Relearn time: how many steps on the forgotten pairs bring the original's loss on them back.

What was only hidden comes back at once; what was never learnt has to be learnt. The pairs are given back with their edges: whoever holds
the data can do that.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import losses
from recunlearn_jax.models import MGCN, batch_views
from recunlearn_jax.sampling import Sampler, build_sampler, draw_negatives
from recunlearn_jax.train import OPTIMIZER, TrainData, Trained, descend

MOST_STEPS = 300
MOST_PAIRS = 2048


class Lesson(NamedTuple):
    """What is taught again."""

    data: TrainData  # of the original
    sampler: Sampler
    pairs: jax.Array  # int32 [n, 2], forgotten pairs, at most MOST_PAIRS of them
    negatives: jax.Array  # int32 [n], the same for every model


def lesson(original: Trained, forgotten: np.ndarray) -> Lesson:
    """Prepare what all models of a comparison are taught.

    Args:
        original: before the request.
        forgotten: int [n, 2], D_f.
    """
    dataset = original.dataset
    chosen = np.sort(np.random.default_rng(3).permutation(len(forgotten))[:MOST_PAIRS])
    sampler = build_sampler(forgotten[chosen], dataset.train, dataset.num_users, dataset.num_items)
    negatives = draw_negatives(jax.random.key(3), sampler, sampler.pairs[:, 0])
    return Lesson(original.data, sampler, sampler.pairs, negatives)


@functools.partial(jax.jit, static_argnames="model")
def forget_loss(params: Any, taught: Lesson, *, model: MGCN) -> jax.Array:
    """BPR of the forgotten pairs with their edges in place, float scalar."""
    return _loss(params, taught, taught.negatives, model)


def _loss(params, taught, negatives, model):
    users, items = taught.pairs.T
    views = batch_views(model, params, taught.data.graphs, taught.data.features, users, items, negatives)
    return losses.bpr(*losses.scores(views))


@functools.partial(jax.jit, static_argnames=("model", "learning_rate", "most_steps"))
def relearn_steps(
    params: Any,
    taught: Lesson,
    target: jax.Array,
    *,
    model: MGCN,
    learning_rate: float = 1e-3,
    most_steps: int = MOST_STEPS,
) -> jax.Array:
    """Steps of Adam until the loss on the forgotten pairs is at most the target.

    Args:
        params: of the model under examination; the original's optimizer state is not part of it.
        taught: from `lesson`.
        target: float scalar, the original's `forget_loss`.
        model: whose parameters these are.
        learning_rate: of Adam.
        most_steps: where it ends all the same.

    Returns:
        int32 scalar, 0 for a model that has not forgotten.
    """

    def unfinished(carry):
        _, _, step, loss = carry
        return (loss > target) & (step < most_steps)

    def once(carry):
        params, opt_state, step, _ = carry
        negatives = draw_negatives(jax.random.fold_in(jax.random.key(4), step), taught.sampler, taught.pairs[:, 0])
        gradients = jax.grad(_loss)(params, taught, negatives, model)
        params, opt_state = descend(gradients, opt_state, params, learning_rate)
        return params, opt_state, step + 1, _loss(params, taught, taught.negatives, model)

    first = (params, OPTIMIZER.init(params), jnp.int32(0), _loss(params, taught, taught.negatives, model))
    return jax.lax.while_loop(unfinished, once, first)[2]
