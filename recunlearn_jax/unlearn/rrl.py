"""RRL: recommendation reverse learning, reverse BPR on the forget set with a Fisher regulariser that protects what other pairs need.

    minimise  mean over D_f of -log sigmoid(-d)  +  lambda / 2 sum_k F_k (theta_k - theta0_k)^2
    F_k = mean over batches of D_r of (dBPR / dtheta_k)^2, divided by its mean over the table that k is in

Source: You et al. 2024 (AAAI, doi 10.1609/aaai.v38i8.28782). What is ours: the Fisher information is that of batch gradients, not of single
examples, and it is scaled to mean 1 in every table, so that the scale of one table's gradients does not decide how the others are held.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params
from recunlearn_jax.sampling import Sampler, draw_pairs
from recunlearn_jax.settings import Batch, Checked, CountFromZero, NotNegative
from recunlearn_jax.unlearn.base import Method, Problem, forget_sampler, margins
from recunlearn_jax.unlearn.descent import steps_on

FISHER_BATCHES = 32


@dataclass(frozen=True)
class Settings(Checked):
    """RRL, at the training's learning rate.

    Chosen on tiktok, pairs:5%, request seed 0, among settings that cost about 5 % of valid Recall@20 (experiments/ablation.py).
    """

    fisher_weight: NotNegative = 0.01
    """lambda."""
    steps: CountFromZero = 100
    batch_size: Batch = 512
    """Forgotten pairs in a step, and retained ones in a batch of the Fisher information."""


def rrl(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Steps of RRL. A request without forgotten pairs (modality data) moves no parameter: the method has no term for it."""
    original = problem.original
    fisher_key, step_key = jax.random.split(key)
    forget, sampler = forget_sampler(problem), problem.retain.data.sampler
    fisher = fisher_information(
        fisher_key, original.params, original.data, sampler, backbone=original.backbone, size=settings.batch_size
    )
    params = reverse_steps(
        step_key,
        original.params,
        fisher,
        settings.fisher_weight,
        original.data,
        forget,
        backbone=original.backbone,
        steps=settings.steps,
        size=settings.batch_size,
        learning_rate=original.config.train.learning_rate,
    )
    return params, {"steps": settings.steps}


@functools.partial(jax.jit, static_argnames=("backbone", "size"))
def fisher_information(
    key: jax.Array, params: Any, data: Data, retain: Sampler, *, backbone: Backbone, size: int
) -> Any:
    """F, like the parameters: mean squared gradient of BPR over batches of retained pairs, scaled to mean 1 in every table."""

    def loss(params, batch):
        return jnp.mean(jax.nn.softplus(-margins(params, data, batch, backbone)))

    def one_batch(i, total):
        *batch, _ = draw_pairs(jax.random.fold_in(key, i), retain, size)
        return jax.tree.map(lambda t, g: t + g**2, total, jax.grad(loss)(params, tuple(batch)))

    total = jax.lax.fori_loop(0, FISHER_BATCHES, one_batch, jax.tree.map(jnp.zeros_like, params))
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(jnp.mean(leaf), 1e-30), total)


@functools.partial(jax.jit, static_argnames=("backbone", "size"))
def reverse_steps(
    key: jax.Array,
    params: Any,
    fisher: Any,
    fisher_weight: float | jax.Array,
    data: Data,
    forget: Sampler,
    *,
    backbone: Backbone,
    steps: int | jax.Array,
    size: int,
    learning_rate: float | jax.Array,
) -> Any:
    """The parameters after `steps` steps of Adam on the objective above."""

    def loss(moved, batch, weights):
        reverse = jnp.sum(weights * jax.nn.softplus(margins(moved, data, batch, backbone))) / size
        moves = jax.tree.map(lambda f, a, b: jnp.sum(f * jnp.square(a - b)), fisher, moved, params)
        return reverse + fisher_weight / 2 * sum(jax.tree.leaves(moves))

    return steps_on(loss, key, params, forget, steps, size, learning_rate)


METHOD = Method(Settings, rrl, source="doi 10.1609/aaai.v38i8.28782")
