"""Matrix products with wide feature tables, with an explicit backward pass for CPUs."""

import jax
import jax.numpy as jnp

_ROWS = 128  # of a block: its part of the table stays in a core's cache
_WIDE = 1024  # columns from which blocks pay


@jax.custom_vjp
def feature_product(table: jax.Array, kernel: jax.Array) -> jax.Array:
    """X W, differentiable in both.

    Args:
        table: float [n, d_m], X.
        kernel: float [d_m, d], W with d much smaller than d_m.

    Returns:
        float [n, d].
    """
    return table @ kernel


def _forward(table, kernel):
    return table @ kernel, (table, kernel)


def _backward(saved, g):
    table, kernel = saved
    # Where the table is not trained its gradient is unused and XLA drops it.
    return g @ kernel.T, transposed_product(table, g)


feature_product.defvjp(_forward, _backward)


def transposed_product(table: jax.Array, g: jax.Array) -> jax.Array:
    """X^T G: float [n, d_m], [n, d] -> [d_m, d].

    WHY blocks: on a CPU the product reads a wide X down its columns, far below the rate of X W; summed over blocks of rows it reads X
    once, in order.
    """
    if table.shape[1] < _WIDE or len(table) < _ROWS:
        return table.T @ g
    return jax.lax.platform_dependent(table, g, cpu=_by_blocks, default=lambda table, g: table.T @ g)


def _by_blocks(table, g):
    blocks = len(table) // _ROWS

    def add(i, total):
        rows, some = (jax.lax.dynamic_slice_in_dim(x, i * _ROWS, _ROWS) for x in (table, g))
        return total + jax.lax.optimization_barrier(some.T) @ rows

    total = jax.lax.fori_loop(0, blocks, add, jnp.zeros((g.shape[1], table.shape[1]), g.dtype))
    rest = blocks * _ROWS
    return total.T + table[rest:].T @ g[rest:]
