"""SCIF: one Newton step away from the forgotten pairs, on the rows they touch.

    theta' = theta + H^-1 (1 / n) sum over D_f of dBPR / dtheta
    H = J^T diag(sigmoid'(d)) J / m + damping, J the Jacobian of m retained margins, all restricted to rows at an end of a forgotten pair

Source: Li et al. 2023, "Selective and collaborative influence function" (arXiv 2304.10199). What is ours: H is the Gauss-Newton matrix,
which is positive definite where the Hessian of a product of two tables is not; it is never formed, conjugate gradients multiply by it. Both
gradients are taken on the graph the model was trained on; what the edit of the graph itself changes is not part of the estimate.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg

from recunlearn_jax.config import Config
from recunlearn_jax.models import MGCN
from recunlearn_jax.requests import ForgetSet
from recunlearn_jax.sampling import Sampler, draw_negatives, draw_pairs
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.train import TrainData, Trained
from recunlearn_jax.unlearn.base import Unlearned, edit, forget_sampler, reset_rows, strip
from recunlearn_jax.unlearn.mmrecun import TABLES, moving_rows
from recunlearn_jax.unlearn.rrl import margins

DAMPING = 5e-6  # chosen as in `rrl`
CURVATURE_PAIRS = 8192
ITERATIONS = 50


def scif(
    key: jax.Array, original: Trained, forget_set: ForgetSet, config: Config, *, damping: float = DAMPING
) -> Unlearned:
    """Answer a request by one influence step; see `unlearn` for the contract.

    A request without forgotten pairs (modality data) moves no parameter: the method has no term for it.
    """
    with stopwatch() as seconds:
        retain = edit(original, forget_set, config)
        solve_key, reset_key = jax.random.split(key)
        touched = moving_rows(original.dataset, forget_set, limit=0)
        forget = forget_sampler(original, forget_set)
        masks = {name: jnp.asarray(rows, jnp.float32)[:, None] for name, rows in zip(TABLES, touched, strict=True)}
        tables, residual = influence(
            solve_key,
            original.params,
            masks,
            jnp.float32(damping),
            original.data,
            retain.data.sampler,
            forget,
            model=original.model,
        )
        params = jax.block_until_ready(
            reset_rows(reset_key, strip({**original.params, **tables}, retain), forget_set.users, forget_set.items)
        )
    info = {"steps": 1, "residual": float(residual), "moving_rows": int(sum(np.sum(rows) for rows in touched))}
    return Unlearned(retain.model, params, retain.dataset, retain.data, info, seconds)


@functools.partial(jax.jit, static_argnames="model")
def influence(
    key: jax.Array,
    params: Any,
    masks: dict[str, jax.Array],
    damping: jax.Array,
    data: TrainData,
    retain: Sampler,
    forget: Sampler,
    *,
    model: MGCN,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """The id tables after the step, and the relative residual at which conjugate gradients ended.

    Args:
        key: of negatives and of the pairs that the curvature is taken from.
        params: of the original.
        masks: table -> float32 [rows, 1], 1 for rows that move.
        damping: float32 [], added to the diagonal of H.
        data: of the original.
        retain, forget: samplers of D_r and D_f.
        model: of the original.
    """
    forget_key, curvature_key = jax.random.split(key)
    tables = {name: params[name] for name in TABLES}

    def of_tables(batch):
        return lambda tables: margins({**params, **tables}, data, batch, model)

    users, items = forget.pairs.T
    real = (jnp.arange(len(users)) < forget.num_pairs).astype(jnp.float32)
    batch = (users, items, draw_negatives(forget_key, forget, users))
    d, pull = jax.vjp(of_tables(batch), tables)
    whole = (retain.num_pairs + forget.num_pairs).astype(jnp.float32)
    (gradient,) = pull(-jax.nn.sigmoid(-d) * real / whole)
    gradient = jax.tree.map(jnp.multiply, gradient, masks)

    *batch, _ = draw_pairs(curvature_key, retain, CURVATURE_PAIRS)
    d, pull = jax.vjp(of_tables(tuple(batch)), tables)
    # The pull-back is linear: its own pull-back is J v, so no forward mode is asked of kernels that have none.
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
