"""Check 11, effect: how much of what retraining changes does the answer change, and how much else?

A coupled Gold differs from its original by the effect of the removal alone, e = coupled Gold - original. On a set of probes the answer's
own change x = answer - original splits into a part along e and the rest:

    progress = <x, e> / <e, e>        collateral = |x - progress e| / |e|

Progress 1 and collateral 0 is perfect. Surgery is cheap and timid; a method can change much and still miss e. Every coupled Gold of the
case gives one pair of figures: the method answers each original anew, and the figures are means over the coupled Golds, with standard
errors. Scores are compared with Gold's here too, since between Golds of different seeds the effect of the seed drowns such a comparison.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.audit.cooccurrence import correlation, cosines, lost_cooccurrences
from recunlearn_jax.audit.lists import top_lists
from recunlearn_jax.audit.overlap import K, overlap
from recunlearn_jax.evaluate import pair_scores
from recunlearn_jax.losses import bpr_divergence_jit
from recunlearn_jax.recommender import Recommender
from recunlearn_jax.requests import forget_pairs
from recunlearn_jax.unlearn import METHODS, answer

MOST = 20_000  # probes of each kind


class Probes(NamedTuple):
    """Pairs of nodes, int [n, 2]. Each node still has a pair in the retained data, since removed rows are noise in every model."""

    similarities: np.ndarray  # two affected users or two affected items, compared by their cosine
    scores: Mapping[str, np.ndarray]  # name -> a user and an item, compared by their score


def probes(case: Case) -> Probes:
    """Probes, drawn once per case. A user or item is affected if it has a forgotten pair or loses a feature row, and still has a pair.

    Args:
        case: with its forget set.
    """
    rng, users = np.random.default_rng(17), case.dataset.num_users
    forgotten = forget_pairs(case.dataset, case.forget_set)
    left = {"users": np.unique(case.retain.train[:, 0]), "items": np.unique(case.retain.train[:, 1])}
    lost = [np.flatnonzero(rows) for rows in case.forget_set.features.values()]
    affected = {
        "users": np.intersect1d(left["users"], forgotten[:, 0]),
        "items": np.intersect1d(left["items"], np.concatenate([forgotten[:, 1], *lost])),
    }
    others = {kind: np.setdiff1d(left[kind], affected[kind]) for kind in left}
    empty = np.zeros((0, 2), np.int64)

    def drawn(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (
            np.stack([rng.choice(ids, MOST) for ids in (first, second)], axis=1)
            if len(first) and len(second)
            else empty
        )

    def some(pairs: np.ndarray) -> np.ndarray:
        return pairs[np.sort(rng.permutation(len(pairs))[:MOST])]

    similar = []
    for kind, start in (("users", 0), ("items", users)):
        pairs = drawn(affected[kind], affected[kind])
        similar.append(start + pairs[pairs[:, 0] != pairs[:, 1]])
    kept = np.isin(forgotten[:, 0], left["users"]) & np.isin(forgotten[:, 1], left["items"])
    scores = {
        "affected scores": np.concatenate(
            [drawn(left["users"], affected["items"]), drawn(affected["users"], left["items"])]
        ),
        "other scores": drawn(others["users"], others["items"]),
        "retained pairs": some(case.retain.train),
        "forgotten pairs": some(forgotten[kept]),
    }
    shift = np.array([0, users])
    return Probes(np.concatenate(similar), {name: pairs + shift for name, pairs in scores.items()})


def split(change: np.ndarray, effect: np.ndarray) -> tuple[float, float]:
    """Progress and collateral of a change.

    Args:
        change: x, float [n].
        effect: e, float [n], not all 0.

    Examples:
        >>> split(np.array([1.0, 1.0]), np.array([2.0, 0.0]))
        (0.5, 0.5)
    """
    squares = float(effect @ effect)
    progress = float(change @ effect) / squares
    return progress, float(np.linalg.norm(change - progress * effect)) / squares**0.5


def decomposed(changes: Mapping[str, np.ndarray], effects: Mapping[str, np.ndarray]) -> Row:
    """Progress and collateral on every set of probes on which the removal has an effect.

    Args:
        changes, effects: x and e by name of the probes, float [n].
    """
    row: Row = {}
    for probe, effect in effects.items():
        if np.any(effect):
            row[f"progress {probe}"], row[f"collateral {probe}"] = split(changes[probe], effect)
    return row


def changed(after: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The difference between what the probes read from two models."""
    return {probe: after[probe] - before[probe] for probe in before}


def values(model: Recommender, found: Probes) -> dict[str, np.ndarray]:
    """What the probes read from a model: cosines and scores, name -> float64 [n]."""
    rows = np.asarray(model.rows, np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    def products(table: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        return np.einsum("nd,nd->n", table[pairs[:, 0]], table[pairs[:, 1]])

    return {"similarities": products(unit, found.similarities)} | {
        name: products(rows, pairs) for name, pairs in found.scores.items()
    }


def prepare(case: Case) -> Measure:
    """Progress and collateral on each set of probes, and closeness to the coupled Gold, over all coupled Golds."""
    found = probes(case)
    forgotten = forget_pairs(case.dataset, case.forget_set)
    shift, users = np.array([0, case.dataset.num_users]), np.unique(case.retain.train[:, 0])
    sides = {
        side: pairs + shift for side, pairs in (("forget", forgotten), ("retain", case.retain.train)) if len(pairs)
    }
    lost = lost_cooccurrences(case.dataset, case.retain, forgotten)

    def similarity(model: Recommender) -> np.ndarray:
        return cosines(model.rows, lost, case.dataset.num_users)

    @functools.cache
    def of_replay(name: str):
        """What a coupled Gold and its original show, computed once."""
        original, gold = case.replays[name]
        lists = top_lists(gold.rows, case.retain, users, K)
        scores = {side: pair_scores(gold.rows, nodes) for side, nodes in sides.items()}
        before = similarity(original)
        return (
            values(original, found),
            values(gold, found),
            lists,
            scores,
            before,
            correlation(before, similarity(gold)),
        )

    def compared(name: str, model: Recommender) -> Row:
        before, after, lists, scores, similar, aim = of_replay(name)
        row = decomposed(changed(values(model, found), before), changed(after, before))
        row[f"overlap@{K} with coupled Gold"] = overlap(top_lists(model.rows, case.retain, users, K), lists)
        for side, nodes in sides.items():
            apart = bpr_divergence_jit(pair_scores(model.rows, nodes), scores[side])
            row[f"BPR divergence {side} from coupled Gold"] = float(apart)
        own_correlation = correlation(similar, similarity(model))
        if own_correlation is not None and aim is not None:
            row["similarity correlation beyond coupled Gold's"] = own_correlation - aim
        return row

    def measure(subject: Subject) -> Row:
        return mean_over_replays(case, subject, compared)

    return measure


def mean_over_replays(case: Case, subject: Subject, compared: Callable[[str, Recommender], Row]) -> Row:
    """Means of figures over the coupled Golds, and their standard errors under "figure, s.e." where there are two or more.

    A coupled Gold gets no figures, since it is the yardstick; a model that cannot be made anew within seconds (retrained, or with work
    before the request) is compared with the first coupled Gold alone.

    Args:
        case: with coupled Golds.
        subject: under examination.
        compared: (name of a coupled Gold, model that started from its original) -> figures.
    """
    if subject.name in case.replays:
        return {}
    rows = []
    for name, (original, _) in case.replays.items():
        model = subject.model if not rows else _of_seed(case, subject, original)
        if model is None:
            break
        rows.append(compared(name, model))
    out: Row = {}
    for figure in rows[0] if rows else ():
        found = np.array([row[figure] for row in rows if figure in row])
        out[figure] = float(found.mean())
        if len(found) > 1:
            out[f"{figure}, s.e."] = float(found.std(ddof=1) / len(found) ** 0.5)
    return out


def _of_seed(case: Case, subject: Subject, original: Recommender) -> Recommender | None:
    """The subject as it would be if it had started from this original; None if making it takes more than seconds."""
    if subject.name == "original":
        return original
    if subject.attempt is None:
        return None
    method, settings, seed = subject.attempt
    if METHODS[method].retrains or METHODS[method].own_model:
        return None
    return answer(original, case.forget_set, method, settings, seed=seed)


CHECK = Check(11, (), prepare, needs="replays", usual=True, version=2)
