"""Removal: no row of a forgotten user, item or feature is in parameters that are released. One rule for every table of every backbone:

    a forgotten row becomes the row of a new model

which is a draw that has seen no data for a user or an item, and zero, no feature, for content. What belongs to a modality that is gone is
left behind. Afterwards a forgotten row is looked for among all rows of the id tables that a method has written, in case it copied one.
"""

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Params, check_tables, flat
from recunlearn_jax.recommender import Recommender, Setup, replace_rows, shapes
from recunlearn_jax.requests import ForgetSet

SHORT = 8  # columns below which two rows may be equal by chance
_BLOCK = 2**14  # rows that are digested at a time


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

    A row that stands where it stood before, the same to the bit, is its own and not looked at.

    Args:
        params: to be released.
        retain: the retained data they belong to.
        original: before the request.
        forget_set: resolved on its data.
    """
    gone = {"users": forget_set.users, "items": forget_set.items}
    if not any(rows.any() for rows in gone.values()):
        return []
    before, after = (_bits(made.backbone, tables) for made, tables in ((original, original.params), (retain, params)))
    forgotten, fresh = (
        _digests([rows[gone[made.backbone.id_tables()[name]]] for name, rows in tables.items()])
        for made, tables in ((original, before), (retain, after))
    )
    # What stands at the place of a forgotten row comes from `init`: where that is the same for all, it tells nothing.
    forgotten = np.setdiff1d(forgotten, fresh)
    if not len(forgotten):
        return []
    found = []
    for name, rows in after.items():
        own = before.get(name)
        moved = (rows != own).any(axis=1) if own is not None and own.shape == rows.shape else np.ones(len(rows), bool)
        blocks = np.array_split(np.flatnonzero(moved), 1 + len(rows) // _BLOCK)
        if any(np.isin(_digests([rows[block]]), forgotten).any() for block in blocks):
            found.append(name)
    return found


def _bits(backbone: Backbone, params: Params) -> dict[str, np.ndarray]:
    """Id tables with rows that are not alike by chance, uint32 [rows, d]."""
    tables = {name: np.asarray(params[name]) for name in backbone.id_tables()}
    return {name: rows.view(np.uint32) for name, rows in tables.items() if rows.ndim == 2 and rows.shape[1] >= SHORT}


def _digests(tables: list[np.ndarray]) -> np.ndarray:
    """One word of 64 bits for each row of some tables, uint64 [n]; equal rows have equal words, and different ones all but never."""
    words = [np.zeros(0, np.uint64)]
    for rows in tables:
        factors = np.random.default_rng(0).integers(2**32, size=(2, 1, rows.shape[1]), dtype=np.uint32) | np.uint32(1)
        mixed = rows[None] * factors
        mixed = (mixed ^ (mixed >> np.uint32(15))) * factors[::-1]
        high, low = mixed.sum(axis=2, dtype=np.uint32).astype(np.uint64)
        words.append((high << np.uint64(32)) | low)
    return np.concatenate(words)
