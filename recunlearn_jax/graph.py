"""Graphs on the host: A_hat, item graphs by cosine kNN, and their normalisation. On the device they become jraph.GraphsTuple.

A graph is a GraphsTuple whose edges are float32 weights, sorted by receiver: row i of the matrix is the set of edges with receiver i.
Removing edges never changes a shape: the arrays keep the capacity they are given, the tail holds edges of weight 0 from node 0 to the
last node, so that one compiled function serves every request. A graph that was written in place (`propagate.rewritten`) has such edges
within its rows, too.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse

from recunlearn_jax.dataset import Dataset


def bipartite(pairs: np.ndarray, num_users: int, num_items: int) -> scipy.sparse.csr_array:
    """A_hat = D^-1/2 A D^-1/2 with A = [[0, R], [R^T, 0]], users before items; a node without edges gets none (MGCN eq. 1).

    Args:
        pairs: int [n, 2] train pairs.

    Returns:
        float32 [|U| + |I|, |U| + |I|] CSR, symmetric, 2 n entries.
    """
    if (np.diff(pairs[:, 0]) < 0).any():
        pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    users, items = pairs[:, 0], pairs[:, 1]
    degree = np.bincount(users, minlength=num_users)
    weight = inverse_root(degree)[users] * inverse_root(np.bincount(items, minlength=num_items))[items]
    # In the order of users, the pairs already are the rows of R; only the transpose has to be sorted.
    starts = np.concatenate([[0], np.cumsum(degree)]).astype(np.int32)  # scipy takes the columns' type from it
    r_hat = scipy.sparse.csr_array((weight, items, starts), shape=(num_users, num_items))
    transposed = r_hat.T.tocsr()
    columns = np.concatenate([items + num_users, transposed.indices])
    starts = np.concatenate([starts, len(pairs) + transposed.indptr[1:]])
    size = num_users + num_items
    a_hat = scipy.sparse.csr_array((np.concatenate([weight, transposed.data]), columns, starts), shape=(size, size))
    a_hat.sort_indices()
    return a_hat


def inverse_root(degree: np.ndarray) -> np.ndarray:
    """degree ** -0.5 with 0 for 0."""
    return np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1e-12)), 0).astype(np.float32)


def items_to_users(a_hat: scipy.sparse.csr_array, num_users: int) -> scipy.sparse.csr_array:
    """The edges of A_hat from items to users, R_hat = its upper right block, [|U|, |I|]."""
    indptr = a_hat.indptr[: num_users + 1]
    end = indptr[-1]
    size = (num_users, a_hat.shape[0] - num_users)
    return scipy.sparse.csr_array((a_hat.data[:end], a_hat.indices[:end] - num_users, indptr), shape=size)


def users_to_items(a_hat: scipy.sparse.csr_array, num_users: int) -> scipy.sparse.csr_array:
    """The edges of A_hat from users to items, the transpose of R_hat, [|I|, |U|]."""
    start = a_hat.indptr[num_users]
    indptr = a_hat.indptr[num_users:] - start
    size = (a_hat.shape[0] - num_users, num_users)
    return scipy.sparse.csr_array((a_hat.data[start:], a_hat.indices[start:], indptr), shape=size)


def knn_similarities(features: np.ndarray, neighbours: int, block: int = 1024) -> scipy.sparse.csr_array:
    """The `neighbours` largest cosine similarities of each row, values kept; blocked, so no |I| x |I| matrix is ever held.

    An item counts among its own neighbours. An all-zero row has no edges, and no row has an edge to it.

    Args:
        features: float32 [|I|, d].
        neighbours: k.
        block: rows at a time; memory is block x |I| floats.

    Returns:
        float32 [|I|, |I|] CSR with at most k entries a row.
    """
    num_items = len(features)
    unit = _unit_rows(features)
    present = np.flatnonzero(features.any(axis=1))
    k = min(neighbours, len(present))
    rows, columns, values = [], [], []
    for start in range(0, len(present), block):
        chosen = present[start : start + block]
        similarity = unit[chosen] @ unit[present].T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        rows.append(np.repeat(chosen, k))
        columns.append(present[nearest].reshape(-1))
        values.append(np.take_along_axis(similarity, nearest, axis=1).reshape(-1))
    if not rows:
        nothing = np.zeros(0, np.int64)
        return _csr(nothing, nothing, nothing, num_items)
    return _csr(np.concatenate(values), np.concatenate(rows), np.concatenate(columns), num_items)


def grown_similarities(
    similarities: scipy.sparse.csr_array, features: np.ndarray, new: np.ndarray, neighbours: int, block: int = 1024
) -> scipy.sparse.csr_array:
    """An item graph with further items, from their rows and columns alone; if no item was removed, what `knn_similarities` gives for all.

    A row that lost a neighbour with a removed item has a free place. The best of the new items takes it; old ones are not considered again.

    Args:
        similarities: of the items before, [|I|, |I|] with no entry in rows and columns of new items.
        features: float32 [|I|, d], including those of the new items.
        new: int [n], the new items.
        neighbours: k.
        block: rows at a time.

    Returns:
        float32 [|I|, |I|] CSR with at most k entries a row.
    """
    unit, present = _unit_rows(features), np.flatnonzero(features.any(axis=1))
    new = np.intersect1d(new, present)
    old, edges = np.setdiff1d(present, new), similarities.tocoo()
    rows: list[np.ndarray] = [edges.row]
    columns: list[np.ndarray] = [edges.col]
    values: list[np.ndarray] = [edges.data]
    least = np.full(len(features), -np.inf, np.float32)
    full = np.flatnonzero(np.diff(similarities.indptr) >= neighbours)
    if len(full):
        least[full] = [similarities.data[a:b].min() for a, b in zip(*_ends(similarities, full), strict=True)]
    for known, others in ((old, new), (new, present)):
        for start in range(0, len(known) if len(others) else 0, block):
            chosen = known[start : start + block]
            similarity = unit[chosen] @ unit[others].T
            k = min(neighbours, len(others))
            nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
            found = np.take_along_axis(similarity, nearest, axis=1)
            better = found > least[chosen, None]
            rows.append(np.broadcast_to(chosen[:, None], better.shape)[better])
            columns.append(others[nearest][better])
            values.append(found[better])
    row, column, value = (np.concatenate(parts) for parts in (rows, columns, values))
    order = np.lexsort([-value, row])
    row, column, value = row[order], column[order], value[order]
    first = np.searchsorted(row, row)
    best = np.arange(len(row)) - first < neighbours
    return _csr(value[best], row[best], column[best], len(features))


def _ends(matrix: scipy.sparse.csr_array, rows: np.ndarray) -> tuple[list[int], list[int]]:
    return matrix.indptr[rows].tolist(), matrix.indptr[rows + 1].tolist()


def _unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, zero rows unchanged; where the square of a length leaves float32, rows are scaled first."""
    largest = np.abs(features).max(axis=1, initial=0, keepdims=True)
    scale = np.where((largest > 1e15) | ((largest < 1e-15) & (largest > 0)), largest, np.float32(1))
    scaled = features / scale
    return scaled / np.maximum(np.linalg.norm(scaled, axis=1), 1e-12)[:, None]


def normalize(similarities: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """S_m: w_ij = s_ij / sqrt(deg_i deg_j) with deg_i = sum_j s_ij; directed; a row without edges gets none (MGCN item view)."""
    scale = inverse_root(np.asarray(similarities.sum(axis=1), np.float32))
    receivers, senders = _ends_of_edges(similarities)
    return _reweighted(similarities, similarities.data * scale[receivers] * scale[senders])


def equal_neighbours(similarities: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """The item graph of FREEDOM: each neighbour counts equally, w_ij = 1 / sqrt(n_i n_j), n_i the number of i's neighbours."""
    scale = inverse_root(np.diff(similarities.indptr))
    receivers, senders = _ends_of_edges(similarities)
    return _reweighted(similarities, scale[receivers] * scale[senders])


def keep_items(similarities: scipy.sparse.csr_array, kept: np.ndarray) -> scipy.sparse.csr_array:
    """An item graph without the rows and columns of the items that are not kept, bool [|I|]."""
    receivers, senders = _ends_of_edges(similarities)
    return keep_entries(similarities, kept[receivers] & kept[senders])


def keep_entries(matrix: scipy.sparse.csr_array, kept: np.ndarray) -> scipy.sparse.csr_array:
    """A matrix with only some of its entries, bool [nnz], in their order."""
    starts = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr].astype(matrix.indptr.dtype)
    return scipy.sparse.csr_array((matrix.data[kept], matrix.indices[kept], starts), shape=matrix.shape)


def _ends_of_edges(matrix: scipy.sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Receiver and sender of each entry, int [nnz]."""
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr)), matrix.indices


def _reweighted(matrix: scipy.sparse.csr_array, weights: np.ndarray) -> scipy.sparse.csr_array:
    """Other weights, float32 [nnz], on the same edges. WHY a copy: scipy sorts in place."""
    weights = weights.astype(np.float32, copy=False)
    return scipy.sparse.csr_array((weights, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)


def with_item_graphs(dataset: Dataset, neighbours: int) -> Dataset:
    """Attach a kNN item graph to every modality that has none from a file."""
    missing = [m for m in dataset.modalities if m not in dataset.similarities]
    built = {m: knn_similarities(dataset.features[m], neighbours) for m in missing}
    return dataset.replace(similarities={**dataset.similarities, **built}) if built else dataset


class HostGraphs(NamedTuple):
    """The graphs of a data set as host matrices; nodes are users, then items."""

    user_item: scipy.sparse.csr_array  # A_hat [|U| + |I|, |U| + |I|]
    item_user: scipy.sparse.csr_array  # R_hat [|U|, |I|]
    user_to_item: scipy.sparse.csr_array  # its transpose
    item_item: Mapping[str, scipy.sparse.csr_array]  # modality -> S_m [|I|, |I|]
    available: Mapping[str, np.ndarray]  # modality -> bool [|U| + |I|]; users have every modality of the data


def host_graphs(dataset: Dataset, modalities: tuple[str, ...] | None = None) -> HostGraphs:
    """A_hat and every S_m of a data set with item graphs attached (`with_item_graphs`).

    Args:
        dataset: an all-zero feature row means that the item lacks the modality; it has no place in that item graph.
        modalities: those wanted; all if None.
    """
    a_hat = bipartite(dataset.train, dataset.num_users, dataset.num_items)
    between = items_to_users(a_hat, dataset.num_users), users_to_items(a_hat, dataset.num_users)
    return HostGraphs(a_hat, *between, *item_graphs(dataset, modalities))


def item_graphs(
    dataset: Dataset, modalities: tuple[str, ...] | None = None
) -> tuple[Mapping[str, scipy.sparse.csr_array], Mapping[str, np.ndarray]]:
    """Every S_m, and who has the modality; see `HostGraphs`."""
    item_item, available = {}, {}
    for m in dataset.modalities if modalities is None else modalities:
        present = np.any(dataset.features[m] != 0, axis=1)
        item_item[m] = normalize(keep_items(dataset.similarities[m], present))
        available[m] = np.concatenate([np.ones(dataset.num_users, bool), present])
    return item_item, available


def to_jraph(matrix: scipy.sparse.csr_array, capacity: int | None = None) -> jraph.GraphsTuple:
    """GraphsTuple of a CSR matrix: edge (senders j -> receivers i) carries w_ij, sorted by receiver.

    Args:
        matrix: float32 [N, N], or [N, M] if senders and receivers are of two kinds; n_node then counts receivers.
        capacity: number of edges to pad to; the number of entries if None.

    Returns:
        edges float32 [capacity], senders and receivers int32 [capacity], n_node [1], n_edge [1] (the real edges), no node features.
    """
    matrix = matrix.tocsr()
    matrix.sort_indices()
    padding = (0, (capacity or matrix.nnz) - matrix.nnz)
    receivers = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
    return jraph.GraphsTuple(
        nodes=None,
        edges=jnp.asarray(np.pad(matrix.data.astype(np.float32), padding)),
        senders=jnp.asarray(np.pad(matrix.indices.astype(np.int32), padding)),
        receivers=jnp.asarray(np.pad(receivers, padding, constant_values=matrix.shape[0] - 1)),
        globals=None,
        n_node=jnp.array([matrix.shape[0]], jnp.int32),
        n_edge=jnp.array([matrix.nnz], jnp.int32),
    )


def from_jraph(graph: jraph.GraphsTuple) -> scipy.sparse.csr_array:
    """The square CSR matrix of a GraphsTuple in the form `to_jraph` gives; padding is dropped."""
    edges = int(np.sum(graph.n_edge))
    weights, receivers, senders = (np.asarray(x)[:edges] for x in (graph.edges, graph.receivers, graph.senders))
    return _csr(weights, receivers, senders, int(np.sum(graph.n_node)))


def _csr(values, rows, columns, size) -> scipy.sparse.csr_array:
    matrix = scipy.sparse.coo_array((values.astype(np.float32), (rows, columns)), shape=(size, size)).tocsr()
    matrix.sort_indices()
    return matrix
