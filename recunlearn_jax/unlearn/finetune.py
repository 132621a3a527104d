"""Fine-tuning: surgery, then a warm start on the retain set. What every faster claim must be compared with."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from recunlearn_jax.backbones.base import Params
from recunlearn_jax.precision import check_precision
from recunlearn_jax.settings import Checked, CountFromZero
from recunlearn_jax.train import init_state, train_epoch
from recunlearn_jax.unlearn.base import Method, Problem
from recunlearn_jax.unlearn.removal import remove


@dataclass(frozen=True)
class Settings(Checked):
    """Fine-tuning."""

    epochs: CountFromZero = 5
    """Epochs of training on the retained data."""


def finetune(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Train on from the cut model, at the settings of its training."""
    retain = problem.retain
    check_precision(retain.config.train.precision)
    cut_key, train_key = jax.random.split(key)
    params = remove(cut_key, problem.original.params, problem.original, retain, "finetune")
    # The epoch is donated its state; the original's arrays must live on.
    state = init_state(jax.tree.map(jnp.copy, params))
    config = retain.config.train.of_an_epoch
    for _ in range(settings.epochs):
        state, _ = train_epoch(state, retain.data, train_key, backbone=retain.backbone, config=config)
    return state.params, {"steps": int(state.epoch)}


METHOD = Method(Settings, finetune)
