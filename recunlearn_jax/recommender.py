"""The one model type: a backbone with parameters and the data it serves. Training makes one, answering a request makes the next."""

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from recunlearn_jax.backbones import Backbone, backbone_kind
from recunlearn_jax.backbones.base import Data, Params, Sizes, check_tables, shape_of, sizes_of
from recunlearn_jax.config import Config
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import Note, check_type
from recunlearn_jax.mesh import devices_in_use, place
from recunlearn_jax.products import Features
from recunlearn_jax.sampling import Sampler, build_sampler
from recunlearn_jax.serving import recommend
from recunlearn_jax.sides import Sides, sides
from recunlearn_jax.stopwatch import Seconds


@dataclass(frozen=True, eq=False)
class Setup:
    """A data set made ready for a backbone: everything in a recommender except its parameters.

    Attributes:
        config: settings, which name the backbone.
        backbone: the mathematics.
        dataset: completed, that is, with item graphs if the backbone reads them.
        sizes: array sizes that an edited data set keeps.
        graphs: what `Backbone.graphs` made, on the device.
        features: modality -> float32 [|I|, d_m], on the device.
        gaps: whether the graphs were written in place, so that removed edges have left gaps.
    """

    config: Config
    backbone: Backbone
    dataset: Dataset
    sizes: Sizes
    graphs: Any
    features: Mapping[str, Features]
    gaps: bool = False

    @functools.cached_property
    def data(self) -> Data:
        """The data set on the device. Its sampler is built when this is first read, which most answers never do."""
        train, size = self.dataset.train, self.sizes.pairs
        shape = self.dataset.num_users, self.dataset.num_items
        sampler = build_sampler(train, train, *shape, capacity=size, history_capacity=size)
        return Data(self.graphs, self.features, place(sampler))

    @functools.cached_property
    def sides(self) -> Sides:
        """Its train pairs by user and by item, on the host."""
        return sides(self.dataset.train, self.dataset.num_users, self.dataset.num_items)

    def with_sampler(self, sampler: Sampler) -> "Setup":
        """The same with another sampler."""
        other = dataclasses.replace(self)
        other.__dict__["data"] = Data(self.graphs, self.features, sampler)
        return other


def set_up(dataset: Dataset, config: Config, sizes: Sizes | None = None, before: Setup | None = None) -> Setup:
    """Make a data set ready: complete it, choose the backbone for its shape, and put it on the device (over the mesh where one is set).

    A note names a user who has every item among the train pairs: there is no negative to train with.

    Args:
        dataset: to train on or to serve.
        config: names the backbone.
        sizes: array sizes to keep, of the larger data set that this one was edited from; its own if None.
        before: what this one was edited from; feature tables that are the same arrays are not put on the device again.

    Raises:
        InputError: something else in place of data or settings, or data for which the backbone cannot be made.
    """
    check_type(dataset, Dataset, "dataset", "`read_dataset` reads a data folder")
    check_type(config, Config, "config", "such as `PRESETS['fast']`")
    kind = backbone_kind(config.backbone)
    dataset = kind.complete(dataset, config.model)
    backbone = kind.make(shape_of(dataset), config.model)
    sizes = sizes or sizes_of(dataset)
    sizes_of_kinds = dataset.num_users, dataset.num_items
    degrees = [np.bincount(ids, minlength=n) for ids, n in zip(dataset.train.T, sizes_of_kinds, strict=True)]
    tell_full_users(dataset, *degrees)
    setup = Setup(
        config, backbone, dataset, sizes, place(backbone.graphs(dataset, sizes)), on_device(dataset, backbone, before)
    )
    if devices_in_use() > 1:  # the mesh that is set now decides where arrays lie
        setup.data  # noqa: B018
    return setup


def on_device(dataset: Dataset, backbone: Backbone, before: Setup | None = None) -> Mapping[str, Features]:
    """The feature tables that a backbone reads; those of `before` if they are the same arrays."""
    known = before.features if before else {}

    def table(m: str) -> Features:
        same = before is not None and before.dataset.features.get(m) is dataset.features[m]
        return known[m] if same and m in known else place(jnp.asarray(dataset.features[m]))

    return {m: table(m) for m in backbone.modalities}


def tell_full_users(dataset: Dataset, of_users: np.ndarray, of_items: np.ndarray) -> None:
    """Name in a note a user who has every item among the train pairs.

    Args:
        dataset: of the users.
        of_users, of_items: number of train pairs of each, int [|U|] and [|I|].
    """
    most = np.count_nonzero(of_items)
    full = np.flatnonzero(of_users == most)
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
    """The tables of content of a new model, such as trained features; no layers, whose draws take longer to compile.

    Args:
        key: typed PRNG key.
        data: on the device.
        backbone: static.
    """
    params, ids = backbone.init(key, data), backbone.id_tables()
    return {n: params[n] for n, rows in backbone.tables.items() if rows != "neither" and n in params and n not in ids}


def replace_rows(params: Params, fresh: Params, masks: Mapping[str, np.ndarray]) -> Params:
    """The parameters, with some rows of some tables taken from a new model.

    Args:
        params: of a backbone.
        fresh: these tables, of a new model.
        masks: table -> bool [rows], the rows to take from `fresh`.

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
        setup: the data that it serves, which it was trained on or has retained, made ready for its backbone.
        params: of its backbone, over the mesh where one is set.
        history: one entry per epoch, for a model that was trained.
        info: what the method that made it reports.
        seconds: that making it took: training, or from the request to usable parameters and graph.
    """

    setup: Setup
    params: Params
    history: Sequence[dict[str, Any]] = ()
    info: dict[str, Any] = field(default_factory=dict)
    seconds: Seconds = field(default_factory=Seconds)

    def __post_init__(self):
        object.__setattr__(self, "params", place(self.params))

    @property
    def backbone(self) -> Backbone:
        """The mathematics."""
        return self.setup.backbone

    @property
    def dataset(self) -> Dataset:
        """What it serves, with item graphs."""
        return self.setup.dataset

    @property
    def data(self) -> Data:
        """The same on the device."""
        return self.setup.data

    @property
    def config(self) -> Config:
        """Settings it was trained with."""
        return self.setup.config

    @property
    def sizes(self) -> Sizes:
        """Array sizes that keep programs compiled."""
        return self.setup.sizes

    @property
    def best(self) -> dict[str, Any]:
        """The log entry of the epoch that its parameters are from, for a model that was trained."""
        return next(entry for entry in self.history if entry["epoch"] == self.info["best_epoch"])

    @functools.cached_property
    def rows(self) -> jax.Array:
        """Z, float32 [|U| + |I|, d], users first; score(u, i) = <Z_u, Z_i>."""
        return embed(self.params, self.data, backbone=self.backbone)

    def recommend(self, users: Sequence[int] | np.ndarray, k: int = 20) -> np.ndarray:
        """The k best items for some users, int32 [n, k]; see `serving.recommend`."""
        return recommend(self.rows, self.dataset, np.asarray(users), k)
