"""Exact deletion: EASE in place of the trained model, whose solution without the forgotten data is an edit of low rank.

    removed items F         P_SS - P_SF P_FF^-1 P_FS,                          S all others
    pairs, feature rows     P - (M P)^T (D^-1 + M P M^T)^-1 M P               Woodbury

M stacks the rows of X and the columns of the content that change, as they were, for which D is -1, and as they are, for which it is 1.
What comes out is what solving anew gives, to rounding. How far it has drifted is measured on the retained data, and where that is too far,
or the edit is no cheaper, it is solved anew.

Another model than EASE is not edited: EASE is solved on its data before any request, and is in service from then on.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from scipy.linalg import blas

from recunlearn_jax.backbones import ease
from recunlearn_jax.backbones.base import Params
from recunlearn_jax.config import Config
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.recommender import Recommender, set_up
from recunlearn_jax.train import train
from recunlearn_jax.unlearn.base import Memory, Method, NoSettings, Problem

WORTH = 1 / 4  # rank of an edit, as a share of the items, from which solving anew is as fast
DRIFT = 1e-5  # from which it is solved anew, see `drift`


def without_items(inverse: np.ndarray, items: np.ndarray, penalty: float) -> np.ndarray:
    """P without some items: the Schur complement for all others.

    Args:
        inverse: P, float32 [|I|, |I|].
        items: int [n].
        penalty: lambda; an item without data has 1 / lambda on the diagonal and nothing else.
    """
    if not len(items):
        return inverse
    rows = inverse[items].astype(np.float64)
    edited = _less(inverse, rows, np.linalg.solve(rows[:, items], rows))
    edited[items], edited[:, items] = 0, 0
    edited[items, items] = 1 / penalty
    return edited


def edited(inverse: np.ndarray, rows: scipy.sparse.csr_array, signs: np.ndarray) -> np.ndarray:
    """P after the rows M were added to what it is the inverse of, or taken away.

    Args:
        inverse: P, float32 [|I|, |I|].
        rows: M, float64 [r, |I|].
        signs: the diagonal of D, 1 for a row that comes and -1 for one that goes, [r].
    """
    if not rows.shape[0]:
        return inverse
    columns = np.unique(rows.indices)
    few = rows[:, columns]
    product = few @ inverse[columns].astype(np.float64)
    inner = few @ product[:, columns].T
    inner[np.diag_indices_from(inner)] += signs
    return _less(inverse, product, np.linalg.solve(inner, product))


def _less(inverse: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """P - A^T B, for [r, |I|] each of which the product is symmetric."""
    a, b = (np.ascontiguousarray(x, np.float32) for x in (a, b))
    return blas.sgemm(-1, b.T, a.T, 1, inverse.T, trans_b=True).T


def changes(before: Dataset, after: Dataset, settings: ease.Settings) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """M and the diagonal of D between two data sets, of what is not a whole item."""
    gone = np.flatnonzero(after.removed_items & ~before.removed_items)
    kept = np.ones(before.num_items)
    kept[gone] = 0
    old, new = scipy.sparse.csr_array(ease.interactions(before).multiply(kept)), ease.interactions(after)
    old.eliminate_zeros()
    touched = np.flatnonzero(abs(old - new).sum(axis=1))
    parts = [(old[touched], -1.0), (new[touched], 1.0)]
    was, now = ease.content(before.features, settings), ease.content(after.features, settings)
    for m, rows in was.items():
        left = rows * kept[:, None]
        stays = now.get(m, np.zeros_like(left))
        if not np.array_equal(left, stays):
            parts += [(scipy.sparse.csr_array(left.T), -1.0), (scipy.sparse.csr_array(stays.T), 1.0)]
    found = [(scipy.sparse.csr_array(rows[np.diff(rows.indptr) > 0]), sign) for rows, sign in parts]
    signs = np.concatenate([np.full(rows.shape[0], sign) for rows, sign in found])
    return scipy.sparse.csr_array(scipy.sparse.vstack([rows for rows, _ in found])), signs


def drift(inverse: np.ndarray, dataset: Dataset, settings: ease.Settings) -> float:
    """How far P is from the inverse on some data: of y = P v for a random v of entries +-1, what a step of refinement, P (v - A y), would
    change it by, as a share of its largest entry."""
    x, columns = ease.interactions(dataset), ease.content(dataset.features, settings).values()
    v = np.random.default_rng(0).choice([-1.0, 1.0], inverse.shape[0])
    y = (inverse @ v.astype(np.float32)).astype(np.float64)
    left = v - x.T @ (x @ y) - settings.penalty * y
    for rows in columns:
        left -= rows @ (rows.T @ y)
    return float(np.abs(inverse @ left.astype(np.float32)).max() / np.abs(y).max())


def forget(key: jax.Array, problem: Problem, chosen: NoSettings) -> tuple[Params, dict[str, Any]]:
    """Edit the solution, or solve anew."""
    del key, chosen
    original, retain = problem.original, problem.retain
    settings, before, after = original.config.model, original.dataset, retain.dataset
    gone = np.flatnonzero(after.removed_items & ~before.removed_items)
    rows, signs = changes(before, after, settings)
    info: dict[str, Any] = {"rank": len(gone) + len(signs), "solved_anew": False}
    if info["rank"] < WORTH * before.num_items:
        inverse = without_items(np.asarray(original.params[ease.TABLE]), gone, settings.penalty)
        inverse = edited(inverse, rows, signs)
        info["drift"] = drift(inverse, after, settings)
        if info["drift"] <= DRIFT:
            return {ease.TABLE: jnp.asarray(inverse)}, info
    return {ease.TABLE: jnp.asarray(ease.solve(after, settings))}, info | {"solved_anew": True}


def prepare(key: jax.Array, original: Recommender, chosen: NoSettings, work: Path | None) -> Memory:
    """EASE, solved on the model's data where it is another one."""
    del key, chosen, work
    if original.config.backbone == "ease":
        return Memory(original)
    setup = set_up(original.dataset, Config("ease", train=original.config.train), original.sizes)
    return Memory(train(setup, 0))


METHOD = Method(NoSettings, forget, prepare, exact=True, source="arXiv 1905.03375")
