"""Check 2, forgetting: how well forgotten pairs are still found, and how far they stand out from the user's mean score."""

import jax.numpy as jnp

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.evaluate import forget_task, pair_margins, ranking_metrics
from recunlearn_jax.requests import forget_pairs
from recunlearn_jax.verdict import Figure

ITEM_KS = (500, 1000, 1500)  # of the MMRecUN paper, for requests that name items


def prepare(case: Case) -> Measure:
    """Ranking metrics of the forgotten pairs, also at larger K where items are forgotten, and their mean margin."""
    forgotten = forget_pairs(case.dataset, case.forget_set)
    task = forget_task(case.retain, forgotten)
    ks = (20, *ITEM_KS) if case.forget_set.items.any() else (20,)
    pairs = jnp.asarray(forgotten)

    def measure(subject: Subject) -> Row:
        if task is None:
            return {}
        rows = subject.model.rows
        found = {f"forget {name}": value for name, value in ranking_metrics(rows, task, ks).items()}
        margins = pair_margins(rows, pairs, num_users=case.dataset.num_users)
        return found | {"forget margin": float(jnp.mean(margins))}

    return measure


FIGURES = (*(Figure(f"forget recall@{k}", "remembered") for k in (20, *ITEM_KS)), Figure("forget margin", "remembered"))
CHECK = Check(2, FIGURES, prepare, usual=True)
