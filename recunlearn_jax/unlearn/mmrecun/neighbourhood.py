"""The part of the graph that steps on a few rows can reach, so that a step costs what the request touches, not the whole graph.

Rows before the fuser are linear in the id tables (`backbones.base.Linear`). With E = E0 + D, where D is zero
outside the moving rows,

    rows(E) = rows(E0) + rows(D)

The first term is a constant of the request. The second travels along paths that start in a moving row; for the rows a batch reads it is
exact on the sub-graph of the batch's nodes and of those through which such paths lead. Of its edges only those carry anything that leave a
node which a path has reached by then.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones.base import Linear, Sizes
from recunlearn_jax.graph import HostGraphs, Senders, only_from, subgraph

LEAST_LENGTH = 16384  # data sets of up to so many users and items have one program for requests of every size


class Nodes(NamedTuple):
    """Which users and items are in a neighbourhood, and the ids they have there."""

    users: np.ndarray  # int64 [n], global ids, ascending
    items: np.ndarray  # int64 [m], ascending
    num_users: int  # array length: n and more, the same for requests of about this size
    num_items: int

    @property
    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """Global ids of users, int32 [num_users], and items, int32 [num_items]; 0 behind the real ones."""
        users, items = self.users.astype(np.int32), self.items.astype(np.int32)
        return np.pad(users, (0, self.num_users - len(users))), np.pad(items, (0, self.num_items - len(items)))

    def local(self, pairs: np.ndarray) -> np.ndarray:
        """(user, item) pairs [k, 2] in local ids; all of them must be in the neighbourhood."""
        ids = (np.searchsorted(known, pairs[:, i]) for i, known in enumerate((self.users, self.items)))
        return np.stack(list(ids), axis=1)

    def place_users(self, values: np.ndarray) -> np.ndarray:
        """A global [|U|] in local order, [num_users], 0 behind it."""
        return np.pad(values[self.users], (0, self.num_users - len(self.users)))

    def place_items(self, values: np.ndarray) -> np.ndarray:
        """A global [|I|] in local order, [num_items], 0 behind it."""
        return np.pad(values[self.items], (0, self.num_items - len(self.items)))

    def of_users(self, values: np.ndarray) -> jax.Array:
        """`place_users` on the device, float32."""
        return jnp.asarray(self.place_users(values), jnp.float32)

    def of_items(self, values: np.ndarray) -> jax.Array:
        """`place_items` on the device, float32."""
        return jnp.asarray(self.place_items(values), jnp.float32)


class Neighbourhood(NamedTuple):
    """A sub-graph of S users and T items, and what the whole graph gave its nodes before the first step."""

    graphs: Any
    base: Any


def senders_of(graphs: HostGraphs, moving: np.ndarray, user_item_layers: int, item_item_layers: int) -> Senders:
    """Nodes from which a change of moving rows travels on, at each propagation.

    Args:
        graphs: of the whole data set.
        moving: bool [|U| + |I|].
        user_item_layers, item_item_layers: of the model.

    Returns:
        The moving nodes; those within L_ui - 1 hops of them; for each modality the items within L_ii - 1 hops in its item graph; and
        the items within L_ii hops in any.
    """
    further = moving.copy()
    for _ in range(user_item_layers - 1):
        further |= _receivers(graphs.user_item, further)
    items, modal = {}, moving[graphs.num_users :].copy()
    for m, matrix in graphs.item_item.items():
        reached = items[m] = moving[graphs.num_users :].copy()
        for _ in range(item_item_layers):
            items[m], reached = reached, reached | _receivers(matrix, reached)
        modal |= reached
    return Senders(moving, further, items, modal)


def reach(senders: Senders) -> np.ndarray:
    """Nodes through which the change travels on its way to the row of any other node, bool [|U| + |I|]."""
    near = senders.further.copy()
    near[len(near) - len(senders.modal) :] |= senders.modal
    return near


def _receivers(matrix, senders: np.ndarray) -> np.ndarray:
    """bool [N]: rows with an entry in one of the columns."""
    counts = np.concatenate([[0], np.cumsum(senders[matrix.indices])])
    return np.diff(counts[matrix.indptr]) > 0


def padded_length(needed: int, everything: int, least: int = LEAST_LENGTH) -> int:
    """Array length for so many rows: `least` times a power of 4, at most `everything`; few lengths mean few programs to compile."""
    size = least
    while size < needed:
        size *= 4
    return min(size, everything)


def gather(nodes: np.ndarray, num_users: int) -> Nodes:
    """The chosen nodes, bool [|U| + |I|]."""
    users, items = np.flatnonzero(nodes[:num_users]), np.flatnonzero(nodes[num_users:])
    return Nodes(users, items, padded_length(len(users), num_users), padded_length(len(items), len(nodes) - num_users))


def neighbourhood(
    whole: HostGraphs, base: Any, nodes: Nodes, linear: Linear, most: Sizes, senders: Senders
) -> Neighbourhood:
    """Cut the neighbourhood out of the whole graph.

    Args:
        whole: the graphs.
        base: rows of all nodes on these graphs, before the first step.
        nodes: who is in it.
        linear: of the backbone.
        most: bounds of the array sizes.
        senders: whose edges matter, of the whole data set.
    """
    cut = subgraph(whole, nodes.users, nodes.items, nodes.num_users, nodes.num_items)
    pairs = padded_length(cut.user_item.nnz // 2, most.pairs, 16 * LEAST_LENGTH)
    neighbours = {
        m: padded_length(graph.nnz, most.neighbours[m], 16 * LEAST_LENGTH) for m, graph in cut.item_item.items()
    }
    cut = only_from(cut, local_senders(senders, nodes))
    users, items = nodes.padded
    rows = taken(base, jnp.asarray(users), jnp.asarray(items), linear=linear)
    return Neighbourhood(linear.device(cut, pairs, neighbours), rows)


@functools.partial(jax.jit, static_argnames="linear")
def taken(rows: Any, users: jax.Array, items: jax.Array, *, linear: Linear) -> Any:
    """`Linear.take`, compiled."""
    return linear.take(rows, users, items)


def local_senders(senders: Senders, nodes: Nodes) -> Senders:
    """Senders by the ids that nodes have in a neighbourhood; what is behind the real ones sends nothing."""

    def place(chosen):
        users, items = np.split(chosen, [len(chosen) - len(senders.modal)])
        return np.concatenate([nodes.place_users(users), nodes.place_items(items)])

    return Senders(
        place(senders.first),
        place(senders.further),
        {m: nodes.place_items(chosen) for m, chosen in senders.items.items()},
        nodes.place_items(senders.modal),
    )
