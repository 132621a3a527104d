"""Gradient ascent on the forget set: training run backwards on what is to be forgotten, and nothing to hold on to the rest.

    maximise BPR(D_f), that is minimise +log sigmoid(d), over all parameters, on the graph the model was trained on

Sources: Golatkar, Achille and Soatto 2020, "NegGrad" (arXiv 1911.04933); Jang et al. 2023 (arXiv 2210.01504). It is the MMRecUN objective
with alpha = 0, no contrast, no L2 and the unbounded form of reverse BPR, so its steps are those of `mmrecun`.
"""

import dataclasses

import jax

from recunlearn_jax.config import Config
from recunlearn_jax.requests import ForgetSet
from recunlearn_jax.train import Trained
from recunlearn_jax.unlearn.base import Unlearned
from recunlearn_jax.unlearn.mmrecun import mmrecun

STEPS = 60  # chosen as in `rrl`


def ascent(
    key: jax.Array, original: Trained, forget_set: ForgetSet, config: Config, *, steps: int = STEPS
) -> Unlearned:
    """Answer a request by `steps` steps of ascent at the training's learning rate; see `unlearn` for the contract."""
    settings = dataclasses.replace(
        config.unlearn,
        steps=steps,
        alpha=0.0,
        forget_contrast=0.0,
        l2_weight=0.0,
        reverse="ascent",
        reset="none",
        scope="all",
        forget_graph="original",
        forget_until="end",
        learning_rate=config.train.learning_rate,
    )
    return mmrecun(key, original, forget_set, dataclasses.replace(config, unlearn=settings))
