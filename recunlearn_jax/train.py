"""Training: one compiled program per epoch, early stopping on valid Recall@20, checkpoints, and a resume that is exact to the bit."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from recunlearn_jax import checkpoint
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params, Sizes
from recunlearn_jax.config import PRESETS, Config, TrainConfig
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import RankingTask, held_out_task, ranking_metrics
from recunlearn_jax.files import as_path
from recunlearn_jax.mesh import place, spread
from recunlearn_jax.precision import check_precision, products_in
from recunlearn_jax.recommender import Recommender, Setup, embed, init_params, set_up
from recunlearn_jax.sampling import draw_negatives, draw_order, has_negative
from recunlearn_jax.settings import check_seed
from recunlearn_jax.stopwatch import Seconds, stopwatch

VALID_METRIC = "recall@20"
OPTIMIZER = optax.scale_by_adam()  # betas 0.9 and 0.999, eps 1e-8, as PyTorch's
_DRAWN_AT_ONCE = 64  # batches, so that what drawing needs besides its result stays small
_EPOCH_DATA = 2**31 - 1  # folded into an epoch's key for what the backbone draws; batches fold in 1, 2, ...


class TrainState(NamedTuple):
    """What an epoch changes."""

    params: Any
    opt_state: Any
    epoch: jax.Array  # int32 scalar, epochs done


def init_state(params: Any) -> TrainState:
    """State before the first epoch."""
    return place(TrainState(params, OPTIMIZER.init(params), jnp.int32(0)))


def descend(gradients: Any, opt_state: Any, params: Any, learning_rate: float | jax.Array) -> tuple[Any, Any]:
    """One Adam step; the learning rate may be traced."""
    learning_rate = _behind(gradients, learning_rate)
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its integer count
        updates, opt_state = OPTIMIZER.update(gradients, opt_state, params)
    return jax.tree.map(lambda p, u: p - learning_rate * u, params, updates), opt_state


def _behind(gradients: Any, learning_rate: float | jax.Array) -> jax.Array:
    """The learning rate, which the compiler knows only once every gradient is there.

    WHY: parameters are updated in place. A gradient may read tables whose own gradients are ready earlier, so without this XLA copies
    every table in every step before changing it. No number lies above infinity, but the compiler does not know that.
    """
    some = sum(gradient[(0,) * gradient.ndim] for gradient in jax.tree.leaves(gradients))
    return jnp.where(some > jnp.inf, 0, learning_rate)


class EpochPlan(NamedTuple):
    """The batches of an epoch, drawn before its first step."""

    rows: jax.Array  # int32 [batches, B], of the pairs in `data.sampler.pairs`
    negatives: jax.Array  # int32 [batches, B]
    weights: (
        jax.Array
    )  # float32 [batches, B]; 0 after the last place, at an empty one, or for a user who has no negative
    learning_rate: jax.Array  # float32 scalar
    steps: (
        jax.Array
    )  # int32 scalar, batches to train on; it follows the data at run time, so that smaller data shares one program


def epoch_plan(epoch: jax.Array, data: Data, key: jax.Array, config: TrainConfig) -> EpochPlan:
    """Draw the batches of an epoch: a random order of its places, and one negative per pair.

    Args:
        epoch: int32 scalar, epochs done.
        data: of the data set.
        key: of the epoch.
        config: of training.
    """
    sampler, size = data.sampler, batch_size_of(data, config)
    batches = -(-len(sampler.places) // size)
    order = draw_order(jax.random.fold_in(key, 0), sampler)
    order = jnp.pad(order, (0, batches * size - len(order))).reshape(batches, size)
    rows = sampler.places[order]
    real = (jnp.arange(batches * size).reshape(batches, size) < sampler.num_places) & (rows >= 0)
    rows = jnp.maximum(rows, 0)
    users = sampler.pairs[rows, 0]

    def negatives_of(batch):
        i, users = batch
        return draw_negatives(jax.random.fold_in(key, i + 1), sampler, users), has_negative(sampler, users)

    # WHY not in each step: a loop whose end depends on what it finds makes a GPU wait for its host.
    negatives, there = jax.lax.map(negatives_of, (jnp.arange(batches), users), batch_size=_DRAWN_AT_ONCE)
    weights = (real & there).astype(jnp.float32)
    learning_rate = config.learning_rate * config.decay ** (epoch.astype(jnp.float32) / config.decay_epochs)
    return EpochPlan(rows, negatives, weights, learning_rate, (sampler.num_places + size - 1) // size)


def batch_size_of(data: Data, config: TrainConfig) -> int:
    """B: as configured, but at most the number of places."""
    return min(config.batch_size, len(data.sampler.places))


def train_step(
    params: Any, opt_state: Any, i: jax.Array, plan: EpochPlan, data: Data, backbone: Backbone, config: TrainConfig
) -> tuple[Any, Any, jax.Array]:
    """Step i of an epoch: parameters, optimizer state and the batch's loss."""
    users, positives = data.sampler.pairs[plan.rows[i]].T
    batch = spread((users, positives, plan.negatives[i], plan.weights[i]))
    with products_in(config.precision):
        loss, gradients = jax.value_and_grad(backbone.loss)(params, data, batch, config.batch_size)
    params, opt_state = descend(gradients, opt_state, params, plan.learning_rate)
    return params, opt_state, loss


@functools.partial(jax.jit, static_argnames=("backbone", "config"), donate_argnames="state")
def train_epoch(
    state: TrainState, data: Data, key: jax.Array, *, backbone: Backbone, config: TrainConfig
) -> tuple[TrainState, jax.Array]:
    """One pass over the train pairs in random order, with one negative per pair; the short last batch is kept.

    Args:
        state: donated.
        data: of the data set.
        key: of the run; the epoch's and the step's keys are folded in, so a resumed run draws the same batches.

    Returns:
        The new state and the mean loss of the epoch's batches, float scalar.
    """
    key = jax.random.fold_in(key, state.epoch)
    plan = epoch_plan(state.epoch, data, key, config)
    data = epoch_data(key, data, backbone)

    def step(i, carry):
        params, opt_state, total = carry
        params, opt_state, loss = train_step(params, opt_state, i, plan, data, backbone, config)
        return params, opt_state, total + loss

    params, opt_state, total = jax.lax.fori_loop(0, plan.steps, step, (state.params, state.opt_state, jnp.float32(0)))
    return TrainState(params, opt_state, state.epoch + 1), total / plan.steps.astype(jnp.float32)


def epoch_data(key: jax.Array, data: Data, backbone: Backbone) -> Data:
    """The data as the steps of an epoch read it, by the epoch's key."""
    return backbone.epoch(jax.random.fold_in(key, _EPOCH_DATA), data)


def best_entry(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """First entry with the highest valid metric; the last entry if nothing was validated."""
    validated = [entry for entry in history if VALID_METRIC in entry]
    return max(validated, key=lambda entry: entry[VALID_METRIC]) if validated else history[-1]


def should_stop(history: Sequence[dict[str, Any]], config: TrainConfig) -> bool:
    """No improvement of the valid metric for more than `patience` epochs, or `max_epochs` reached."""
    if not history or len(history) >= config.max_epochs:
        return bool(history)
    return VALID_METRIC in history[-1] and history[-1]["epoch"] - best_entry(history)["epoch"] > config.patience


def fit(
    dataset: Dataset,
    config: Config = PRESETS["faithful"],
    *,
    seed: int = 0,
    run: str | Path | None = None,
    sizes: Sizes | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
) -> Recommender:
    """Train from scratch, or continue where a killed run in the same folder stopped.

    Args:
        dataset: to train on; item graphs are built if it has none.
        config: settings.
        seed: of initialisation, order and negatives.
        run: folder for log and checkpoints; None keeps everything in memory.
        sizes: array sizes to keep, see `recommender.set_up`.
        on_epoch: called with each epoch's log entry.

    Returns:
        The parameters of the epoch with the best valid Recall@20 (the last epoch if the data has no valid pairs).

    Raises:
        InputError: the loss is not finite, or this device lacks the precision asked for.
    """
    with stopwatch() as seconds:
        trained = train(set_up(dataset, config, sizes), seed, run=run, on_epoch=on_epoch)
    return dataclasses.replace(trained, seconds=seconds + trained.seconds)


def train(
    setup: Setup,
    seed: int,
    *,
    epochs: int | None = None,
    start: Params | None = None,
    run: str | Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
) -> Recommender:
    """`fit` for a data set that is set up; its seconds are those of an earlier process, if training resumes from its checkpoint.

    A backbone in closed form is solved instead; epochs, start and folder then play no part, and the seed is only recorded.

    Args:
        setup, seed, run, on_epoch: as for `fit`.
        epochs: train for exactly this many, whatever the valid pairs say; None for early stopping.
        start: parameters before the first epoch; those of the seed if None.
    """
    config, run = setup.config, None if run is None else as_path(run, "run")
    check_precision(config.train.precision)
    key = jax.random.key(check_seed(seed))
    if setup.backbone.solve is not None:
        return _solved(setup, setup.backbone.solve, seed)
    # Copied, since the state is donated to the first epoch.
    params = initial_params(setup, seed) if start is None else jax.tree.map(jnp.copy, start)
    state, best, history = _resume(run, init_state(params))
    total, compiling = (float(sum(entry[part] for entry in history)) for part in ("seconds", "compile_seconds"))
    earlier = Seconds(total, compiling)
    task = held_out_task(setup.dataset, "valid") if epochs is None else None
    stop = config.train if epochs is None else dataclasses.replace(config.train, max_epochs=epochs)
    while not should_stop(history, stop):
        state, entry = _epoch(state, setup, jax.random.fold_in(key, 1), task)
        history.append(entry)
        if best_entry(history) is entry:
            best = jax.tree.map(jnp.copy, state.params)  # the state's own buffers are donated to the next epoch
        if run:
            checkpoint.append_log(run, entry)
            if entry["epoch"] % config.train.checkpoint_every == 0 or should_stop(history, stop):
                tree = {"state": state._asdict(), "best": best}
                checkpoint.save_tree(checkpoint.state_path(run, entry["epoch"]), tree, history)
                checkpoint.keep_only(run, entry["epoch"])
        on_epoch(entry)
    return trained(setup, jax.block_until_ready(best), history, seed, earlier)


def trained(setup: Setup, best: Params, history: Sequence[dict[str, Any]], seed: int, seconds: Seconds) -> Recommender:
    """The model that a training ends with.

    Args:
        setup: what it was trained on.
        best: parameters of its best epoch.
        history: one entry per epoch.
        seed: of the training.
        seconds: that the training took.

    Raises:
        InputError: its output rows are not finite. An epoch's loss is computed before its last update and does not show this.
    """
    best_epoch = best_entry(history)["epoch"]
    info = {"epochs": len(history), "best_epoch": best_epoch, "seed": seed}
    model = Recommender(setup, best, history=tuple(history), info=info, seconds=seconds)
    if not np.isfinite(np.asarray(model.rows)).all():
        raise InputError(
            f"epoch {best_epoch}: the rows of the model are not finite; training diverged, a learning rate below "
            f"{setup.config.train.learning_rate} may help"
        )
    return model


def _solved(setup: Setup, solve: Callable[[Dataset], Params], seed: int) -> Recommender:
    """A backbone in closed form, with one history entry, epoch 0. There is nothing to stop, so nothing is validated."""
    with stopwatch() as seconds:
        params = jax.block_until_ready(place(solve(setup.dataset)))
    entry = {"epoch": 0, "seconds": round(seconds.total, 4), "compile_seconds": round(seconds.compiling, 4)}
    info = {"epochs": 0, "best_epoch": 0, "seed": seed}
    return Recommender(setup, params, history=(entry,), info=info)


def initial_params(setup: Setup, seed: int) -> Params:
    """The parameters before the first epoch."""
    return init_params(jax.random.fold_in(jax.random.key(seed), 0), setup.data, backbone=setup.backbone)


def _epoch(state, setup: Setup, key, task: RankingTask | None) -> tuple[TrainState, dict[str, Any]]:
    backbone, config = setup.backbone, setup.config.train
    with stopwatch() as seconds:
        state, loss = train_epoch(state, setup.data, key, backbone=backbone, config=config.of_an_epoch)
        entry: dict[str, Any] = {"epoch": int(state.epoch), "loss": float(loss)}
        if task is not None:
            entry[VALID_METRIC] = ranking_metrics(embed(state.params, setup.data, backbone=backbone), task, (20,))[
                VALID_METRIC
            ]
    check_finite(entry, config)
    return state, entry | {"seconds": round(seconds.total, 4), "compile_seconds": round(seconds.compiling, 4)}


def check_finite(entry: dict[str, Any], config: TrainConfig) -> None:
    """Check that an epoch's loss is finite.

    Raises:
        InputError: it is not.
    """
    if not math.isfinite(entry["loss"]):
        raise InputError(
            f"epoch {entry['epoch']}: the loss is {entry['loss']}; training diverged, a learning rate below {config.learning_rate} may help"
        )


def _resume(run: Path | None, state: TrainState) -> tuple[TrainState, Any, list[dict[str, Any]]]:
    """State, best parameters and log of the newest complete checkpoint; a fresh start if there is none."""
    if run is None:
        return state, state.params, []
    run.mkdir(parents=True, exist_ok=True)
    epochs = checkpoint.saved_epochs(run)
    if not epochs:
        checkpoint.write_log(run, [])
        return state, state.params, []
    like = {"state": state._asdict(), "best": state.params}
    path = checkpoint.state_path(run, epochs[-1])
    saved, history = checkpoint.load_tree(path, like), checkpoint.read_history(path)
    checkpoint.write_log(run, history)
    return TrainState(**saved["state"]), saved["best"], history
