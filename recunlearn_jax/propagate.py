"""Graph propagation on the device: y_i = sum_j w_ij x_j, one function for every layout.

Two layouts answer `propagate`:

- jraph.GraphsTuple: gather along senders, segment_sum over receivers. The reference; it exports to every platform.
- CompressedRows: the matrix and its transpose in compressed sparse rows. Its backward pass is another product with the transpose instead
  of the scatter that autodiff would make of the gather; on CPU both run in a native kernel and are several times faster.

The graph is always an argument of a compiled function, never a constant in it: another request must not recompile, and a forgotten edge
must not survive in a compilation cache.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse
from jax.experimental import sparse
from jaxtyping import Array, Float

from recunlearn_jax import graph as host_graph
from recunlearn_jax.mesh import devices_in_use


class CompressedRows(NamedTuple):
    """A weight matrix W [N, M] and its transpose, rows compressed; arrays may be longer than the number of edges."""

    pointers: jax.Array  # int32 [N + 1], row i stands at pointers[i]:pointers[i+1]
    columns: jax.Array  # int32 [capacity]
    weights: jax.Array  # float32 [capacity]
    transposed_pointers: jax.Array  # int32 [M + 1]
    transposed_columns: jax.Array
    transposed_weights: jax.Array


Graph = jraph.GraphsTuple | CompressedRows


def propagate(graph: Graph, x: Float[Array, "M d"], rows: int | None = None) -> Float[Array, "N d"]:
    """W x, differentiable in x (the weights are constants).

    Args:
        graph: W [N, M] in either layout.
        x: float [M, d].
        rows: N; M where it is not given.

    Returns:
        float [N, d].
    """
    if isinstance(graph, CompressedRows):
        return _compressed(graph, x)
    weights, senders, receivers = (jnp.asarray(part) for part in (graph.edges, graph.senders, graph.receivers))
    return jraph.segment_sum(
        weights[:, None] * x[senders], receivers, len(x) if rows is None else rows, indices_are_sorted=True
    )


def with_weights(graph: Graph, weights: Float[Array, "capacity"]) -> Graph:
    """A symmetric graph with other weights, as symmetric, on the same edges.

    Args:
        graph: W [N, N], W = W^T.
        weights: float32 [capacity], in the order of the rows; 0 for an edge that is not there.
    """
    if isinstance(graph, CompressedRows):
        return graph._replace(weights=weights, transposed_weights=weights)
    return graph._replace(edges=weights)


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


def layout(
    matrix: scipy.sparse.csr_array, kind: Literal["auto", "segment", "csr"] = "auto", capacity: int | None = None
) -> Graph:
    """Put a host matrix into the layout for this device.

    Args:
        matrix: float32 [N, M].
        kind: "segment" (GraphsTuple), "csr" (CompressedRows), or "auto": csr on one CPU, where it is native, else segment.
        capacity: edges to pad to.
    """
    if kind == "auto":
        native = (
            jax.default_backend() == "cpu" and devices_in_use() == 1
        )  # the compiler cannot spread the kernel over a mesh
        kind = "csr" if native else "segment"
    if kind == "segment":
        return host_graph.to_jraph(matrix, capacity)
    return CompressedRows(*_compress(matrix, capacity), *_compress(matrix.T.tocsr(), capacity))


def _compress(matrix, capacity):
    matrix.sort_indices()
    padding = (0, (capacity or matrix.nnz) - matrix.nnz)
    arrays = (
        matrix.indptr.astype(np.int32),
        np.pad(matrix.indices.astype(np.int32), padding),
        np.pad(matrix.data, padding),
    )
    return tuple(map(jnp.asarray, arrays))
