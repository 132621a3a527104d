"""Check 3, divergence: the same scores as Gold, on forgotten and on retained pairs, and the same distribution over items."""

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.evaluate import pair_scores
from recunlearn_jax.losses import bpr_divergence_jit
from recunlearn_jax.requests import forget_pairs
from recunlearn_jax.verdict import Figure

MOST_USERS = 1000  # for the KL divergence, drawn once


@jax.jit
def kl_divergence(embedding: jax.Array, other: jax.Array, users: jax.Array, items: jax.Array) -> jax.Array:
    """Mean over users of KL(p || q), p and q the softmax of the scores of all items under two models.

    Args:
        embedding, other: Z of the two models, float [N, d]; p comes from the first.
        users, items: int32 nodes.

    Returns:
        float scalar, >= 0.

    Examples:
        >>> z = jnp.array([[1.0], [1.0], [0.0]])
        >>> float(kl_divergence(z, z, jnp.array([0]), jnp.array([1, 2])))
        0.0
    """

    def of_user(user):
        p = jax.nn.log_softmax(embedding[items] @ embedding[user])
        q = jax.nn.log_softmax(other[items] @ other[user])
        return jnp.sum(jnp.exp(p) * (p - q))

    return jnp.mean(jax.lax.map(of_user, users, batch_size=64))


def prepare(case: Case) -> Measure:
    """BPR and KL divergence to each Gold, as figure/gold, and their mean over the Golds; for a Gold, over the other Golds."""
    shift, rng = np.array([0, case.dataset.num_users]), np.random.default_rng(9)
    pairs = {"forget": forget_pairs(case.dataset, case.forget_set), "retain": case.retain.train}
    nodes = {side: jnp.asarray(p + shift) for side, p in pairs.items() if len(p)}
    items = jnp.arange(case.dataset.num_users, case.dataset.num_users + case.dataset.num_items)
    people = {side: np.unique(pairs[side][:, 0]) for side in nodes}
    people = {side: jnp.asarray(np.sort(rng.permutation(ids)[:MOST_USERS])) for side, ids in people.items()}
    scores = {
        (name, side): pair_scores(gold.rows, ends) for name, gold in case.golds.items() for side, ends in nodes.items()
    }

    def measure(subject: Subject) -> Row:
        others = [name for name in case.golds if name != subject.name]
        row: Row = {}
        for side, ends in nodes.items() if others else ():
            own = pair_scores(subject.model.rows, ends)
            apart = {
                "BPR": {other: bpr_divergence_jit(own, scores[other, side]) for other in others},
                "KL": {
                    other: kl_divergence(case.golds[other].rows, subject.model.rows, people[side], items)
                    for other in others
                },
            }
            for kind, found in apart.items():
                single = {f"{kind} divergence {side}/{other}": float(value) for other, value in found.items()}
                row |= {f"{kind} divergence {side}": float(np.mean(list(single.values()))), **single}
        return row

    return measure


FIGURES = tuple(
    Figure(f"{kind} divergence {side}", "distance", 0.0, seeded=True)
    for kind in ("BPR", "KL")
    for side in ("forget", "retain")
)
CHECK = Check(3, FIGURES, prepare, needs="golds", usual=True, source="arXiv 2405.15328")
