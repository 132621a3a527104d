"""Graph propagation on the device: y_i = sum_j w_ij x_j, one function for every layout.

`propagate` takes three layouts:

- jraph.GraphsTuple: gather along senders, segment_sum over receivers. The reference; it exports to every platform.
- CompressedRows: the matrix and its transpose in compressed sparse rows. Its backward pass is another product with the transpose instead
  of the scatter that autodiff would make of the gather; on CPU both run in a native kernel and are several times faster.
- GatheredRows: the same two matrices as trees of small sums. Nothing is scattered, so a GPU gives the same bits in every run, whereas a
  segment_sum adds in the order in which its threads arrive.

The graph is always an argument of a compiled function, never a constant in it: another request must not recompile anything, and a forgotten
edge must not survive in a compilation cache.
"""

import functools
from collections.abc import Iterable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse
from jax.experimental import sparse
from jaxtyping import Array, Float

from recunlearn_jax import graph as host_graph
from recunlearn_jax.in_place import write
from recunlearn_jax.mesh import devices_in_use


class CompressedRows(NamedTuple):
    """A weight matrix W [N, M] and its transpose, rows compressed; arrays may be longer than the number of edges."""

    pointers: jax.Array  # int32 [N + 1], row i stands at pointers[i]:pointers[i+1]
    columns: jax.Array  # int32 [capacity]
    weights: jax.Array  # float32 [capacity]
    transposed_pointers: jax.Array  # int32 [M + 1]
    transposed_columns: jax.Array
    transposed_weights: jax.Array


class SumTree(NamedTuple):
    """A weight matrix W [N, M] as sums of `_WIDE` rows: first of edges, then of the sums before, until each row of W is one sum.

    The last row of each level is empty, so its sum is 0.
    """

    edges: jax.Array  # int32 [n, _WIDE], place of an edge in the order of the rows; the capacity where there is none
    senders: jax.Array  # int32 [n, _WIDE], its column in W
    weights: jax.Array  # float32 [n, _WIDE]; 0 where there is none
    sums: tuple[
        jax.Array, ...
    ]  # of each further level, int32 [n', _WIDE], rows of the level before; its last one where there is none
    places: jax.Array  # int32 [N, levels], where row i of W stands in each level; the last row except in one level


class GatheredRows(NamedTuple):
    """A weight matrix W [N, M] and its transpose as trees of sums."""

    product: SumTree
    transposed: SumTree


Graph = jraph.GraphsTuple | CompressedRows | GatheredRows


def propagate(graph: Graph, x: Float[Array, "M d"], rows: int | None = None) -> Float[Array, "N d"]:
    """W x, differentiable in x (the weights are constants).

    Args:
        graph: W [N, M] in any layout.
        x: float [M, d].
        rows: N; M if not given.

    Returns:
        float [N, d].
    """
    if isinstance(graph, CompressedRows):
        return _compressed(graph, x)
    if isinstance(graph, GatheredRows):
        return _gathered(graph, x)
    weights, senders, receivers = (jnp.asarray(part) for part in (graph.edges, graph.senders, graph.receivers))
    return jraph.segment_sum(
        weights[:, None] * x[senders], receivers, len(x) if rows is None else rows, indices_are_sorted=True
    )


def with_weights(graph: Graph, weights: Float[Array, "capacity"]) -> Graph:
    """A symmetric graph with other weights, also symmetric, on the same edges.

    Args:
        graph: W [N, N], W = W^T.
        weights: float32 [capacity], in the order of the rows; 0 for an edge that is not there.
    """
    if isinstance(graph, CompressedRows):
        return graph._replace(weights=weights, transposed_weights=weights)
    if isinstance(graph, GatheredRows):
        tree = graph.product._replace(weights=jnp.append(weights, 0)[graph.product.edges])
        return GatheredRows(tree, tree)
    return graph._replace(edges=weights)


def rewritten(graph: Graph, at: np.ndarray, weights: np.ndarray, transposed: np.ndarray | None = None) -> Graph:
    """A graph with other weights on some of its edges, written in place; the graph given is used up.

    An edge of weight 0 is removed; its place stays as a gap, an edge from node 0. In a sorted row such a gap still tells about the edge
    that was there: whoever holds the graph can find removed edges, until it is laid out anew.

    Args:
        graph: W [N, M], whose arrays nothing else holds; not laid out as sums of rows.
        at: places of edges, in the order of the rows, int [k].
        weights: float32 [k], their new weights.
        transposed: `at` in the order of the rows of the transpose; None if W is symmetric.

    Raises:
        TypeError: the graph is laid out as sums of rows, whose edges have no places of their own.
    """
    goes = weights == 0
    nobody = np.zeros(np.count_nonzero(goes), np.int32)
    if isinstance(graph, jraph.GraphsTuple):
        edges, senders = (jnp.asarray(part) for part in (graph.edges, graph.senders))
        return graph._replace(edges=write(edges, at, weights), senders=write(senders, at[goes], nobody))
    if isinstance(graph, GatheredRows):
        raise TypeError("a graph laid out as sums of rows is not written in place; lay it out anew")
    rows = graph.pointers, write(graph.columns, at[goes], nobody), write(graph.weights, at, weights)
    if transposed is None:
        return CompressedRows(*rows, *rows)
    columns = write(graph.transposed_columns, transposed[goes], nobody)
    return CompressedRows(
        *rows, graph.transposed_pointers, columns, write(graph.transposed_weights, transposed, weights)
    )


Layout = Literal["auto", "segment", "csr", "gather"]
_WIDE = 16  # rows per sum; more of them leave more empty places, fewer make more levels


@jax.custom_vjp
def _compressed(graph: CompressedRows, x: jax.Array) -> jax.Array:
    return _product(graph.pointers, graph.columns, graph.weights, x)


def _compressed_forward(graph, x):
    return _compressed(graph, x), graph


def _compressed_backward(graph, g):
    # WHY: autodiff of the product is a scatter-add over edges, 5 to 7 times slower than this product on a CPU. The transpose is
    # propagated by the same function, so that second derivatives (influence functions) are as fast.
    return None, _compressed(CompressedRows(*graph[3:], *graph[:3]), g)


_compressed.defvjp(_compressed_forward, _compressed_backward)


def _product(pointers, columns, weights, x):
    return sparse.BCSR((weights.astype(x.dtype), columns, pointers), shape=(len(pointers) - 1, len(x))) @ x


@jax.custom_vjp
def _gathered(graph: GatheredRows, x: jax.Array) -> jax.Array:
    return _sum_up(graph.product, x)


def _gathered_forward(graph, x):
    return _gathered(graph, x), graph


def _gathered_backward(graph, g):
    return None, _gathered(GatheredRows(graph.transposed, graph.product), g)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def _sum_up(tree: SumTree, x: jax.Array) -> jax.Array:
    # WHY sums spelled out: XLA makes one kernel of them, but not of a gather to [n, _WIDE, d].
    terms = zip(tree.weights.T.astype(x.dtype), tree.senders.T, strict=True)
    level = _sum(jnp.where(w[:, None] != 0, w[:, None] * x[senders], 0) for w, senders in terms)
    total = level[tree.places[:, 0]]
    for rows, places in zip(tree.sums, tree.places.T[1:], strict=True):
        level = _sum(level[row] for row in rows.T)
        total = total + level[places]
    return total


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, terms)


def layout(
    matrix: scipy.sparse.csr_array,
    kind: Layout = "auto",
    capacity: int | None = None,
    transposed: scipy.sparse.csr_array | None = None,
) -> Graph:
    """Put a host matrix into the layout for this device.

    Args:
        matrix: W, float32 [N, M].
        kind: "segment" (GraphsTuple), "csr" (CompressedRows), "gather" (GatheredRows), or "auto": csr on one CPU, where it is native, else
            segment.
        capacity: edges to pad to.
        transposed: W^T if it is known; W itself if W is symmetric.
    """
    if kind == "auto":
        native = (
            jax.default_backend() == "cpu" and devices_in_use() == 1
        )  # the compiler cannot spread the kernel over a mesh
        kind = "csr" if native else "segment"
    if kind == "segment":
        return host_graph.to_jraph(matrix, capacity)
    transposed = matrix.T.tocsr() if transposed is None else transposed
    if kind == "gather":
        tree = _sum_tree(matrix, capacity)
        return GatheredRows(tree, tree if transposed is matrix else _sum_tree(transposed, capacity))
    rows = _compress(matrix, capacity)
    return CompressedRows(*rows, *(rows if transposed is matrix else _compress(transposed, capacity)))


def _compress(matrix, capacity) -> tuple[jax.Array, jax.Array, jax.Array]:
    matrix.sort_indices()
    padding = (0, (capacity or matrix.nnz) - matrix.nnz)
    columns, weights = np.pad(matrix.indices.astype(np.int32), padding), np.pad(matrix.data, padding)
    return jnp.asarray(matrix.indptr, jnp.int32), jnp.asarray(columns), jnp.asarray(weights)


def _sum_tree(matrix, capacity):
    """The sizes of its arrays depend only on the shape and the capacity, so that an edited matrix runs in the same program."""
    matrix.sort_indices()
    rows, columns = matrix.shape
    capacity = max(capacity or matrix.nnz, 1)
    # For each row: the rows of the level before that it sums; at first these are its edges.
    counts, members = np.diff(matrix.indptr), np.arange(matrix.nnz)
    levels, places, empty = [], [], capacity
    while not levels or _WIDE ** len(levels) < columns:
        groups = -(-counts // _WIDE)
        first = np.cumsum(groups) - groups
        owner = np.repeat(np.arange(rows), counts)
        at = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        size = capacity // _WIDE ** max(len(levels), 1) + (1 if levels else rows + 1)
        level = np.full((size, _WIDE), empty, np.int32)
        level[first[owner] + at // _WIDE, at % _WIDE] = members
        levels.append(level)
        empty = size - 1
        places.append(np.where(groups == 1, first, empty))
        counts = np.where(groups > 1, groups, 0)
        members = np.repeat(first, counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    edges, *sums = levels
    behind = (0, capacity + 1 - matrix.nnz)
    senders, weights = (np.pad(part, behind)[edges] for part in (matrix.indices.astype(np.int32), matrix.data))
    arrays = edges, senders, weights, tuple(sums), np.column_stack(places).astype(np.int32)
    return SumTree(*jax.tree.map(jnp.asarray, arrays))
