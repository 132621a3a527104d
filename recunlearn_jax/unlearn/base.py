"""The contract of a method: it gets a problem and moves parameters, nothing else.

`answer` edits the data, keeps the time, removes what must not be released and runs the checks, in the same way for every method.
`docs/method.md` shows how to write one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from recunlearn_jax import losses
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, Params
from recunlearn_jax.recommender import Recommender, Setup
from recunlearn_jax.requests import ForgetSet, forget_pairs
from recunlearn_jax.sampling import Sampler, build_sampler
from recunlearn_jax.sides import Sides
from recunlearn_jax.stopwatch import Seconds


class Problem(NamedTuple):
    """A request and the model it concerns, with the data edited once."""

    original: Recommender
    forget_set: ForgetSet
    retain: Setup  # the retained data, ready for the backbone of the answer; array sizes are the original's
    fresh: Params  # id tables of a new model; its rows replace forgotten ones
    record: Any = None  # what the method prepared, see `Memory`
    left: Sides | None = None  # the original's pairs that stay, by user and by item, if its spare copy was edited
    work: Path | None = None  # folder where long work may be kept, so that it can resume if it is cut off


@dataclass(frozen=True)
class NoSettings:
    """Nothing to choose."""


class Moved(NamedTuple):
    """Rows of id tables to which a method gives new values; every other parameter stays the original's to the bit."""

    rows: Mapping[str, np.ndarray]  # table -> int [k], each row once
    values: Mapping[str, np.ndarray]  # table -> float32 [k, d]


class Spare(NamedTuple):
    """A second copy of the parts of a model that an answer changes, see `spare.spare`."""

    params: Params  # id tables that nothing else holds; content as `removal.without_content` leaves it
    graphs: Any  # of the backbone
    by_item: np.ndarray  # see `edges.places_by_item`

    def __repr__(self) -> str:
        return f"<a spare copy{', taken' if self.taken else ''}>"

    @property
    def taken(self) -> bool:
        """Whether an answer has already taken it, or has begun to write into it."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves((self.params, self.graphs)))


class Memory(NamedTuple):
    """What a method prepared before any request came. It knows the data before the request; drop it when the request is answered."""

    original: Recommender  # the model in service from then on, which may have another backbone
    record: Any = None  # what else the method remembers
    # The driver gives what follows; to the method's seconds it adds its own.
    fresh: Params | None = None  # id tables of a new model
    spare: Spare | None = None  # the first answer takes it; later ones build what they need
    of: Recommender | None = None  # the model it was prepared for
    settings: Any = None  # of the method
    seed: int | None = None  # of the draws in the record and of the fresh rows
    seconds: Seconds | None = None  # of preparing; from a method, those of an earlier process that it continued


def no_preparation(key: jax.Array, original: Recommender, settings: Any, work: Path | None) -> Memory:
    """The model stays in service as it is, and nothing is remembered."""
    del key, settings, work
    return Memory(original)


class Method(NamedTuple):
    """A way of forgetting, an entry of `METHODS`."""

    Settings: type
    """Frozen dataclass of what can be set; recorded with every answer."""
    forget: Callable[[jax.Array, Problem, Any], tuple[Params | Moved, dict[str, Any]]]
    """(key, problem, settings) -> parameters, and info for people. The parameters are those of the original's backbone or of the retained
    data's, or just the rows that move; what must not be released is removed afterwards. Under "earlier", info may hold the `Seconds` of an
    earlier process whose work was resumed."""
    prepare: Callable[[jax.Array, Recommender, Any, Path | None], Memory] = no_preparation
    """(key, original, settings, work) -> memory; before any request."""
    in_place: bool = False
    """Whether `forget` returns just the rows that move, so that a prepared answer writes them into a spare copy of the model."""
    own_model: bool = False
    """Whether preparing puts a model of its own into service. It is then timed apart from an answer; any other preparing that was not done
    before the request is part of the answer's seconds."""
    retrains: bool = False
    """Whether answers come from retraining on what is retained; checks that need many answers skip such a method."""
    exact: bool = False
    """Whether an answer is what solving anew gives, so that the method applies to a backbone that is solved in closed form."""
    source: str = ""
    """Paper."""


def forget_sampler(problem: Problem, candidates: np.ndarray | None = None) -> Sampler:
    """Sampler of D_f; array sizes are the original's, whatever the request.

    Args:
        problem: of the request.
        candidates: items that may be negatives, int [n]; those with a train pair if None.
    """
    data, size = problem.original.dataset, problem.original.sizes.pairs
    pairs = forget_pairs(data, problem.forget_set)
    sizes = {"capacity": size, "history_capacity": size}
    return build_sampler(pairs, data.train, data.num_users, data.num_items, candidates=candidates, **sizes)


def margins(params: Params, data: Data, triplets: tuple[jax.Array, ...], backbone: Backbone) -> Float[Array, "B"]:
    """d = s_up - s_un of a batch of triplets on the graphs of `data`, float [B]."""
    positive, negative = losses.scores(backbone.views(params, data, *triplets))
    return positive - negative


def id_tables(params: Params, backbone: Backbone) -> dict[str, jax.Array]:
    """The tables that hold users and items themselves, by name."""
    return {name: params[name] for name in backbone.id_tables()}


def row_masks(users: Any, items: Any, backbone: Backbone) -> dict[str, jax.Array]:
    """float32 [rows, 1] for every id table, 1 for the chosen users and items."""
    chosen = {"users": users, "items": items}
    return {name: jnp.asarray(chosen[rows], jnp.float32)[:, None] for name, rows in backbone.id_tables().items()}
