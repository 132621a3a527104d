"""Check 13, update detection: what can be learnt by someone who sees the model before and after?

Anyone who kept the original can look at what changed. Retraining also makes the changes that the removal calls for, so the coupled Gold has
an area of its own, which is the yardstick: an answer that tells more than this shows what was deleted more clearly than retraining would.

Pairs: forgotten pairs whose user and item both stay, against retained pairs of the same users, by how far their scores fall. Items:
those that lost a pair, against the others, by how far their rows turn.
"""

import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.audit.effect import mean_over_replays
from recunlearn_jax.audit.membership import area_under_curve
from recunlearn_jax.recommender import Recommender
from recunlearn_jax.requests import forget_pairs


def prepare(case: Case) -> Measure:
    """Areas under the curve on pairs and on items, for the model and, beside them, for its coupled Gold."""
    users, train = case.dataset.num_users, case.retain.train
    forgotten = forget_pairs(case.dataset, case.forget_set)
    left = np.unique(train[:, 1])
    pairs = forgotten[np.isin(forgotten[:, 0], train[:, 0]) & np.isin(forgotten[:, 1], left)]
    kept = train[np.isin(train[:, 0], pairs[:, 0])]
    hit = np.intersect1d(left, forgotten[:, 1])
    spared = np.setdiff1d(left, hit)

    def areas(before: Recommender, after: Recommender) -> Row:
        old, new = (np.asarray(model.rows, np.float64) for model in (before, after))
        row: Row = {}

        def score(rows: np.ndarray, of: np.ndarray) -> np.ndarray:
            return np.einsum("nd,nd->n", rows[of[:, 0]], rows[users + of[:, 1]])

        def turn(items: np.ndarray) -> np.ndarray:
            a, b = old[users + items], new[users + items]
            lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            return 1 - np.einsum("nd,nd->n", a, b) / np.maximum(lengths, 1e-12)

        if len(pairs) and len(kept):
            row["update AUC pairs"] = area_under_curve(*(score(old, of) - score(new, of) for of in (pairs, kept)))
        if len(hit) and len(spared):
            row["update AUC items"] = area_under_curve(turn(hit), turn(spared))
        return row

    def compared(name: str, model: Recommender) -> Row:
        original, gold = case.replays[name]
        aim = {f"{figure}, coupled Gold": value for figure, value in areas(original, gold).items()}
        return areas(original, model) | aim

    def measure(subject: Subject) -> Row:
        return mean_over_replays(case, subject, compared)

    return measure


CHECK = Check(13, (), prepare, needs="replays")
