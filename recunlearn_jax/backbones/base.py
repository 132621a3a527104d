"""The contract of a backbone: the mathematics of a recommender as pure functions, and what it must declare about its parameters.

Training, every method, every check and the files on disk know a backbone only by these fields. `docs/backbone.md` shows how to write one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from recunlearn_jax.dataset import Dataset
from recunlearn_jax.edges import Edit
from recunlearn_jax.losses import Views
from recunlearn_jax.products import Features
from recunlearn_jax.sampling import Sampler
from recunlearn_jax.sides import Nodes

Params = dict[str, Any]  # arrays, at most in nested dictionaries
Triplets = tuple[jax.Array, jax.Array, jax.Array]  # users, positives, negatives, int32 [B] each
Batch = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # the same and weights, float32 [B]
Rows = Literal["users", "items", "neither"]


class Shape(NamedTuple):
    """The properties of a data set that decide a backbone's parameters."""

    num_users: int
    num_items: int
    modalities: tuple[str, ...]  # sorted


class Sizes(NamedTuple):
    """Array sizes that an edited data set keeps from the one before, so that nothing is recompiled. Numbers, no data."""

    pairs: int  # train pairs
    neighbours: Mapping[str, int]  # modality -> edges of its item graph


class Data(NamedTuple):
    """A data set on the device: an argument of every compiled function, so that an edited one runs in the same program."""

    graphs: Any  # what `Backbone.graphs` made
    features: Mapping[str, Features]  # modality -> float32 [|I|, d_m]
    sampler: Sampler  # of the train pairs


@dataclass(
    frozen=True, eq=False
)  # compared by identity: makers are cached, so equal settings give one object and one program
class Backbone:
    """A recommender's mathematics for one shape of data."""

    name: str
    """In `BACKBONES`."""
    shape: Shape
    modalities: tuple[str, ...]
    """Those it reads; their feature tables are put on the device."""
    graphs: Callable[[Dataset, Sizes], Any]
    """What rows read besides parameters and features, on the device, padded to the sizes; None if there is nothing."""
    init: Callable[[jax.Array, Data], Params]
    """(key, data) -> fresh parameters."""
    init_ids: Callable[[jax.Array], Params]
    """(key) -> the id tables of fresh parameters. A forgotten row is replaced by one of these: no data is handed in, so none is in it."""
    rows: Callable[[Params, Data], jax.Array]
    """Output rows Z, float32 [|U| + |I|, d], users first; score(u, i) = <Z_u, Z_i>."""
    views: Callable[..., Views]
    """(params, data, users, positives, negatives) -> what losses read of a batch; side and content rows only if `contrast`."""
    loss: Callable[[Params, Data, Batch, int], jax.Array]
    """(params, data, batch, configured batch size) -> training's loss, float32 scalar."""
    tables: Mapping[str, Rows]
    """Name -> whose rows a parameter, or a dictionary of them, holds; EVERY parameter is listed here. Tables of users and items are
    reset, moved and recorded; "neither" says that a parameter holds no such row."""
    of_modality: Callable[[str], str | None] = lambda path: None
    """(path) -> the modality that a parameter belongs to; the parameter is dropped with it."""
    epoch: Callable[[jax.Array, Data], Data] = lambda key, data: data
    """(key of the epoch, data) -> the data as that epoch's steps read it."""
    rewrite: Callable[[Any, Edit, Dataset, Dataset, Sizes], Any] | None = None
    """(graphs, edges that a request changes, the data before, the data after, sizes) -> the graphs afterwards, written into the arrays of
    the graphs before, which nothing else holds. None if graphs are laid out anew."""
    id_layers: int | None = None
    """L, if rows are the mean of the two id tables and of their L propagations over A_hat, plus what content makes of them; 0 if ids are
    not propagated. A gradient with respect to rows can then be taken back to the tables without the model. None for other backbones."""
    solve: Callable[[Dataset], Params] | None = None
    """(data set) -> parameters, of a backbone that is solved in closed form and not trained. Methods that take steps do not apply to it."""
    contrast: bool = False
    """Whether views carry the two views that MGCN's contrast compares."""

    def id_tables(self) -> dict[str, Nodes]:
        """The tables that hold users and items themselves and not their content, by name."""
        return {name: rows for name, rows in self.tables.items() if rows != "neither" and not self.of_modality(name)}


class BackboneKind(NamedTuple):
    """An entry of `BACKBONES`."""

    Settings: type
    """Frozen dataclass of what can be chosen."""
    make: Callable[[Shape, Any], Backbone]
    """(shape, settings) -> backbone; under functools.cache."""
    complete: Callable[[Dataset, Any], Dataset] = lambda dataset, settings: dataset
    """(data set, settings) -> the data set completed with what it lacks, such as item graphs."""


def flat(params: Params) -> dict[str, Any]:
    """Path -> array of a parameter tree."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {"/".join(str(getattr(key, "key", key)) for key in path): leaf for path, leaf in leaves}


def rows_of(backbone: Backbone, path: str) -> Rows | None:
    """What a parameter is declared to hold; None if it is not declared."""
    return backbone.tables.get(path.partition("/")[0])


def check_tables(backbone: Backbone, params: Params) -> None:
    """Check that every parameter is declared, so that no forgotten row can be overlooked.

    Args:
        backbone: whose declaration is checked.
        params: arrays, or their shapes.

    Raises:
        TypeError: a parameter is not declared, or does not have the rows it is declared to have; this is a defect of the backbone.
    """
    users, items = backbone.shape.num_users, backbone.shape.num_items
    expected = {"users": users, "items": items}
    for path, leaf in flat(params).items():
        shape, declared = list(leaf.shape), rows_of(backbone, path)
        if declared is None:
            raise TypeError(
                f"backbone {backbone.name!r}: parameter {path!r} of shape {shape} is not declared in `tables`; "
                "say whose rows it holds: 'users', 'items' or 'neither'"
            )
        if declared == "neither" and leaf.ndim > 1 and shape[0] == users + items:
            raise TypeError(
                f"backbone {backbone.name!r}: parameter {path!r} of shape {shape} has a row for each user and item; keep two tables"
            )
        if declared in expected and (shape[:1] != [expected[declared]] or "/" in path):
            raise TypeError(
                f"backbone {backbone.name!r}: parameter {path!r} of shape {shape} is declared to hold {declared}; "
                f"{expected[declared]} rows are expected, in no dictionary of their own"
            )
    missing = [name for name in backbone.id_tables() if name not in params]
    if missing:
        raise TypeError(f"backbone {backbone.name!r}: `tables` names {missing[0]!r}, which is no parameter of it")


def shape_of(dataset: Dataset) -> Shape:
    """The shape of a data set."""
    return Shape(dataset.num_users, dataset.num_items, dataset.modalities)


def sizes_of(dataset: Dataset) -> Sizes:
    """The sizes of a data set with item graphs attached."""
    neighbours = {m: int(np.asarray(graph.nnz)) for m, graph in dataset.similarities.items()}
    return Sizes(len(dataset.train), neighbours)
