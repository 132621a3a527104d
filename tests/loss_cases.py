"""Every loss with its oracle: the formulas of the docstrings in numpy float64, and the batches they are compared on."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from recunlearn_jax import losses
from recunlearn_jax.losses import Views

ROWS, FORGET_ROWS, WIDTH = 8, 7, 3


# The oracle: the formulas of the docstrings in numpy float64, one row after another where that is clearest.


def oracle_mean(values, weights):
    return np.sum(values * weights) / np.sum(weights)


def oracle_bpr(positive, negative, weights):
    return oracle_mean(-np.log(1 / (1 + np.exp(negative - positive))), weights)


def oracle_reverse_bpr(forget, negative, weights, form="swap"):
    margin = forget - negative
    swap, ascent = -np.log(1 / (1 + np.exp(margin))), np.log(1 / (1 + np.exp(-margin)))
    return oracle_mean(swap if form == "swap" else ascent, weights)


def oracle_info_nce(x, y, weights, temperature=0.2):
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    values = np.zeros(len(x))
    for i, row in enumerate(x):
        logits = y @ row / temperature
        top = logits.max()
        values[i] = top + np.log(np.sum(weights * np.exp(logits - top))) - logits[i]
    return oracle_mean(values, weights)


def oracle_row_l2(*tables_and_weights, batch_size=None):
    *tables, weights = tables_and_weights
    squares = sum(np.sum(table**2, axis=1) for table in tables)
    return 0.5 * np.sum(squares * weights) / (np.sum(weights) if batch_size is None else batch_size)


def oracle_table_norms(*tables_and_weights):
    *tables, weights = tables_and_weights
    return sum(np.sqrt(np.sum(table[weights > 0] ** 2)) for table in tables) / np.sum(weights)


def oracle_contrast(views, weights, temperature=0.2):
    items = oracle_info_nce(views.positive_side, views.positive_content, weights, temperature)
    return items + oracle_info_nce(views.user_side, views.user_content, weights, temperature)


def oracle_scores(views):
    return np.einsum("bd,bd->b", views.user, views.positive), np.einsum("bd,bd->b", views.user, views.negative)


def oracle_mgcn(views, weights, contrast_weight=0.01, l2_weight=1e-4, temperature=0.2, batch_size=None):
    size = oracle_row_l2(views.user, views.positive, views.negative, weights, batch_size=batch_size)
    loss = oracle_bpr(*oracle_scores(views), weights) + l2_weight * size
    return loss + contrast_weight * oracle_contrast(views, weights, temperature)


def oracle_mmrecun_retain(views, weights, alpha=0.5, contrast_weight=0.01, l2_weight=1e-4, temperature=0.2):
    keep = oracle_bpr(*oracle_scores(views), weights)
    keep += contrast_weight * oracle_contrast(views, weights, temperature)
    return alpha * keep + l2_weight * oracle_row_l2(views.user, views.positive, views.negative, weights)


def oracle_mmrecun_forget(
    views, weights, alpha=0.5, contrast_weight=0.01, l2_weight=1e-4, temperature=0.2, reverse="swap"
):
    lose = oracle_reverse_bpr(*oracle_scores(views), weights, reverse)
    lose -= contrast_weight * oracle_contrast(views, weights, temperature)
    return (1 - alpha) * lose + l2_weight * oracle_row_l2(views.user, views.positive, views.negative, weights)


def oracle_mmrecun(
    retain,
    forget,
    retain_weights,
    forget_weights,
    retain_contrast=0.01,
    forget_contrast=0.01,
    reverse="swap",
    **shared,
):
    keep = oracle_mmrecun_retain(retain, retain_weights, contrast_weight=retain_contrast, **shared)
    return keep + oracle_mmrecun_forget(
        forget, forget_weights, contrast_weight=forget_contrast, reverse=reverse, **shared
    )


def oracle_bpr_divergence(a, b, weights):
    return oracle_mean((a - b) ** 2, weights)


class Case(NamedTuple):
    """A loss with its settings, its oracle, and what its batch looks like."""

    loss: Callable
    jitted: Callable
    oracle: Callable  # (*batch, *weights, **settings) -> float
    kind: str  # of batch, see `batch_of`
    settings: Mapping[str, Any] = MappingProxyType({})
    huge: float = 1e20  # largest input whose value float32 can hold: a loss that squares rows ends at 1e19

    @property
    def weight_names(self):
        return ("retain_weights", "forget_weights") if self.kind == "two views" else ("weights",)


CASES = {
    "bpr": Case(losses.bpr, losses.bpr_jit, oracle_bpr, "scores"),
    "reverse_bpr": Case(losses.reverse_bpr, losses.reverse_bpr_jit, oracle_reverse_bpr, "scores"),
    "reverse_bpr ascent": Case(
        losses.reverse_bpr, losses.reverse_bpr_jit, oracle_reverse_bpr, "scores", {"form": "ascent"}
    ),
    "info_nce": Case(losses.info_nce, losses.info_nce_jit, oracle_info_nce, "two tables"),
    "info_nce cold": Case(losses.info_nce, losses.info_nce_jit, oracle_info_nce, "two tables", {"temperature": 0.01}),
    "row_l2": Case(losses.row_l2, losses.row_l2_jit, oracle_row_l2, "two tables", huge=1e18),
    "row_l2 of a batch": Case(
        losses.row_l2, losses.row_l2_jit, oracle_row_l2, "two tables", {"batch_size": 16}, huge=1e18
    ),
    "table_norms": Case(losses.table_norms, losses.table_norms_jit, oracle_table_norms, "two tables", huge=1e18),
    "contrast": Case(losses.contrast, losses.contrast_jit, oracle_contrast, "views"),
    "mgcn": Case(
        losses.mgcn,
        losses.mgcn_jit,
        oracle_mgcn,
        "views",
        {"contrast_weight": 0.7, "l2_weight": 0.3, "temperature": 0.01, "batch_size": 16},
        huge=1e18,
    ),
    "mmrecun": Case(
        losses.mmrecun,
        losses.mmrecun_jit,
        oracle_mmrecun,
        "two views",
        {
            "alpha": 0.3,
            "retain_contrast": 0.6,
            "forget_contrast": 0.4,
            "l2_weight": 0.2,
            "temperature": 0.1,
            "reverse": "ascent",
        },
        huge=1e18,
    ),
    "mmrecun_retain": Case(
        losses.mmrecun_retain,
        losses.mmrecun_retain_jit,
        oracle_mmrecun_retain,
        "views",
        {"alpha": 0.3, "contrast_weight": 0.6, "l2_weight": 0.2, "temperature": 0.1},
        huge=1e18,
    ),
    "mmrecun_forget": Case(
        losses.mmrecun_forget,
        losses.mmrecun_forget_jit,
        oracle_mmrecun_forget,
        "views",
        {"alpha": 0.3, "contrast_weight": 0.4, "l2_weight": 0.2, "temperature": 0.1, "reverse": "ascent"},
        huge=1e18,
    ),
    "bpr_divergence": Case(
        losses.bpr_divergence, losses.bpr_divergence_jit, oracle_bpr_divergence, "scores", huge=1e18
    ),
}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def batch_of(case: Case, seed: int, lead: tuple[int, ...] = ()) -> tuple:
    """Random float32 arguments of a loss, numpy."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=(*lead, *shape)).astype(np.float32)

    def views(rows):
        return Views(*(normal(rows, WIDTH) for _ in range(7)))

    if case.kind == "scores":
        return normal(ROWS), normal(ROWS)
    if case.kind == "two tables":
        return normal(ROWS, WIDTH), normal(ROWS, WIDTH)
    return (views(ROWS),) if case.kind == "views" else (views(ROWS), views(FORGET_ROWS))


def weights_of(case: Case, seed: int, lead: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Random weights with a zero among them, by the loss's own keyword."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, rows in zip(case.weight_names, (ROWS, FORGET_ROWS), strict=False):
        weights[name] = rng.uniform(0.2, 2, (*lead, rows)).astype(np.float32)
        weights[name][..., 1] = 0
    return weights


def wide(tree):
    """float64 copies, for the oracle."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def expected(case: Case, batch, weights) -> float:
    ones = (np.ones(ROWS), np.ones(FORGET_ROWS))[: len(case.weight_names)]
    weights = ones if weights is None else [weights[name] for name in case.weight_names]
    return case.oracle(*wide(batch), *wide(weights), **case.settings)


def close(ours, theirs, relative=2e-5):
    """Relative to the largest entry of each array; float32 logits of 100 have an absolute error of 1e-5."""

    def check(a, b):
        scale = max(1e-3, np.abs(b).max(initial=0))
        np.testing.assert_allclose(np.asarray(a), b, rtol=relative, atol=relative * scale)

    jax.tree.map(check, ours, theirs)


def finite(tree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
