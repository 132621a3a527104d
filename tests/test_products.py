"""Feature products against numpy, values and gradients, for narrow and wide tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recunlearn_jax.products import constant, feature_product, transposed_product


@pytest.mark.parametrize("shape", [(5, 3), (40, 1024), (128, 1030), (300, 1024)])
def test_value_and_gradients(shape):
    """Narrow, short, blocks without and with a rest. The absolute tolerance is rounding of sums over a thousand numbers of size 1."""
    rng = np.random.default_rng(0)
    table, kernel, g = (rng.normal(size=size).astype(np.float32) for size in (shape, (shape[1], 4), (shape[0], 4)))
    value, pull = jax.vjp(jax.jit(feature_product), jnp.asarray(table), jnp.asarray(kernel))
    to_table, to_kernel = pull(jnp.asarray(g))
    np.testing.assert_allclose(value, table @ kernel, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(to_table, g @ kernel.T, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(to_kernel, table.T @ g, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 3), (300, 1030)])
def test_a_constant_table_gives_the_same(shape):
    rng = np.random.default_rng(2)
    table, kernel, g = (
        jnp.asarray(rng.normal(size=size), np.float32) for size in (shape, (shape[1], 4), (shape[0], 4))
    )
    both = jax.jit(constant)(table)
    assert both.shape == shape
    np.testing.assert_array_equal(both.transposed, np.asarray(table).T)
    value, pull = jax.vjp(jax.jit(feature_product), both, kernel)
    _, to_kernel = pull(g)
    np.testing.assert_allclose(value, table @ kernel, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(to_kernel, np.asarray(table).T @ g, rtol=1e-5, atol=1e-4)


def test_under_vmap():
    rng = np.random.default_rng(1)
    tables, g = (rng.normal(size=(2, 200, d)).astype(np.float32) for d in (1024, 3))
    together = jax.jit(jax.vmap(transposed_product))(tables, g)
    np.testing.assert_allclose(together, np.swapaxes(tables, 1, 2) @ g, rtol=1e-5, atol=1e-4)
