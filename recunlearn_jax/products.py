"""Matrix products with wide feature tables, with an explicit backward pass for CPUs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ROWS = 128  # of a block: its part of the table stays in a core's cache
_WIDE = 1024  # columns from which blocks pay off


class Constant(NamedTuple):
    """A feature table X that many steps read and none changes, with its transpose."""

    table: jax.Array  # float [n, d_m]
    transposed: jax.Array  # float [d_m, n]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of X."""
        return self.table.shape


Features = jax.Array | Constant


def constant(table: Features) -> Constant:
    """A table with its transpose at hand.

    WHY: on a CPU X^T G reads X down its columns, far more slowly than X W; from the transpose it reads along rows, as X W does.
    """
    if isinstance(table, Constant):
        return table
    # The barrier keeps XLA from reading X by columns in place of a transpose.
    return Constant(table, jax.lax.optimization_barrier(table.T))


def feature_product(table: Features, kernel: Float[Array, "d_m d"]) -> Float[Array, "n d"]:
    """X W, differentiable in W, and in X where it is an array.

    Args:
        table: float [n, d_m], X.
        kernel: float [d_m, d], W with d much smaller than d_m.

    Returns:
        float [n, d].
    """
    return _of_constant(table, kernel) if isinstance(table, Constant) else _of_trained(table, kernel)


@jax.custom_vjp
def _of_trained(table, kernel):
    return table @ kernel


def _of_trained_forward(table, kernel):
    return table @ kernel, (table, kernel)


def _of_trained_backward(saved, g):
    table, kernel = saved
    to_kernel = transposed_product(table, g)
    # One product after the other: both are as wide as the table, and run side by side they make a step slower.
    g, to_kernel = jax.lax.optimization_barrier((g, to_kernel))
    # Where the table is not trained its gradient is unused and XLA drops it.
    return g @ kernel.T, to_kernel


_of_trained.defvjp(_of_trained_forward, _of_trained_backward)


@jax.custom_vjp
def _of_constant(table, kernel):
    return table.table @ kernel


def _of_constant_forward(table, kernel):
    return table.table @ kernel, table


def _of_constant_backward(table, g):
    to_kernel = jax.lax.platform_dependent(
        table, g, cpu=lambda table, g: table.transposed @ g, default=lambda table, g: table.table.T @ g
    )
    return None, to_kernel


_of_constant.defvjp(_of_constant_forward, _of_constant_backward)


def transposed_product(table: Float[Array, "n d_m"], g: Float[Array, "n d"]) -> Float[Array, "d_m d"]:
    """X^T G: float [n, d_m], [n, d] -> [d_m, d].

    WHY blocks: on a CPU the product reads a wide X down its columns, far more slowly than X W; summed over blocks of rows it reads X
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
