"""Ranking metrics at any list of K from one top-k, in user blocks, and the reports built from them."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.data import Dataset

METRICS = ("recall", "precision", "ndcg", "map", "hit")


class RankingTask(NamedTuple):
    """Whom to rank for, what is masked and what counts as found; padded and cut into blocks of users on the host."""

    users: jax.Array  # int32 [blocks, block]; padded rows repeat user 0
    real: jax.Array  # bool [blocks, block]
    masked: jax.Array  # int32 [blocks, m, 2], (row in block, item) never recommended; padding has row = block
    relevant: jax.Array  # int32 [blocks, r, 2], (row in block, item) to be found
    hidden: jax.Array  # bool [|I|], items nobody is shown


def ranking_task(
    relevant: np.ndarray,
    masked: np.ndarray,
    num_items: int,
    *,
    users: np.ndarray | None = None,
    hidden: np.ndarray | None = None,
    block: int = 1024,
) -> RankingTask:
    """Prepare an evaluation.

    Args:
        relevant: int [n, 2], (user, item) pairs to be found.
        masked: int [m, 2], pairs that are no candidates, such as the user's train history.
        num_items: |I|.
        users: who is ranked for; by default everyone in `relevant`.
        hidden: bool [|I|], items that are candidates for nobody.
        block: users at a time; memory is block x |I| floats.
    """
    users = np.unique(relevant[:, 0]) if users is None else np.asarray(users)
    block = max(1, min(block, len(users)))
    blocks = max(1, -(-len(users) // block))
    padded = np.pad(users.astype(np.int32), (0, blocks * block - len(users)))
    place = np.full(1 + max(int(x[:, 0].max(initial=0)) for x in (relevant, masked, users[:, None])), -1)
    place[users] = np.arange(len(users))

    def cut(pairs):
        rows = place[pairs[:, 0]]
        rows, items = rows[rows >= 0], pairs[rows >= 0, 1]
        order = np.argsort(rows, kind="stable")
        rows, items = rows[order], items[order]
        bounds = np.searchsorted(rows, np.arange(blocks + 1) * block)
        width = max(1, int(np.diff(bounds).max()))
        out = np.full((blocks, width, 2), (block, 0), np.int32)
        for b, (low, high) in enumerate(itertools.pairwise(bounds)):
            out[b, : high - low, 0] = rows[low:high] - b * block
            out[b, : high - low, 1] = items[low:high]
        return jnp.asarray(out)

    return RankingTask(
        users=jnp.asarray(padded.reshape(blocks, block)),
        real=jnp.asarray((np.arange(blocks * block) < len(users)).reshape(blocks, block)),
        masked=cut(masked),
        relevant=cut(relevant),
        hidden=jnp.asarray(np.zeros(num_items, bool) if hidden is None else hidden),
    )


def metrics_at_k(hits: jax.Array, num_relevant: jax.Array, k: jax.Array) -> jax.Array:
    """Recall, precision, NDCG, MAP and hit rate at K of ranked lists, in the order of `METRICS`.

        Recall@K = hits / |pos|           precision@K = hits / K        hit@K = [hits > 0]
        NDCG@K   = sum_k rel(k) / log2(k + 1), over the same sum for min(K, |pos|) hits in front
        AP@K     = sum_k precision(k) rel(k) / min(K, |pos|)

    Args:
        hits: bool [users, N], whether the item at each rank is relevant, N >= K.
        num_relevant: int [users], |pos|.
        k: int scalar, K; may be traced, so the function vmaps over K.

    Returns:
        float32 [5, users].

    Reference: MMRec's TopKEvaluator.
    """
    rank = jnp.arange(1, hits.shape[1] + 1, dtype=jnp.float32)[None]
    k = k.astype(jnp.float32)
    inside = hits & (rank <= k)
    found = jnp.cumsum(inside, axis=1, dtype=jnp.float32)
    total = found[:, -1]
    positives = jnp.maximum(num_relevant, 1).astype(jnp.float32)
    possible = jnp.minimum(positives, k)
    discount = 1 / jnp.log2(rank[0] + 1)
    ideal = jnp.cumsum(discount)
    # more positives than ranks: the ideal list is cut at N
    ndcg = (inside.astype(jnp.float32) @ discount) / ideal[jnp.minimum(possible.astype(jnp.int32), hits.shape[1]) - 1]
    average = jnp.sum(jnp.where(inside, found / rank, 0), axis=1) / possible
    return jnp.stack([total / positives, total / k, ndcg, average, jnp.minimum(total, 1)])


def top_items(user_rows: jax.Array, item_table: jax.Array, masked: jax.Array, hidden: jax.Array, k: int) -> jax.Array:
    """The k best items of some users, best first.

    Args:
        user_rows: float [B, d].
        item_table: float [|I|, d].
        masked: int32 [m, 2], (row, item) pairs left out; rows >= B are padding.
        hidden: bool [|I|].
        k: static, at most |I|.

    Returns:
        int32 [B, k]; -1 where fewer than k candidates are left.
    """
    scores = user_rows @ item_table.T
    scores = jnp.where(hidden[None], -jnp.inf, scores)
    scores = scores.at[masked[:, 0], masked[:, 1]].set(-jnp.inf, mode="drop")
    best, items = jax.lax.top_k(scores, k)
    return jnp.where(jnp.isneginf(best), -1, items)


@functools.partial(jax.jit, static_argnames="largest")
def rank(embedding: jax.Array, task: RankingTask, ks: jax.Array, largest: int) -> jax.Array:
    """[5, K] means over the real users."""
    num_items = len(task.hidden)
    num_users = embedding.shape[0] - num_items
    items = embedding[num_users:]
    size = task.users.shape[1]

    def one_block(block):
        users, masked, relevant = block
        top = top_items(embedding[users], items, masked, task.hidden, largest)
        wanted = jnp.zeros((size, num_items), bool).at[relevant[:, 0], relevant[:, 1]].set(True, mode="drop")
        hits = jnp.take_along_axis(wanted, jnp.maximum(top, 0), axis=1) & (top >= 0)
        count = jnp.sum(wanted, axis=1)
        return jax.vmap(lambda k: metrics_at_k(hits, count, k))(ks)

    values = jax.lax.map(one_block, (task.users, task.masked, task.relevant))  # [blocks, K, 5, block]
    real = task.real[:, None, None, :]
    total = jnp.sum(jnp.where(real, values, 0), axis=(0, 3))
    return (total / jnp.maximum(jnp.sum(task.real, dtype=jnp.float32), 1)).T


def ranking_metrics(embedding: jax.Array, task: RankingTask, ks: Sequence[int]) -> dict[str, float]:
    """Metrics of a model on a task, means over its users.

    Args:
        embedding: float [|U| + |I|, d], Z.
        task: from `ranking_task`.
        ks: list lengths; those beyond |I| are cut to |I|.

    Returns:
        {"recall@20": ..., ...} for every metric and K.
    """
    cut = jnp.asarray([min(k, len(task.hidden)) for k in ks], jnp.int32)
    values = np.asarray(rank(embedding, task, cut, int(max(cut))))
    return {f"{name}@{k}": float(values[m, i]) for m, name in enumerate(METRICS) for i, k in enumerate(ks)}


def held_out_task(dataset: Dataset, split: str, block: int = 1024) -> RankingTask | None:
    """Valid or test as served: the user's train items are masked, removed items are hidden, users without train pairs are left out.

    Returns:
        None where no user has a pair to find.
    """
    pairs = getattr(dataset, split)
    pairs = pairs[np.isin(pairs[:, 0], dataset.train[:, 0])]
    if not len(pairs):
        return None
    return ranking_task(pairs, dataset.train, dataset.num_items, hidden=dataset.removed_items, block=block)


def forget_task(retain: Dataset, forgotten: np.ndarray, block: int = 1024) -> RankingTask | None:
    """Forgotten pairs as relevant ones: retained train items are masked, forgotten items stay candidates.

    The filter that keeps removed items out of a user's sight is not forgetting, so it does not apply here.

    Returns:
        None where there is no forgotten pair.
    """
    return ranking_task(forgotten, retain.train, retain.num_items, block=block) if len(forgotten) else None


@jax.jit
def pair_scores(embedding: jax.Array, nodes: jax.Array) -> jax.Array:
    """<Z_a, Z_b> of node pairs, int32 [n, 2] -> float [n]; items are nodes |U| + i."""
    return jnp.sum(embedding[nodes[:, 0]] * embedding[nodes[:, 1]], axis=-1)


def report(
    embedding: jax.Array, tasks: Mapping[str, RankingTask | None], ks: Sequence[int]
) -> dict[str, dict[str, float]]:
    """`ranking_metrics` of every task that exists, by name."""
    return {name: ranking_metrics(embedding, task, ks) for name, task in tasks.items() if task is not None}
