"""Check 10, sequence: a request answered in parts, one after the other, as requests come in.

Does the answer drift away from one Gold for all parts together?
"""

from typing import Any

import numpy as np

from recunlearn_jax.audit import divergence, forgetting, utility
from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.recommender import Recommender
from recunlearn_jax.requests import ForgetSet, Request, forget_pairs, named
from recunlearn_jax.settings import seed_after
from recunlearn_jax.unlearn import answer
from recunlearn_jax.verdict import Figure

PARTS = 5
FIGURES = (
    Figure("sequence test recall@20", "utility"),
    Figure("sequence forget recall@20", "remembered"),
    Figure("sequence BPR divergence forget", "distance", 0.0),
)


def in_parts(forget_set: ForgetSet, dataset: Dataset, parts: int) -> list[Request]:
    """Split a request into requests that together ask for the same; parts with nothing to forget are left out.

    Args:
        forget_set: resolved on the data set.
        dataset: of the original.
        parts: at least 1.
    """
    users, items = np.flatnonzero(forget_set.users), np.flatnonzero(forget_set.items)
    pairs = forget_pairs(dataset, forget_set)
    single = pairs[~forget_set.users[pairs[:, 0]] & ~forget_set.items[pairs[:, 1]]]
    gone = forget_set.items | dataset.removed_items  # they have no row, and where items have names, no name
    rows = {m: np.flatnonzero(chosen & ~gone) for m, chosen in forget_set.features.items()}

    def part(i: int) -> Request:
        """Pairs are sorted by user, so dealing them out in turn gives every part some pairs of each user."""
        features = {m: np.isin(np.arange(dataset.num_items), ids[i::parts]) for m, ids in rows.items()}
        return named(dataset, users[i::parts], items[i::parts], single[i::parts], features)

    requests = [part(i) for i in range(parts)]
    return [request for request in requests if request.describe() != "nothing"]


def answer_in_turn(
    original: Recommender, requests: list[Request], method: str, settings: Any = None, *, seed: int = 0
) -> Recommender:
    """Answer requests one after the other, each on the model that the one before left.

    Args:
        original: before the first.
        requests: at least one.
        method, settings: as for `unlearn.answer`.
        seed: of the first answer; each further one has the next (`settings.seed_after`).
    """
    model = original
    for i, request in enumerate(requests):
        model = answer(model, request, method, settings, seed=seed_after(seed, i))
    return model


def prepare(case: Case):
    """The request in `PARTS` parts, against Golds trained once on what is retained in the end."""
    measures = [check.prepare(case) for check in (utility.CHECK, forgetting.CHECK, divergence.CHECK)]

    def of_method(subject: Subject) -> Measure:
        if case.original is None or subject.attempt is None:
            return lambda other: {}
        method, settings, seed = subject.attempt
        parts = in_parts(case.forget_set, case.dataset, PARTS)
        last = answer_in_turn(case.original, parts, method, settings, seed=seed)

        def measure(other: Subject) -> Row:
            model = last if other.name == subject.name else other.model
            row = {f"sequence {k}": v for m in measures for k, v in m(Subject(other.name, model)).items()}
            return {figure.name: row[figure.name] for figure in FIGURES if figure.name in row}

        return measure

    return of_method


CHECK = Check(10, FIGURES, prepare, needs="method")
