"""Gradient ascent on the forget set: training run backwards on what is to be forgotten, with nothing to preserve the rest.

    minimise  mean over D_f of log sigmoid(d)

over all parameters, on the graph the model was trained on.

Sources: Golatkar, Achille and Soatto 2020, "NegGrad" (arXiv 1911.04933); Jang et al. 2023 (arXiv 2210.01504).
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax

from recunlearn_jax import losses
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params
from recunlearn_jax.sampling import Sampler
from recunlearn_jax.settings import Batch, Checked, CountFromZero
from recunlearn_jax.unlearn.base import Method, Problem, forget_sampler
from recunlearn_jax.unlearn.descent import steps_on


@dataclass(frozen=True)
class Settings(Checked):
    """Gradient ascent, at the training's learning rate."""

    steps: CountFromZero = 60
    """Chosen as in `rrl`."""
    batch_size: Batch = 512
    """Forgotten pairs per step."""


def ascent(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Run training backwards on D_f. A request without forgotten pairs (modality data) moves no parameter."""
    original = problem.original
    params = ascended(
        key,
        original.params,
        original.data,
        forget_sampler(problem),
        backbone=original.backbone,
        steps=settings.steps,
        size=settings.batch_size,
        learning_rate=original.config.train.learning_rate,
    )
    return params, {"steps": settings.steps}


@functools.partial(jax.jit, static_argnames=("backbone", "size"))
def ascended(
    key: jax.Array,
    params: Params,
    data: Data,
    forget: Sampler,
    *,
    backbone: Backbone,
    steps: int | jax.Array,
    size: int,
    learning_rate: float | jax.Array,
) -> Params:
    """The parameters after all steps of Adam on the objective above."""

    def loss(moved, triplets, weights):
        positive, negative = losses.scores(backbone.views(moved, data, *triplets))
        return losses.reverse_bpr(positive, negative, form="ascent", weights=weights)

    return steps_on(loss, key, params, forget, steps, size, learning_rate)


METHOD = Method(Settings, ascent, source="arXiv 1911.04933")
