"""SCIF: one Newton step away from the forgotten pairs, on the rows they touch.

    theta' = theta + H^-1 (1 / n) sum over D_f of dBPR / dtheta
    H = J^T diag(sigmoid'(d)) J / m + damping, J the Jacobian of m retained margins, all restricted to rows at an end of a forgotten pair

Source: Li et al. 2023, "Selective and collaborative influence function" (arXiv 2304.10199). What is ours: H is the Gauss-Newton matrix,
which is positive definite where the Hessian of a product of two tables is not; it is never formed, conjugate gradients multiply by it. Both
gradients are taken on the graph the model was trained on; what the edit of the graph itself changes is not part of the estimate.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params
from recunlearn_jax.sampling import Sampler, draw_negatives, draw_pairs
from recunlearn_jax.settings import Checked, Positive
from recunlearn_jax.unlearn.base import Method, Problem, forget_sampler, id_tables, margins, row_masks
from recunlearn_jax.unlearn.selection import touched

CURVATURE_PAIRS = 8192
ITERATIONS = 50


@dataclass(frozen=True)
class Settings(Checked):
    """SCIF."""

    damping: Positive = 5e-6
    """Added to the diagonal of H; chosen as in `rrl`."""


def scif(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """One influence step. A request without forgotten pairs (modality data) moves no parameter: the method has no term for it."""
    original = problem.original
    users, items = touched(original.dataset, problem.forget_set, modalities=original.backbone.modalities)
    tables, residual = influence(
        key,
        original.params,
        row_masks(users, items, original.backbone),
        jnp.float32(settings.damping),
        original.data,
        problem.retain.data.sampler,
        forget_sampler(problem),
        backbone=original.backbone,
    )
    moving = int(users.sum() + items.sum())
    return {**original.params, **tables}, {"steps": 1, "residual": float(residual), "moving_rows": moving}


@functools.partial(jax.jit, static_argnames="backbone")
def influence(
    key: jax.Array,
    params: Params,
    masks: dict[str, jax.Array],
    damping: jax.Array,
    data: Data,
    retain: Sampler,
    forget: Sampler,
    *,
    backbone: Backbone,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """The id tables after the step, and the relative residual at which conjugate gradients ended.

    Args:
        key: for negatives and for the pairs that the curvature is taken from.
        params: of the original.
        masks: table -> float32 [rows, 1], 1 for rows that move.
        damping: float32 [], added to the diagonal of H.
        data: of the original.
        retain, forget: samplers of D_r and D_f.
        backbone: of the original.
    """
    forget_key, curvature_key = jax.random.split(key)
    tables = id_tables(params, backbone)

    def of_tables(batch):
        return lambda tables: margins({**params, **tables}, data, batch, backbone)

    users, items = forget.pairs.T
    real = (jnp.arange(len(users)) < forget.num_pairs).astype(jnp.float32)
    batch = (users, items, draw_negatives(forget_key, forget, users))
    d, pull = jax.vjp(of_tables(batch), tables)
    whole = (retain.num_pairs + forget.num_pairs).astype(jnp.float32)
    (gradient,) = pull(-jax.nn.sigmoid(-d) * real / whole)
    gradient = jax.tree.map(jnp.multiply, gradient, masks)

    *batch, _ = draw_pairs(curvature_key, retain, CURVATURE_PAIRS)
    d, pull = jax.vjp(of_tables(tuple(batch)), tables)
    # The pull-back is linear: its own pull-back is J v, so kernels without a forward mode need none.
    _, push = jax.vjp(lambda w: pull(w)[0], d)
    curvature = jax.nn.sigmoid(d) * jax.nn.sigmoid(-d) / CURVATURE_PAIRS

    def times(v):
        (product,) = pull(curvature * push(v)[0])
        return jax.tree.map(lambda p, mask, v: mask * p + damping * v, product, masks, v)

    step, _ = cg(times, gradient, maxiter=ITERATIONS, tol=1e-3)

    def norm(tree):
        return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))

    left = jax.tree.map(jnp.subtract, gradient, times(step))
    return jax.tree.map(jnp.add, tables, step), norm(left) / jnp.maximum(norm(gradient), 1e-30)


METHOD = Method(Settings, scif, source="arXiv 2304.10199")
