"""Check 4, overlap: the same lists as Gold."""

import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.audit.lists import top_lists
from recunlearn_jax.verdict import Figure

K = 20


def overlap(lists: np.ndarray, others: np.ndarray) -> float:
    """Mean share of a list that is also in the other list of the same user.

    Args:
        lists, others: int [n, k]; -1 is no item.
    """
    common = ((lists[:, :, None] == others[:, None, :]) & (lists[:, :, None] >= 0)).any(axis=2).sum(axis=1)
    return float(np.mean(common / np.maximum((lists >= 0).sum(axis=1), 1)))


def prepare(case: Case) -> Measure:
    """Overlap of retained users' lists with each Gold's, as overlap/gold, and the mean over the Golds; for a Gold, over the other Golds."""
    users = np.unique(case.retain.train[:, 0])
    lists = {name: top_lists(gold.rows, case.retain, users, K) for name, gold in case.golds.items()}

    def measure(subject: Subject) -> Row:
        others = [name for name in lists if name != subject.name]
        if not others:
            return {}
        own = lists.get(subject.name)
        own = top_lists(subject.model.rows, case.retain, users, K) if own is None else own
        single = {f"overlap@{K}/{other}": overlap(own, lists[other]) for other in others}
        return {f"overlap@{K}": float(np.mean(list(single.values()))), **single}

    return measure


CHECK = Check(4, (Figure(f"overlap@{K}", "likeness", seeded=True),), prepare, needs="golds")
