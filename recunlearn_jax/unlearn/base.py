"""What every method shares: the edited data, and the removal of what must not be released."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.config import Config
from recunlearn_jax.data import Dataset
from recunlearn_jax.models import MGCN, MODALITY_PARTS, build_model
from recunlearn_jax.requests import ForgetSet, forget_pairs, retained
from recunlearn_jax.sampling import Sampler, build_sampler
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.train import TrainData, Trained, train_data


class Unlearned(NamedTuple):
    """A recommender that has answered a request."""

    model: MGCN
    params: Any
    dataset: Dataset  # retained, with item graphs
    data: TrainData  # its graphs
    info: dict[str, Any]  # what the method reports: steps, stopping figures
    seconds: Seconds  # from the request to usable parameters and graph


class Retain(NamedTuple):
    """The retain side of a request: data without what is forgotten, and the model that fits it."""

    model: MGCN
    dataset: Dataset
    data: TrainData


def edit(original: Trained, forget_set: ForgetSet, config: Config) -> Retain:
    """Edit data and graphs; array sizes stay those of the original, so nothing compiles anew."""
    dataset = retained(original.dataset, forget_set)
    return Retain(build_model(dataset, config.model), dataset, train_data(dataset, config, original.sizes))


def forget_sampler(original: Trained, forget_set: ForgetSet) -> Sampler:
    """Sampler of D_f; array sizes are the original's, whatever the request."""
    data, size = original.dataset, len(original.sizes.train)
    pairs = forget_pairs(data, forget_set)
    return build_sampler(pairs, data.train, data.num_users, data.num_items, capacity=size, history_capacity=size)


def strip(params: Any, retain: Retain) -> Any:
    """The original's parameters without forgotten features: their rows become zero, a modality that is gone loses its layers."""
    kept = dict(params)
    for m in [name.removesuffix("_projection") for name in params if name.endswith("_projection")]:
        if m not in retain.model.modalities:
            for part in MODALITY_PARTS:
                kept.pop(f"{m}_{part}", None)
        elif f"{m}_features" in kept:
            available = retain.data.graphs.available[m][retain.model.num_users :]
            kept[f"{m}_features"] = jnp.where(available[:, None], kept[f"{m}_features"], 0)
    if not retain.model.modalities:
        kept = {name: kept[name] for name in ("user_embedding", "item_embedding")}
    return kept


def reset_rows(key: jax.Array, params: Any, users: np.ndarray, items: np.ndarray) -> Any:
    """Re-initialise id rows, as if they had never been trained.

    Args:
        key: typed PRNG key.
        params: of an MGCN.
        users, items: bool [|U|], bool [|I|], the rows; an empty array for none.
    """
    tables = (("user_embedding", users), ("item_embedding", items))
    drawn = {name: _redrawn(key, i, params[name], rows) for i, (name, rows) in enumerate(tables) if len(rows)}
    return {**params, **drawn}


@jax.jit
def _redrawn(key: jax.Array, i: int, table: jax.Array, rows: np.ndarray) -> jax.Array:
    fresh = jax.nn.initializers.xavier_uniform()
    return jnp.where(rows[:, None], fresh(jax.random.fold_in(key, i), table.shape), table)
