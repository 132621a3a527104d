"""Exact deletion: EASE replaces the trained model, and its solution without the forgotten data is a low-rank edit of the one before.

    removed items F         P_SS - P_SF P_FF^-1 P_FS,                          S all others
    pairs, feature rows     P - (M P)^T (D^-1 + M P M^T)^-1 M P               Woodbury

M stacks the rows of X and the columns of the content that change: as they were, where D is -1, and as they are now, where D is 1.
The result is what solving anew gives, to rounding. How far it has drifted is measured on the retained data. If that is too far, or an edit
is no cheaper, EASE is solved anew.

A model other than EASE is not edited: EASE is solved on its data before any request, and is in service from then on.
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
from recunlearn_jax.errors import InputError
from recunlearn_jax.recommender import Recommender, set_up
from recunlearn_jax.train import train
from recunlearn_jax.unlearn.base import Memory, Method, Problem

WORTH = 1 / 4  # rank of an edit, as a share of the items, from which on EASE is solved anew
DRIFT = 1e-4  # of a sum of weights, above which EASE is solved anew, see `drift`


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
    """P after the rows M were added to the matrix that it inverts, or taken away from it.

    Args:
        inverse: P, float32 [|I|, |I|].
        rows: M, float64 [r, |I|].
        signs: the diagonal of D, 1 for a row that is added and -1 for one that is taken away, [r].
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
    """P - A^T B, for A and B of [r, |I|] each whose product A^T B is symmetric."""
    a, b = (np.ascontiguousarray(x, np.float32) for x in (a, b))
    return blas.sgemm(-1, b.T, a.T, 1, inverse.T, trans_b=True).T


def changes(before: Dataset, after: Dataset, settings: ease.Settings) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """M and the diagonal of D between two data sets, for all changes other than whole items."""
    gone = np.flatnonzero(after.removed_items & ~before.removed_items)
    kept = np.ones(before.num_items)
    kept[gone] = 0
    old, new = scipy.sparse.csr_array(ease.interactions(before).multiply(kept)), ease.interactions(after)
    old.eliminate_zeros()
    touched = np.flatnonzero(abs(old - new).sum(axis=1))
    parts = [(old[touched], -1.0), (new[touched], 1.0)]
    changed = {m: rows for m, rows in before.features.items() if rows is not after.features.get(m)}
    left_of = {m: after.features[m] for m in changed if m in after.features}
    was, now = ease.content(changed, settings), ease.content(left_of, settings)
    for m, every in was.items():
        left = every * kept[:, None]
        emptied = np.flatnonzero((left != now[m]).any(axis=1)) if m in now else np.arange(len(left))
        parts += _emptied(left, emptied)
    found = [(scipy.sparse.csr_array(rows[np.diff(rows.indptr) > 0]), sign) for rows, sign in parts]
    signs = np.concatenate([np.full(rows.shape[0], sign) for rows, sign in found])
    return scipy.sparse.csr_array(scipy.sparse.vstack([rows for rows, _ in found])), signs


def _emptied(rows: np.ndarray, items: np.ndarray) -> list[tuple[scipy.sparse.csr_array, float]]:
    """What F F^T loses when some rows of F, float [|I|, d], become zero: rank 2 for each of them, or for each column of F if fewer.

    With E the unit columns of these items, W = F F_E^T and U = W - E F_E F_E^T / 2, it loses E U^T + U E^T, and for each column
    e u^T + u e^T = [(e + u)(e + u)^T - (e - u)(e - u)^T] / 2, with e and u scaled to one length.
    """
    if not len(items):
        return []
    if rows.shape[1] <= len(items):
        rest = rows.copy()
        rest[items] = 0
        return [(scipy.sparse.csr_array(rows.T), -1.0), (scipy.sparse.csr_array(rest.T), 1.0)]
    u = rows @ rows[items].T
    u[items] -= rows[items] @ rows[items].T / 2
    e = np.zeros_like(u)
    e[items, np.arange(len(items))] = 1
    length = np.sqrt(np.maximum(np.linalg.norm(u, axis=0), 1e-30))
    e, u = e * length / np.sqrt(2), u / length / np.sqrt(2)
    return [(scipy.sparse.csr_array((e + u).T), -1.0), (scipy.sparse.csr_array((e - u).T), 1.0)]


def drift(inverse: np.ndarray, dataset: Dataset, settings: ease.Settings) -> float:
    """How far the weights are from the solution on some data: how much one step of iterative refinement, P (v - A P v), would change
    P v for random v with entries +-1, each entry as a share of its row's diagonal entry in P, as weights are."""
    x, columns = ease.interactions(dataset), ease.content(dataset.features, settings).values()
    v = np.random.default_rng(0).choice([-1.0, 1.0], (inverse.shape[0], 4))
    y = (inverse @ v.astype(np.float32)).astype(np.float64)
    left = v - x.T @ (x @ y) - settings.penalty * y
    for rows in columns:
        left -= rows @ (rows.T @ y)
    return float((np.abs(inverse @ left.astype(np.float32)) / np.diag(inverse)[:, None]).max())


def forget(key: jax.Array, problem: Problem, chosen: ease.Settings) -> tuple[Params, dict[str, Any]]:
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


def prepare(key: jax.Array, original: Recommender, chosen: ease.Settings, work: Path | None) -> Memory:
    """EASE, solved on the model's data if the model is another one.

    Raises:
        InputError: the model is EASE with other settings than those chosen.
    """
    del key, work
    if original.config.backbone == "ease":
        if chosen not in {ease.Settings(), original.config.model}:
            raise InputError(
                f"method 'ease': the model has {original.config.model}; leave the settings out, or train with others"
            )
        return Memory(original)
    setup = set_up(original.dataset, Config("ease", chosen, original.config.train), original.sizes)
    return Memory(train(setup, 0))


METHOD = Method(ease.Settings, forget, prepare, own_model=True, exact=True, source="arXiv 1905.03375")
