"""Removal: released parameters hold no row of a forgotten user, item or feature. One rule for every table of every backbone:

    a forgotten row becomes the row of a new model

For a user or an item this is a draw that has seen no data; for content it is zero (no feature). Parameters of a removed modality are
dropped. Afterwards all rows that a method has written to the id tables are searched for forgotten rows, in case it copied one.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Params, check_tables, flat
from recunlearn_jax.recommender import Recommender, Setup, replace_rows, shapes
from recunlearn_jax.requests import ForgetSet
from recunlearn_jax.sides import Nodes
from recunlearn_jax.unlearn.base import Moved

SHORT = 8  # columns below which two rows may be equal by chance
_BLOCK = 2**14  # rows that are digested at a time


def remove(fresh: Params, params: Params, original: Recommender, retain: Setup, method: str) -> Params:
    """Parameters that may be released: those of the retained data's backbone, with every forgotten row as in a new model.

    Args:
        fresh: id tables of a new model, see `recommender.fresh_ids`.
        params: from a method.
        original: before the request.
        retain: the retained data.
        method: named in the error if its parameters do not fit.

    Raises:
        TypeError: a parameter is missing, has another shape or type, or is not declared by the backbone.
    """
    backbone = retain.backbone
    kept = like(params, original.params if original.backbone is backbone else shapes(retain), method)
    check_tables(backbone, kept)
    gone = {"users": retain.dataset.removed_users, "items": retain.dataset.removed_items}
    return replace_rows(
        without_content(kept, retain), fresh, {name: gone[rows] for name, rows in backbone.id_tables().items()}
    )


def without_content(params: Params, retain: Setup) -> Params:
    """Parameters whose rows of content are zero (no feature) where the retained data has none."""
    backbone, dataset = retain.backbone, retain.dataset
    gone = {"users": dataset.removed_users, "items": dataset.removed_items}
    masks = {}
    for name, rows in content_tables(backbone).items():
        if name in params:
            features = dataset.features.get(backbone.of_modality(name) or "") if rows == "items" else None
            masks[name] = gone[rows] if features is None else gone[rows] | ~features.any(axis=1)
    return {**params, **_emptied({name: params[name] for name in masks}, masks)}


def content_tables(backbone: Backbone) -> dict[str, Nodes]:
    """The tables that hold content of users or items, by name."""
    ids = backbone.id_tables()
    return {name: rows for name, rows in backbone.tables.items() if rows != "neither" and name not in ids}


@jax.jit
def _emptied(tables: Params, masks: dict[str, jax.Array]) -> Params:
    return {
        name: jnp.where(masks[name].reshape(-1, *[1] * (table.ndim - 1)), 0, table) for name, table in tables.items()
    }


def like(params: Params, expected: Params, method: str) -> Params:
    """Those of the parameters that the retained data's backbone has; layers of a removed modality are dropped."""
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


def that_stay(moved: Moved, retain: Setup, original: Recommender, method: str) -> Moved:
    """The rows that a method moved, except removed ones, which are replaced in any case.

    Args:
        moved: by a method.
        retain: the retained data.
        original: before the request.
        method: named in the error if its rows do not fit.

    Raises:
        TypeError: a table holds no ids, rows are not places in it or are given twice, or values have another shape or type.
    """
    gone = {"users": retain.dataset.removed_users, "items": retain.dataset.removed_items}
    known, found = original.backbone.id_tables(), {}
    if moved.rows.keys() != moved.values.keys() or not moved.rows.keys() <= known.keys():
        raise TypeError(
            f"method {method!r}: it moves rows of {', '.join(moved.rows)}; id tables are {', '.join(known)}"
        )
    for name, rows in moved.rows.items():
        values, table = moved.values[name], original.params[name]
        whole = isinstance(rows, np.ndarray) and rows.ndim == 1 and rows.dtype.kind in "iu"
        if (
            not whole
            or len(np.unique(rows)) != len(rows)
            or (len(rows) and not 0 <= rows.min() <= rows.max() < len(table))
        ):
            raise TypeError(
                f"method {method!r}: rows of {name!r} are places from 0 to {len(table) - 1}, int [k], each once"
            )
        shape = (len(rows), *table.shape[1:])
        if (values.shape, values.dtype) != (shape, table.dtype):
            raise TypeError(
                f"method {method!r}: values of {name!r} are {values.dtype}{list(values.shape)}; {table.dtype}{list(shape)} is expected"
            )
        kept = ~gone[known[name]][rows]
        found[name] = (rows, values) if kept.all() else (rows[kept], values[kept])
    return Moved({n: rows for n, (rows, _) in found.items()}, {n: values for n, (_, values) in found.items()})


def put_in(params: Params, moved: Moved) -> Params:
    """The parameters with the rows that a method moved, in copies of their tables."""
    tables = {}
    for name, rows in moved.rows.items():
        table = np.array(params[name])
        table[rows] = moved.values[name]
        tables[name] = jnp.asarray(table)
    return {**params, **tables}


def changed(params: Params, original: Recommender, retain: Setup) -> Params:
    """Rows of the id tables that are not, to the bit, what they were in the same place before; table -> float32 [k, d].

    Args:
        params: of the retained data's backbone.
        original: before the request.
        retain: the retained data.
    """
    found, known = {}, original.backbone.id_tables()
    for name in retain.backbone.id_tables():
        table = np.asarray(params[name])
        before = np.asarray(original.params[name] if name in known else np.zeros(0))
        same = before.shape == table.shape and table.ndim == 2
        found[name] = table[(_words(table) != _words(before)).any(axis=1)] if same else table
    return found


def left_over(
    written: Mapping[str, np.ndarray], fresh: Params, retain: Setup, original: Recommender, forget_set: ForgetSet
) -> list[str]:
    """Id tables in which a row of a forgotten user or item is left, wherever it stands.

    Args:
        written: rows of the id tables that a method wrote, float32 [k, d]. Other rows are unchanged and not looked at.
        fresh: id tables of a new model, whose rows replaced forgotten ones.
        retain: the retained data.
        original: before the request.
        forget_set: resolved on its data.
    """
    gone = {"users": np.flatnonzero(forget_set.users), "items": np.flatnonzero(forget_set.items)}
    if not any(map(len, gone.values())):
        return []

    def digests_of(tables: Params, backbone: Backbone) -> np.ndarray:
        return _digests([np.asarray(tables[name])[gone[rows]] for name, rows in backbone.id_tables().items()])

    # A fresh row comes from `init_ids`. A row that equals one, such as a constant, tells nothing of the data.
    forgotten = np.setdiff1d(digests_of(original.params, original.backbone), digests_of(fresh, retain.backbone))
    if not len(forgotten):
        return []
    found = []
    for name, rows in written.items():
        blocks = np.array_split(rows, 1 + len(rows) // _BLOCK)
        if any(np.isin(_digests([block]), forgotten).any() for block in blocks):
            found.append(name)
    return found


def _words(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows).view(np.uint32)


def _digests(tables: list[np.ndarray]) -> np.ndarray:
    """One word of 64 bits for each row of some tables, uint64 [n]; equal rows have equal words, different ones almost never do.

    Tables of few columns, whose rows may be equal by chance, are left out.
    """
    words = [np.zeros(0, np.uint64)]
    for rows in (_words(table) for table in tables if table.ndim == 2 and table.shape[1] >= SHORT):
        factors = np.random.default_rng(0).integers(2**32, size=(2, 1, rows.shape[1]), dtype=np.uint32) | np.uint32(1)
        mixed = rows[None] * factors
        mixed = (mixed ^ (mixed >> np.uint32(15))) * factors[::-1]
        high, low = mixed.sum(axis=2, dtype=np.uint32).astype(np.uint64)
        words.append((high << np.uint64(32)) | low)
    return np.concatenate(words)
