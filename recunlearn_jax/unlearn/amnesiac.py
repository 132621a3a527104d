"""Amnesiac unlearning: take back the parameter updates of the batches that held forgotten pairs.

    theta' = theta - sum over recorded batches b with a forgotten pair of (theta_{b+1} - theta_b)

Source: Graves, Nagisetty and Ganesh 2021 (arXiv 2010.10981). The record must exist before the request comes. Ours is bounded: the id
tables' updates in `RECORDED_EPOCHS` further epochs, 4 d (|U| + |I|) bytes a batch. They are trained on top of the original, with a fresh
optimizer, so that the method has the same original as the others; what was learnt before the record stays learnt.

The paper asks for small forget sets, and here one sees why: with 5 % of the pairs forgotten at random, every batch of 2048 holds one, and
the method takes back the whole record.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.models import MGCN
from recunlearn_jax.precision import check_precision
from recunlearn_jax.requests import ForgetSet
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.train import TrainData, Trained, TrainState, epoch_plan, init_state, train_step, unchanging
from recunlearn_jax.unlearn.base import Unlearned, edit, reset_rows, strip
from recunlearn_jax.unlearn.mmrecun import TABLES

RECORDED_EPOCHS = 2


class Record(NamedTuple):
    """What is stored while training, bounded."""

    updates: dict[str, jax.Array]  # table -> float32 [batches, rows, d], what each batch added
    rows: np.ndarray  # int32 [batches, B], the train pairs of each batch; -1 behind the last


def amnesiac(key: jax.Array, original: Trained, forget_set: ForgetSet, config: Config) -> Unlearned:
    """Answer a request from the record; see `unlearn` for the contract. Making the record is training and not in the seconds."""
    record_key, reset_key = jax.random.split(key)
    check_precision(config.train.precision)
    params, record = recorded(record_key, original, config.train)
    with stopwatch() as seconds:
        retain = edit(original, forget_set, config)
        hit = np.any(np.append(forget_set.forget, False)[record.rows], axis=1)
        weights = jnp.asarray(hit, jnp.float32)
        tables = {name: params[name] - jnp.einsum("b,bnd->nd", weights, record.updates[name]) for name in TABLES}
        params = jax.block_until_ready(
            reset_rows(reset_key, strip({**params, **tables}, retain), forget_set.users, forget_set.items)
        )
    stored = sum(update.nbytes for update in record.updates.values()) + record.rows.nbytes
    info = {"steps": 0, "batches_taken_back": int(hit.sum()), "batches_recorded": hit.size, "record_bytes": stored}
    return Unlearned(retain.model, params, retain.dataset, retain.data, info, seconds)


def recorded(key: jax.Array, original: Trained, config: TrainConfig) -> tuple[Any, Record]:
    """Train `RECORDED_EPOCHS` more epochs and keep what each batch did to the id tables.

    Returns:
        The parameters after them, and the record.
    """
    steps = -(-len(original.dataset.train) // config.batch_size)
    state = init_state(original.params)
    updates, rows = [], []
    for _ in range(RECORDED_EPOCHS):
        state, (added, batch) = recorded_epoch(
            state, original.data, key, model=original.model, config=config, steps=steps
        )
        updates.append(added)
        rows.append(np.asarray(batch))
    table = jax.tree.map(lambda *parts: jnp.concatenate(parts), *updates)
    rows = np.concatenate(rows)
    # The short last batch is filled up with rows of other pairs that weigh nothing.
    behind = (
        np.arange(config.batch_size)[None] + np.tile(np.arange(steps), RECORDED_EPOCHS)[:, None] * config.batch_size
    )
    return state.params, Record(table, np.where(behind < len(original.dataset.train), rows, -1))


@functools.partial(jax.jit, static_argnames=("model", "config", "steps"))
def recorded_epoch(
    state: TrainState, data: TrainData, key: jax.Array, *, model: MGCN, config: TrainConfig, steps: int
) -> tuple[TrainState, tuple[dict[str, jax.Array], jax.Array]]:
    """`train.train_epoch` that keeps each batch's updates of the id tables and its rows."""
    order, learning_rate, _ = epoch_plan(state.epoch, data, key, config)
    key = jax.random.fold_in(key, state.epoch)
    data = unchanging(data, model)

    def step(carry, i):
        before, opt_state = carry
        params, opt_state, _, rows = train_step(before, opt_state, i, order, data, key, learning_rate, model, config)
        return (params, opt_state), ({name: params[name] - before[name] for name in TABLES}, rows)

    (params, opt_state), record = jax.lax.scan(
        step, (state.params, state.opt_state), jnp.arange(steps, dtype=jnp.int32)
    )
    return TrainState(params, opt_state, state.epoch + 1), record
