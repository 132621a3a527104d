"""Fine-tuning: surgery, then a warm start on the retain set. Every claim to be faster must be compared with it."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from recunlearn_jax.backbones.base import Params
from recunlearn_jax.precision import check_precision
from recunlearn_jax.recommender import Setup
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
    """Continue training from the model after surgery, with the settings of its training."""
    retain = problem.retain
    params = remove(problem.fresh, problem.original.params, problem.original, retain, "finetune")
    return trained_on(key, params, retain, settings.epochs), {"steps": settings.epochs}


def trained_on(key: jax.Array, params: Params, setup: Setup, epochs: int) -> Params:
    """Parameters after some more epochs on a data set, with the settings of its training."""
    check_precision(setup.config.train.precision)
    # The state is donated to the epoch, but the arrays given must stay valid.
    state = init_state(jax.tree.map(jnp.copy, params))
    config = setup.config.train.of_an_epoch
    for _ in range(epochs):
        state, _ = train_epoch(state, setup.data, key, backbone=setup.backbone, config=config)
    return state.params


METHOD = Method(Settings, finetune)
