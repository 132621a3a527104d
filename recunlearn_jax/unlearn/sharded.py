"""SISA and RecEraser: train one model a shard of the data, so that a request retrains only the shards it hits. Exact.

SISA (Bourtoule et al. 2021, arXiv 1912.03817): random shards, mean of the shard models' scores.
RecEraser (Chen et al. 2022, arXiv 2201.06820): similar users share a shard (balanced clustering of their embeddings), and an attention
network, itself trained anew after a request, weighs the shard models for each user and item.

Both have an original of their own, whose quality must be read beside what they forget. The mean of inner products is one inner product of
concatenated rows, so an ensemble has output rows Z like any other model. RecEraser's shards come from embeddings that saw what is
forgotten later.
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import losses
from recunlearn_jax.config import Config
from recunlearn_jax.data import Dataset
from recunlearn_jax.requests import ForgetSet, retained
from recunlearn_jax.sampling import Sampler, draw_pairs
from recunlearn_jax.stopwatch import Seconds, stopwatch
from recunlearn_jax.train import OPTIMIZER, Trained, descend, embedding_of, fit, train_data

SHARDS = 5
AGGREGATION_EPOCHS = 10


class Ensemble(NamedTuple):
    """Shard models and what their aggregation gives."""

    embedding: jax.Array  # Z, float32 [|U| + |I|, SHARDS d] for SISA, [|U| + |I|, d] for RecEraser
    models: list[jax.Array]  # output rows of each shard model
    seconds: Seconds
    trained_shards: int


class Answer(NamedTuple):
    """A request answered by retraining shards."""

    original: Ensemble
    unlearned: Ensemble


def random_shards(key: jax.Array, original: Trained) -> np.ndarray:
    """SISA's shards of train pairs, int [|train|]: drawn at random, of equal size."""
    size = len(original.dataset.train)
    return np.asarray(jax.random.permutation(key, size)) % SHARDS


def similar_users(key: jax.Array, original: Trained, rounds: int = 10) -> np.ndarray:
    """RecEraser's user-based shards of train pairs, int [|train|]: clusters of user embeddings, at most a fifth above an equal share.

    Each round lets users choose the nearest centre in the order of their distance to it, as long as it has room (the paper's
    balanced clustering), then moves the centres.
    """
    data = original.dataset
    rows = np.asarray(embedding_of(original))[: data.num_users]
    degree = np.bincount(data.train[:, 0], minlength=data.num_users)
    users = np.flatnonzero(degree)
    centres = rows[np.asarray(jax.random.choice(key, jnp.asarray(users), (SHARDS,), replace=False))]
    room = int(1.2 * len(users) / SHARDS) + 1
    chosen = np.zeros(data.num_users, int)
    for _ in range(rounds):
        apart = np.square(rows[users, None] - centres[None]).sum(axis=2)  # [users, SHARDS]
        free, left = np.full(SHARDS, room), np.ones(len(users), bool)
        for place in np.argsort(apart, axis=None):
            user, shard = divmod(int(place), SHARDS)
            if left[user] and free[shard]:
                chosen[users[user]], left[user] = shard, False
                free[shard] -= 1
        centres = np.stack([rows[users][chosen[users] == shard].mean(axis=0) for shard in range(SHARDS)])
    return chosen[data.train[:, 0]]


def mean_of_scores(key: jax.Array, rows: jax.Array, dataset: Dataset, config: Config) -> jax.Array:
    """SISA's aggregation: Z with <Z_u, Z_i> = mean over shards of their scores, [N, SHARDS d]."""
    del key, dataset, config
    return jnp.concatenate(list(rows), axis=1) / jnp.sqrt(jnp.float32(len(rows)))


def attention(key: jax.Array, rows: jax.Array, dataset: Dataset, config: Config) -> jax.Array:
    """RecEraser's aggregation, trained by BPR on all pairs of the data while the shard models stay as they are, [N, d]."""
    sampler = train_data(dataset.replace(features={}, similarities={}), config).sampler
    steps = AGGREGATION_EPOCHS * -(-len(dataset.train) // config.train.batch_size)
    user_key, item_key, step_key = jax.random.split(key, 3)
    shards, _, d = rows.shape
    params = {"users": attention_params(user_key, shards, d), "items": attention_params(item_key, shards, d)}
    params = train_attention(
        step_key, params, rows, sampler, steps=steps, size=config.train.batch_size, rate=config.train.learning_rate
    )
    users, items = rows[:, : dataset.num_users], rows[:, dataset.num_users :]
    return jnp.concatenate([attended(params["users"], users), attended(params["items"], items)])


def attention_params(key: jax.Array, shards: int, d: int) -> dict[str, jax.Array]:
    """Parameters of `attended`: transfers start as the identity."""
    mix_key, score_key = jax.random.split(key)
    return {
        "transfer": jnp.tile(jnp.eye(d)[None], (shards, 1, 1)),
        "shift": jnp.zeros((shards, d)),
        "mix": jax.random.normal(mix_key, (d, d)) / jnp.sqrt(jnp.float32(d)),
        "bend": jnp.zeros(d),
        "score": jax.random.normal(score_key, (d,)) / jnp.sqrt(jnp.float32(d)),
    }


def attended(params: dict[str, jax.Array], rows: jax.Array) -> jax.Array:
    """sum_s a_s (W_s e_s + b_s), a = softmax over shards of h^T relu(M (W_s e_s + b_s) + c); rows [S, n, d] -> [n, d]."""
    moved = jnp.einsum("snd,sde->sne", rows, params["transfer"]) + params["shift"][:, None]
    scores = jax.nn.relu(moved @ params["mix"] + params["bend"][None, None]) @ params["score"]
    return jnp.sum(jax.nn.softmax(scores, axis=0)[..., None] * moved, axis=0)


@functools.partial(jax.jit, static_argnames=("steps", "size", "rate"))
def train_attention(
    key: jax.Array, params: Any, rows: jax.Array, sampler: Sampler, *, steps: int, size: int, rate: float
) -> Any:
    """The aggregation's parameters after `steps` steps of Adam on BPR."""
    num_users = len(sampler.history_pointers) - 1

    def loss(params, users, positives, negatives):
        user = attended(params["users"], rows[:, users])
        items = attended(params["items"], rows[:, num_users + jnp.concatenate([positives, negatives])])
        positive, negative = jnp.split(items, 2)
        return losses.bpr(jnp.sum(user * positive, axis=-1), jnp.sum(user * negative, axis=-1))

    def step(i, carry):
        *batch, _ = draw_pairs(jax.random.fold_in(key, i), sampler, size)
        params, opt_state = carry
        return descend(jax.grad(loss)(params, *batch), opt_state, params, rate)

    return jax.lax.fori_loop(0, steps, step, (params, OPTIMIZER.init(params)))[0]


class Scheme(NamedTuple):
    """How a method cuts the data and puts the shard models together."""

    shards: Callable[[jax.Array, Trained], np.ndarray]
    aggregate: Callable[[jax.Array, jax.Array, Dataset, Config], jax.Array]


SCHEMES = {"sisa": Scheme(random_shards, mean_of_scores), "receraser": Scheme(similar_users, attention)}


def answer_by_shards(
    name: str, seed: int, original: Trained, forget_set: ForgetSet, config: Config, folder: Path | None = None
) -> Answer:
    """Train an ensemble on all data, then answer a request by retraining the shards it hits.

    Args:
        name: in `SCHEMES`.
        seed: of shards and training.
        original: the model of all data; only RecEraser's clustering looks at it.
        forget_set: resolved on its data.
        config: settings of training.
        folder: where each shard's training is kept, so that one that was cut off goes on.

    Returns:
        Both ensembles; the seconds of the second are those of the request: retrained shards and aggregation.
    """
    scheme, data = SCHEMES[name], original.dataset
    shard_of = scheme.shards(jax.random.key(seed), original)
    retain = retained(data, forget_set)
    kept = ~forget_set.forget
    hit = np.unique(shard_of[forget_set.forget])
    if forget_set.features or forget_set.items.any():
        hit = np.arange(SHARDS)  # every shard model saw the features and the item graphs

    def model(kind: str, dataset: Dataset, rows: np.ndarray, i: int) -> Trained:
        run = None if folder is None else folder / f"{kind}-{i}"
        return fit(dataset.replace(train=rows), config, seed=seed + 1 + i, run=run, like=data)

    def ensemble(rows: list[jax.Array], dataset: Dataset, seconds: Seconds, trained: int) -> Ensemble:
        z = scheme.aggregate(jax.random.key(seed + 1), jnp.stack(rows), dataset, config)
        return Ensemble(jax.block_until_ready(z), rows, seconds, trained)

    with stopwatch() as seconds:
        first = [model("original", data, data.train[shard_of == i], i) for i in range(SHARDS)]
        before = ensemble([embedding_of(m) for m in first], data, seconds, SHARDS)
    with stopwatch() as again:
        second = {int(i): model("retained", retain, data.train[(shard_of == i) & kept], int(i)) for i in hit}
        rows = [embedding_of(second[i]) if i in second else z for i, z in enumerate(before.models)]
        after = ensemble(rows, retain, again, len(hit))
    count_in_full(seconds, first)
    count_in_full(again, second.values())
    return Answer(before, after)


def count_in_full(seconds: Seconds, models: Iterable[Trained]) -> None:
    """Let a training that was resumed count with what it took before it was cut off."""
    spent = [m.seconds for m in models]
    seconds.total = max(seconds.total, sum(s.total for s in spent))
    seconds.compiling = max(seconds.compiling, sum(s.compiling for s in spent))
