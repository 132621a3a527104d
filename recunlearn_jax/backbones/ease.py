"""EASE with content: a linear model of items that is solved in closed form. Nothing is trained, so deletions can be exact (`unlearn.ease`).

    P = (X^T X + w sum_m F_m F_m^T + lambda I)^-1,   B = -P / diag(P) by columns, 0 on its diagonal,   score(u, i) = sum_j X_uj B_ji

X holds the train pairs, F_m the rows of modality m at length 1. Output rows have one column per item: users' are the rows of X, items' the
columns of B. Source: Steck 2019 (arXiv 1905.03375); content as further rows of X: Jeunen et al. 2020 (RecSys).
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from scipy.linalg import lapack

from recunlearn_jax import losses
from recunlearn_jax.backbones.base import Backbone, BackboneKind, Batch, Data, Params, Shape, Sizes
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.losses import Views
from recunlearn_jax.settings import Checked, NotNegative, Positive

TABLE = "inverse"  # P, the one parameter
MOST = 2**30  # limit on the numbers in the output rows of all nodes: 4 GiB, of which a few copies are held at times


@dataclass(frozen=True)
class Settings(Checked):
    """EASE (arXiv 1905.03375) with content."""

    penalty: Positive = 100.0
    """lambda."""
    content_weight: NotNegative = 3.0
    """w; 0 leaves content out."""


def interactions(dataset: Dataset) -> scipy.sparse.csr_array:
    """X of the train pairs, float64 [|U|, |I|]."""
    ones = np.ones(len(dataset.train))
    return scipy.sparse.csr_array((ones, tuple(dataset.train.T)), shape=(dataset.num_users, dataset.num_items))


def content(features: Mapping[str, np.ndarray], settings: Settings) -> dict[str, np.ndarray]:
    """sqrt(w) F_m of each modality, float64 [|I|, d_m]; empty if content has no weight."""
    if settings.content_weight == 0:
        return {}
    lengths = {m: np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True) for m, rows in features.items()}
    root = np.sqrt(settings.content_weight)
    return {m: root * rows / np.where(lengths[m] > 0, lengths[m], 1) for m, rows in features.items()}


def solve(dataset: Dataset, settings: Settings) -> np.ndarray:
    """P, float32 [|I|, |I|].

    Raises:
        InputError: the penalty is so small that the matrix cannot be inverted.
    """
    x = interactions(dataset)
    gram = (x.T @ x).toarray()
    for rows in content(dataset.features, settings).values():
        gram += rows @ rows.T
    gram[np.diag_indices_from(gram)] += settings.penalty
    factor, failed = lapack.dpotrf(
        gram.T, lower=1, overwrite_a=1
    )  # symmetric, so .T is the layout that can be overwritten
    inverse, failed = (factor, failed) if failed else lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise InputError(f"ease: the penalty {settings.penalty} is too small for these data; a larger one is needed")
    lower = np.tril(inverse.astype(np.float32))
    lower += np.tril(lower, -1).T
    return lower


@functools.cache
def make(shape: Shape, settings: Settings) -> Backbone:
    """EASE for a shape of data."""

    def check(dataset: Dataset, sizes: Sizes) -> None:
        del dataset, sizes
        entries = (shape.num_users + shape.num_items) * shape.num_items
        if entries > MOST:
            raise InputError(
                f"backbone 'ease': {shape.num_users:,} users and {shape.num_items:,} items would need output rows of {entries:,} numbers; "
                f"{MOST:,} are allowed"
            )

    def init_ids(key: jax.Array) -> Params:
        """The solution without any data."""
        del key
        return {TABLE: jnp.eye(shape.num_items) / settings.penalty}

    def items(params: Params) -> jax.Array:
        inverse = params[TABLE]
        own = jnp.diagonal(inverse)
        return jnp.where(jnp.eye(len(own), dtype=bool), 0, -inverse / own[:, None])

    def users(data: Data) -> jax.Array:
        sampler = data.sampler
        real = (jnp.arange(len(sampler.pairs)) < sampler.num_pairs).astype(jnp.float32)
        return jnp.zeros((shape.num_users, shape.num_items)).at[sampler.pairs[:, 0], sampler.pairs[:, 1]].add(real)

    def views(params: Params, data: Data, chosen, positives, negatives) -> Views:
        rows = items(params)
        return Views(users(data)[chosen], rows[positives], rows[negatives])

    def loss(params: Params, data: Data, batch: Batch, batch_size: int) -> jax.Array:
        del batch_size
        return losses.bpr(*losses.scores(views(params, data, *batch[:3])), weights=batch[3])

    return Backbone(
        name="ease",
        shape=shape,
        modalities=shape.modalities if settings.content_weight else (),
        graphs=check,
        init=lambda key, data: init_ids(key),
        init_ids=init_ids,
        rows=lambda params, data: jnp.concatenate([users(data), items(params)]),
        views=views,
        loss=loss,
        tables={TABLE: "items"},
        solve=lambda dataset: {TABLE: jnp.asarray(solve(dataset, settings))},
    )


KIND = BackboneKind(Settings, make)
