"""MMRecUN: steps on one objective from the trained model, in which all parameters move.

    alpha [BPR(D_r) + cl CL(D_r)] + (1 - alpha) [RBPR(D_f) - cl_f CL(D_f)] + reg L2 over the rows of both batches

The retain terms see the edited graph. RBPR is reverse BPR: forgotten pairs lose against items that the user never had. The contrast is
negated on the forget set. A backbone without the two views that CL compares does without it.

A request without forgotten pairs (modality data) has no forget batch: its weights are 0, and the retain terms alone count, on the edited
data.

Source: Sinha et al. 2025, "Multi-modal recommendation unlearning" (arXiv 2405.15328). Where it leaves something open, this is our
reading: the place of alpha, that negatives are items that stay, and two settings, the form of reverse BPR and the graph of the forget
terms.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from recunlearn_jax import losses
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params
from recunlearn_jax.mesh import place, spread
from recunlearn_jax.sampling import draw_pairs
from recunlearn_jax.settings import Batch, Checked, CountFromZero, NotNegative, Positive, Share
from recunlearn_jax.train import OPTIMIZER, descend
from recunlearn_jax.unlearn.base import Method, Problem, forget_sampler


@dataclass(frozen=True)
class Settings(Checked):
    """MMRecUN."""

    steps: CountFromZero = 30
    """Number of steps."""
    batch_size: Batch = 512
    """Pairs in each step's retain batch and in its forget batch."""
    learning_rate: Positive = 1e-3
    alpha: Share = 0.5
    """Weight of the retain terms; the forget terms weigh 1 - alpha."""
    retain_contrast: NotNegative = 0.01
    forget_contrast: NotNegative = 0.01
    """Weight of the negated contrast on the forget set."""
    l2_weight: NotNegative = 1e-4
    temperature: Positive = 0.2
    reverse: Literal["swap", "ascent"] = "swap"
    """Form of reverse BPR: -log sigmoid(-d), bounded, or +log sigmoid(d), unbounded."""
    forget_graph: Literal["original", "edited"] = "original"
    """Graph on which the forget terms are computed."""


COMPILED_FOR = ("batch_size", "retain_contrast", "forget_contrast", "temperature", "reverse")
"""Settings that are constants of the program; steps, learning rate, alpha and L2 are arguments of it."""


def mmrecun(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Steps of the objective from the original's parameters.

    If a whole modality is forgotten, the retain terms are those of the backbone without it: its layers have no retain gradient.
    """
    original, retain = problem.original, problem.retain
    seen = original if settings.forget_graph == "original" else retain
    sampler = place(forget_sampler(problem, candidates=retain.dataset.train[:, 1]))
    params, loss, margin = run(
        key,
        original.params,
        retain.data,
        seen.data._replace(sampler=sampler),
        backbones=(retain.backbone, seen.backbone),
        **arguments(settings),
    )
    forgotten = problem.forget_set.forget.any()
    info = {"steps": settings.steps, "loss": float(loss), "forget_margin": float(margin) if forgotten else None}
    return params, info


def arguments(settings: Settings) -> dict[str, Any]:
    """The settings as `run` takes them; the graph of the forget terms is in the data that it gets."""
    return {name: value for name, value in vars(settings).items() if name != "forget_graph"}


@functools.partial(jax.jit, static_argnames=("backbones", *COMPILED_FOR))
def run(
    key: jax.Array,
    params: Params,
    retain: Data,
    forget: Data,
    *,
    backbones: tuple[Backbone, Backbone],
    steps: int | jax.Array,
    **chosen: Any,
) -> tuple[Params, jax.Array, jax.Array]:
    """All steps; one compiled program for requests of any kind and size on one backbone, and for all values of the settings that are not
    in `COMPILED_FOR`. Arguments as for `step`.

    Returns:
        The parameters, and loss and margin of the last step.
    """

    def one(i, carry):
        params, opt_state, *_ = carry
        own = jax.random.fold_in(key, i)
        return step(own, params, opt_state, retain, forget, backbones=backbones, **chosen)

    start = (params, OPTIMIZER.init(params), jnp.float32(0), jnp.float32(0))
    params, _, loss, margin = jax.lax.fori_loop(0, steps, one, start)
    return params, loss, margin


def step(
    key: jax.Array,
    params: Params,
    opt_state: Any,
    retain: Data,
    forget: Data,
    *,
    backbones: tuple[Backbone, Backbone],
    batch_size: int,
    learning_rate: float | jax.Array,
    alpha: float | jax.Array,
    retain_contrast: float,
    forget_contrast: float,
    l2_weight: float | jax.Array,
    temperature: float,
    reverse: Literal["swap", "ascent"],
) -> tuple[Params, Any, jax.Array, jax.Array]:
    """One step of Adam on a retain batch and a forget batch.

    Args:
        key: typed PRNG key.
        params: of the original's backbone.
        opt_state: of Adam.
        retain: the edited data, whose sampler has the pairs of D_r.
        forget: what the forget terms see; its sampler has the pairs of D_f.
        backbones: those of `retain` and `forget`.
        batch_size, learning_rate, alpha, retain_contrast, forget_contrast, l2_weight, temperature, reverse: see `Settings`.

    Returns:
        Parameters, state of Adam, loss float32 [], and the mean margin d = s_up - s_un of the forget batch, float32 [].
    """
    keys, both = jax.random.split(key), (retain, forget)
    batches = [spread(draw_pairs(k, data.sampler, batch_size)) for k, data in zip(keys, both, strict=True)]
    shared = {"alpha": alpha, "l2_weight": l2_weight, "temperature": temperature}
    contrasts = [
        weight if backbone.contrast else 0
        for weight, backbone in zip((retain_contrast, forget_contrast), backbones, strict=True)
    ]

    def objective(params):
        kept, lost = (
            backbone.views(params, data, *batch[:3])
            for backbone, data, batch in zip(backbones, both, batches, strict=True)
        )
        keep = losses.mmrecun_retain(kept, contrast_weight=contrasts[0], weights=batches[0][3], **shared)
        lose = losses.mmrecun_forget(
            lost, contrast_weight=contrasts[1], reverse=reverse, weights=batches[1][3], **shared
        )
        positive, negative = losses.scores(lost)
        return keep + lose, jnp.mean(positive - negative)

    (loss, margin), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    return *descend(gradients, opt_state, params, learning_rate), loss, margin


METHOD = Method(Settings, mmrecun, source="arXiv 2405.15328")
