"""Check 9, groups. Who pays for forgetting?

Quality for users near the forget set, for active and inactive users, and for well-known and little-known items.
"""

import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.evaluate import RankingTask, ranking_metrics, task_on
from recunlearn_jax.requests import forget_pairs
from recunlearn_jax.verdict import Figure

HEAD = 0.2  # the best-known items, which together hold this share of all train pairs or more


def group_tasks(retain: Dataset, forgotten: np.ndarray) -> dict[str, RankingTask]:
    """The test task of each group that has a pair to find.

    near / far: users who lost a pair or have the item of a lost pair (two hops in the user-item graph), and the others.
    active / inactive: users whose number of train pairs is above the upper tercile, and users at or below the lower tercile.
    head / tail: test pairs of the best-known items, which hold a fifth of all train pairs, and of the others.

    Args:
        retain: the retained data.
        forgotten: int [n, 2], D_f.
    """
    pairs = retain.test[np.isin(retain.test[:, 0], retain.train[:, 0])]
    if not len(pairs):
        return {}
    touched = np.unique(forgotten[:, 1])
    near = np.isin(pairs[:, 0], retain.train[np.isin(retain.train[:, 1], touched), 0])
    near |= np.isin(pairs[:, 0], forgotten[:, 0])  # users who lost a pair and stay
    activity = np.bincount(retain.train[:, 0], minlength=retain.num_users)
    low, high = np.quantile(activity[np.unique(pairs[:, 0])], [1 / 3, 2 / 3])
    popularity = np.bincount(retain.train[:, 1], minlength=retain.num_items)
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]
    head = np.zeros(retain.num_items, bool)
    head[order[before < HEAD * len(retain.train)]] = True
    groups = {
        "near": near,
        "far": ~near,
        "active": activity[pairs[:, 0]] > high,
        "inactive": activity[pairs[:, 0]] <= low,
        "head": head[pairs[:, 1]],
        "tail": ~head[pairs[:, 1]],
    }
    return {
        name: task_on(retain, pairs[rows], hidden=retain.removed_items) for name, rows in groups.items() if rows.any()
    }


def prepare(case: Case) -> Measure:
    """Test Recall@20 of each group."""
    tasks = group_tasks(case.retain, forget_pairs(case.dataset, case.forget_set))

    def measure(subject: Subject) -> Row:
        rows = subject.model.rows
        return {f"{name} recall@20": ranking_metrics(rows, task, (20,))["recall@20"] for name, task in tasks.items()}

    return measure


GROUPS = ("near", "far", "active", "inactive", "head", "tail")
CHECK = Check(9, tuple(Figure(f"{name} recall@20", "utility") for name in GROUPS), prepare)
