"""All checks on all models of a case: the figures that verdicts are made from. Their meaning is told in docs/evidence.md."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.audit.agreement import kl_divergence, overlap, top_lists
from recunlearn_jax.audit.canary import canary_exposure, canary_ranks
from recunlearn_jax.audit.case import Case
from recunlearn_jax.audit.cooccurrence import correlation, cosines, lost_cooccurrences
from recunlearn_jax.audit.diversity import diversity
from recunlearn_jax.audit.groups import group_tasks
from recunlearn_jax.audit.membership import area_under_curve
from recunlearn_jax.audit.modality import modality_overlap
from recunlearn_jax.audit.relearn import forget_loss, lesson, relearn_steps
from recunlearn_jax.audit.shilling import target_exposure
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import (
    forget_task,
    held_out_task,
    pair_margins,
    pair_scores,
    ranking_metrics,
    ranking_task,
    ranks_found,
)
from recunlearn_jax.losses import bpr_divergence_jit
from recunlearn_jax.models import MGCN
from recunlearn_jax.requests import forget_pairs
from recunlearn_jax.train import Trained, embedding_of

K = 20
MOST_USERS = 1000  # for the KL divergence, drawn once

# Ensembles of shard models have output rows and no single set of parameters: checks that train are left out for them.


class Subject(NamedTuple):
    """A model under examination. `model` and `params` are None for one that cannot be trained further as it stands."""

    embedding: jax.Array  # Z, float [|U| + |I|, d]
    model: MGCN | None = None
    params: Any = None


Row = dict[str, float]  # figure -> value
Keep = Callable[[str, Callable[[], Row]], Row]


def at_once(name: str, make: Callable[[], Row]) -> Row:
    """Keeps nothing: the figures of a model are made anew."""
    del name
    return make()


def examine(
    case: Case,
    subjects: Mapping[str, Subject],
    golds: Mapping[str, Subject],
    original: Trained,
    keep: Keep = at_once,
) -> dict[str, Row]:
    """Every figure of every model, Golds included.

    Args:
        case: data and request.
        subjects: name -> model.
        golds: name -> retrained model; at least one.
        original: the model before the request.
        keep: given a name and what makes its figures, returns them: from a file, or made.

    Returns:
        name -> {figure: value}; the figures that a case has no data for are absent. Closeness to Gold is the mean over the Golds, for a
        Gold over the others.

    Raises:
        InputError: a model's output rows are not finite.
    """
    checks = [utility(case), forgetting(case), memberships(case), relearning(case, original), planted(case)]
    checks += [fairness(case), similarities(case, original), closeness(case, golds)]

    def row(name: str, subject: Subject) -> Row:
        if not bool(jnp.isfinite(subject.embedding).all()):
            raise InputError(f"{name}: its output rows are not finite; such a model cannot be ranked or judged")
        return {figure: value for check in checks for figure, value in check(name, subject).items()}

    return {name: keep(name, functools.partial(row, name, subject)) for name, subject in {**subjects, **golds}.items()}


def utility(case: Case):
    """Check 1: ranking quality over retained users."""
    tasks = {split: held_out_task(case.retain, split) for split in ("valid", "test")}

    def figures(_, subject: Subject) -> dict[str, float]:
        out = {}
        for split, task in tasks.items():
            if task is not None:
                metrics = ranking_metrics(subject.embedding, task, (K,))
                out |= {f"{split} {metric}@{K}": metrics[f"{metric}@{K}"] for metric in ("recall", "ndcg")}
        return out

    return figures


def forgetting(case: Case):
    """Check 2: how well forgotten pairs are still found, and how far they stand out from the user's mean score."""
    forgotten = forget_pairs(case.dataset, case.forget_set)
    task = forget_task(case.retain, forgotten)
    ks = (K, 500, 1000, 1500) if case.forget_set.items.any() else (K,)
    pairs = jnp.asarray(forgotten)

    def figures(_, subject: Subject) -> dict[str, float]:
        out = {}
        if task is not None:
            metrics = ranking_metrics(subject.embedding, task, ks)
            out |= {f"forget recall@{k}": metrics[f"recall@{k}"] for k in ks}
            out["forget margin"] = float(
                jnp.mean(pair_margins(subject.embedding, pairs, num_users=case.dataset.num_users))
            )
        if case.forget_set.features:
            value = modality_overlap(subject.embedding, case.dataset, case.forget_set.features)
            out |= {} if value is None else {"modality overlap": value}
        return out

    return figures


def memberships(case: Case):
    """Check 5: forgotten pairs against held-out pairs of the same users."""
    forgotten = forget_pairs(case.dataset, case.forget_set)
    held_out = held_out_pairs(case)
    forgotten = forgotten[np.isin(forgotten[:, 0], held_out[:, 0])]  # planted users have nothing held out
    if not len(held_out):
        return lambda _, subject: {}
    tasks = [ranking_task(pairs, case.retain.train, case.retain.num_items) for pairs in (forgotten, held_out)]

    def figures(_, subject: Subject) -> dict[str, float]:
        members, others = (-ranks_found(subject.embedding, task).astype(float) for task in tasks)
        return {"membership AUC": area_under_curve(members, others)}

    return figures


def held_out_pairs(case: Case) -> np.ndarray:
    """Valid and test pairs of users with a forgotten pair, int32 [n, 2]; no model of the case was trained on one."""
    users = np.unique(forget_pairs(case.dataset, case.forget_set)[:, 0])
    pairs = np.concatenate([case.dataset.valid, case.dataset.test])
    return pairs[np.isin(pairs[:, 0], users)]


def relearning(case: Case, original: Trained):
    """Check 6: steps to the original's loss on the forgotten pairs."""
    forgotten = forget_pairs(case.dataset, case.forget_set)
    if not len(forgotten):
        return lambda _, subject: {}
    taught = lesson(original, forgotten)
    target = forget_loss(original.params, taught, model=original.model)

    def figures(_, subject: Subject) -> dict[str, float]:
        if subject.model is None:
            return {}
        rate = original.config.train.learning_rate
        steps = relearn_steps(subject.params, taught, target, model=subject.model, learning_rate=rate)
        return {"relearn steps": float(steps)}

    return figures


def planted(case: Case):
    """Checks 7 and 8: what is left of planted users."""

    def figures(_, subject: Subject) -> dict[str, float]:
        out = {}
        if case.canaries is not None:
            ranks = canary_ranks(subject.embedding, case.canaries, case.dataset.num_users)
            out["canary log10 rank"] = float(np.log10(np.median(ranks)))
            shown = canary_exposure(subject.embedding, case.canaries, case.retain, K)
            out |= {} if shown is None else {f"canary exposure@{K}": shown}
        if case.shills is not None:
            out[f"shilling exposure@{K}"] = target_exposure(subject.embedding, case.shills, case.retain, K)
        return out

    return figures


def fairness(case: Case):
    """Check 9: quality by group, variety of the lists."""
    tasks = group_tasks(case.retain, forget_pairs(case.dataset, case.forget_set))
    users = np.unique(case.retain.train[:, 0])

    def figures(_, subject: Subject) -> dict[str, float]:
        quality = {
            f"{name} recall@{K}": ranking_metrics(subject.embedding, t, (K,))[f"recall@{K}"]
            for name, t in tasks.items()
        }
        return quality | diversity(top_lists(subject.embedding, case.retain, users, K), case.retain)

    return figures


def similarities(case: Case, original: Trained):
    """Check 9: item-item similarities on lost co-occurrences, against the original's."""
    pairs = lost_cooccurrences(case.dataset, case.retain, forget_pairs(case.dataset, case.forget_set))
    own = cosines(embedding_of(original), pairs, case.dataset.num_users)

    def figures(_, subject: Subject) -> dict[str, float]:
        value = correlation(own, cosines(subject.embedding, pairs, case.dataset.num_users))
        return {} if value is None else {"similarity correlation": value}

    return figures


def closeness(case: Case, golds: Mapping[str, Subject]):
    """Checks 3 and 4: divergence from Gold and overlap of lists with Gold's; the mean over the Golds, and each as figure/gold."""
    shift, rng = np.array([0, case.dataset.num_users]), np.random.default_rng(9)
    forgotten = forget_pairs(case.dataset, case.forget_set)
    pairs = {"forget": forgotten, "retain": case.retain.train}
    nodes = {side: jnp.asarray(p + shift) for side, p in pairs.items() if len(p)}
    items = jnp.arange(case.dataset.num_users, case.dataset.num_users + case.dataset.num_items)
    people = {side: np.unique(pairs[side][:, 0]) for side in nodes}
    people = {side: jnp.asarray(np.sort(rng.permutation(ids)[:MOST_USERS])) for side, ids in people.items()}
    users = np.unique(case.retain.train[:, 0])
    lists = {name: top_lists(gold.embedding, case.retain, users, K) for name, gold in golds.items()}

    def figures(name: str, subject: Subject) -> dict[str, float]:
        others = {other: gold.embedding for other, gold in golds.items() if other != name}
        if not others:
            return {}
        apart = {}
        for side, ends in nodes.items():
            own = pair_scores(subject.embedding, ends)
            squares = [bpr_divergence_jit(own, pair_scores(z, ends)) for z in others.values()]
            nats = [kl_divergence(z, subject.embedding, people[side], items) for z in others.values()]
            apart[f"BPR divergence {side}"], apart[f"KL divergence {side}"] = squares, nats
        shown = lists[name] if name in lists else top_lists(subject.embedding, case.retain, users, K)
        apart[f"overlap@{K}"] = [overlap(shown, lists[other]) for other in others]
        single = {f"{f}/{other}": float(x) for f, xs in apart.items() for other, x in zip(others, xs, strict=True)}
        return {figure: float(np.mean(values)) for figure, values in apart.items()} | single

    return figures
