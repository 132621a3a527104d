"""The MMRecUN objective, step by step:

    alpha [BPR(D_r) + cl CL(D_r)] + (1 - alpha) [RBPR(D_f) - cl_f CL(D_f)] + reg L2 over the rows of both batches

The losses are `losses.mmrecun_retain` and `losses.mmrecun_forget`. How a step sees the graph, the neighbourhood of the rows that move or
the whole of it, is a `Reach`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recunlearn_jax import losses
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Linear, Params
from recunlearn_jax.losses import Views
from recunlearn_jax.mesh import spread
from recunlearn_jax.sampling import Sampler, draw_pairs
from recunlearn_jax.train import OPTIMIZER, descend
from recunlearn_jax.unlearn.mmrecun.neighbourhood import Neighbourhood


class Part(NamedTuple):
    """The retain part or the forget part: pairs to draw, and the graph they are seen on."""

    sampler: Sampler
    graph: Neighbourhood | Data


class Inputs(NamedTuple):
    """Everything a step reads beside the parameters; an argument of the compiled program. S users, T items: those of the parts' graphs."""

    retain: Part  # edited graph; pairs to repair with
    forget: Part  # graph of the forget terms; D_f
    gates: Any  # modality -> [T, d], which no step changes; None on the whole graph
    moving: (
        dict[str, jax.Array] | None
    )  # table -> float32 [S, 1] or [T, 1], 1 for rows that move; None where everything does
    branch: (
        jax.Array | None
    )  # float32 [T, d], sum of the F_m rows of forgotten modality data; None where the backbone has none
    branch_items: jax.Array  # int32 [T], the items concerned; the first num_branch_items are real
    num_branch_items: jax.Array  # int32 scalar
    forget_degree: jax.Array  # float32 [S], number of forget pairs of each user
    unseen: jax.Array  # float32 scalar, margin of pairs never trained on; -inf: the forget terms always count


class State(NamedTuple):
    """What a step changes."""

    added: Params  # to the parameters that move
    opt_state: Any
    step: jax.Array  # int32 scalar
    margin: jax.Array  # float32 scalar, mean over users of the margin d of their forget pairs, in the last batch


class Reach(NamedTuple):
    """How a step sees the graph; R is whatever `rows` gives."""

    rows: Callable[[Params, Params, Inputs, Part], Any]
    """(params, added, inputs, part) -> R."""
    views: Callable[..., Views]
    """(params, R, users, positives, negatives) -> views of a batch."""
    items: Callable[[Params, Any, jax.Array], jax.Array]
    """(params, R, items) -> output rows."""


@functools.cache
def on_neighbourhood(linear: Linear) -> Reach:
    """Exact where rows are linear in the tables that move: what the request found there, and what the moved rows add."""

    def rows(params, added, inputs, part):
        moved = linear.propagated({**params, **added}, part.graph.graphs, inputs.gates)
        return linear.add(part.graph.base, moved)

    return Reach(rows, linear.views, linear.items)


@functools.cache
def on_whole_graph(backbone: Backbone) -> Reach:
    """For every backbone, whatever moves."""

    def rows(params, added, inputs, part):
        moved = jax.tree.map(jnp.add, {name: params[name] for name in added}, added)
        return {**params, **moved}, part.graph

    def views(params, rows, *triplets):
        return backbone.views(*rows, *triplets)

    def items(params, rows, chosen):
        return backbone.rows(*rows)[backbone.shape.num_users + chosen]

    return Reach(rows, views, items)


def init(added: Params) -> State:
    """State before the first step."""
    return State(added, OPTIMIZER.init(added), jnp.int32(0), jnp.float32(jnp.inf))


def step(
    key: jax.Array,
    state: State,
    params: Params,
    inputs: Inputs,
    *,
    retain: Reach,
    forget: Reach,
    contrast: bool,
    settings: Any,
) -> tuple[State, jax.Array]:
    """One step of the objective on a retain batch and a forget batch.

    Args:
        key: typed PRNG key.
        state: before it.
        params: that nothing was added to yet.
        inputs: of the request.
        retain, forget: how the two parts see their graphs.
        contrast: whether views carry the two views that the contrast compares.
        settings: of the method.

    Returns:
        The new state and the loss, float scalar.
    """
    retain_key, forget_key, branch_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    *retain_batch, retain_weights = spread(draw_pairs(retain_key, inputs.retain.sampler, settings.batch_size))
    *forget_batch, forget_weights = spread(draw_pairs(forget_key, inputs.forget.sampler, settings.batch_size))
    contrasts = (settings.retain_contrast, settings.forget_contrast) if contrast else (0, 0)
    shared = {"alpha": settings.alpha, "l2_weight": settings.l2_weight, "temperature": settings.temperature}

    def keep(added):
        rows = retain.rows(params, added, inputs, inputs.retain)
        loss = losses.mmrecun_retain(
            retain.views(params, rows, *retain_batch), contrast_weight=contrasts[0], weights=retain_weights, **shared
        )
        if inputs.branch is None:
            return loss
        branch = jax.lax.cond(
            inputs.num_branch_items > 0,
            lambda: branch_contrast(branch_key, params, rows, inputs, retain, settings),
            lambda: jnp.float32(0),
        )
        return loss - (1 - settings.alpha) * settings.forget_contrast * branch

    def forget_views(added):
        rows = forget.rows(params, added, inputs, inputs.forget)
        views = forget.views(params, rows, *forget_batch)
        positive, negative = losses.scores(views)
        return views, positive - negative

    def lose(added):
        views, margins = forget_views(added)
        loss = losses.mmrecun_forget(
            views, contrast_weight=contrasts[1], reverse=settings.reverse, weights=forget_weights, **shared
        )
        return loss, margins

    def with_forget_terms(added):
        (loss, margins), gradients = jax.value_and_grad(lose, has_aux=True)(added)
        return loss, margins, gradients

    def margins_only(added):
        return jnp.float32(0), forget_views(added)[1], jax.tree.map(jnp.zeros_like, added)

    loss, gradients = jax.value_and_grad(keep)(state.added)
    # Where nothing stands out the forget terms are 0, and so are their gradients: such a step needs the margins alone.
    standing_out = (state.margin > inputs.unseen) & jnp.any(forget_weights > 0)
    lost, margins, more = jax.lax.cond(standing_out, with_forget_terms, margins_only, state.added)
    loss, gradients = loss + lost, jax.tree.map(jnp.add, gradients, more)
    # Every user counts once, not every pair.
    users = forget_weights / jnp.maximum(inputs.forget_degree[forget_batch[0]], 1)
    margin = jnp.sum(margins * users) / jnp.maximum(jnp.sum(users), 1e-12)
    if inputs.moving is not None:
        gradients = jax.tree.map(jnp.multiply, gradients, inputs.moving)
    added, opt_state = descend(gradients, state.opt_state, state.added, settings.learning_rate)
    return State(added, opt_state, state.step + 1, margin), loss


def branch_contrast(
    key: jax.Array, params: Params, rows: Any, inputs: Inputs, reach: Reach, settings: Any
) -> jax.Array:
    """InfoNCE between output rows of items and the forgotten modality's branch; it enters the objective negated."""
    assert inputs.branch is not None
    chosen = jax.random.randint(key, (settings.batch_size,), 0, jnp.maximum(inputs.num_branch_items, 1))
    items = inputs.branch_items[chosen]
    return losses.info_nce(reach.items(params, rows, items), inputs.branch[items], temperature=settings.temperature)


@functools.partial(jax.jit, static_argnames=("retain", "forget", "contrast", "settings"))
def run(
    key: jax.Array,
    added: Params,
    params: Params,
    inputs: Inputs,
    *,
    retain: Reach,
    forget: Reach,
    contrast: bool,
    settings: Any,
) -> tuple[State, jax.Array]:
    """All steps; one compiled program for requests of any kind and size.

    Returns:
        The last state and the loss of its step.
    """
    one = functools.partial(step, retain=retain, forget=forget, contrast=contrast, settings=settings)

    def body(_, carry):
        return one(key, carry[0], params, inputs)

    return jax.lax.fori_loop(0, settings.steps, body, (init(added), jnp.float32(0)))
