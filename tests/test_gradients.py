"""The gradient of BPR by the id tables, by autodiff and by propagation, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formulas import a_hat_by_hand, gradient_by_hand
from toys import posed, small_dataset

from recunlearn_jax.backbones import backbone_kind
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.recommender import Recommender, init_params, set_up
from recunlearn_jax.requests import parse, resolve
from recunlearn_jax.sides import KINDS as SIDES
from recunlearn_jax.sides import sides
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn.delta import pointed
from recunlearn_jax.unlearn.gradients import backpropagated, bpr_gradient, differentiated, gradient_after


def untrained(name, modalities=2):
    """A set-up and parameters of order one, for which sigmoid is not everywhere a half."""
    setup = set_up(small_dataset(modalities), Config(name, backbone_kind(name).Settings(embedding_size=4)))
    params = init_params(jax.random.key(1), setup.data, backbone=setup.backbone)
    return setup, {name: 3 * table if name in setup.backbone.id_tables() else table for name, table in params.items()}


def gradient_and_batch(setup, params):
    """The gradient for a batch in which not every triplet counts, and the batch."""
    users, positives = setup.dataset.train.T
    batch = (users, positives, np.array([4, 3, 2, 2, 0, 1, 5, 4], np.int32))
    weights = np.array([1, 0, 1, 1, 1, 0, 1, 1], np.float32)
    triplets = tuple(map(jnp.asarray, batch))
    return bpr_gradient(params, setup.data, triplets, jnp.asarray(weights), backbone=setup.backbone), batch, weights


def test_gradient_by_hand():
    setup, params = untrained("mf")
    ours, (users, positives, negatives), weights = gradient_and_batch(setup, params)
    e_u, e_i = (np.asarray(params[name], np.float64) / 2 for name in ("user_embedding", "item_embedding"))
    difference = e_i[positives] - e_i[negatives]
    of_score = -weights / weights.sum() / (1 + np.exp(np.sum(e_u[users] * difference, axis=1)))
    of_users, of_items = np.zeros_like(e_u), np.zeros_like(e_i)
    np.add.at(of_users, users, of_score[:, None] * difference)
    np.add.at(of_items, positives, of_score[:, None] * e_u[users])
    np.add.at(of_items, negatives, -of_score[:, None] * e_u[users])
    assert set(ours) == {"user_embedding", "item_embedding"}
    np.testing.assert_allclose(ours["user_embedding"], of_users, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours["item_embedding"], of_items, rtol=1e-5, atol=1e-7)


def test_gradient_by_the_views_of_a_backbone_with_graphs():
    """MGCN: half of the id tables, the layers and features as they are."""
    setup, params = untrained("mgcn")
    ours, batch, weights = gradient_and_batch(setup, params)
    names = setup.backbone.id_tables()

    @jax.jit
    def gradient(tables):
        def loss(tables):
            views = setup.backbone.views({**params, **tables}, setup.data, *map(jnp.asarray, batch))
            d = jnp.sum(views.user * (views.positive - views.negative), axis=1)
            return jnp.sum(jnp.log1p(jnp.exp(-d)) * weights) / weights.sum()

        return jax.grad(loss)(tables)

    theirs = gradient({name: 0.5 * params[name] for name in names})
    assert set(ours) == set(names)
    for name in names:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def propagated(original, forget_set, negatives):
    """The gradient at all rows before and after, by propagation."""
    data = original.dataset
    before = sides(data.train, data.num_users, data.num_items)
    layers = backpropagated(np.asarray(original.rows), data.train, negatives, before, original.backbone.id_layers)
    every = {"users": np.arange(data.num_users), "items": np.arange(data.num_items)}
    gone = np.flatnonzero(forget_set.forget)
    after = before.without(data.train, gone)
    changes = {kind: before.change(after, kind, rows) for kind, rows in every.items()}
    return layers.whole(), gradient_after(layers, data.train, negatives, gone, every, changes, after.between(every))


@pytest.mark.parametrize(("name", "layers"), [("mf", 0), ("lightgcn", 0), ("lightgcn", 1), ("lightgcn", 3)])
def test_the_propagated_gradient_by_hand(name, layers):
    """In float64: the gradient by half of the rows served, propagated on the data before and after."""
    kind = backbone_kind(name)
    settings = {"user_item_layers": layers} if name == "lightgcn" else {}
    setup = set_up(small_dataset(0), Config(name, kind.Settings(embedding_size=4, **settings)))
    params = init_params(jax.random.key(1), setup.data, backbone=setup.backbone)
    original = Recommender(setup, jax.tree.map(lambda table: 3 * table, params))
    data = setup.dataset
    forget_set = resolve(parse(["users:1", "pairs:0-1"]), data)
    negatives = np.array([4, 3, 2, 2, 0, 1, 5, 4], np.int32)
    assert setup.backbone.id_layers == layers
    of_all, ours = propagated(original, forget_set, negatives)

    z = np.asarray(original.rows, np.float64) / 2

    def by_hand(kept):
        layer = total = gradient_by_hand(z, data, negatives, kept)
        for _ in range(layers):
            layer = a_hat_by_hand(data, data.train[kept]) @ layer
            total = total + layer
        return total / (layers + 1)

    whole = by_hand(np.ones(len(data.train), bool))
    np.testing.assert_allclose(np.vstack([of_all["users"], of_all["items"]]), whole, rtol=1e-4, atol=1e-7)
    theirs = by_hand(~forget_set.forget)
    np.testing.assert_allclose(np.vstack([ours["users"], ours["items"]]), theirs, rtol=1e-4, atol=1e-7)


def test_where_no_pair_counts_any_more_the_gradient_is_0():
    """All pairs that stay have a removed item as their negative: the gradient before is all that changes."""
    setup = set_up(small_dataset(0), Config("mf", backbone_kind("mf").Settings(embedding_size=4)))
    original = Recommender(setup, init_params(jax.random.key(1), setup.data, backbone=setup.backbone))
    data, before = setup.dataset, sides(setup.dataset.train, setup.dataset.num_users, setup.dataset.num_items)
    negatives = np.array([4, 3, 2, 2, 0, 1, 5, 4], np.int32)
    layers = backpropagated(np.asarray(original.rows), data.train, negatives, before, 0)
    every = {"users": np.arange(data.num_users), "items": np.arange(data.num_items)}
    found = gradient_after(layers, data.train, negatives, np.arange(len(data.train)), every, {}, {})
    for kind in SIDES:
        np.testing.assert_array_equal(found[kind], 0)


def test_a_row_whose_pairs_count_no_more_points_nowhere():
    """User 1 keeps a pair whose negative is a removed item. Rounding, brought to the size of a row, would point anywhere."""
    setup = set_up(small_dataset(0), Config("mf", backbone_kind("mf").Settings(embedding_size=4)))
    original = Recommender(setup, init_params(jax.random.key(1), setup.data, backbone=setup.backbone))
    data = setup.dataset
    negatives = np.array([4, 3, 2, 2, 0, 1, 5, 4], np.int32)
    own = np.flatnonzero(data.train[:, 0] == 1)
    before = sides(data.train, data.num_users, data.num_items)
    layers = backpropagated(np.asarray(original.rows), data.train, negatives, before, 0)
    every = {"users": np.arange(data.num_users), "items": np.arange(data.num_items)}
    found = gradient_after(layers, data.train, negatives, own, every, {}, {})
    np.testing.assert_array_equal(found["users"][1], 0)
    assert found["users"].any()


@pytest.fixture(scope="module")
def original(shop):
    """A trained MGCN."""
    config = TrainConfig(batch_size=128, learning_rate=2e-2, max_epochs=6)
    return fit(shop, Config("mgcn", backbone_kind("mgcn").Settings(embedding_size=8), config))


@pytest.mark.slow
@pytest.mark.parametrize("words", [["users:3,14"], ["pairs:10%"], ["items:7", "users:5"]])
def test_the_propagated_gradient_is_nearly_the_whole_models(words, original):
    """Content is left out of the way back, and rows that a request moves are taken as they were: the same direction, and the same size
    within a fifth; so rows turn nearly the same way, and as far within a quarter."""
    problem = posed(original, words, seed=1)
    data = original.dataset
    negatives = np.random.default_rng(0).choice(np.unique(data.train[:, 1]), len(data.train)).astype(np.int32)
    ours = propagated(original, problem.forget_set, negatives)
    theirs = [
        differentiated(original, original.setup, negatives),
        differentiated(original, problem.retain, negatives, ~problem.forget_set.forget),
    ]
    theirs = [{"users": np.asarray(g["user_embedding"]), "items": np.asarray(g["item_embedding"])} for g in theirs]
    for kind, table in (("users", "user_embedding"), ("items", "item_embedding")):
        own, exact = (before[kind] - after[kind] for before, after in (ours, theirs))
        rows = np.abs(exact).max(axis=1) > 0
        cosine, ratio = alike(own[rows], exact[rows])
        assert cosine > 0.95
        assert 0.8 < ratio < 1.2
        # What moves rows: how those that lose a pair turn.
        rows = np.unique(data.train[problem.forget_set.forget, SIDES.index(kind)])
        at = np.asarray(original.params[table])[rows]
        turns = (pointed(at, after[kind][rows]) - pointed(at, before[kind][rows]) for before, after in (ours, theirs))
        cosine, ratio = alike(*turns)
        assert cosine > 0.95
        assert 0.9 < ratio < 1.25


def alike(ours, theirs):
    """Cosine and ratio of sizes, over all rows."""
    sizes = np.linalg.norm(ours), np.linalg.norm(theirs)
    return np.sum(ours * theirs) / np.prod(sizes), sizes[0] / sizes[1]
