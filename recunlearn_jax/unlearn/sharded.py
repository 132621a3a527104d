"""SISA and RecEraser: train one model per shard of the data, so that a request retrains only the shards it hits.

SISA (Bourtoule et al. 2021, arXiv 1912.03817): random shards, mean of the shard models' scores.
RecEraser (Chen et al. 2022, arXiv 2201.06820): similar users share a shard (balanced clustering of their embeddings), and an attention
network, itself trained anew after a request, weighs the shard models for each user and item.

Both have an original of their own, whose quality must be read alongside what they forget. The mean of inner products is one inner product
of concatenated rows, so an ensemble answers as a matrix factorisation (backbone mf) with output rows Z. The rows in service after a request
have seen nothing of what is forgotten; RecEraser's division into shards has, since it comes from embeddings of the original.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import losses
from recunlearn_jax.backbones import mf
from recunlearn_jax.backbones.base import Params, Sizes
from recunlearn_jax.config import Config
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.recommender import Recommender, embed, set_up, shapes
from recunlearn_jax.sampling import Sampler, draw_pairs
from recunlearn_jax.settings import Checked, Count, CountFromZero
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.train import OPTIMIZER, descend, train
from recunlearn_jax.unlearn.base import Memory, Method, Problem

BEFORE, AFTER = "shards-before", "shards-after"  # folders of the shards' training, inside the work folder


@dataclass(frozen=True)
class Settings(Checked):
    """Shards."""

    shards: Count = 5


@dataclass(frozen=True)
class AttentionSettings(Settings):
    """Shards whose models are weighed by an attention network."""

    aggregation_epochs: CountFromZero = 10
    """Epochs of training that network."""


class Record(NamedTuple):
    """What is remembered of the shard models."""

    shard_of: np.ndarray  # int [|train|]
    rows: list[jax.Array]  # output rows of each shard model
    config: Config  # of their training
    sizes: Sizes
    modalities: tuple[str, ...]  # that they read


class Scheme(NamedTuple):
    """How a method cuts the data and puts the shard models together."""

    shards: Callable[[jax.Array, Recommender, Any], np.ndarray]
    """(key, original, settings) -> shard of each train pair."""
    aggregate: Callable[[jax.Array, jax.Array, Sampler, Config, Any], jax.Array]
    """(key, rows [S, N, d], sampler of all pairs, config, settings) -> Z."""


def random_shards(key: jax.Array, original: Recommender, settings: Settings) -> np.ndarray:
    """SISA's shards of train pairs, int [|train|]: drawn at random, of equal size."""
    size = len(original.dataset.train)
    return np.asarray(jax.random.permutation(key, size)) % settings.shards


def similar_users(key: jax.Array, original: Recommender, settings: Settings, rounds: int = 10) -> np.ndarray:
    """RecEraser's user-based shards of train pairs, int [|train|]: clusters of user embeddings, at most about a fifth above an equal share.

    In each round, users join the nearest centre in the order of their distance to it, as long as it has room (the paper's balanced
    clustering); then the centres move.
    """
    data, shards = original.dataset, settings.shards
    rows = np.asarray(original.rows)[: data.num_users]
    degree = np.bincount(data.train[:, 0], minlength=data.num_users)
    users = np.flatnonzero(degree)
    centres = rows[np.asarray(jax.random.choice(key, jnp.asarray(users), (shards,), replace=False))]
    room = int(1.2 * len(users) / shards) + 1
    chosen = np.zeros(data.num_users, int)
    for _ in range(rounds):
        apart = np.square(rows[users, None] - centres[None]).sum(axis=2)  # [users, shards]
        free, left = np.full(shards, room), np.ones(len(users), bool)
        for place in np.argsort(apart, axis=None):
            user, shard = divmod(int(place), shards)
            if left[user] and free[shard]:
                chosen[users[user]], left[user] = shard, False
                free[shard] -= 1
        own = [rows[users][chosen[users] == shard] for shard in range(shards)]
        centres = np.stack([r.mean(axis=0) if len(r) else centre for r, centre in zip(own, centres, strict=True)])
    return chosen[data.train[:, 0]]


def mean_of_scores(key: jax.Array, rows: jax.Array, sampler: Sampler, config: Config, settings: Settings) -> jax.Array:
    """SISA's aggregation: Z with <Z_u, Z_i> = mean over shards of their scores, [N, S d]."""
    del key, sampler, config, settings
    return jnp.concatenate(list(rows), axis=1) / jnp.sqrt(jnp.float32(len(rows)))


def attention(
    key: jax.Array, rows: jax.Array, sampler: Sampler, config: Config, settings: AttentionSettings
) -> jax.Array:
    """RecEraser's aggregation, trained by BPR on all pairs of the data while the shard models stay fixed, [N, d]."""
    steps = settings.aggregation_epochs * -(-int(sampler.num_pairs) // config.train.batch_size)
    user_key, item_key, step_key = jax.random.split(key, 3)
    shards, _, d = rows.shape
    params = {"users": attention_params(user_key, shards, d), "items": attention_params(item_key, shards, d)}
    params = train_attention(
        step_key, params, rows, sampler, steps=steps, size=config.train.batch_size, rate=config.train.learning_rate
    )
    num_users = len(sampler.history_pointers) - 1
    users, items = rows[:, :num_users], rows[:, num_users:]
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


@functools.partial(jax.jit, static_argnames="size")
def train_attention(
    key: jax.Array,
    params: Any,
    rows: jax.Array,
    sampler: Sampler,
    *,
    steps: int | jax.Array,
    size: int,
    rate: float | jax.Array,
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


def prepared(scheme: Scheme, key: jax.Array, original: Recommender, settings: Settings, work: Path | None) -> Memory:
    """Train one model per shard; their ensemble is in service from then on.

    Raises:
        InputError: there are fewer users with a train pair than shards.
    """
    users = len(np.unique(original.dataset.train[:, 0]))
    if settings.shards > users:
        raise InputError(f"{settings.shards} shards asked for; with {users} users in train, 1 to {users} are allowed")
    shard_key, train_key, aggregate_key = jax.random.split(key, 3)
    shard_of = scheme.shards(shard_key, original, settings)
    pairs = [original.dataset.train[shard_of == i] for i in range(settings.shards)]
    rows, earlier = trained_rows(
        train_key, original.dataset, dict(enumerate(pairs)), original.config, original.sizes, work and work / BEFORE
    )
    every = [rows[i] for i in range(settings.shards)]
    record = Record(shard_of, every, original.config, original.sizes, original.backbone.modalities)
    z = scheme.aggregate(aggregate_key, jnp.stack(record.rows), original.data.sampler, original.config, settings)
    config = Config("mf", mf.Settings(embedding_size=z.shape[1]), original.config.train)
    setup = set_up(original.dataset, config, original.sizes)
    info = {"trained_shards": settings.shards, "ensemble_of": original.config.backbone}
    return Memory(Recommender(setup, as_tables(z, original.dataset), info=info), record, seconds=earlier)


def forget(scheme: Scheme, key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Retrain the shards that hold something to forget, and combine all shards anew."""
    train_key, aggregate_key = jax.random.split(key)
    record, asked, retain = problem.record, problem.forget_set, problem.retain
    hit: Sequence[int] = np.unique(record.shard_of[asked.forget]).tolist()
    content = asked.items.any() or set(asked.features) & set(record.modalities)
    if content or len(retain.dataset.valid) < len(problem.original.dataset.valid):
        # Every shard model saw the features and the item graphs, and stopped by all valid pairs.
        hit = range(settings.shards)
    train_pairs = problem.original.dataset.train
    pairs = {i: train_pairs[(record.shard_of == i) & ~asked.forget] for i in hit}
    work = problem.work and problem.work / AFTER
    rows, earlier = trained_rows(train_key, retain.dataset, pairs, record.config, record.sizes, work)
    stacked = jnp.stack(list((dict(enumerate(record.rows)) | rows).values()))
    z = scheme.aggregate(aggregate_key, stacked, retain.data.sampler, record.config, settings)
    return as_tables(z, retain.dataset), {
        "trained_shards": len(hit),
        "ensemble_of": record.config.backbone,
        "earlier": earlier,
    }


def trained_rows(
    key: jax.Array, dataset: Dataset, pairs: dict[int, np.ndarray], config: Config, sizes: Sizes, work: Path | None
) -> tuple[dict[int, jax.Array], Seconds]:
    """Output rows of one model per shard, and the seconds of earlier processes whose work was resumed.

    Args:
        key: typed PRNG key; the number of the shard is folded in.
        dataset: whose features, item graphs and valid pairs all shards share.
        pairs: shard -> its train pairs.
        config: of the training.
        sizes: array sizes, so that all shards run in one program.
        work: folder where each shard's training is kept, so that it can resume if it was cut off.
    """
    rows: dict[int, jax.Array] = {}
    earlier = Seconds()
    for i, own in pairs.items():
        seed = int(jax.random.bits(jax.random.fold_in(key, i), dtype=jnp.uint32) >> 1)
        if not len(own):  # a shard without pairs says nothing
            setup = set_up(dataset, config, sizes)
            kind = jax.eval_shape(functools.partial(embed, backbone=setup.backbone), shapes(setup), setup.data)
            rows[i] = jnp.zeros(kind.shape, kind.dtype)
            continue
        setup = set_up(dataset.replace(train=own), config, sizes)
        model = train(setup, seed, run=work and work / f"shard-{i}")
        rows[i], earlier = model.rows, earlier + model.seconds
    return rows, earlier


def as_tables(z: jax.Array, dataset: Dataset) -> Params:
    """Output rows as the parameters of a matrix factorisation."""
    return {"user_embedding": z[: dataset.num_users], "item_embedding": z[dataset.num_users :]}


def method(scheme: Scheme, kind: type, source: str) -> Method:
    """A method that forgets by shards."""
    makers = functools.partial(forget, scheme), functools.partial(prepared, scheme)
    return Method(kind, *makers, own_model=True, retrains=True, source=source)


RANDOM = Scheme(random_shards, mean_of_scores)
SIMILAR = Scheme(similar_users, attention)
SISA = method(RANDOM, Settings, "arXiv 1912.03817")
RECERASER = method(SIMILAR, AttentionSettings, "arXiv 2201.06820")
