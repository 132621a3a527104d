"""Removal: no row of a forgotten user, item or feature is in parameters that are released. One rule for every table of every backbone:

    a forgotten row becomes the row that `Backbone.init` gives for the retained data

which is a fresh draw for a user or an item, and no feature for content. What belongs to a modality that is gone is left behind. Afterwards
a forgotten row is looked for among all rows of the id tables, in case a method copied one.
"""

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones.base import Params, check_tables, flat
from recunlearn_jax.recommender import Recommender, Setup, init_params, replace_rows
from recunlearn_jax.requests import ForgetSet

SHORT = 8  # columns below which two rows may be equal by chance


def remove(key: jax.Array, params: Params, retain: Setup, method: str) -> Params:
    """Parameters that may be released: those of the retained data's backbone, every forgotten row as a fresh model has it.

    Args:
        key: typed PRNG key.
        params: from a method.
        retain: the retained data.
        method: named where its parameters do not fit.

    Raises:
        TypeError: a parameter is missing, has another shape or type, or is not declared by the backbone.
    """
    backbone, dataset = retain.backbone, retain.dataset
    fresh = init_params(key, retain.data, backbone=backbone)
    kept = _like(params, fresh, method)
    check_tables(backbone, kept)
    masks = {}
    for name, rows in backbone.tables.items():
        modality = backbone.of_modality(name)
        if rows == "users":
            masks[name] = dataset.removed_users
        elif rows == "items":
            features = dataset.features.get(modality or "")
            masks[name] = dataset.removed_items | (False if features is None else ~features.any(axis=1))
    return replace_rows(kept, fresh, {name: mask for name, mask in masks.items() if name in kept})


def _like(params: Params, expected: Params, method: str) -> Params:
    """The part of the parameters that the retained data's backbone has: layers of a modality that is gone are left behind."""
    given = flat(params)

    def take(path, leaf):
        name = "/".join(key.key for key in path)
        if name not in given:
            raise TypeError(f"method {method!r}: its parameters lack {name!r}")
        if (given[name].shape, given[name].dtype) != (leaf.shape, leaf.dtype):
            raise TypeError(
                f"method {method!r}: parameter {name!r} is {given[name].dtype}{list(given[name].shape)}; "
                f"{leaf.dtype}{list(leaf.shape)} is expected"
            )
        return given[name]

    return jax.tree_util.tree_map_with_path(take, expected)


def left_over(params: Params, retain: Setup, original: Recommender, forget_set: ForgetSet) -> list[str]:
    """Id tables in which a row of a forgotten user or item is left, wherever it stands.

    Args:
        params: to be released.
        retain: the retained data they belong to.
        original: before the request.
        forget_set: resolved on its data.
    """
    gone = {"users": forget_set.users, "items": forget_set.items}
    before, after = (
        {name: (_words(p[name]), gone[rows]) for name, rows in backbone.id_tables().items() if _is_wide(p[name])}
        for p, backbone in ((original.params, original.backbone), (params, retain.backbone))
    )
    nothing = np.zeros(0, np.uint64)
    forgotten = np.concatenate([nothing, *(words[mask] for words, mask in before.values())])
    # What stands at the place of a forgotten row comes from `init`: where that is the same for all, it tells nothing.
    forgotten = np.setdiff1d(forgotten, np.concatenate([nothing, *(words[mask] for words, mask in after.values())]))
    return [name for name, (words, _) in after.items() if np.isin(words, forgotten).any()]


def _is_wide(table: jax.Array) -> bool:
    return table.ndim == 2 and table.shape[1] >= SHORT


def _words(table: jax.Array) -> np.ndarray:
    """A word of 64 bits for each row, uint64 [rows]; equal rows have equal words, and different ones all but never."""
    high, low = (np.asarray(half, np.uint64) for half in _hashes(table))
    return (high << np.uint64(32)) | low


@jax.jit
def _hashes(table: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(table, jnp.uint32)
    factors = jax.random.bits(jax.random.key(0), (2, 1, table.shape[1]), jnp.uint32) | 1
    mixed = bits[None] * factors
    mixed = (mixed ^ (mixed >> 15)) * factors[::-1]
    return jnp.sum(mixed, axis=2, dtype=jnp.uint32)
