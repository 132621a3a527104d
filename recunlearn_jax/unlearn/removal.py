"""Removal: no row of a forgotten user, item or feature is in parameters that are released. One rule for every table of every backbone:

    a forgotten row becomes the row of a new model

which is a draw that has seen no data for a user or an item, and zero, no feature, for content. What belongs to a modality that is gone is
left behind. Afterwards a forgotten row is looked for among all rows of the id tables, in case a method copied one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones.base import Params, check_tables, flat
from recunlearn_jax.recommender import Recommender, Setup, replace_rows, shapes
from recunlearn_jax.requests import ForgetSet

SHORT = 8  # columns below which two rows may be equal by chance


def remove(fresh: Params, params: Params, original: Recommender, retain: Setup, method: str) -> Params:
    """Parameters that may be released: those of the retained data's backbone, every forgotten row as a new model has it.

    Args:
        fresh: id tables of a new model, see `recommender.fresh_ids`.
        params: from a method.
        original: before the request.
        retain: the retained data.
        method: named where its parameters do not fit.

    Raises:
        TypeError: a parameter is missing, has another shape or type, or is not declared by the backbone.
    """
    backbone, dataset = retain.backbone, retain.dataset
    kept = like(params, original.params if original.backbone is backbone else shapes(retain), method)
    check_tables(backbone, kept)
    gone = {"users": dataset.removed_users, "items": dataset.removed_items}
    ids = backbone.id_tables()
    content = {}
    for name, rows in backbone.tables.items():
        if name in kept and name not in ids and rows != "neither":
            features = dataset.features.get(backbone.of_modality(name) or "") if rows == "items" else None
            content[name] = gone[rows] if features is None else gone[rows] | ~features.any(axis=1)
    kept = {**kept, **_emptied({name: kept[name] for name in content}, content)}
    return replace_rows(kept, fresh, {name: gone[rows] for name, rows in ids.items()})


@jax.jit
def _emptied(tables: Params, masks: dict[str, jax.Array]) -> Params:
    return {
        name: jnp.where(masks[name].reshape(-1, *[1] * (table.ndim - 1)), 0, table) for name, table in tables.items()
    }


def like(params: Params, expected: Params, method: str) -> Params:
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
    nothing = [np.zeros(0, np.uint64)]
    before = [
        _words(_mixed(np.asarray(original.params[name])[gone[rows]].view(np.uint32), np))
        for name, rows in original.backbone.id_tables().items()
        if _is_wide(original.params[name])
    ]
    forgotten = np.concatenate(nothing + before)
    if not len(forgotten):
        return []
    tables = {name: rows for name, rows in retain.backbone.id_tables().items() if _is_wide(params[name])}
    after = {name: _words(words) for name, words in _every_word({name: params[name] for name in tables}).items()}
    # What stands at the place of a forgotten row comes from `init`: where that is the same for all, it tells nothing.
    fresh = np.concatenate(nothing + [after[name][gone[rows]] for name, rows in tables.items()])
    forgotten = np.setdiff1d(forgotten, fresh)
    return [name for name, words in after.items() if _any_among(words, forgotten)]


def _any_among(words: np.ndarray, few: np.ndarray) -> bool:
    """Whether a word is one of a few, which ascend. WHY not numpy's isin: it sorts all the words."""
    at = np.searchsorted(few, words)
    return bool(len(few)) and bool((few[np.minimum(at, len(few) - 1)] == words).any())


def _is_wide(table: jax.Array) -> bool:
    return table.ndim == 2 and table.shape[1] >= SHORT


@jax.jit
def _every_word(tables: Params) -> Params:
    return {name: _mixed(jax.lax.bitcast_convert_type(table, jnp.uint32), jnp) for name, table in tables.items()}


def _mixed(bits: Any, xp: Any) -> Any:
    """Two words of 32 bits for each row of uint32 [rows, d], [2, rows]; equal rows have equal words, and different ones all but never."""
    factors = np.random.default_rng(0).integers(2**32, size=(2, 1, bits.shape[1]), dtype=np.uint32) | np.uint32(1)
    mixed = bits[None] * xp.asarray(factors)
    mixed = (mixed ^ (mixed >> 15)) * xp.asarray(factors[::-1])
    return xp.sum(mixed, axis=2, dtype=xp.uint32)


def _words(halves: Any) -> np.ndarray:
    """uint64 [rows] of [2, rows]."""
    high, low = np.asarray(halves, np.uint64)
    return (high << np.uint64(32)) | low
