"""Ranking metrics at any list of K from the ranks of what is to be found, in user blocks, and the reports built from them.

A metric at K needs no list, only the rank of each relevant item, which is one more than the number of candidates that score higher.
Counting them is one pass over the scores while these are still in a cache, and nothing is sorted.
"""

import functools
import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from recunlearn_jax.arrays import power_of_two
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError, check_type, shown
from recunlearn_jax.mesh import spread

METRICS = ("recall", "precision", "ndcg", "map", "hit")
NEVER = np.iinfo(np.int32).max  # rank of an item that cannot be shown


class RankingTask(NamedTuple):
    """Whom to rank for, what is masked and what counts as found; cut into blocks of users on the host.

    Sizes are padded to powers of two, so that tasks of about the same size share compiled programs; blocks of padding are not computed.
    """

    users: jax.Array  # int32 [blocks, block]; padded rows repeat user 0
    real: jax.Array  # bool [blocks, block]
    masked: jax.Array  # int32 [blocks, m, 2], (row in block, item) never recommended; padding has row = block
    relevant: jax.Array  # int32 [blocks, r, 2], (row in block, item) to be found, by row; padding has row = block
    starts: jax.Array  # int32 [blocks, block + 1], row i has relevant[starts[i]:starts[i + 1]]
    hidden: jax.Array  # bool [|I|], items nobody is shown
    filled: jax.Array  # int32 scalar, number of blocks with a user; those after them are padding
    rows: jax.Array  # int32 scalar, |U| + |I|; 0 if the number of users was not given


def ranking_task(
    relevant: np.ndarray,
    masked: np.ndarray,
    num_items: int,
    *,
    users: np.ndarray | None = None,
    hidden: np.ndarray | None = None,
    block: int | None = None,
    num_users: int | None = None,
) -> RankingTask:
    """Prepare an evaluation.

    Args:
        relevant: int [n, 2], (user, item) pairs to be found.
        masked: int [m, 2], pairs that are not candidates, such as the user's train history.
        num_items: |I|.
        users: whom to rank for; by default everyone in `relevant`.
        hidden: bool [|I|], items that are candidates for nobody.
        block: users at a time; memory is block x |I| floats. By default few on a CPU, whose cache holds their scores, else many.
        num_users: |U|, by which rows of other data are recognised; unknown if None.

    Raises:
        InputError: pairs of the wrong form or of items that do not exist, or a mask of the wrong size.
    """
    relevant, masked = (_item_pairs(x, num_items, name) for x, name in ((relevant, "relevant"), (masked, "masked")))
    hidden = np.zeros(num_items, bool) if hidden is None else np.asarray(hidden)
    if hidden.shape != (num_items,) or hidden.dtype != bool:
        raise InputError(f"hidden: shape {hidden.shape}, dtype {hidden.dtype}; bool [{num_items}] is allowed")
    if block is not None and block < 1:
        raise InputError(f"block is {block}; at least 1 is allowed")
    users = np.unique(relevant[:, 0]) if users is None else np.asarray(users)
    # A block takes as many passes over its scores as its busiest user has items to find, so similar users share a block.
    wanted = np.bincount(relevant[:, 0], minlength=int(users.max(initial=0)) + 1)
    users = users[np.argsort(-wanted[users], kind="stable")]
    block = min(block or (128 if jax.default_backend() == "cpu" else 4096), power_of_two(len(users)))
    filled = -(-len(users) // block)
    blocks = power_of_two(filled)
    padded = np.pad(users.astype(np.int32), (0, blocks * block - len(users)))
    place = np.full(1 + max(int(x[:, 0].max(initial=0)) for x in (relevant, masked, users[:, None])), -1)
    place[users] = np.arange(len(users))

    def cut(pairs):
        rows = place[pairs[:, 0]]
        rows, items = rows[rows >= 0], pairs[rows >= 0, 1]
        order = np.argsort(rows, kind="stable")
        rows, items = rows[order], items[order]
        bounds = np.searchsorted(rows, np.arange(blocks + 1) * block)
        width = power_of_two(int(np.diff(bounds).max()))
        out = np.full((blocks, width, 2), (block, 0), np.int32)
        for b, (low, high) in enumerate(itertools.pairwise(bounds)):
            out[b, : high - low, 0] = rows[low:high] - b * block
            out[b, : high - low, 1] = items[low:high]
        return out

    found = cut(relevant)
    starts = [np.searchsorted(rows, np.arange(block + 1)) for rows in found[:, :, 0]]
    return RankingTask(
        users=jnp.asarray(padded.reshape(blocks, block)),
        real=jnp.asarray((np.arange(blocks * block) < len(users)).reshape(blocks, block)),
        masked=jnp.asarray(cut(masked)),
        relevant=jnp.asarray(found),
        starts=jnp.asarray(np.stack(starts), jnp.int32),
        hidden=jnp.asarray(hidden),
        filled=jnp.int32(filled),
        rows=jnp.int32(0 if num_users is None else num_users + num_items),
    )


def _item_pairs(given: np.ndarray, num_items: int, name: str) -> np.ndarray:
    pairs = np.asarray(given)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise InputError(f"{name}: shape {pairs.shape}, dtype {pairs.dtype}; whole-number pairs [n, 2] are allowed")
    bad = np.flatnonzero((pairs < 0).any(axis=1) | (pairs[:, 1] >= num_items))
    if len(bad):
        user, item = pairs[bad[0]].tolist()
        raise InputError(
            f"{name}: pair {bad[0]} is of user {user} and item {item}; there are items 0 to {num_items - 1}"
        )
    return pairs


def relevant_ranks(
    scores: Float[Array, "I B"], hidden: Bool[Array, "I"], relevant: Int[Array, "r 2"], starts: Int[Array, "starts"]
) -> Int[Array, "r"]:
    """Rank of each relevant item among its user's candidates, 1 for the first; the lower id wins a tie, as in a sorted list.

    Args:
        scores: float [|I|, B], one column per user; -inf where an item is not a candidate.
        hidden: bool [|I|], items that are candidates for nobody.
        relevant: int32 [r, 2], (column, item) by column; padding behind.
        starts: int32 [B + 1], column i has relevant[starts[i]:starts[i + 1]].

    Returns:
        int32 [r], ascending within a column; `NEVER` for an item that is not a candidate or whose score is NaN.
    """
    ids = jnp.arange(scores.shape[0], dtype=jnp.int32)[:, None]
    last = relevant.shape[0] - 1

    def one_each(k, ranks):
        place = starts[:-1] + k  # the k-th item of every column that has that many
        item = relevant[jnp.minimum(place, last), 1]
        score = jnp.take_along_axis(scores, item[None], axis=0)
        ahead = (scores > score) | ((scores == score) & (ids < item[None]))
        rank = 1 + jnp.sum(ahead & ~hidden[:, None], axis=0, dtype=jnp.int32)
        # A NaN score compares as false with everything, and must not count as the best.
        rank = jnp.where((score[0] > -jnp.inf) & ~hidden[item], rank, NEVER)
        return ranks.at[jnp.where(place < starts[1:], place, last + 1)].set(rank, mode="drop")

    ranks = jax.lax.fori_loop(0, jnp.max(jnp.diff(starts)), one_each, jnp.full(last + 1, NEVER, jnp.int32))
    return ranks[jnp.lexsort((ranks, relevant[:, 0]))]


def metrics_at_k(
    ranks: Int[Array, "n"], rows: Int[Array, "n"], num_relevant: Int[Array, "users"], k: Int[Array, ""]
) -> Float[Array, "5 users"]:
    """Recall, precision, NDCG, MAP and hit rate at K from the ranks of relevant items, in the order of `METRICS`.

        Recall@K = hits / |pos|           precision@K = hits / K        hit@K = [hits > 0]
        NDCG@K   = sum_k rel(k) / log2(k + 1), divided by the same sum for min(K, |pos|) hits at the top
        AP@K     = sum_k precision(k) rel(k) / min(K, |pos|)

    Args:
        ranks: int32 [n], from 1, ascending within a user.
        rows: int32 [n], the user of each rank, ascending; those >= users are padding.
        num_relevant: int32 [users], |pos|, how many of `rows` are this user's.
        k: int scalar, K; may be traced, so the function vmaps over K.

    Returns:
        float32 [5, users].

    Reference: MMRec's TopKEvaluator.

    Examples:
        >>> ranks, rows = jnp.array([1, 3, 2]), jnp.array([0, 0, 1])  # user 0 finds its items at ranks 1 and 3, user 1 at rank 2
        >>> metrics_at_k(ranks, rows, jnp.array([2, 1]), jnp.int32(2))[0].tolist()
        [0.5, 1.0]
    """
    inside = ranks <= k
    rank = jnp.where(inside, ranks, 1).astype(jnp.float32)
    count = jnp.arange(1, len(ranks) + 1, dtype=jnp.int32)
    order = (count - (jnp.cumsum(num_relevant) - num_relevant)[rows]).astype(jnp.float32)  # hits down to this one

    def per_user(values):
        return jax.ops.segment_sum(jnp.where(inside, values, 0), rows, len(num_relevant), indices_are_sorted=True)

    hits, gain, precisions = per_user(jnp.ones_like(rank)), per_user(1 / jnp.log2(rank + 1)), per_user(order / rank)
    k = k.astype(jnp.float32)
    positives = jnp.maximum(num_relevant, 1).astype(jnp.float32)
    possible = jnp.minimum(positives, k)
    ideal = jnp.cumsum(1 / jnp.log2(count.astype(jnp.float32) + 1))[possible.astype(jnp.int32) - 1]
    return jnp.stack([hits / positives, hits / k, gain / ideal, precisions / possible, jnp.minimum(hits, 1)])


def top_items(
    user_rows: Float[Array, "B d"],
    item_table: Float[Array, "I d"],
    masked: Int[Array, "m 2"],
    hidden: Bool[Array, "I"],
    k: int,
) -> Int[Array, "B k"]:
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


def task_ranks(embedding: Float[Array, "N d"], task: RankingTask) -> Int[Array, "blocks r"]:
    """Ranks of all relevant items of a task, int32 [blocks, r], ascending within a user; see `relevant_ranks`."""
    num_users = embedding.shape[0] - len(task.hidden)
    items = embedding[num_users:]

    def one_block(b, ranks):
        masked = task.masked[b]
        # WHY items first: a sum down the columns is what a CPU can vectorise.
        scores = items @ embedding[spread(task.users[b])].T
        scores = scores.at[masked[:, 1], masked[:, 0]].set(-jnp.inf, mode="drop")
        return ranks.at[b].set(relevant_ranks(scores, task.hidden, task.relevant[b], task.starts[b]))

    never = jnp.full(task.relevant.shape[:2], NEVER, jnp.int32)
    return jax.lax.fori_loop(0, task.filled, one_block, never)


_task_ranks = jax.jit(task_ranks)


def ranks_found(embedding: jax.Array, task: RankingTask) -> np.ndarray:
    """Rank of every pair of a task in its user's list, int [n]; ranks of one user are in ascending order, `NEVER` for what is hidden."""
    _check_rows(embedding, task)
    ranks = np.asarray(_task_ranks(embedding, task))
    return ranks[np.asarray(task.relevant[:, :, 0]) < task.users.shape[1]]


@jax.jit
def rank(embedding: Float[Array, "N d"], task: RankingTask, ks: Int[Array, "K"]) -> Float[Array, "5 K"]:
    """[5, K] means over the real users."""
    ranks = task_ranks(embedding, task)
    at_k = jax.vmap(metrics_at_k, (None, None, None, 0))
    values = jax.vmap(at_k, (0, 0, 0, None))(ranks, task.relevant[:, :, 0], jnp.diff(task.starts), ks)
    total = jnp.sum(jnp.where(task.real[:, None, None, :], values, 0), axis=(0, 3))  # of [blocks, K, 5, block]
    return (total / jnp.maximum(jnp.sum(task.real, dtype=jnp.float32), 1)).T


def list_length(k: object) -> int:
    """The length of a list, as a Python number.

    Raises:
        InputError: it is not a whole number of at least 1.

    Examples:
        >>> list_length(np.int32(20))
        20
    """
    try:
        length = operator.index(k)  # pyright: ignore[reportArgumentType]
    except TypeError:
        length = 0
    if length < 1 or isinstance(k, bool):
        raise InputError(f"k is {shown(k)}; a whole number of at least 1 is allowed")
    return length


def described(embedding: object) -> str:
    """How a message describes rows: by their shape, or by what was given instead."""
    shape = getattr(embedding, "shape", None)
    return f"a {type(embedding).__name__} given" if shape is None else f"shape {shape}"


def _check_rows(embedding: jax.Array, task: RankingTask) -> None:
    """Refuse rows that do not fit the task: an index beyond the rows would silently read the last one."""
    check_type(task, RankingTask, "task", "there is none where no user has a pair to find")
    rows, shape = int(task.rows), getattr(embedding, "shape", ())
    least = rows or int(np.asarray(task.users).max()) + 1 + len(task.hidden)
    if len(shape) != 2 or shape[0] < least or rows not in (0, shape[0]):
        wanted = f"{rows} rows" if rows else f"at least {least} rows"
        raise InputError(f"embedding: {described(embedding)}; the task expects {wanted}, such as `model.rows`")


def ranking_metrics(embedding: jax.Array, task: RankingTask, ks: Sequence[int]) -> dict[str, float]:
    """Metrics of a model on a task, means over its users.

    Args:
        embedding: float [|U| + |I|, d], Z.
        task: from `ranking_task`.
        ks: list lengths; those beyond |I| are cut to |I|.

    Returns:
        {"recall@20": ..., ...} for every metric and K.

    Raises:
        InputError: a length is not a whole number of at least 1, or the rows are not those of the task's data.
    """
    _check_rows(embedding, task)
    ks = [list_length(k) for k in ([ks] if np.ndim(ks) == 0 else ks)]
    cut = jnp.asarray([min(k, len(task.hidden)) for k in ks], jnp.int32)
    values = np.asarray(rank(embedding, task, cut))
    return {f"{name}@{k}": float(values[m, i]) for m, name in enumerate(METRICS) for i, k in enumerate(ks)}


def task_on(
    dataset: Dataset, pairs: np.ndarray, *, hidden: np.ndarray | None = None, block: int | None = None
) -> RankingTask:
    """A task: pairs that a model of a data set is to find, with its train pairs masked; `hidden` and `block` as for `ranking_task`."""
    return ranking_task(
        pairs, dataset.train, dataset.num_items, hidden=hidden, block=block, num_users=dataset.num_users
    )


def held_out_task(dataset: Dataset, split: str, block: int | None = None) -> RankingTask | None:
    """Valid or test by the protocol of MMRec: the user's train items are masked, removed items are hidden, users without train pairs are
    left out. Lists that are served leave out a user's valid and test items, too.

    Returns:
        None where no user has a pair to find.

    Raises:
        InputError: another split.
    """
    if split not in ("valid", "test"):
        raise InputError(f"split is {shown(split)}; valid and test are held out")
    pairs = getattr(dataset, split)
    pairs = pairs[np.isin(pairs[:, 0], dataset.train[:, 0])]
    if not len(pairs):
        return None
    return task_on(dataset, pairs, hidden=dataset.removed_items, block=block)


def forget_task(retain: Dataset, forgotten: np.ndarray, block: int | None = None) -> RankingTask | None:
    """Forgotten pairs as relevant ones: retained train items are masked, forgotten items stay candidates.

    The filter that keeps removed items out of a user's sight is not forgetting, so it does not apply here.

    Returns:
        None where there is no forgotten pair.
    """
    if not len(forgotten):
        return None
    return task_on(retain, forgotten, block=block)


@jax.jit
def pair_scores(embedding: Float[Array, "N d"], nodes: Int[Array, "n 2"]) -> Float[Array, "n"]:
    """<Z_a, Z_b> of node pairs, int32 [n, 2] -> float [n]; items are nodes |U| + i."""
    return jnp.sum(embedding[nodes[:, 0]] * embedding[nodes[:, 1]], axis=-1)


@functools.partial(jax.jit, static_argnames="num_users")
def pair_margins(embedding: Float[Array, "N d"], pairs: Int[Array, "n 2"], *, num_users: int) -> Float[Array, "n"]:
    """Score of each (user, item) pair, int32 [n, 2], above its user's mean score over all items, float [n]."""
    rows = embedding[num_users + pairs[:, 1]] - jnp.mean(embedding[num_users:], axis=0)[None]
    return jnp.sum(embedding[pairs[:, 0]] * rows, axis=-1)


def report(
    embedding: jax.Array, tasks: Mapping[str, RankingTask | None], ks: Sequence[int]
) -> dict[str, dict[str, float]]:
    """`ranking_metrics` of every task that exists, by name."""
    return {name: ranking_metrics(embedding, task, ks) for name, task in tasks.items() if task is not None}
