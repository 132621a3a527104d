"""The field's other methods do what their papers say, at least in direction, on data small enough to see it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import NO_PAIRS

from recunlearn_jax.backbones import mgcn
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.evaluate import held_out_task, pair_margins, ranking_metrics
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.recommender import Recommender, set_up
from recunlearn_jax.requests import forget_pairs, parse, resolve
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import METHODS, answer, prepare, scif, sharded
from recunlearn_jax.unlearn.amnesiac import recorded
from recunlearn_jax.unlearn.base import margins, row_masks
from recunlearn_jax.unlearn.rrl import fisher_information, reverse_steps
from recunlearn_jax.unlearn.scif import influence
from recunlearn_jax.unlearn.selection import touched

pytestmark = pytest.mark.slow

CONFIG = Config(
    model=mgcn.Settings(embedding_size=16, neighbours=5, layout="segment"),
    train=TrainConfig(batch_size=256, learning_rate=1e-2, max_epochs=20, patience=20),
)
TABLES = ("user_embedding", "item_embedding")


@pytest.fixture(scope="module")
def original():
    return fit(with_item_graphs(toy(150, 80, pairs_per_user=8, clusters=4, feature_size=8), 5), CONFIG)


@pytest.fixture(scope="module")
def forget_set(original):
    return resolve(parse(["pairs:5%"], 0), original.dataset)


@pytest.fixture(scope="module")
def answers(original, forget_set):
    """The answer of each method that moves parameters by the forgotten pairs, at its defaults, and surgery's."""
    return {method: answer(original, forget_set, method) for method in ("surgery", "ascent", "rrl", "scif")}


def first_pair(original):
    """A request for the first train pair."""
    return [f"pairs:{'-'.join(map(str, original.dataset.train[0]))}"]


def forget_margin(embedding, original, forget_set):
    pairs = jnp.asarray(forget_pairs(original.dataset, forget_set))
    return float(pair_margins(embedding, pairs, num_users=original.dataset.num_users).mean())


def valid_recall(embedding, dataset):
    return ranking_metrics(embedding, held_out_task(dataset, "valid"), (20,))["recall@20"]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("method", ["ascent", "rrl", "scif"])
def test_forgotten_pairs_fall_below_what_editing_the_graph_gives(method, answers, original, forget_set):
    before, after = (forget_margin(answers[m].rows, original, forget_set) for m in ("surgery", method))
    assert after < 0.9 * before, (before, after)


def test_ascent_pays_more_than_rrl(answers, original):
    """RRL's point: a regulariser holds what the others need, where plain ascent does not."""
    quality = {m: valid_recall(answers[m].rows, original.dataset) for m in ("ascent", "rrl")}
    assert quality["ascent"] < quality["rrl"], quality


def test_fisher_information_has_mean_one_and_holds_parameters(original):
    data = original.data
    size = 512  # that of the answers above, so the program is there
    fisher = fisher_information(
        jax.random.key(0), original.params, data, data.sampler, backbone=original.backbone, size=size
    )
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
            backbone=original.backbone,
            steps=100,
            size=size,
            learning_rate=1e-2,
        )
        moves = jax.tree.map(lambda f, a, b: (f * (a - b) ** 2).sum(), fisher, params, original.params)
        return float(sum(jax.tree.leaves(moves)))

    assert moved(1.0) < moved(0.0)


def test_influence_solves_its_linear_system_and_moves_touched_rows_only(original, forget_set):
    masks = row_masks(*touched(original.dataset, forget_set), original.backbone)
    assert set(masks) == set(TABLES)
    pairs = forget_pairs(original.dataset, forget_set)
    size = original.sizes.pairs
    forget = original.data.sampler._replace(
        pairs=jnp.asarray(np.pad(pairs, ((0, size - len(pairs)), (0, 0)))), num_pairs=jnp.int32(len(pairs))
    )

    def moved_by(forget):
        key, damping, data = jax.random.key(0), jnp.float32(scif.Settings().damping), original.data
        return influence(key, original.params, masks, damping, data, data.sampler, forget, backbone=original.backbone)

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
        return margins({**original.params, **t}, original.data, batch, original.backbone)

    @jax.jit
    def product(v):
        d, pull = jax.vjp(of_tables, tables)
        _, push = jax.vjp(lambda w: pull(w)[0], d)
        return push(v)[0]

    v = jax.tree.map(lambda t: jax.random.normal(jax.random.key(2), t.shape), tables)
    step = 1e-2
    ahead, behind = (of_tables(jax.tree.map(lambda t, v, s=s: t + s * v, tables, v)) for s in (step, -step))
    np.testing.assert_allclose(product(v), (ahead - behind) / (2 * step), rtol=2e-2, atol=2e-2)


def test_amnesia_takes_back_exactly_the_batches_that_held_a_forgotten_pair(original):
    memory = prepare(original, "amnesiac")
    params, record = memory.original.params, memory.record
    real = record.rows[record.rows >= 0]
    assert np.array_equal(
        np.bincount(real, minlength=len(original.dataset.train)), np.full(len(original.dataset.train), 2)
    )
    for name in TABLES:  # all of the record leads back to where it began
        back = params[name] - record.updates[name].sum(axis=0)
        np.testing.assert_allclose(back, original.params[name], atol=1e-5)
    assert memory.original.info["batches_recorded"] == len(record.rows)
    one = resolve(parse(first_pair(original)), original.dataset)
    answered = answer(original, one, "amnesiac", memory=memory)
    held = (record.rows == 0).any(axis=1)
    assert answered.info["batches_taken_back"] == held.sum() == 2  # one batch an epoch
    for name in TABLES:
        expected = params[name] - record.updates[name][held].sum(axis=0)
        np.testing.assert_allclose(answered.params[name], expected, atol=1e-5)


def test_the_prepared_memory_is_what_an_answer_uses(original, forget_set):
    """To the bit: preparing before the request and answering at once are one; and the record is that of the trained-on model."""
    memory = prepare(original, "amnesiac", {"epochs": 2}, seed=3)
    assert memory.seconds.total > 0
    with_it = answer(original, forget_set, "amnesiac", {"epochs": 2}, seed=3, memory=memory)
    without = answer(original, forget_set, "amnesiac", {"epochs": 2}, seed=3)
    assert same(with_it.params, without.params)
    assert with_it.dataset.checksum == without.dataset.checksum
    params, record = recorded(jax.random.split(jax.random.key(3), 3)[0], original, 2)
    assert same(params, memory.original.params)
    assert same(record.updates, memory.record.updates)
    other = answer(original, forget_set, "amnesiac", {"epochs": 2}, seed=4)
    assert not same(with_it.params, other.params)


def test_a_memory_serves_several_requests(original):
    """Preparing once is enough, and no answer changes what is remembered."""
    memory = prepare(original, "amnesiac")
    first = answer(original, ["users:3"], "amnesiac", memory=memory)
    answer(original, ["pairs:5%"], "amnesiac", memory=memory)
    assert same(first.params, answer(original, ["users:3"], "amnesiac", memory=memory).params)


@pytest.fixture(scope="module")
def brief(original):
    """The same model for trainings of four epochs, with nothing to validate on: less to compile."""
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, max_epochs=4))
    setup = set_up(original.dataset.replace(valid=NO_PAIRS), config)
    return Recommender(setup, original.params)


SCHEMES = {"sisa": sharded.RANDOM, "receraser": sharded.SIMILAR}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_valid_pair_hits_all_shards(name, brief):
    """Each of them stopped by all valid pairs; a pair of train hits its own."""
    settings = METHODS[name].Settings(shards=2)
    pair = brief.dataset.train[0]
    held_out = brief.dataset.replace(valid=pair[None], train=brief.dataset.train[1:])
    original = Recommender(set_up(held_out, brief.config), brief.params)
    answered = answer(original, [f"pairs:{pair[0]}-{pair[1]}"], name, settings)
    assert answered.info["trained_shards"] == 2
    assert not len(answered.dataset.valid)


@pytest.mark.parametrize("name", SCHEMES)
def test_only_hit_shards_are_retrained(name, brief, tmp_path):
    settings = METHODS[name].Settings(shards=3)
    one = resolve(parse(first_pair(brief)), brief.dataset)
    memory = prepare(brief, name, settings, work=tmp_path)
    assert memory.original.info["trained_shards"] == 3
    assert memory.original.backbone.name == "mf"
    answered = answer(brief, one, name, settings, memory=memory, work=tmp_path)
    assert answered.info["trained_shards"] == 1
    # An ensemble of shard models has neither features nor graphs.
    assert (answered.backbone.name, answered.backbone.modalities, answered.data.graphs) == ("mf", (), None)
    assert set(answered.params) == {"user_embedding", "item_embedding"}
    assert not same(answered.params, memory.original.params)
    hit = memory.record.shard_of[one.forget].tolist()
    shard_key = jax.random.split(jax.random.split(jax.random.key(0), 3)[0], 3)[0]
    assert hit == SCHEMES[name].shards(shard_key, brief, settings)[one.forget].tolist()
    # Every shard was trained before, and the one that was hit once more.
    trained = {
        stage: sorted(p.name for p in (tmp_path / stage).iterdir()) for stage in ("shards-before", "shards-after")
    }
    assert trained == {"shards-before": ["shard-0", "shard-1", "shard-2"], "shards-after": [f"shard-{hit[0]}"]}
    # The same call takes up what was kept: the same bits, and the seconds of training are told with the answer.
    again = answer(brief, one, name, settings, work=tmp_path)
    assert same(again.params, answered.params)
    if name == "sisa":  # its mean keeps the shards apart: only the columns of the one that was hit are new
        before, after = (np.asarray(m.rows).reshape(-1, 3, 16) for m in (memory.original, answered))
        kept = np.delete(np.arange(len(before)), one.users.nonzero()[0])
        changed = [i for i in range(3) if not np.array_equal(before[kept, i], after[kept, i])]
        assert changed == hit


def test_mean_of_scores_is_one_inner_product(original):
    rows = jnp.stack([original.rows, 2 * original.rows])
    z = sharded.mean_of_scores(jax.random.key(0), rows, original.data.sampler, CONFIG, sharded.Settings())
    users = original.dataset.num_users
    expected = sum(np.asarray(r[:users] @ r[users:].T) for r in rows) / 2
    np.testing.assert_allclose(z[:users] @ z[users:].T, expected, rtol=1e-4, atol=1e-4)


def test_similar_users_share_a_shard_and_shards_are_balanced(original):
    settings = sharded.AttentionSettings()
    shard_of = sharded.similar_users(jax.random.key(0), original, settings)
    data = original.dataset
    of_user = {user: set(shard_of[data.train[:, 0] == user]) for user in np.unique(data.train[:, 0])}
    assert all(len(shards) == 1 for shards in of_user.values())
    sizes = np.bincount([shards.copy().pop() for shards in of_user.values()], minlength=settings.shards)
    assert sizes.max() <= 1.2 * len(of_user) / settings.shards + 1
    rows = np.asarray(original.rows)[: data.num_users]
    chosen = np.array([of_user[user].copy().pop() for user in sorted(of_user)])
    rows = rows[sorted(of_user)]
    near = np.square(rows[:, None] - rows[None]).sum(axis=2)
    together = chosen[:, None] == chosen[None]
    assert near[together].mean() < near[~together].mean()


def test_attention_prefers_the_shard_that_knows(original):
    """Beside a shard model of noise the aggregation ranks as the good one does, where the plain mean is disturbed."""
    good = original.rows
    noise = jax.random.normal(jax.random.key(5), good.shape) * jnp.std(good) * 3
    rows, sampler = jnp.stack([good, noise]), original.data.sampler
    settings = sharded.AttentionSettings(shards=2)
    z = sharded.attention(jax.random.key(0), rows, sampler, CONFIG, settings)
    mean = sharded.mean_of_scores(jax.random.key(0), rows, sampler, CONFIG, settings)
    assert valid_recall(z, original.dataset) > valid_recall(mean, original.dataset)
    # A training at another rate shares the program, and one at no rate moves nothing.
    start = sharded.attention_params(jax.random.key(1), 2, good.shape[1])
    params, how = {"users": start, "items": start}, {"steps": 2, "size": CONFIG.train.batch_size}
    with stopwatch() as seconds:
        still = sharded.train_attention(jax.random.key(2), params, rows, sampler, **how, rate=0.0)
    assert seconds.programs == 0
    assert same(still, params)
