"""Check 9, variety of the lists: catalogue coverage, evenness of exposure, novelty and distance within a list."""

from collections.abc import Mapping

import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.audit.lists import top_lists
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.verdict import Figure


def diversity(lists: np.ndarray, retain: Dataset) -> dict[str, float]:
    """Figures of the variety of lists; a higher value means more variety.

    coverage: share of the items of the train set that are in some list.
    evenness: 1 - Gini coefficient of how often each of them is shown.
    novelty: mean of -log2(share of users who know the item) over all places in all lists, in bits.
    distance: mean cosine distance of two items of a list in feature space, mean over modalities; absent without modalities.

    Args:
        lists: int [n, k], items shown to n users; -1 is no item.
        retain: the retained data.

    Source: Castells, Hurley and Vargas 2022, "Novelty and diversity in recommender systems" (Recommender Systems Handbook).
    """
    shown = np.bincount(lists[lists >= 0], minlength=retain.num_items)
    known = np.bincount(retain.train[:, 1], minlength=retain.num_items)
    shown, share = shown[known > 0], known / len(np.unique(retain.train[:, 0]))
    items = lists[lists >= 0]
    figures = {
        "coverage": float(np.mean(shown > 0)),
        "evenness": 1 - gini(shown),
        "novelty": float(np.mean(-np.log2(np.maximum(share[items], 1 / len(retain.train))))),
    }
    full = lists[(lists >= 0).all(axis=1)]
    if retain.features and len(full) and lists.shape[1] > 1:
        figures["distance"] = distance(full, retain.features)
    return figures


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of non-negative counts: 0 where all are equal, near 1 where one has everything.

    Examples:
        >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 4]))
        (0.0, 0.75)
    """
    ordered = np.sort(counts).astype(float)
    n, total = len(ordered), ordered.sum()
    return float(2 * np.sum(np.arange(1, n + 1) * ordered) / (n * total) - (n + 1) / n) if total else 0.0


def distance(lists: np.ndarray, features: Mapping[str, np.ndarray], block: int = 1024) -> float:
    """Mean cosine distance of two items of one list, mean over lists and modalities.

    Args:
        lists: int [n, k], k > 1, no gaps.
        features: modality -> float32 [|I|, d_m].
        block: lists at a time.
    """
    k = lists.shape[1]
    means = []
    for table in features.values():
        unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        for start in range(0, len(lists), block):
            rows = unit[lists[start : start + block]]  # [block, k, d]
            squared = np.square(rows.sum(axis=1)).sum(axis=1) - np.square(rows).sum(axis=(1, 2))  # over ordered pairs
            means.append(1 - squared / (k * (k - 1)))
    return float(np.mean(np.concatenate(means)))


def prepare(case: Case) -> Measure:
    """`diversity` of the lists of 20 that retained users are shown."""
    users = np.unique(case.retain.train[:, 0])

    def measure(subject: Subject) -> Row:
        return diversity(top_lists(subject.model.rows, case.retain, users, 20), case.retain)

    return measure


FIGURES = tuple(Figure(name, "variety") for name in ("coverage", "evenness", "novelty", "distance"))
CHECK = Check(9, FIGURES, prepare, source="Castells, Hurley and Vargas 2022")
