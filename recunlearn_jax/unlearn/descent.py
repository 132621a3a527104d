"""The loop for methods that take steps on batches of forgotten pairs."""

from collections.abc import Callable

import jax

from recunlearn_jax.backbones.base import Params, Triplets
from recunlearn_jax.sampling import Sampler, draw_pairs
from recunlearn_jax.train import OPTIMIZER, descend


def steps_on(
    loss: Callable[[Params, Triplets, jax.Array], jax.Array],
    key: jax.Array,
    params: Params,
    forget: Sampler,
    steps: int | jax.Array,
    size: int,
    learning_rate: float | jax.Array,
) -> Params:
    """The parameters after `steps` steps of Adam; for traced code.

    Args:
        loss: (parameters, triplets, weights) -> scalar.
        key: typed PRNG key.
        params: before the first step.
        forget: sampler of D_f.
        steps: number of steps; may be traced, like the rate.
        size: pairs per step.
        learning_rate: of Adam.
    """

    def step(i, carry):
        moved, opt_state = carry
        *triplets, weights = draw_pairs(jax.random.fold_in(key, i), forget, size)
        return descend(jax.grad(loss)(moved, tuple(triplets), weights), opt_state, moved, learning_rate)

    return jax.lax.fori_loop(0, steps, step, (params, OPTIMIZER.init(params)))[0]
