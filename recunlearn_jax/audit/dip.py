"""Check 12, neighbour dip: do the neighbours of a deleted pair betray it?

A method that pushes forgotten pairs down may also push down the pairs around them. Someone who sees only the answer then finds deleted
pairs by the scores of their neighbours: the user's other items, and the item's other users. The check compares forgotten pairs whose user
and item both stay with held-out pairs of the same users, which nobody deleted. An area above Gold's means that the surroundings of
deleted pairs stand out by low scores; an area below Gold's, by high ones.

Source: cf. arXiv 2506.00808, where the attack is trained on such features.
"""

import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.audit.membership import area_under_curve
from recunlearn_jax.requests import forget_pairs
from recunlearn_jax.verdict import Figure


def neighbour_scores(rows: np.ndarray, pairs: np.ndarray, train: np.ndarray, num_users: int) -> np.ndarray:
    """Mean score around each pair, float [n]: half the user's mean over its other items, half the item's mean over its other users.

    Args:
        rows: Z, float [|U| + |I|, d].
        pairs: int [n, 2]; the user and the item of each have another pair.
        train: int [m, 2], pairs of the data.
        num_users: |U|.
    """
    users, items = rows[:num_users], rows[num_users:]
    scores = np.einsum("nd,nd->n", users[train[:, 0]], items[train[:, 1]])
    found = []
    for column, size in ((0, len(users)), (1, len(items))):
        total = np.bincount(train[:, column], weights=scores, minlength=size)
        found.append((total / np.maximum(np.bincount(train[:, column], minlength=size), 1))[pairs[:, column]])
    return (found[0] + found[1]) / 2


def prepare(case: Case) -> Measure:
    """Area under the curve by low scores of neighbours, forgotten pairs against held-out ones of the same users."""
    train = case.retain.train
    left = [
        np.isin(np.arange(size), train[:, c]) for c, size in ((0, case.dataset.num_users), (1, case.dataset.num_items))
    ]

    def inside(pairs: np.ndarray) -> np.ndarray:
        return pairs[left[0][pairs[:, 0]] & left[1][pairs[:, 1]]]

    forgotten = inside(forget_pairs(case.dataset, case.forget_set))
    held_out = inside(np.concatenate([case.retain.valid, case.retain.test]))
    held_out = held_out[np.isin(held_out[:, 0], forgotten[:, 0])]
    forgotten = forgotten[np.isin(forgotten[:, 0], held_out[:, 0])]

    def measure(subject: Subject) -> Row:
        if not len(forgotten):
            return {}
        rows = np.asarray(subject.model.rows, np.float64)
        low, others = (-neighbour_scores(rows, pairs, train, case.dataset.num_users) for pairs in (forgotten, held_out))
        return {"neighbour dip AUC": area_under_curve(low, others)}

    return measure


CHECK = Check(12, (Figure("neighbour dip AUC", "remembered"),), prepare, source="arXiv 2506.00808")
