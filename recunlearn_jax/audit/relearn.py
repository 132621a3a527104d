"""Check 6, relearn time: how many steps on the forgotten pairs bring the loss on them back to the original's.

What was only hidden comes back at once; what was never learnt has to be learnt. The pairs are given back with their edges: anyone who
holds the data can do that.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import losses
from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data
from recunlearn_jax.recommender import Recommender
from recunlearn_jax.requests import forget_pairs
from recunlearn_jax.sampling import Sampler, build_sampler, draw_negatives
from recunlearn_jax.train import OPTIMIZER, descend
from recunlearn_jax.verdict import Figure

MOST_STEPS = 300
MOST_PAIRS = 2048


class Lesson(NamedTuple):
    """What is taught again."""

    data: Data  # of the original
    sampler: Sampler
    pairs: jax.Array  # int32 [n, 2], forgotten pairs, at most MOST_PAIRS of them
    negatives: jax.Array  # int32 [n], the same for every model


def lesson(original: Recommender, forgotten: np.ndarray) -> Lesson:
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


@functools.partial(jax.jit, static_argnames="backbone")
def forget_loss(params: Any, taught: Lesson, *, backbone: Backbone) -> jax.Array:
    """BPR of the forgotten pairs with their edges in place, float scalar."""
    return _loss(params, taught, taught.negatives, backbone)


def _loss(params, taught, negatives, backbone):
    users, items = taught.pairs.T
    return losses.bpr(*losses.scores(backbone.views(params, taught.data, users, items, negatives)))


@functools.partial(jax.jit, static_argnames="backbone")
def relearn_steps(
    params: Any,
    taught: Lesson,
    target: jax.Array,
    *,
    backbone: Backbone,
    learning_rate: float | jax.Array = 1e-3,
    most_steps: int | jax.Array = MOST_STEPS,
) -> jax.Array:
    """Steps of Adam until the loss on the forgotten pairs is at most the target.

    Args:
        params: of the model under examination; the original's optimizer state is not used.
        taught: from `lesson`.
        target: float scalar, the original's `forget_loss`.
        backbone: whose parameters these are.
        learning_rate: of Adam.
        most_steps: limit after which it ends in any case.

    Returns:
        int32 scalar, 0 for a model that has not forgotten.
    """

    def unfinished(carry):
        _, _, step, loss = carry
        return (loss > target) & (step < most_steps)

    def once(carry):
        params, opt_state, step, _ = carry
        negatives = draw_negatives(jax.random.fold_in(jax.random.key(4), step), taught.sampler, taught.pairs[:, 0])
        gradients = jax.grad(_loss)(params, taught, negatives, backbone)
        params, opt_state = descend(gradients, opt_state, params, learning_rate)
        return params, opt_state, step + 1, _loss(params, taught, taught.negatives, backbone)

    first = (params, OPTIMIZER.init(params), jnp.int32(0), _loss(params, taught, taught.negatives, backbone))
    return jax.lax.while_loop(unfinished, once, first)[2]


def prepare(case: Case) -> Measure:
    """Steps at the training's learning rate."""
    original, forgotten = case.original, forget_pairs(case.dataset, case.forget_set)
    if original is None or not len(forgotten):
        return lambda subject: {}
    taught = lesson(original, forgotten)
    target = forget_loss(original.params, taught, backbone=original.backbone)
    rate = original.config.train.learning_rate

    def measure(subject: Subject) -> Row:
        model = subject.model
        steps = relearn_steps(model.params, taught, target, backbone=model.backbone, learning_rate=rate)
        return {"relearn steps": float(steps)}

    return measure


CHECK = Check(6, (Figure("relearn steps", "erased", 1.0),), prepare, needs="params")
