"""Projected noisy fine-tuning: the approximate method that comes with a guarantee, and what it costs.

    x_t = Pi_C(x_{t-1} - rate grad L(x_{t-1}; batch of D_r)) + N(0, sigma^2 I),  t = 1 ... steps;   then `epochs` of training on D_r

Pi_C projects onto the ball of radius C around fresh parameters. sigma is the least noise for which the chain cannot be told apart, by more
than epsilon and delta, from one that starts at a model that never saw the forgotten data, see `accounting`. The training afterwards and the
removal read retained data and the original's array sizes, so they cannot undo this. All parameters move, and nothing is required of the
original's training.

Anyone who knows the noise can subtract it. It is drawn from the system's entropy and never stored; batches follow the seed.

Source: Koloskova et al. 2025 (arXiv 2506.06985), model clipping; the accounting of the noise is ours and needs less noise.
"""

import functools
import os
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Gt, Lt

from recunlearn_jax.accounting import sigma_of
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params
from recunlearn_jax.recommender import shapes
from recunlearn_jax.sampling import draw_pairs
from recunlearn_jax.settings import Checked, Count, CountFromZero, NotNegative, Positive
from recunlearn_jax.train import initial_params
from recunlearn_jax.unlearn.base import Method, Problem
from recunlearn_jax.unlearn.finetune import trained_on
from recunlearn_jax.unlearn.removal import like


@dataclass(frozen=True)
class Settings(Checked):
    """Projected noisy fine-tuning."""

    epsilon: Positive = 10.0
    delta: Annotated[float, Gt(0), Lt(1)] = 1e-5
    radius: Positive = 0.01
    """C, in the norm of all parameters; it must not be chosen by looking at the model."""
    steps: Count = 100
    """Noisy steps; with more of them each needs less noise."""
    learning_rate: NotNegative = 1e-3
    batch_size: Count = 2048
    epochs: CountFromZero = 10
    """Epochs of training on the retained data, afterwards and without noise."""
    noise_seed: CountFromZero = 0
    """0 for noise that nobody knows. The noise of any other number can be drawn again: for experiments, and without a guarantee."""


def projected(params: Params, centre: Params, radius: float | jax.Array) -> Params:
    """Pi_C: the nearest parameters in the ball of a radius around a centre."""
    # Values that are not finite are put at the centre: wherever a chain starts, it is in the ball.
    apart = jax.tree.map(lambda p, c: jnp.where(jnp.isfinite(p), p - c, 0), params, centre)
    norm = jnp.sqrt(sum((jnp.sum(jnp.square(x)) for x in jax.tree.leaves(apart)), jnp.float32(0)))
    scale = jnp.minimum(1, radius / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny))
    return jax.tree.map(lambda c, x: c + scale * x, centre, apart)


@functools.partial(jax.jit, static_argnames=("backbone", "size"))
def noisy_steps(
    key: jax.Array,
    noise: jax.Array,
    params: Params,
    centre: Params,
    data: Data,
    *,
    steps: int | jax.Array,
    size: int,
    rate: float | jax.Array,
    radius: float | jax.Array,
    sigma: float | jax.Array,
    backbone: Backbone,
) -> Params:
    """All steps of the chain.

    Args:
        key: typed PRNG key of the batches.
        noise: typed PRNG key of the noise.
        params: x_0.
        centre: of the ball.
        data: the retained data.
        steps, size: number of steps, and pairs in each.
        rate: of gradient descent.
        radius, sigma: C and the noise.
        backbone: static.
    """

    def step(i, params):
        batch = draw_pairs(jax.random.fold_in(key, i), data.sampler, size)
        gradients = jax.grad(backbone.loss)(params, data, batch, size)
        params = projected(jax.tree.map(lambda p, g: p - rate * g, params, gradients), centre, radius)
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.fold_in(noise, i), len(leaves))
        noisy = [p + sigma * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(tree, noisy)

    return jax.lax.fori_loop(0, steps, step, params)


def noise_key(seed: int) -> jax.Array:
    """Key of the noise: from a seed or, if that is 0, from 128 random bits that are never stored."""
    if seed:
        return jax.random.key(seed)
    return jax.random.wrap_key_data(jnp.asarray(np.frombuffer(os.urandom(16), np.uint32)), impl="rbg")


def noisy(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Noisy steps, then training without noise."""
    original, retain = problem.original, problem.retain
    seed_key, draw_key, train_key = jax.random.split(key, 3)
    centre = initial_params(retain, int(jax.random.bits(seed_key, dtype=jnp.uint32) >> 1))
    sigma = sigma_of(settings.epsilon, settings.delta, settings.radius, settings.steps)
    params = original.params if retain.backbone is original.backbone else like(original.params, shapes(retain), "noisy")
    data = retain.backbone.epoch(train_key, retain.data)
    params = noisy_steps(
        draw_key,
        noise_key(settings.noise_seed),
        params,
        centre,
        data,
        steps=settings.steps,
        size=settings.batch_size,
        rate=settings.learning_rate,
        radius=settings.radius,
        sigma=sigma,
        backbone=retain.backbone,
    )
    params = trained_on(train_key, params, retain, settings.epochs)
    told = {
        "epsilon": settings.epsilon if not settings.noise_seed else None,
        "delta": settings.delta,
        "sigma": sigma,
    }
    return params, {"steps": settings.steps, "epochs": settings.epochs} | told


METHOD = Method(Settings, noisy, source="arXiv 2506.06985")
