"""The field's other methods do what their papers say, at least in direction, on data small enough to see it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import NO_PAIRS

from recunlearn_jax.config import Config, ModelConfig, TrainConfig, UnlearnConfig
from recunlearn_jax.evaluate import held_out_task, pair_margins, ranking_metrics
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.requests import forget_pairs, parse, resolve
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import embed, embedding_of, fit
from recunlearn_jax.unlearn import METHODS, sharded
from recunlearn_jax.unlearn.amnesiac import recorded
from recunlearn_jax.unlearn.mmrecun import TABLES, moving_rows
from recunlearn_jax.unlearn.rrl import fisher_information, margins, reverse_steps
from recunlearn_jax.unlearn.scif import DAMPING, influence

CONFIG = Config(
    model=ModelConfig(embedding_size=16, neighbours=5, layout="segment"),
    train=TrainConfig(batch_size=256, learning_rate=1e-2, max_epochs=20, patience=20),
    unlearn=UnlearnConfig(steps=15, batch_size=256),
)


@pytest.fixture(scope="module")
def original():
    return fit(with_item_graphs(toy(150, 80, pairs_per_user=8, clusters=4, feature_size=8), 5), CONFIG)


@pytest.fixture(scope="module")
def forget_set(original):
    return resolve(parse(["pairs:5%"], 0), original.dataset)


def rows_of(answer):
    return embed(answer.params, answer.data.graphs, answer.data.features, model=answer.model)


def forget_margin(embedding, original, forget_set):
    pairs = jnp.asarray(forget_pairs(original.dataset, forget_set))
    return float(pair_margins(embedding, pairs, num_users=original.dataset.num_users).mean())


def valid_recall(embedding, dataset):
    return ranking_metrics(embedding, held_out_task(dataset, "valid"), (20,))["recall@20"]


@pytest.mark.parametrize("method", ["ascent", "rrl", "scif"])
def test_forgotten_pairs_fall_below_what_editing_the_graph_gives(method, original, forget_set):
    cut = METHODS["surgery"](jax.random.key(0), original, forget_set, CONFIG)
    answer = METHODS[method](jax.random.key(0), original, forget_set, CONFIG)
    before, after = (forget_margin(rows_of(a), original, forget_set) for a in (cut, answer))
    assert after < 0.9 * before, (before, after)


def test_ascent_pays_more_than_rrl(original, forget_set):
    """RRL's point: a regulariser holds what the others need, where plain ascent does not."""
    quality = {
        m: valid_recall(rows_of(METHODS[m](jax.random.key(0), original, forget_set, CONFIG)), original.dataset)
        for m in ("ascent", "rrl")
    }
    assert quality["ascent"] < quality["rrl"], quality


def test_fisher_information_has_mean_one_and_holds_parameters(original, forget_set):
    data = original.data
    fisher = fisher_information(jax.random.key(0), original.params, data, data.sampler, model=original.model, size=64)
    for name in TABLES:
        assert float(fisher[name].mean()) == pytest.approx(1, rel=1e-4)
    forget = data.sampler._replace(num_pairs=jnp.int32(40))

    def moved(fisher_weight):
        params = reverse_steps(
            jax.random.key(1),
            original.params,
            fisher,
            jnp.float32(fisher_weight),
            data,
            forget,
            model=original.model,
            steps=20,
            size=64,
            learning_rate=1e-2,
        )
        moves = jax.tree.map(lambda f, a, b: (f * (a - b) ** 2).sum(), fisher, params, original.params)
        return float(sum(jax.tree.leaves(moves)))

    assert moved(1.0) < moved(0.0)


def test_influence_solves_its_linear_system_and_moves_touched_rows_only(original, forget_set):
    masks = {
        name: jnp.asarray(rows, jnp.float32)[:, None]
        for name, rows in zip(TABLES, moving_rows(original.dataset, forget_set, 0), strict=True)
    }
    pairs = forget_pairs(original.dataset, forget_set)
    forget = original.data.sampler._replace(pairs=jnp.asarray(pairs), num_pairs=jnp.int32(len(pairs)))

    def moved_by(forget):
        key, damping, data = jax.random.key(0), jnp.float32(DAMPING), original.data
        return influence(key, original.params, masks, damping, data, data.sampler, forget, model=original.model)

    tables, residual = moved_by(forget)
    assert float(residual) < 0.01
    for name in TABLES:
        moved = np.abs(np.asarray(tables[name] - original.params[name])).max(axis=1) > 0
        assert moved.any()
        assert not (moved & (np.asarray(masks[name])[:, 0] == 0)).any()
    same, _ = moved_by(forget._replace(num_pairs=jnp.int32(0)))
    assert all(np.array_equal(same[name], original.params[name]) for name in TABLES)


def test_jacobian_products_by_two_pull_backs_are_forward_differences(original):
    users, items = jnp.asarray(original.dataset.train[:9]).T
    batch = (users, items, (items + 1) % original.dataset.num_items)
    tables = {name: original.params[name] for name in TABLES}

    @jax.jit
    def of_tables(t):
        return margins({**original.params, **t}, original.data, batch, original.model)

    v = jax.tree.map(lambda t: jax.random.normal(jax.random.key(2), t.shape), tables)
    d, pull = jax.vjp(of_tables, tables)
    _, push = jax.vjp(lambda w: pull(w)[0], d)
    step = 1e-2
    ahead, behind = (of_tables(jax.tree.map(lambda t, v, s=s: t + s * v, tables, v)) for s in (step, -step))
    np.testing.assert_allclose(push(v)[0], (ahead - behind) / (2 * step), rtol=2e-2, atol=2e-2)


def test_amnesia_takes_back_exactly_the_batches_that_held_a_forgotten_pair(original):
    params, record = recorded(jax.random.key(0), original, CONFIG.train)
    real = record.rows[record.rows >= 0]
    assert np.array_equal(
        np.bincount(real, minlength=len(original.dataset.train)), np.full(len(original.dataset.train), 2)
    )
    for name in TABLES:  # all of the record leads back to where it began
        back = params[name] - record.updates[name].sum(axis=0)
        np.testing.assert_allclose(back, original.params[name], atol=1e-5)
    one = resolve(parse([f"pairs:{'-'.join(map(str, original.dataset.train[0]))}"]), original.dataset)
    answer = METHODS["amnesiac"](jax.random.key(0), original, one, CONFIG)
    record_key, _ = jax.random.split(jax.random.key(0))
    params, record = recorded(record_key, original, CONFIG.train)
    held = (record.rows == 0).any(axis=1)
    assert answer.info["batches_taken_back"] == held.sum() == 2  # one batch an epoch
    for name in TABLES:
        expected = params[name] - record.updates[name][held].sum(axis=0)
        np.testing.assert_allclose(answer.params[name], expected, atol=1e-5)


@pytest.mark.parametrize("name", sharded.SCHEMES)
def test_only_hit_shards_are_retrained(name, original, tmp_path, monkeypatch):
    monkeypatch.setattr(sharded, "SHARDS", 3)
    original = original._replace(
        dataset=original.dataset.replace(valid=NO_PAIRS)
    )  # nothing to validate on, less to compile
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, max_epochs=4))
    one = resolve(parse([f"pairs:{'-'.join(map(str, original.dataset.train[0]))}"]), original.dataset)
    answer = sharded.answer_by_shards(name, 0, original, one, config, tmp_path)
    assert answer.unlearned.trained_shards == 1
    before, after = answer.original.models, answer.unlearned.models
    changed = [i for i in range(3) if not np.array_equal(before[i], after[i])]
    hit = sharded.SCHEMES[name].shards(jax.random.key(0), original)[one.forget]
    assert changed == hit.tolist()
    again = sharded.answer_by_shards(name, 0, original, one, config, tmp_path)
    assert np.array_equal(again.unlearned.embedding, answer.unlearned.embedding)


def test_mean_of_scores_is_one_inner_product(original):
    rows = jnp.stack([embedding_of(original), 2 * embedding_of(original)])
    z = sharded.mean_of_scores(jax.random.key(0), rows, original.dataset, CONFIG)
    users = original.dataset.num_users
    expected = sum(np.asarray(r[:users] @ r[users:].T) for r in rows) / 2
    np.testing.assert_allclose(z[:users] @ z[users:].T, expected, rtol=1e-4, atol=1e-4)


def test_similar_users_share_a_shard_and_shards_are_balanced(original):
    shard_of = sharded.similar_users(jax.random.key(0), original)
    data = original.dataset
    of_user = {user: set(shard_of[data.train[:, 0] == user]) for user in np.unique(data.train[:, 0])}
    assert all(len(shards) == 1 for shards in of_user.values())
    sizes = np.bincount([shards.copy().pop() for shards in of_user.values()], minlength=sharded.SHARDS)
    assert sizes.max() <= 1.2 * len(of_user) / sharded.SHARDS + 1
    rows = np.asarray(embedding_of(original))[: data.num_users]
    chosen = np.array([of_user[user].copy().pop() for user in sorted(of_user)])
    rows = rows[sorted(of_user)]
    near = np.square(rows[:, None] - rows[None]).sum(axis=2)
    same = chosen[:, None] == chosen[None]
    assert near[same].mean() < near[~same].mean()


def test_attention_prefers_the_shard_that_knows(original):
    """Beside a shard model of noise the aggregation ranks as the good one does, where the plain mean is disturbed."""
    good = embedding_of(original)
    noise = jax.random.normal(jax.random.key(5), good.shape) * jnp.std(good) * 3
    rows = jnp.stack([good, noise])
    z = sharded.attention(jax.random.key(0), rows, original.dataset, CONFIG)
    mean = sharded.mean_of_scores(jax.random.key(0), rows, original.dataset, CONFIG)
    assert valid_recall(z, original.dataset) > valid_recall(mean, original.dataset)
