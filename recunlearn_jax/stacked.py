"""Several trainings of one data set side by side, in one program: Golds of one request, or other seeds.

A step of a small model leaves most of a GPU idle, so many models take little longer than one. One training fills a CPU: there, train one
after the other.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params
from recunlearn_jax.config import TrainConfig
from recunlearn_jax.errors import InputError, check_type
from recunlearn_jax.evaluate import METRICS, RankingTask, held_out_task, rank
from recunlearn_jax.precision import check_precision
from recunlearn_jax.recommender import Recommender, Setup, embed
from recunlearn_jax.settings import check_seed
from recunlearn_jax.stopwatch import Seconds, stopwatch
from recunlearn_jax.train import (
    VALID_METRIC,
    TrainState,
    best_entry,
    check_finite,
    init_state,
    initial_params,
    should_stop,
    train,
    train_epoch,
    trained,
)

_RANKED_AT_ONCE = 4  # models whose scores are in memory together


def train_stacked(
    setup: Setup, seeds: Sequence[int], *, on_epoch: Callable[[int], None] = lambda epoch: None
) -> list[Recommender]:
    """What `train` gives for each seed, to rounding; each stops by its own valid Recall@20, then waits for the others.

    Every array of a step is held once per model. Entries of a history hold no times.

    Args:
        setup: of the data.
        seeds: one per training, at least one.
        on_epoch: called with the number of each epoch that is done.

    Returns:
        One recommender per seed; its `seconds` are its share of the total.

    Raises:
        InputError: there is no seed, the loss of any training is not finite (all end then), or this device lacks the precision asked for.
    """
    check_type(setup, Setup, "setup", "`set_up` makes one of a data set and settings")
    if not len(seeds):
        raise InputError("seeds: none is given; at least one is needed")
    check_precision(setup.config.train.precision)
    if setup.backbone.solve is not None:
        return [train(setup, seed) for seed in seeds]
    backbone, config = setup.backbone, setup.config.train
    task = held_out_task(setup.dataset, "valid")
    histories: list[list[dict[str, Any]]] = [[] for _ in seeds]
    with stopwatch() as seconds:
        states, keys = starts(setup, seeds)
        best, epoch = jax.tree.map(jnp.copy, states.params), 0
        while not all(should_stop(history, config) for history in histories):
            states, losses = stacked_epochs(states, setup.data, keys, backbone=backbone, config=config.of_an_epoch)
            recalls = None if task is None else np.asarray(_recalls(states.params, setup.data, task, backbone=backbone))
            epoch += 1
            improved = np.zeros(len(seeds), bool)
            for i, history in enumerate(histories):
                if should_stop(history, config):
                    continue
                entry: dict[str, Any] = {"epoch": epoch, "loss": float(losses[i])}
                if recalls is not None:
                    entry[VALID_METRIC] = float(recalls[i])
                check_finite(entry, config)
                history.append(entry)
                improved[i] = best_entry(history) is entry
            best = _replaced(best, states.params, jnp.asarray(improved))
            on_epoch(epoch)
        best = jax.block_until_ready(best)
    share = Seconds(seconds.total / len(seeds), seconds.compiling / len(seeds), seconds.programs)
    return [
        trained(setup, jax.tree.map(lambda leaf, i=i: leaf[i], best), history, seed, share)
        for i, (seed, history) in enumerate(zip(seeds, histories, strict=True))
    ]


def starts(setup: Setup, seeds: Sequence[int]) -> tuple[TrainState, jax.Array]:
    """The stacked states before the first epoch, and the keys of the trainings, [models]."""
    states = [init_state(initial_params(setup, check_seed(seed))) for seed in seeds]
    keys = [jax.random.fold_in(jax.random.key(seed), 1) for seed in seeds]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), jnp.stack(keys)


@functools.partial(jax.jit, static_argnames=("backbone", "config"), donate_argnames="states")
def stacked_epochs(
    states: TrainState, data: Data, key: jax.Array, *, backbone: Backbone, config: TrainConfig
) -> tuple[TrainState, Float[Array, "models"]]:
    """`train.train_epoch` of every model.

    Args:
        states: stacked along the first axis, donated.
        data: shared by all.
        key: one per model, [models].
    """
    return jax.vmap(lambda state, own: train_epoch(state, data, own, backbone=backbone, config=config))(states, key)


@functools.partial(jax.jit, static_argnames="backbone")
def _recalls(params: Params, data: Data, task: RankingTask, *, backbone: Backbone) -> Float[Array, "models"]:
    def one(own):
        return rank(embed(own, data, backbone=backbone), task, jnp.asarray([20]))[METRICS.index("recall"), 0]

    return jax.lax.map(one, params, batch_size=_RANKED_AT_ONCE)


@functools.partial(jax.jit, donate_argnums=0)
def _replaced(best: Params, params: Params, improved: Bool[Array, "models"]) -> Params:
    return jax.tree.map(lambda b, p: jnp.where(improved.reshape(-1, *[1] * (p.ndim - 1)), p, b), best, params)
