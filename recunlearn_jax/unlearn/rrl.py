"""RRL: recommendation reverse learning, reverse BPR on the forget set with a Fisher regulariser that holds what the others need.

    minimise  mean over D_f of -log sigmoid(-d)  +  lambda / 2 sum_k F_k (theta_k - theta0_k)^2
    F_k = mean over batches of D_r of (dBPR / dtheta_k)^2, divided by its mean over the table that k is in

Source: You et al. 2024 (AAAI, doi 10.1609/aaai.v38i8.28782). What is ours: the Fisher information is that of batch gradients, not of single
examples, and it is scaled to mean 1 in every table, so that the scale of one table's gradients does not decide how the others are held.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from recunlearn_jax import losses
from recunlearn_jax.config import Config
from recunlearn_jax.models import MGCN, batch_views
from recunlearn_jax.requests import ForgetSet
from recunlearn_jax.sampling import Sampler, draw_pairs
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.train import OPTIMIZER, TrainData, Trained, descend
from recunlearn_jax.unlearn.base import Unlearned, edit, forget_sampler, reset_rows, strip

# Chosen on tiktok, pairs:5%, request seed 0, among those that cost about 5 % of valid Recall@20 (experiments/ablation.py).
FISHER_WEIGHT = 0.01  # lambda
STEPS = 100
FISHER_BATCHES = 32


def rrl(
    key: jax.Array,
    original: Trained,
    forget_set: ForgetSet,
    config: Config,
    *,
    fisher_weight: float = FISHER_WEIGHT,
    steps: int = STEPS,
) -> Unlearned:
    """Answer a request by `steps` steps of RRL at the training's learning rate; see `unlearn` for the contract.

    A request without forgotten pairs (modality data) moves no parameter: the method has no term for it.
    """
    with stopwatch() as seconds:
        retain = edit(original, forget_set, config)
        fisher_key, step_key, reset_key = jax.random.split(key, 3)
        size = config.unlearn.batch_size
        forget = forget_sampler(original, forget_set)
        fisher = fisher_information(
            fisher_key, original.params, original.data, retain.data.sampler, model=original.model, size=size
        )
        params = reverse_steps(
            step_key,
            original.params,
            fisher,
            jnp.float32(fisher_weight),
            original.data,
            forget,
            model=original.model,
            steps=steps,
            size=size,
            learning_rate=config.train.learning_rate,
        )
        params = jax.block_until_ready(reset_rows(reset_key, strip(params, retain), forget_set.users, forget_set.items))
    return Unlearned(retain.model, params, retain.dataset, retain.data, {"steps": steps}, seconds)


def margins(params: Any, data: TrainData, batch: tuple[jax.Array, ...], model: MGCN) -> jax.Array:
    """d = s_up - s_un of a batch of triplets on the graph of `data`, float [B]."""
    positive, negative = losses.scores(batch_views(model, params, data.graphs, data.features, *batch))
    return positive - negative


@functools.partial(jax.jit, static_argnames=("model", "size"))
def fisher_information(key: jax.Array, params: Any, data: TrainData, retain: Sampler, *, model: MGCN, size: int) -> Any:
    """F, like the parameters: mean squared gradient of BPR over batches of retained pairs, scaled to mean 1 in every table."""

    def loss(params, batch):
        return jnp.mean(jax.nn.softplus(-margins(params, data, batch, model)))

    def one_batch(i, total):
        *batch, _ = draw_pairs(jax.random.fold_in(key, i), retain, size)
        return jax.tree.map(lambda t, g: t + g**2, total, jax.grad(loss)(params, tuple(batch)))

    total = jax.lax.fori_loop(0, FISHER_BATCHES, one_batch, jax.tree.map(jnp.zeros_like, params))
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(jnp.mean(leaf), 1e-30), total)


@functools.partial(jax.jit, static_argnames=("model", "steps", "size", "learning_rate"))
def reverse_steps(
    key: jax.Array,
    params: Any,
    fisher: Any,
    fisher_weight: jax.Array,
    data: TrainData,
    forget: Sampler,
    *,
    model: MGCN,
    steps: int,
    size: int,
    learning_rate: float,
) -> Any:
    """The parameters after `steps` steps of Adam on the objective above."""

    def loss(moved, batch, weights):
        reverse = jnp.sum(weights * jax.nn.softplus(margins(moved, data, batch, model))) / size
        moves = jax.tree.map(lambda f, a, b: jnp.sum(f * jnp.square(a - b)), fisher, moved, params)
        return reverse + fisher_weight / 2 * sum(jax.tree.leaves(moves))

    def step(i, carry):
        moved, opt_state = carry
        *batch, weights = draw_pairs(jax.random.fold_in(key, i), forget, size)
        return descend(jax.grad(loss)(moved, tuple(batch), weights), opt_state, moved, learning_rate)

    return jax.lax.fori_loop(0, steps, step, (params, OPTIMIZER.init(params)))[0]
