"""VBPR: matrix factorisation with a second user table for the items' content. No graph.

    Q_i = [E_I(i) ; sum_m X_m(i) W_m + b],  U_u = [E_U(u) ; T_U(u)],  score(u, i) = <U_u, Q_i>
    loss = BPR + reg (|U_u|_F + |Q_p|_F + |Q_n|_F) / B, norms over the rows of the batch

Source: He and McAuley 2016 (arXiv 1510.01784), in the form of MMRec: any number of modalities side by side, no bias per item or of the
features' own, a regulariser of norms that are not squared. Features are not trained. With no modality it is matrix factorisation.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from recunlearn_jax import losses
from recunlearn_jax.backbones.base import Backbone, BackboneKind, Batch, Data, Params, Rows, Shape
from recunlearn_jax.losses import Views
from recunlearn_jax.products import constant, feature_product
from recunlearn_jax.settings import Checked, NotNegative, Width


@dataclass(frozen=True)
class Settings(Checked):
    """VBPR."""

    embedding_size: Width = 64
    """Width d of the id part and of the content part; output rows have 2 d columns."""
    norm_weight: NotNegative = 1.0
    """Weight of the norms of the batch's rows; chosen with MMRec on tiktok's valid pairs, seed 10."""


def _uniform(key: jax.Array, rows: int, columns: int, size: int) -> jax.Array:
    """`size` columns of a Xavier uniform table [rows, columns]."""
    bound = jnp.sqrt(6 / jnp.float32(rows + columns))
    return jax.random.uniform(key, (rows, size), minval=-bound, maxval=bound)


@functools.cache
def make(shape: Shape, settings: Settings) -> Backbone:
    """VBPR for a shape of data."""
    d, modalities = settings.embedding_size, shape.modalities

    def init_ids(key: jax.Array) -> Params:
        keys = jax.random.split(key, 3 + len(modalities))
        width = 2 * d if modalities else d
        params: Params = {
            "user_embedding": _uniform(keys[0], shape.num_users, width, d),
            "item_embedding": _uniform(keys[1], shape.num_items, d, d),
        }
        return {**params, "user_content": _uniform(keys[2], shape.num_users, width, d)} if modalities else params

    def init(key: jax.Array, data: Data) -> Params:
        params = init_ids(key)
        inputs = sum(data.features[m].shape[1] for m in modalities)
        for m, own in zip(modalities, jax.random.split(key, 3 + len(modalities))[3:], strict=True):
            size = (data.features[m].shape[1], d)
            params[f"{m}_projection"] = jax.random.normal(own, size) * jnp.sqrt(2 / jnp.float32(inputs + d))
        return {**params, "content_bias": jnp.zeros(d)} if modalities else params

    def tables(params: Params, data: Data) -> tuple[jax.Array, jax.Array]:
        users, items = params["user_embedding"], params["item_embedding"]
        if not modalities:
            return users, items
        content = sum(feature_product(data.features[m], params[f"{m}_projection"]) for m in modalities)
        content = jnp.asarray(content) + params["content_bias"][None]
        return jnp.concatenate([users, params["user_content"]], axis=1), jnp.concatenate([items, content], axis=1)

    def views(params: Params, data: Data, users, positives, negatives) -> Views:
        of_users, of_items = tables(params, data)
        return Views(of_users[users], of_items[positives], of_items[negatives])

    def loss(params: Params, data: Data, batch: Batch, batch_size: int) -> jax.Array:
        rows = views(params, data, *batch[:3])
        norms = losses.table_norms(rows.user, rows.positive, rows.negative, weights=batch[3])
        return losses.bpr(*losses.scores(rows), weights=batch[3]) + settings.norm_weight * norms

    declared: dict[str, Rows] = {
        "user_embedding": "users",
        "user_content": "users",
        "item_embedding": "items",
        "content_bias": "neither",
        **{f"{m}_projection": "neither" for m in modalities},
    }
    if not modalities:
        declared = {"user_embedding": "users", "item_embedding": "items"}
    parts = {f"{m}_projection": m for m in modalities}
    return Backbone(
        name="vbpr",
        shape=shape,
        modalities=modalities,
        graphs=lambda dataset, sizes: None,
        rewrite=lambda graphs, *changes: graphs,
        init=init,
        init_ids=init_ids,
        rows=lambda params, data: jnp.concatenate(tables(params, data)),
        views=views,
        loss=loss,
        tables=declared,
        of_modality=parts.get,
        epoch=lambda key, data: data._replace(features={m: constant(x) for m, x in data.features.items()}),
    )


KIND = BackboneKind(Settings, make)
