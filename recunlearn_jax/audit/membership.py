"""Membership inference: can someone who sees the model's lists tell forgotten pairs from pairs it never saw?

The comparison is within the same users: forgotten pairs against their held-out pairs, which no model was trained on. A model that has
forgotten ranks both alike, as Gold does (an area near 0.5, where the split was drawn at random).
"""

import numpy as np
import scipy.stats


def area_under_curve(members: np.ndarray, others: np.ndarray) -> float:
    """Probability that a member scores above another one, ties counted half: the area under the ROC curve.

    Args:
        members, others: float [n], [m], scores; higher speaks for membership.

    >>> area_under_curve(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    0.75
    """
    ranks = scipy.stats.rankdata(np.concatenate([members, others]))[: len(members)]
    return float((ranks.sum() - len(members) * (len(members) + 1) / 2) / (len(members) * len(others)))


def true_positives_at(members: np.ndarray, others: np.ndarray, false_positives: float = 0.01) -> float:
    """Share of members above the threshold that at most `false_positives` of the others exceed.

    Args:
        members, others: float [n], [m], scores; higher speaks for membership.
        false_positives: in (0, 1).

    Source: Carlini et al. 2022 (arXiv 2112.03570), who ask for this figure beside the area.

    >>> true_positives_at(np.array([3.0, 1.0]), np.array([2.0, 0.0]), 0.5)
    1.0
    """
    allowed = int(false_positives * len(others))
    threshold = np.sort(others)[::-1][allowed] if allowed < len(others) else -np.inf
    return float(np.mean(members > threshold))
