"""All layouts of graph propagation against dense products, and what they must not compile again for."""

import functools

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recunlearn_jax.propagate import CompressedRows, GatheredRows, layout, propagate
from recunlearn_jax.stopwatch import stopwatch

NODES, WIDTH, CAPACITY = 8, 3, 64
KINDS = ("segment", "csr", "gather")
every_layout = pytest.mark.parametrize("kind", KINDS)


def random_matrix(seed, edges=20):
    """Directed, with empty rows and columns and a self loop."""
    rng = np.random.default_rng(seed)
    dense = np.zeros((NODES, NODES), np.float32)
    places = rng.choice(np.arange((NODES - 2) ** 2), edges, replace=False)
    dense[places // (NODES - 2), places % (NODES - 2)] = rng.normal(size=edges)
    dense[NODES - 1, NODES - 1] = 0.5
    return scipy.sparse.csr_array(dense)


def random_rows(seed):
    return np.random.default_rng(seed).normal(size=(2, NODES, WIDTH)).astype(np.float32)


@jax.jit
def forward_and_backward(graph, x, g):
    """W x and W^T g; the graph is an argument."""
    y, pull = jax.vjp(functools.partial(propagate, graph, rows=len(g)), x)
    return y, pull(g)[0]


def check(graph, dense, x, g):
    dense = dense.astype(np.float64)
    y, back = forward_and_backward(graph, x, g)
    np.testing.assert_allclose(y, dense @ x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(back, dense.T @ g, rtol=1e-5, atol=1e-5)
    assert y.dtype == jnp.float32


@every_layout
@pytest.mark.parametrize("capacity", [None, CAPACITY])
def test_dense_product(kind, capacity):
    """Forward and gradient of a directed graph; the transpose would give something else."""
    matrix = random_matrix(0)
    dense = matrix.toarray()
    x, g = random_rows(1)
    assert np.abs(dense @ x - dense.T @ x).max() > 0.1
    check(layout(matrix, kind, capacity), dense, x, g)


@every_layout
@pytest.mark.parametrize("capacity", [None, CAPACITY])
@pytest.mark.parametrize("shape", [(4, NODES), (NODES, 4)])
def test_from_nodes_of_one_kind_to_another(kind, capacity, shape):
    matrix = random_matrix(0)[: shape[0], : shape[1]]
    x, g = random_rows(1)[0][: shape[1]], random_rows(2)[0][: shape[0]]
    assert matrix.nnz
    check(layout(matrix, kind, capacity), matrix.toarray(), x, g)


@every_layout
def test_a_transpose_that_is_known_is_not_made_again(kind):
    """Given, or the matrix itself where it is symmetric."""
    matrix = random_matrix(0)
    both = (matrix + matrix.T).tocsr()
    for known, transposed in ((matrix, matrix.T.tocsr()), (both, both)):
        ours, theirs = layout(known, kind, 2 * CAPACITY, transposed), layout(known, kind, 2 * CAPACITY)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    if kind != "segment":  # whose backward pass is autodiff's; the others believe what they are given
        x, g = random_rows(1)
        twice = layout(matrix, kind, CAPACITY, (2 * matrix.T).tocsr())
        (back,) = jax.vjp(lambda x: propagate(twice, x), jnp.asarray(x))[1](jnp.asarray(g))
        np.testing.assert_allclose(back, 2 * matrix.T.toarray() @ g, rtol=1e-5, atol=1e-5)


@every_layout
def test_outside_of_jit(kind):
    matrix = random_matrix(2)
    x, _ = random_rows(3)
    np.testing.assert_allclose(
        propagate(layout(matrix, kind), jnp.asarray(x)), matrix.toarray() @ x, rtol=1e-5, atol=1e-5
    )


@every_layout
def test_vmap_over_inputs(kind):
    matrix = random_matrix(2)
    batch = random_rows(3)
    ours = jax.jit(jax.vmap(propagate, (None, 0)))(layout(matrix, kind, CAPACITY), batch)
    np.testing.assert_allclose(ours, matrix.toarray() @ batch, rtol=1e-5, atol=1e-5)


@every_layout
def test_graph_without_edges(kind):
    empty = scipy.sparse.csr_array((NODES, NODES), dtype=np.float32)
    x, g = random_rows(4)
    check(layout(empty, kind, CAPACITY), empty.toarray(), x, g)


@every_layout
def test_another_graph_of_the_same_capacity_compiles_nothing(kind):
    first, second, larger = (layout(random_matrix(s, e), kind, c) for s, e, c in ((5, 20, 40), (6, 9, 40), (5, 20, 50)))
    x, g = (jnp.asarray(a) for a in random_rows(7))
    with stopwatch() as compiled:
        jax.block_until_ready(forward_and_backward(first, x, g))
    assert compiled.programs >= 1
    with stopwatch() as again:
        jax.block_until_ready(forward_and_backward(second, x, g))
    assert again.programs == 0
    check(second, random_matrix(6, 9).toarray(), np.asarray(x), np.asarray(g))
    with stopwatch() as other:
        jax.block_until_ready(forward_and_backward(larger, x, g))
    assert other.programs >= 1


def test_layouts():
    matrix = random_matrix(10)
    assert isinstance(layout(matrix, "segment"), jraph.GraphsTuple)
    assert isinstance(layout(matrix, "csr"), CompressedRows)
    assert isinstance(layout(matrix, "gather"), GatheredRows)
    on_cpu = jax.default_backend() == "cpu"
    assert isinstance(layout(matrix), CompressedRows if on_cpu else jraph.GraphsTuple)


@pytest.mark.parametrize("degree", [0, 1, 15, 16, 17, 255, 256, 257, 4095, 4096, 4097])
def test_gathered_rows_of_any_degree(degree):
    """Around each number of edges at which another level of sums begins; one row among short ones."""
    rng = np.random.default_rng(degree)
    dense = np.zeros((40, 5000), np.float32)
    dense[7, rng.permutation(5000)[:degree]] = 1 + rng.random(degree, np.float32)
    dense[8:30, :3] = rng.normal(size=(22, 3))
    x, g = rng.normal(size=(5000, WIDTH)).astype(np.float32), rng.normal(size=(40, WIDTH)).astype(np.float32)
    graph = layout(scipy.sparse.csr_array(dense), "gather", 4200)
    y, back = forward_and_backward(graph, x, g)
    np.testing.assert_allclose(y, dense.astype(np.float64) @ x, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(back, dense.T.astype(np.float64) @ g, rtol=1e-4, atol=1e-4)


def test_an_empty_place_reads_nothing():
    """Where there is no edge, not even what is no number comes in."""
    matrix = random_matrix(2)
    x = random_rows(3)[0]
    x[0] = np.nan
    touched = (matrix.toarray() != 0)[:, 0]
    y = np.asarray(propagate(layout(matrix, "gather", CAPACITY), jnp.asarray(x)))
    assert np.isnan(y[touched]).all()
    assert np.isfinite(y[~touched]).all()


@settings(deadline=None, max_examples=40, database=None)
@given(
    mask=hnp.arrays(bool, (NODES, NODES)),
    values=hnp.arrays(np.float32, (NODES, NODES), elements=st.floats(-4, 4, width=32)),
    seed=st.integers(0, 2**32 - 1),
)
def test_layouts_agree_on_any_matrix(mask, values, seed):
    """One capacity for all of them, so each layout compiles once."""
    dense = np.where(mask, values, np.float32(0))
    x, g = random_rows(seed)
    for kind in KINDS:
        check(layout(scipy.sparse.csr_array(dense), kind, CAPACITY), dense, x, g)
