"""Writing some entries of device arrays in place: the cost of a request then follows what it changes, not the size of the array.

The array that is written is used up, as jax's donated arguments are; only the sole owner of an array may write into it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_PIECE = 2**16  # numbers that one program writes, however many there are: nothing compiles anew for another request


def write(array: jax.Array, at: np.ndarray, values: np.ndarray) -> jax.Array:
    """The array with other entries at some places, written in place; the array given is used up.

    Args:
        array: [n, ...].
        at: places along the first axis, int [k], each once.
        values: what stands there afterwards, [k, ...].

    Examples:
        >>> write(jnp.zeros(4), np.array([2]), np.array([5])).tolist()
        [0.0, 0.0, 5.0, 0.0]
    """
    rows = max(1, _PIECE // max(1, int(np.prod(array.shape[1:]))))
    behind = len(array)  # beyond the last place, so nothing is written there
    for start in range(0, max(len(at), 1), rows):  # once even if there is nothing to write: this compiles
        some = np.full(rows, behind, np.int32)
        piece = np.zeros((rows, *array.shape[1:]), array.dtype)
        count = len(at[start : start + rows])
        some[:count], piece[:count] = at[start : start + rows], values[start : start + rows]
        array = _write(array, some, piece)
    return array


@functools.partial(jax.jit, donate_argnums=0)
def _write(array: jax.Array, at: jax.Array, values: jax.Array) -> jax.Array:
    return array.at[at].set(values, mode="drop")


def own(array: jax.Array) -> jax.Array:
    """A copy that may be written."""
    return jnp.array(array, copy=True)
