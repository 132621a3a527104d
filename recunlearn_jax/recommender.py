"""The one model type: a backbone with parameters and the data it serves. Training makes one, answering a request makes the next."""

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from recunlearn_jax.backbones import Backbone, backbone_kind
from recunlearn_jax.backbones.base import Data, Params, Sizes, check_tables, shape_of, sizes_of
from recunlearn_jax.config import Config
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import Note
from recunlearn_jax.mesh import place
from recunlearn_jax.products import Features
from recunlearn_jax.sampling import Sampler, build_sampler
from recunlearn_jax.serving import recommend
from recunlearn_jax.stopwatch import Seconds


class Setup(NamedTuple):
    """A data set made ready for a backbone: everything of a recommender but its parameters."""

    config: Config
    backbone: Backbone
    dataset: Dataset  # completed: with item graphs where the backbone reads them
    data: Data
    sizes: Sizes


def set_up(dataset: Dataset, config: Config, sizes: Sizes | None = None, before: Setup | None = None) -> Setup:
    """Make a data set ready: complete it, choose the backbone for its shape, and put it on the device (over the mesh where one is set).

    A user who has every item among the train pairs is named in a note: there is no negative to train with.

    Args:
        dataset: to train on or to serve.
        config: names the backbone.
        sizes: array sizes to keep, of the larger data set that this one was edited from; its own where None.
        before: what this one was edited from; feature tables that are the same arrays are not put on the device once more.
    """
    kind = backbone_kind(config.backbone)
    dataset = kind.complete(dataset, config.model)
    backbone = kind.make(shape_of(dataset), config.model)
    sizes = sizes or sizes_of(dataset)
    train = dataset.train
    sampler = build_sampler(
        train, train, dataset.num_users, dataset.num_items, capacity=sizes.pairs, history_capacity=sizes.pairs
    )
    _tell_full_users(dataset, sampler)
    known = before.data.features if before else {}

    def table(m: str) -> Features:
        same = before is not None and before.dataset.features.get(m) is dataset.features[m]
        return known[m] if same and m in known else jnp.asarray(dataset.features[m])

    features = {m: table(m) for m in backbone.modalities}
    data = place(Data(backbone.graphs(dataset, sizes), features, sampler))
    return Setup(config, backbone, dataset, data, sizes)


def _tell_full_users(dataset: Dataset, sampler: Sampler) -> None:
    most = int(sampler.num_candidates)
    full = np.flatnonzero(np.diff(np.asarray(sampler.history_pointers)) == most)
    if len(full):
        others = f" and {len(full) - 1} others" if len(full) > 1 else ""
        warnings.warn(
            f"user {dataset.word('user', full[0])}{others} interacted with all {most} items of train; trained without negatives of theirs",
            Note,
            stacklevel=3,
        )


@functools.partial(jax.jit, static_argnames="backbone")
def init_params(key: jax.Array, data: Data, *, backbone: Backbone) -> Params:
    """Fresh parameters; one program for all calls with one backbone.

    Args:
        key: typed PRNG key.
        data: on the device.
        backbone: static.

    Raises:
        TypeError: the backbone does not declare a table, see `backbones.base.check_tables`.
    """
    params = backbone.init(key, data)
    check_tables(backbone, params)
    return params


def shapes(setup: Setup) -> Params:
    """Shapes and dtypes of the parameters."""
    return jax.eval_shape(lambda data: init_params(jax.random.key(0), data, backbone=setup.backbone), setup.data)


@functools.partial(jax.jit, static_argnames="backbone")
def fresh_ids(key: jax.Array, *, backbone: Backbone) -> Params:
    """The id tables of a new model, which has seen no data.

    Args:
        key: typed PRNG key.
        backbone: static.

    Raises:
        TypeError: the backbone does not draw just its id tables.
    """
    fresh, declared = backbone.init_ids(key), backbone.id_tables()
    if fresh.keys() != declared.keys():
        raise TypeError(
            f"backbone {backbone.name!r}: `init_ids` draws {', '.join(fresh) or 'nothing'}; its id tables are {', '.join(declared)}"
        )
    return fresh


@functools.partial(jax.jit, static_argnames="backbone")
def fresh_content(key: jax.Array, data: Data, *, backbone: Backbone) -> Params:
    """The tables of content of a new model, such as features that are trained; no layer, whose draws take longer to compile.

    Args:
        key: typed PRNG key.
        data: on the device.
        backbone: static.
    """
    params, ids = backbone.init(key, data), backbone.id_tables()
    return {n: params[n] for n, rows in backbone.tables.items() if rows != "neither" and n in params and n not in ids}


def replace_rows(params: Params, fresh: Params, masks: Mapping[str, np.ndarray]) -> Params:
    """The parameters with some rows of some tables from others.

    Args:
        params: of a backbone.
        fresh: those tables, of a new model.
        masks: table -> bool [rows], those to be taken from `fresh`.

    Raises:
        TypeError: a table of the new model has another shape or type; nothing is broadcast.
    """
    tables, others = ({name: tree[name] for name in masks} for tree in (params, fresh))
    for name, table in tables.items():
        if (others[name].shape, others[name].dtype) != (table.shape, table.dtype):
            raise TypeError(
                f"table {name!r} of a new model is {others[name].dtype}{list(others[name].shape)}; "
                f"{table.dtype}{list(table.shape)} is expected"
            )
    return {**params, **_chosen(tables, others, dict(masks))}


@jax.jit
def _chosen(tables: Params, others: Params, masks: dict[str, Bool[Array, "rows"]]) -> Params:
    return {
        name: jnp.where(masks[name].reshape(-1, *[1] * (table.ndim - 1)), others[name], table)
        for name, table in tables.items()
    }


@functools.partial(jax.jit, static_argnames="backbone")
def embed(params: Params, data: Data, *, backbone: Backbone) -> Float[Array, "N d"]:
    """Output rows Z of all nodes, users first, float32 [|U| + |I|, d]."""
    return backbone.rows(params, data)


@dataclass(frozen=True, eq=False)
class Recommender:
    """A backbone with parameters and the data it serves; holds nothing of what it was made to forget.

    Attributes:
        backbone: the mathematics.
        params: its parameters, over the mesh where one is set.
        dataset: what it serves, and what it was trained on or has retained; with item graphs.
        data: the same on the device.
        config: settings it was trained with.
        sizes: numbers that keep programs compiled, see `Sizes`.
        history: one entry an epoch, for a model that was trained.
        info: what the method that made it reports.
        seconds: making it took: training, or from the request to usable parameters and graph.
    """

    backbone: Backbone
    params: Params
    dataset: Dataset
    data: Data
    config: Config
    sizes: Sizes
    history: Sequence[dict[str, Any]] = ()
    info: dict[str, Any] = field(default_factory=dict)
    seconds: Seconds = field(default_factory=Seconds)

    def __post_init__(self):
        object.__setattr__(self, "params", place(self.params))

    @property
    def setup(self) -> Setup:
        """Everything but the parameters."""
        return Setup(self.config, self.backbone, self.dataset, self.data, self.sizes)

    @property
    def best(self) -> dict[str, Any]:
        """The log entry of the epoch whose parameters these are, of a model that was trained."""
        return next(entry for entry in self.history if entry["epoch"] == self.info["best_epoch"])

    @functools.cached_property
    def rows(self) -> jax.Array:
        """Z, float32 [|U| + |I|, d], users first; score(u, i) = <Z_u, Z_i>."""
        return embed(self.params, self.data, backbone=self.backbone)

    def recommend(self, users: Sequence[int] | np.ndarray, k: int = 20) -> np.ndarray:
        """The k best items for some users, int32 [n, k]; see `serving.recommend`."""
        return recommend(self.rows, self.dataset, np.asarray(users), k)


def recommender(setup: Setup, params: Params, **made: Any) -> Recommender:
    """A recommender of a data set that is set up.

    Args:
        setup: everything but the parameters.
        params: of its backbone.
        made: `history`, `info`, `seconds`.
    """
    return Recommender(setup.backbone, params, setup.dataset, setup.data, setup.config, setup.sizes, **made)
