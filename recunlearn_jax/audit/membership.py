"""Check 5, membership inference: can someone who sees the model's lists tell forgotten pairs from pairs it never saw?

The comparison is within the same users: forgotten pairs against their held-out pairs, which no model was trained on. A model that has
forgotten ranks both alike, as Gold does (an area near 0.5, where the split was drawn at random).
"""

import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.evaluate import ranks_found, task_on
from recunlearn_jax.requests import forget_pairs
from recunlearn_jax.verdict import Figure


def area_under_curve(members: np.ndarray, others: np.ndarray) -> float:
    """Probability that a member scores above a non-member, ties counted half: the area under the ROC curve.

    Args:
        members, others: float [n], [m], scores; higher suggests membership.

    Examples:
        >>> area_under_curve(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
        0.75
    """
    from scipy.stats import rankdata  # takes a third of a second to import, which report need not wait for

    ranks = rankdata(np.concatenate([members, others]))[: len(members)]
    return float((ranks.sum() - len(members) * (len(members) + 1) / 2) / (len(members) * len(others)))


def true_positives_at(members: np.ndarray, others: np.ndarray, false_positives: float = 0.01) -> float:
    """Share of members above the threshold that at most `false_positives` of the others exceed.

    Args:
        members, others: float [n], [m], scores; higher suggests membership.
        false_positives: in (0, 1).

    Source: Carlini et al. 2022 (arXiv 2112.03570), who ask for this figure beside the area.

    Examples:
        >>> true_positives_at(np.array([3.0, 1.0]), np.array([2.0, 0.0]), 0.5)
        1.0
    """
    allowed = int(false_positives * len(others))
    threshold = np.sort(others)[::-1][allowed] if allowed < len(others) else -np.inf
    return float(np.mean(members > threshold))


def held_out_pairs(case: Case) -> np.ndarray:
    """Valid and test pairs of users with a forgotten pair, int32 [n, 2]; no model of the case was trained on any of them."""
    users = np.unique(forget_pairs(case.dataset, case.forget_set)[:, 0])
    pairs = np.concatenate([case.dataset.valid, case.dataset.test])
    return pairs[np.isin(pairs[:, 0], users)]


def prepare(case: Case) -> Measure:
    """Area under the curve by rank, forgotten pairs against held-out ones; planted users have nothing held out."""
    forgotten, held_out = forget_pairs(case.dataset, case.forget_set), held_out_pairs(case)
    forgotten = forgotten[np.isin(forgotten[:, 0], held_out[:, 0])]
    if not len(held_out):
        return lambda subject: {}
    tasks = [task_on(case.retain, pairs) for pairs in (forgotten, held_out)]

    def measure(subject: Subject) -> Row:
        members, others = (-ranks_found(subject.model.rows, task).astype(float) for task in tasks)
        return {"membership AUC": area_under_curve(members, others)}

    return measure


CHECK = Check(5, (Figure("membership AUC", "remembered"),), prepare)
