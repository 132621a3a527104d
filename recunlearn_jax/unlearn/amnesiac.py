"""Amnesiac unlearning: take back the parameter updates of the batches that held forgotten pairs.

    theta' = theta - sum over recorded batches b with a forgotten pair of (theta_{b+1} - theta_b)

Source: Graves, Nagisetty and Ganesh 2021 (arXiv 2010.10981). The record must exist before the request comes. Ours is bounded: it holds
the id tables' updates in `epochs` further epochs, 4 d (|U| + |I|) bytes per batch. These epochs continue from the original, with a fresh
optimizer, so that the method has the same original as the others; what was learnt before the record stays learnt.

The paper asks for small forget sets, and here one sees why: with 5 % of the pairs forgotten at random, every batch of 2048 holds a
forgotten pair, and the method takes back the whole record.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params
from recunlearn_jax.config import TrainConfig
from recunlearn_jax.precision import check_precision
from recunlearn_jax.recommender import Recommender
from recunlearn_jax.settings import Checked, Count
from recunlearn_jax.train import TrainState, batch_size_of, epoch_data, epoch_plan, init_state, train_step
from recunlearn_jax.unlearn.base import Memory, Method, Problem, id_tables


@dataclass(frozen=True)
class Settings(Checked):
    """Amnesiac unlearning."""

    epochs: Count = 2
    """Epochs that are recorded."""


class Record(NamedTuple):
    """What is stored while training, bounded."""

    updates: dict[str, jax.Array]  # table -> float32 [batches, rows, d], what each batch added
    rows: np.ndarray  # int32 [batches, B], the train pairs of each batch; -1 after the last


def prepare(key: jax.Array, original: Recommender, settings: Settings, work: Path | None) -> Memory:
    """Train further and record; the resulting model is in service from then on."""
    del work
    check_precision(original.config.train.precision)
    params, record = recorded(key, original, settings.epochs)
    info = {"batches_recorded": len(record.rows)}
    return Memory(Recommender(original.setup, params, info=info), record)


def amnesiac(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Take back the recorded updates of the batches with a forgotten pair."""
    del key, settings
    original, record = problem.original, problem.record
    hit = np.any(np.append(problem.forget_set.forget, False)[record.rows], axis=1)
    weights = jnp.asarray(hit, jnp.float32)
    tables = {
        name: table - jnp.einsum("b,bnd->nd", weights, record.updates[name])
        for name, table in id_tables(original.params, original.backbone).items()
    }
    stored = sum(update.nbytes for update in record.updates.values()) + record.rows.nbytes
    info = {"batches_taken_back": int(hit.sum()), "batches_recorded": hit.size, "record_bytes": stored}
    return {**original.params, **tables}, {"steps": 0} | info


def recorded(key: jax.Array, original: Recommender, epochs: int) -> tuple[Params, Record]:
    """Train for some more epochs and keep what each batch did to the id tables.

    Returns:
        The parameters after these epochs, and the record.
    """
    config, pairs = original.config.train.of_an_epoch, len(original.dataset.train)
    size = batch_size_of(original.data, config)
    steps = -(-pairs // size)
    state = init_state(original.params)
    updates, rows = [], []
    for _ in range(epochs):
        state, (added, batch) = recorded_epoch(
            state, original.data, key, backbone=original.backbone, config=config, steps=steps
        )
        updates.append(added)
        rows.append(np.asarray(batch))
    table = jax.tree.map(lambda *parts: jnp.concatenate(parts), *updates)
    rows = np.concatenate(rows)
    # The short last batch is filled up with rows of other pairs that weigh nothing.
    behind = np.arange(size)[None] + np.tile(np.arange(steps), epochs)[:, None] * size
    return state.params, Record(table, np.where(behind < pairs, rows, -1))


@functools.partial(jax.jit, static_argnames=("backbone", "config", "steps"))
def recorded_epoch(
    state: TrainState, data: Data, key: jax.Array, *, backbone: Backbone, config: TrainConfig, steps: int
) -> tuple[TrainState, tuple[dict[str, jax.Array], jax.Array]]:
    """As `train.train_epoch`, but keeps each batch's rows and its updates of the id tables."""
    key = jax.random.fold_in(key, state.epoch)
    plan = epoch_plan(state.epoch, data, key, config)
    data = epoch_data(key, data, backbone)

    def step(carry, i):
        before, opt_state = carry
        params, opt_state, _ = train_step(before, opt_state, i, plan, data, backbone, config)
        added = {name: params[name] - table for name, table in id_tables(before, backbone).items()}
        return (params, opt_state), added

    (params, opt_state), record = jax.lax.scan(
        step, (state.params, state.opt_state), jnp.arange(steps, dtype=jnp.int32)
    )
    return TrainState(params, opt_state, state.epoch + 1), (record, plan.rows[:steps])


METHOD = Method(Settings, amnesiac, prepare, own_model=True, source="arXiv 2010.10981")
