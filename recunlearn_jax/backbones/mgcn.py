"""MGCN for any number of modalities, as pure Linen modules; with no modality it is LightGCN.

Numbers in comments are the steps of the computation: 3 behaviour-guided purifier, 4 user-item view, 5 item-item view, 6 behaviour-aware
fuser, 7 output (Yu et al. 2023, arXiv 2308.03588).
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import losses
from recunlearn_jax.backbones.base import Backbone, BackboneKind, Batch, Data, Params, Rows, Shape, Sizes
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.edges import Edit
from recunlearn_jax.graph import HostGraphs, host_graphs, item_graphs, with_item_graphs
from recunlearn_jax.losses import Views
from recunlearn_jax.products import Features, constant, feature_product
from recunlearn_jax.propagate import Graph, Layout, layout, propagate, rewritten
from recunlearn_jax.settings import Checked, Count, Layers, NotNegative, Positive, Width

MODALITY_PARTS = ("features", "projection", "purifier", "preference")  # parameters <modality>_<part>


@dataclass(frozen=True)
class Settings(Checked):
    """MGCN (arXiv 2308.03588) as implemented in MMRec."""

    embedding_size: Width = 64
    """Width d of every embedding."""
    user_item_layers: Layers = 2
    """Propagations over the user-item graph."""
    item_item_layers: Layers = 1
    """Propagations over each modality's item graph."""
    neighbours: Count = 10
    """k of the item graphs that are built from features; a graph file beside the features takes precedence."""
    trainable_features: bool = True
    """Train the raw feature tables too, as the reference does; False keeps them frozen and is faster."""
    l2_weight: NotNegative = 1e-4
    contrast_weight: NotNegative = 0.01
    """Weight of the InfoNCE terms."""
    temperature: Positive = 0.2
    layout: Layout = "auto"
    """How graphs are propagated, see `propagate.layout`."""


class Graphs(NamedTuple):
    """The graphs of a data set on the device; an argument of every compiled function."""

    user_item: Graph  # A_hat over |U| + |I| nodes
    item_user: Graph  # its edges from items to users, R_hat [|U|, |I|]
    item_item: Mapping[str, Graph]  # S_m over |I| nodes
    available: Mapping[str, jax.Array]  # modality -> bool [|U| + |I|]; users have every modality of the data


class Propagated(NamedTuple):
    """What the graphs give for some or all nodes before the fuser: n users, then m items.

    The modalities stand side by side, so that one product and one gather serve all M of them.
    """

    content: jax.Array  # C [n + m, d]
    user_modal: jax.Array  # F of users [n, M d]
    item_modal: jax.Array  # F of items [m, M d]
    available: Mapping[str, jax.Array]  # modality -> bool [n + m]


class Output(NamedTuple):
    """Rows of the two views and their sum; score(u, i) = <Z_u, Z_i>."""

    embedding: jax.Array  # Z [rows, d]
    side: jax.Array  # [rows, d]
    content: jax.Array  # [rows, d]


def device_graphs(host: HostGraphs, kind: Layout, pairs: int, neighbours: Mapping[str, int]) -> Graphs:
    """Graphs in the layout of this device.

    Args:
        host: the matrices.
        kind: of the layout.
        pairs: user-item pairs to pad to.
        neighbours: modality -> edges of its item graph to pad to.
    """
    return Graphs(
        user_item=layout(host.user_item, kind, 2 * pairs, host.user_item),
        item_user=layout(host.item_user, kind, pairs, host.user_to_item),
        item_item={m: layout(matrix, kind, neighbours[m]) for m, matrix in host.item_item.items()},
        available={m: jnp.asarray(rows) for m, rows in host.available.items()},
    )


def rewritten_graphs(
    graphs: Graphs, edit: Edit, before: Dataset, after: Dataset, kind: Layout, neighbours: Mapping[str, int]
) -> Graphs:
    """Graphs after a request, written in place: A_hat edge by edge; an item graph, which is small in comparison, is rebuilt if it changes.

    Args:
        graphs: those before, whose arrays nothing else holds.
        edit: edges of A_hat that change.
        before, after: the data.
        kind: of the layout.
        neighbours: modality -> edges of its item graph to pad to.
    """
    both = np.concatenate([edit.of_users, edit.pairs + edit.of_items])
    changed = tuple(m for m in graphs.item_item if after.features[m] is not before.features[m])
    matrices, available = item_graphs(after, changed)
    return Graphs(
        user_item=rewritten(graphs.user_item, both, np.tile(edit.weights, 2)),
        item_user=rewritten(graphs.item_user, edit.of_users, edit.weights, edit.of_items),
        item_item={**graphs.item_item, **{m: layout(x, kind, neighbours[m]) for m, x in matrices.items()}},
        available={**graphs.available, **{m: jnp.asarray(rows) for m, rows in available.items()}},
    )


def _fan_in_uniform(fan_in: int):
    """uniform(+-1/sqrt(fan_in)), PyTorch's default for the weights and the bias of a linear layer."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -1, 1) / jnp.sqrt(jnp.asarray(fan_in, dtype))

    return init


def _dense(size: int, fan_in: int, name: str, use_bias: bool = True) -> nn.Dense:
    init = _fan_in_uniform(fan_in)
    return nn.Dense(size, use_bias, kernel_init=init, bias_init=init, name=name)


class Affine(nn.Module):
    """Kernel [inputs, outputs] and bias [outputs] of a linear layer, returned instead of applied, so that layers can be multiplied."""

    inputs: int
    outputs: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        init = _fan_in_uniform(self.inputs)
        return self.param("kernel", init, (self.inputs, self.outputs)), self.param("bias", init, (self.outputs,))


class MGCN(nn.Module):
    """Multi-view graph convolutional network.

    Attributes:
        num_users, num_items: |U|, |I|.
        modalities: names, sorted; empty for LightGCN.
        embedding_size: d.
        user_item_layers, item_item_layers: L_ui, L_ii.
        trainable_features: the raw feature tables are parameters; they start as the features given to `init`.
    """

    num_users: int
    num_items: int
    modalities: tuple[str, ...] = ()
    embedding_size: int = 64
    user_item_layers: int = 2
    item_item_layers: int = 1
    trainable_features: bool = True

    @nn.compact
    def gates(self, features: Mapping[str, Features]) -> dict[str, jax.Array]:
        """Step 3 without the id table, sigmoid(W2 (W1 X_m + b1) + b2): all that the features decide, modality -> [|I|, d].

        Args:
            features: modality -> float32 [|I|, d_m]; if they are trainable, only their shapes matter after `init`.
        """
        gates = {}
        for m in self.modalities:
            raw = features[m]
            if self.trainable_features:
                raw = self.param(f"{m}_features", lambda _, x: x, raw)
            kernel, bias = Affine(raw.shape[1], self.embedding_size, name=f"{m}_projection")()
            mix, shift = Affine(self.embedding_size, self.embedding_size, name=f"{m}_purifier")()
            # WHY (X W1) W2 as X (W1 W2): nothing stands between the two layers, and one pass over the items is enough.
            gates[m] = nn.sigmoid(feature_product(raw, kernel @ mix) + (bias @ mix + shift)[None])
        return gates

    @nn.compact
    def ids(self) -> tuple[jax.Array, jax.Array]:
        """The id tables of users [|U|, d] and items [|I|, d]."""
        table = nn.initializers.xavier_uniform()
        users = self.param("user_embedding", table, (self.num_users, self.embedding_size))
        return users, self.param("item_embedding", table, (self.num_items, self.embedding_size))

    @nn.compact
    def propagated(self, graphs: Graphs, gates: Mapping[str, jax.Array]) -> Propagated:
        """Steps 3 to 5 for all nodes: the part whose cost follows the graph. It is linear in the id tables.

        Args:
            graphs: of the data set.
            gates: from `gates`.
        """
        users, items = self.ids()
        layer = jnp.concatenate([users, items])  # 4
        total = layer
        for _ in range(self.user_item_layers):
            layer = propagate(graphs.user_item, layer)
            total = total + layer
        content = total / (self.user_item_layers + 1)

        purified = []
        for m in self.modalities:
            p = items * gates[m]  # 3
            p = jnp.where(graphs.available[m][self.num_users :, None], p, 0)
            for _ in range(self.item_item_layers):
                p = propagate(graphs.item_item[m], p)  # 5
            purified.append(p)
        if not purified:
            return Propagated(content, users[:, :0], items[:, :0], {})
        item_modal = jnp.concatenate(purified, axis=1)
        user_modal = propagate(graphs.item_user, item_modal, self.num_users)
        return Propagated(content, user_modal, item_modal, {m: graphs.available[m] for m in self.modalities})

    @nn.compact
    def fuse(self, rows: Propagated) -> Output:
        """Steps 6 and 7 for the rows given: each row on its own, so a batch needs only the rows it reads.

        A row without a modality (an item that lacks the feature) leaves it out of attention, sum and divisor.
        """
        d = self.embedding_size
        if not self.modalities:
            return Output(rows.content, jnp.zeros_like(rows.content), rows.content)
        hidden, score = _dense(d, d, "attention_hidden"), _dense(1, d, "attention_score", use_bias=False)
        # WHY lists: one product per modality runs twice as fast on a CPU as one over a stacked [M, rows, d] array.
        modal = jnp.split(jnp.concatenate([rows.user_modal, rows.item_modal]), len(self.modalities), axis=1)
        present = [rows.available[m][:, None].astype(rows.content.dtype) for m in self.modalities]
        attention = jnp.stack([score(jnp.tanh(hidden(f))) for f in modal])  # [M, rows, 1]
        attention = jnp.where(jnp.stack(present) > 0, attention, jnp.finfo(attention.dtype).min)
        beta = nn.softmax(attention, axis=0)
        common = sum(b * a * f for b, a, f in zip(beta, present, modal, strict=True))
        preference = [nn.sigmoid(_dense(d, d, f"{m}_preference")(rows.content)) for m in self.modalities]
        specific = sum(g * a * (f - common) for g, a, f in zip(preference, present, modal, strict=True))
        side = (specific + common) / (1 + sum(present))
        side = jnp.asarray(side)
        return Output(rows.content + side, side, rows.content)

    def __call__(self, graphs: Graphs, features: Mapping[str, Features]) -> Output:
        """Output rows of all nodes, users first."""
        return self.fuse(self.propagated(graphs, self.gates(features)))

    def batch(
        self,
        graphs: Graphs,
        features: Mapping[str, Features],
        users: jax.Array,
        positives: jax.Array,
        negatives: jax.Array,
    ) -> Views:
        """Views of a batch of triplets, int32 [B] each, for the losses. Exact: the fuser runs on the batch's rows only."""
        propagated = self.propagated(graphs, self.gates(features))
        out = self.fuse(take_rows(propagated, users, jnp.concatenate([positives, negatives])))
        user, positive, negative = jnp.split(out.embedding, 3)
        user_side, positive_side, _ = jnp.split(out.side, 3)
        user_content, positive_content, _ = jnp.split(out.content, 3)
        sides = (user_side, user_content, positive_side, positive_content)
        return Views(user, positive, negative, *sides, user_ids=users, positive_ids=positives)


def take_rows(propagated: Propagated, users: jax.Array, items: jax.Array) -> Propagated:
    """The rows of some users, int32 [n], and items, int32 [m]."""
    nodes = jnp.concatenate([users, len(propagated.user_modal) + items])
    return Propagated(
        propagated.content[nodes],
        propagated.user_modal[users],
        propagated.item_modal[items],
        {m: rows[nodes] for m, rows in propagated.available.items()},
    )


def module(shape: Shape, settings: Settings) -> MGCN:
    """The Linen module for a shape of data."""
    return MGCN(
        num_users=shape.num_users,
        num_items=shape.num_items,
        modalities=shape.modalities,
        embedding_size=settings.embedding_size,
        user_item_layers=settings.user_item_layers,
        item_item_layers=settings.item_item_layers,
        trainable_features=settings.trainable_features,
    )


@functools.cache
def make(shape: Shape, settings: Settings) -> Backbone:
    """MGCN for a shape of data; with no modality it is LightGCN."""
    model = module(shape, settings)

    def graphs(dataset: Dataset, sizes: Sizes) -> Graphs:
        return device_graphs(host_graphs(dataset, shape.modalities), settings.layout, sizes.pairs, sizes.neighbours)

    def rewrite(graphs: Graphs, edit: Edit, before: Dataset, after: Dataset, sizes: Sizes) -> Graphs:
        return rewritten_graphs(graphs, edit, before, after, settings.layout, sizes.neighbours)

    def init(key: jax.Array, data: Data) -> Params:
        return cast(Params, model.init(key, data.graphs, data.features)["params"])

    def init_ids(key: jax.Array) -> Params:
        return cast(Params, model.init(key, method="ids")["params"])

    def rows(params: Params, data: Data) -> jax.Array:
        return cast(Output, model.apply({"params": params}, data.graphs, data.features)).embedding

    def views(params: Params, data: Data, users, positives, negatives) -> Views:
        triplets = (users, positives, negatives)
        return cast(Views, model.apply({"params": params}, data.graphs, data.features, *triplets, method="batch"))

    def loss(params: Params, data: Data, batch: Batch, batch_size: int) -> jax.Array:
        return losses.mgcn(
            views(params, data, *batch[:3]),
            contrast_weight=settings.contrast_weight if shape.modalities else 0,
            l2_weight=settings.l2_weight,
            temperature=settings.temperature,
            batch_size=batch_size,
            weights=batch[3],
        )

    def epoch(key: jax.Array, data: Data) -> Data:
        # Feature tables that no step of the epoch changes carry their transpose.
        if settings.trainable_features:
            return data
        return data._replace(features={m: constant(table) for m, table in data.features.items()})

    parts: dict[str, str] = {f"{m}_{part}": m for m in shape.modalities for part in MODALITY_PARTS}
    tables: dict[str, Rows] = {"user_embedding": "users", "item_embedding": "items"}
    tables |= {name: "items" if name.endswith("_features") else "neither" for name in parts}
    tables |= {"attention_hidden": "neither", "attention_score": "neither"}
    return Backbone(
        name="mgcn",
        shape=shape,
        modalities=shape.modalities,
        graphs=graphs,
        init=init,
        init_ids=init_ids,
        rows=rows,
        views=views,
        loss=loss,
        tables=tables,
        of_modality=lambda path: parts.get(path.split("/")[0]),
        epoch=epoch,
        rewrite=None if settings.layout == "gather" else rewrite,
        id_layers=settings.user_item_layers,
        contrast=bool(shape.modalities),
    )


def complete(dataset: Dataset, settings: Settings) -> Dataset:
    """The data set with an item graph for every modality."""
    return with_item_graphs(dataset, settings.neighbours)


KIND = BackboneKind(Settings, make, complete)
