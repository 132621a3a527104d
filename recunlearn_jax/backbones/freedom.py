"""FREEDOM: LightGCN on a user-item graph whose edges are pruned in every epoch, plus an item graph that is built once from content.

    S    = sum_m w_m S_m, S_m the k nearest neighbours by content, all with equal weight, normalised
    h    = S^L_ii E_I
    X    = mean(X_0 .. X_L), X_0 = [E_U; E_I], X_{l+1} = A X_l;  user rows X_U, item rows X_I + h
    loss = BPR + modal_weight sum_m BPR(<user row, X_m W_m + b_m>)

A is A_hat when ranking. In training an epoch keeps a share of the edges, drawn without replacement with probability proportional to
(d_u d_i)^-1/2, and normalises them anew.

Source: Zhou and Shen 2023 (arXiv 2211.06924), as in MMRec, for any number of modalities; the reference has two, image with weight
0.1. An item without a modality has no part in that modality's BPR.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from annotated_types import Ge, Lt

from recunlearn_jax import losses
from recunlearn_jax.backbones.base import Backbone, BackboneKind, Batch, Data, Params, Rows, Shape, Sizes
from recunlearn_jax.backbones.mgcn import Layout
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.graph import bipartite, equal_neighbours, with_item_graphs
from recunlearn_jax.losses import Views
from recunlearn_jax.products import feature_product
from recunlearn_jax.propagate import Graph, layout, propagate, with_weights
from recunlearn_jax.sampling import Sampler
from recunlearn_jax.settings import Checked, Count, Layers, NotNegative, Share, Width


@dataclass(frozen=True)
class Settings(Checked):
    """FREEDOM."""

    embedding_size: Width = 64
    """Width d of every embedding."""
    user_item_layers: Layers = 2
    """Propagations over the user-item graph."""
    item_item_layers: Layers = 1
    """Propagations over the item graph."""
    neighbours: Count = 10
    """k of the item graphs that are built from features; a graph file beside the features takes precedence."""
    image_weight: Share = 0.1
    """Share of the modality image in the item graph if there are other modalities; these share the rest equally."""
    pruned: Annotated[float, Ge(0), Lt(1)] = 0.8
    """Share of the user-item edges that an epoch of training leaves out."""
    modal_weight: NotNegative = 1e-3
    """Weight of each modality's BPR."""
    trainable_features: bool = True
    """Train the raw feature tables too, as the reference does."""
    layout: Layout = "auto"
    """How graphs are propagated, see `propagate.layout`."""


class Graphs(NamedTuple):
    """The graphs of a data set on the device."""

    user_item: Graph  # A_hat over |U| + |I| nodes
    item_item: Graph  # S over |I| nodes
    chance: jax.Array  # float32 [pairs], log of the weight with which a pair is kept; -inf after the last
    edge_pair: (
        jax.Array
    )  # int32 [2 pairs], the pair that an edge of A_hat is one half of; after the last edge it is `pairs`
    available: Mapping[str, jax.Array]  # modality -> bool [|I|]
    pruned: Graph | None = None  # A in training


def item_graph(dataset: Dataset, modalities: tuple[str, ...], image_weight: float) -> scipy.sparse.csr_array:
    """S of a data set with item graphs, float32 [|I|, |I|] CSR."""
    weights = {m: 1 / max(len(modalities), 1) for m in modalities}
    if "image" in modalities and len(modalities) > 1:
        rest = (1 - image_weight) / (len(modalities) - 1)
        weights = {m: image_weight if m == "image" else rest for m in modalities}
    total = scipy.sparse.csr_array((dataset.num_items, dataset.num_items), dtype=np.float32)
    for m in modalities:
        total = total + equal_neighbours(dataset.similarities[m]) * np.float32(weights[m])
    return scipy.sparse.csr_array(total, shape=(dataset.num_items, dataset.num_items))


def prune(key: jax.Array, graphs: Graphs, sampler: Sampler, share: float) -> Graph:
    """A for an epoch: a random share of the edges is left out, popular users' and items' more often, and the rest is normalised anew.

    The pairs with the largest chance + Gumbel noise are a draw without replacement, one after the other, proportional to exp(chance).

    Args:
        key: typed PRNG key.
        graphs: of the data set.
        sampler: of its train pairs.
        share: of the edges to leave out, in [0, 1).
    """
    capacity = len(graphs.chance)
    drawn = graphs.chance + jax.random.gumbel(key, (capacity,))
    kept = jnp.floor(sampler.num_pairs.astype(jnp.float32) * (1 - share)).astype(jnp.int32)
    least = jnp.sort(drawn, descending=True)[jnp.maximum(kept - 1, 0)]
    return _among(graphs, sampler, (drawn >= least) & (kept > 0) & ~jnp.isneginf(drawn))


def _among(graphs: Graphs, sampler: Sampler, kept: jax.Array) -> Graph:
    """A_hat of the pairs that are kept, bool [pairs]."""
    users, items = sampler.pairs.T
    ones = kept.astype(jnp.float32)
    num_users = len(sampler.history_pointers) - 1

    def inverse_root(ids, size):
        degree = jnp.zeros(size).at[ids].add(ones)
        return jnp.where(degree > 0, jax.lax.rsqrt(jnp.maximum(degree, 1)), 0)[ids]

    weights = ones * inverse_root(users, num_users) * inverse_root(items, len(sampler.candidates))
    return with_weights(graphs.user_item, jnp.append(weights, 0)[graphs.edge_pair])


@functools.cache
def make(shape: Shape, settings: Settings) -> Backbone:
    """FREEDOM for a shape of data."""
    d, modalities = settings.embedding_size, shape.modalities

    def graphs(dataset: Dataset, sizes: Sizes) -> Graphs:
        users, items = dataset.train.T
        count, behind = len(users), sizes.pairs - len(users)
        degrees = [
            np.bincount(ids, minlength=size) for ids, size in ((users, shape.num_users), (items, shape.num_items))
        ]
        chance = -0.5 * np.log(degrees[0][users] * degrees[1][items].astype(np.float64))
        # Rows of users come first and hold the pairs in their order; those of items hold them by item, then user.
        edge_pair = np.concatenate([np.arange(count), np.lexsort((users, items))])
        whole = bipartite(dataset.train, shape.num_users, shape.num_items)
        content = item_graph(dataset, modalities, settings.image_weight)
        return Graphs(
            user_item=layout(whole, settings.layout, 2 * sizes.pairs, whole),
            item_item=layout(content, settings.layout, max(1, sum(sizes.neighbours.values()))),
            chance=jnp.asarray(np.pad(chance, (0, behind), constant_values=-np.inf), jnp.float32),
            edge_pair=jnp.asarray(np.pad(edge_pair, (0, 2 * behind), constant_values=sizes.pairs), jnp.int32),
            available={m: jnp.asarray(dataset.features[m].any(axis=1)) for m in modalities},
        )

    def init_ids(key: jax.Array) -> Params:
        table = jax.nn.initializers.xavier_uniform()
        user_key, item_key, *_ = jax.random.split(key, 2 + len(modalities))
        return {
            "user_embedding": table(user_key, (shape.num_users, d)),
            "item_embedding": table(item_key, (shape.num_items, d)),
        }

    def init(key: jax.Array, data: Data) -> Params:
        params = init_ids(key)
        for m, own in zip(modalities, jax.random.split(key, 2 + len(modalities))[2:], strict=True):
            width = data.features[m].shape[1]
            bound = 1 / jnp.sqrt(jnp.float32(width))
            kernel_key, bias_key = jax.random.split(own)
            params[f"{m}_projection"] = {
                "kernel": jax.random.uniform(kernel_key, (width, d), minval=-bound, maxval=bound),
                "bias": jax.random.uniform(bias_key, (d,), minval=-bound, maxval=bound),
            }
            if settings.trainable_features:
                params[f"{m}_features"] = jnp.asarray(data.features[m])
        return params

    def tables(params: Params, data: Data, graph: Graph) -> tuple[jax.Array, jax.Array]:
        users, items = params["user_embedding"], params["item_embedding"]
        layer = jnp.concatenate([users, items])
        total = layer
        for _ in range(settings.user_item_layers):
            layer = propagate(graph, layer)
            total = total + layer
        total = total / (settings.user_item_layers + 1)
        content = items
        for _ in range(settings.item_item_layers):
            content = propagate(data.graphs.item_item, content)
        return total[: shape.num_users], total[shape.num_users :] + content

    def views_on(params: Params, data: Data, graph: Graph, users, positives, negatives) -> Views:
        of_users, of_items = tables(params, data, graph)
        return Views(of_users[users], of_items[positives], of_items[negatives])

    def loss(params: Params, data: Data, batch: Batch, batch_size: int) -> jax.Array:
        graph = data.graphs.user_item if data.graphs.pruned is None else data.graphs.pruned
        rows = views_on(params, data, graph, *batch[:3])
        total = losses.bpr(*losses.scores(rows), weights=batch[3])
        for m in modalities:
            raw = params[f"{m}_features"] if settings.trainable_features else data.features[m]
            layer = params[f"{m}_projection"]
            content = feature_product(raw, layer["kernel"]) + layer["bias"][None]
            both = data.graphs.available[m][batch[1]] & data.graphs.available[m][batch[2]]
            modal = rows._replace(positive=content[batch[1]], negative=content[batch[2]])
            total += settings.modal_weight * losses.bpr(*losses.scores(modal), weights=jnp.where(both, batch[3], 0))
        return total

    def epoch(key: jax.Array, data: Data) -> Data:
        if settings.pruned <= 0:
            return data
        pruned = prune(key, data.graphs, data.sampler, settings.pruned)
        return data._replace(graphs=data.graphs._replace(pruned=pruned))

    parts = {f"{m}_{part}": m for m in modalities for part in ("features", "projection")}
    declared: dict[str, Rows] = {"user_embedding": "users", "item_embedding": "items"}
    declared |= {name: "items" if name.endswith("_features") else "neither" for name in parts}
    return Backbone(
        name="freedom",
        shape=shape,
        modalities=modalities,
        graphs=graphs,
        init=init,
        init_ids=init_ids,
        rows=lambda params, data: jnp.concatenate(tables(params, data, data.graphs.user_item)),
        views=lambda params, data, *triplets: views_on(params, data, data.graphs.user_item, *triplets),
        loss=loss,
        tables=declared,
        of_modality=lambda path: parts.get(path.split("/")[0]),
        epoch=epoch,
    )


def complete(dataset: Dataset, settings: Settings) -> Dataset:
    """The data set with an item graph for every modality."""
    return with_item_graphs(dataset, settings.neighbours)


KIND = BackboneKind(Settings, make, complete)
