"""Matrix factorisation: one row per user and one per item, trained by BPR. An ensemble of shard models answers as this backbone, too.

    Z = [E_U; E_I],  loss = BPR + reg L2 over the rows of the batch

Source: Rendle et al. 2009 (arXiv 1205.2618).
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from recunlearn_jax import losses
from recunlearn_jax.backbones.base import Backbone, BackboneKind, Batch, Data, Params, Shape
from recunlearn_jax.losses import Views
from recunlearn_jax.settings import Checked, NotNegative, Width


@dataclass(frozen=True)
class Settings(Checked):
    """Matrix factorisation."""

    embedding_size: Width = 64
    """Width d of every embedding."""
    l2_weight: NotNegative = 1e-4


@functools.cache
def make(shape: Shape, settings: Settings) -> Backbone:
    """Matrix factorisation for a shape of data."""

    def init_ids(key: jax.Array) -> Params:
        fresh = jax.nn.initializers.xavier_uniform()
        users, items = ((size, settings.embedding_size) for size in (shape.num_users, shape.num_items))
        user_key, item_key = jax.random.split(key)
        return {"user_embedding": fresh(user_key, users), "item_embedding": fresh(item_key, items)}

    def views(params: Params, data: Data, users, positives, negatives) -> Views:
        items = params["item_embedding"]
        return Views(params["user_embedding"][users], items[positives], items[negatives])

    def loss(params: Params, data: Data, batch: Batch, batch_size: int) -> jax.Array:
        return losses.mgcn(
            views(params, data, *batch[:3]),
            contrast_weight=0,
            l2_weight=settings.l2_weight,
            batch_size=batch_size,
            weights=batch[3],
        )

    return Backbone(
        name="mf",
        shape=shape,
        modalities=(),
        graphs=lambda dataset, sizes: None,
        rewrite=lambda graphs, *changes: graphs,
        init=lambda key, data: init_ids(key),
        init_ids=init_ids,
        rows=lambda params, data: jnp.concatenate([params["user_embedding"], params["item_embedding"]]),
        views=views,
        loss=loss,
        tables={"user_embedding": "users", "item_embedding": "items"},
        id_layers=0,
    )


KIND = BackboneKind(Settings, make)
