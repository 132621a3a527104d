"""Delta: its parts and the whole against plain numpy, what stays to the bit, and an answer that can be seen."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import posed, small_dataset

from recunlearn_jax import losses
from recunlearn_jax.audit.canary import canary_ranks, plant
from recunlearn_jax.backbones import BACKBONES, BackboneKind, backbone_kind, mf
from recunlearn_jax.backbones.base import flat
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.recommender import Recommender, init_params, set_up
from recunlearn_jax.requests import parse, resolve
from recunlearn_jax.sides import KINDS as SIDES
from recunlearn_jax.sides import OTHER, sides
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import answer, prepare
from recunlearn_jax.unlearn.delta import Settings, delta, pointed, power, resized, shed
from recunlearn_jax.unlearn.neighbourhood import phi, ridge, said_without_echo, strength
from recunlearn_jax.unlearn.pull import differentiated, pull_after, slope, taken_back
from recunlearn_jax.unlearn.removal import put_in

PAIRS = np.array([[0, 0], [0, 1], [1, 1], [2, 0], [2, 2], [2, 4], [3, 2], [5, 1], [5, 4]], np.int32)
USERS, ITEMS = 6, 5  # user 4 and item 3 have no pair
KEY = jax.random.key(7)


def seen(pairs, num_users, num_items, kind):
    """Pairs as a matrix, float64: a row for each user, or for each item."""
    matrix = np.zeros((num_users, num_items))
    matrix[tuple(pairs.T)] = 1
    return matrix if kind == "users" else matrix.T


def oracle_phi(matrix, partners):
    """Row by row, in float64."""
    out, width = [], partners.shape[1]
    for row in matrix:
        held, degree = np.flatnonzero(row), row.sum()
        mean = partners[held].mean(axis=0) if degree else np.zeros(width)
        spread = sum((partners[j] / np.sqrt(degree * matrix[:, j].sum()) for j in held), np.zeros(width))
        log = np.log(1 + degree)
        out.append([*mean, *spread, *(log * mean), log, 1])
    return np.array(out)


def oracle_psi(matrix, own, partners, weights):
    """Edge by edge, in float64: phi of each partner's row less what its phi loses with the row."""
    out = []
    for row, held in enumerate(matrix):
        heard = partners.copy()
        for j in np.flatnonzero(held):
            (full,) = oracle_phi(matrix.T[[j]], own)
            without = matrix.T[[j]].copy()
            without[0, row] = 0
            # Its neighbours' degrees stay as they are: the row still has its other partners.
            (less,) = oracle_phi(without, own)
            held_by = np.flatnonzero(without[0])
            root = np.sqrt(max(without.sum(), 1) * matrix.sum(axis=1)[held_by])
            less[own.shape[1] : 2 * own.shape[1]] = (own[held_by] / root[:, None]).sum(axis=0)
            held_by = np.flatnonzero(matrix[:, j])
            root = np.sqrt(matrix[:, j].sum() * matrix.sum(axis=1)[held_by])
            full[own.shape[1] : 2 * own.shape[1]] = (own[held_by] / root[:, None]).sum(axis=0)
            heard[j] = partners[j] - (full - less) @ weights
        degrees = matrix.sum(axis=0)
        here = np.flatnonzero(held)
        mean = heard[here].mean(axis=0) if len(here) else np.zeros(heard.shape[1])
        spread = sum((heard[j] / np.sqrt(held.sum() * degrees[j]) for j in here), np.zeros(heard.shape[1]))
        log = np.log(1 + held.sum())
        out.append([*mean, *spread, *(log * mean), log, 1])
    return np.array(out)


def oracle_ridge(inputs, targets, penalty):
    """As least squares with rows that pull to 0."""
    pull = np.sqrt(penalty * np.square(inputs).sum() / inputs.shape[1])
    inputs = np.vstack([inputs, pull * np.eye(inputs.shape[1])])
    targets = np.vstack([targets, np.zeros((inputs.shape[1], targets.shape[1]))])
    return np.linalg.lstsq(inputs, targets, rcond=None)[0]


@pytest.mark.parametrize("kind", SIDES)
def test_sides_and_phi(kind):
    of_all = sides(PAIRS, USERS, ITEMS)
    side = of_all.of(kind)
    matrix = seen(PAIRS, USERS, ITEMS, kind)
    np.testing.assert_array_equal(side.degree, matrix.sum(axis=1))
    partners = np.random.default_rng(0).normal(size=(matrix.shape[1], 3)).astype(np.float32)
    ours = phi(side.near(partners))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, oracle_phi(matrix, partners), rtol=1e-5, atol=1e-6)
    some = np.array([4, 0, 3])
    np.testing.assert_array_equal(phi(of_all.of(kind, some).near(partners)), ours[some])


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("gone", [[], [0], [1, 2, 7], [3, 4, 5, 6], range(9)])
def test_sides_without_some_pairs(kind, gone):
    """As if those pairs had never been there."""
    lost = np.isin(np.arange(len(PAIRS)), gone)
    whole = sides(PAIRS, USERS, ITEMS)
    ours, theirs = whole.without(PAIRS, np.array(gone, int)), sides(PAIRS[~lost], USERS, ITEMS)
    rows = np.arange(USERS if kind == "users" else ITEMS)
    for own, other in zip(ours.of(kind, rows), theirs.of(kind), strict=True):
        np.testing.assert_array_equal(*(x if isinstance(x, np.ndarray) else x.toarray() for x in (own, other)))
    ends = PAIRS[lost, SIDES.index(kind)]
    np.testing.assert_array_equal(ours.lost[kind], np.unique(ends))
    # From what stood there before, by what changes alone.
    left = np.random.default_rng(2).permutation(rows)
    partners = np.random.default_rng(3).normal(size=(ITEMS if kind == "users" else USERS, 3)).astype(np.float32)
    before, after = whole.of(kind, left).near(partners), ours.of(kind, left).near(partners)
    found = whole.change(ours, kind, left).near(before, partners)
    np.testing.assert_allclose(found.mean, after.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.spread, after.spread, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("left", [0, 1, 30, 1000, 1999])
def test_however_few_pairs_are_left(left):
    """An item of 2,000 users with rows that have a common part: a difference of two large sums would be rounding."""
    pairs = np.column_stack([np.arange(2000), np.zeros(2000, int)]).astype(np.int32)
    partners = (5 + np.random.default_rng(0).normal(size=(2000, 3))).astype(np.float32)
    whole = sides(pairs, 2000, 1)
    ours, rows = whole.without(pairs, np.arange(left, 2000)), np.array([0])
    found = whole.change(ours, "items", rows).near(whole.of("items", rows).near(partners), partners)
    expected = ours.of("items", rows).near(partners)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.spread, expected.spread, rtol=1e-5, atol=1e-6)


def test_edges_among_some_rows():
    """The part of A_hat that some users and items have to themselves."""
    ours = sides(PAIRS, USERS, ITEMS).without(PAIRS, np.array([2, 5]))
    rows = {"users": np.array([4, 0, 3]), "items": np.array([1, 0])}
    found = ours.between(rows)
    for kind, other in (("users", "items"), ("items", "users")):
        spread = ours.of(kind, rows[kind]).spread.toarray()[:, rows[other]]
        np.testing.assert_allclose(found[kind].toarray(), spread, rtol=1e-6)


@pytest.mark.parametrize("penalty", [1e-3, 0.5])
def test_ridge(penalty):
    rng = np.random.default_rng(1)
    inputs, targets = (rng.normal(size=(40, width)).astype(np.float32) for width in (7, 3))
    inputs[:, 6] = inputs[:, 5]  # which least squares alone would not tell apart
    ours = ridge(inputs, targets, penalty)
    np.testing.assert_allclose(ours, oracle_ridge(inputs.astype(float), targets, penalty), rtol=1e-3, atol=1e-4)


def near_of(data, tables):
    return {kind: data.of(kind).near(tables[other]) for kind, other in OTHER.items()}


@pytest.mark.parametrize("kind", SIDES)
def test_what_partners_say_without_the_rows_echo(kind):
    """Edge by edge. A partner with no other edge keeps what its regression does not explain."""
    of_all, rng = sides(PAIRS, USERS, ITEMS), np.random.default_rng(5)
    matrix, other = seen(PAIRS, USERS, ITEMS, kind), SIDES[1 - SIDES.index(kind)]
    tables = {side: rng.normal(size=(n, 3)).astype(np.float32) for side, n in zip(SIDES, (USERS, ITEMS), strict=True)}
    weights, maps = (rng.normal(size=(11, 3)).astype(np.float32) for _ in range(2))
    some = np.array([4, 0, 2])
    ours = said_without_echo(of_all, near_of(of_all, tables), tables, kind, some, {kind: maps, other: weights})
    own, partners = (tables[side].astype(float) for side in (kind, other))
    theirs = (oracle_psi(matrix, own, partners, weights.astype(float)) @ maps.astype(float))[some]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_where_partners_only_echo_there_is_nothing_to_follow():
    """Users of one item each, whose rows are that item's: their regression of items is perfect, and lambda is 0."""
    pairs = np.column_stack([np.arange(40), np.repeat(np.arange(20), 2)]).astype(np.int32)
    items = np.random.default_rng(6).normal(size=(20, 3)).astype(np.float32)
    tables, data = {"users": np.repeat(items, 2, axis=0), "items": items}, sides(pairs, 40, 20)
    weights = {
        kind: ridge(phi(data.of(kind).near(tables[other])), tables[kind], 1e-9)
        for kind, other in (("users", "items"), ("items", "users"))
    }
    np.testing.assert_allclose(phi(data.of("items").near(tables["users"])) @ weights["items"], items, atol=1e-4)
    said = said_without_echo(data, near_of(data, tables), tables, "items", np.arange(20), weights)
    assert np.abs(said).max() < 1e-3 * np.abs(items).max()
    assert strength(items, said) == strength(items, np.zeros_like(items)) == 0
    assert strength(1.3 * items, items) == pytest.approx(1.3)
    assert strength(5 * items, items) == 2
    assert strength(items, 0.005 * items) == 0  # what is said is noise
    assert strength(-items, items) == 0  # rows that go the other way follow nothing


def test_pointing_and_shedding():
    rng = np.random.default_rng(7)
    own, gradient, direction = (rng.normal(size=(6, 4)).astype(np.float32) for _ in range(3))
    gradient[2] = direction[3] = 0
    ours = pointed(own, gradient)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours[2], 0)
    some = np.arange(6) != 2
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1)[some], np.linalg.norm(own, axis=1)[some], rtol=1e-6)
    cosine = np.sum(ours * gradient, axis=1)[some] / np.linalg.norm(own, axis=1)[some]
    np.testing.assert_allclose(cosine, -np.linalg.norm(gradient, axis=1)[some], rtol=1e-6)
    gone = shed(own, direction, 0.25)
    assert gone.dtype == np.float32
    np.testing.assert_allclose(gone[3], own[3] / 4, rtol=1e-6)
    left = own - gone
    np.testing.assert_allclose(np.sum(left * direction, axis=1), 0, atol=1e-5)  # nothing is left along it
    for row in (0, 1, 2, 4, 5):
        unit = direction[row] / np.linalg.norm(direction[row])
        across = own[row] - (own[row] @ unit) * unit
        np.testing.assert_allclose(left[row], 0.75 * across, rtol=1e-4, atol=1e-5)


def test_sizes_by_degree():
    """Rows of size 3 degree^0.4, some of them without a pair or 0, which tell nothing."""
    degree = np.array([1, 2, 5, 9, 30, 0, 7])
    rows = np.random.default_rng(4).normal(size=(7, 3))
    rows *= (3 * np.maximum(degree, 1) ** 0.4 / np.linalg.norm(rows, axis=1))[:, None]
    rows[6] = 0
    assert power(rows.astype(np.float32), degree) == pytest.approx(0.4, abs=1e-6)
    for alike in (np.full(7, 3), np.zeros(7, int), np.array([4, 4, 4, 4, 4, 0, 9])):
        assert power(rows.astype(np.float32), alike) == 0
    assert power(np.zeros((7, 0), np.float32), degree) == 0  # a backbone without such a table


@pytest.mark.parametrize(("share", "sizes"), [(1.0, [6, 0, 5]), (0.5, [np.sqrt(6 * 10), 0, 5]), (0.0, [10, 0, 5])])
def test_rows_keep_their_direction_when_they_are_resized(share, sizes):
    """A row that was 0, or has become so, stays as it is: no size could be right."""
    moved = np.array([[6, 8], [0, 0], [3, 4]], np.float32)
    before = np.array([[0, 3], [1, 1], [0, 0]], np.float32)
    ours = resized(moved, before, np.full(3, 2, np.float32), share)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), sizes, rtol=1e-6)
    np.testing.assert_allclose(ours[0] / np.linalg.norm(ours[0]), [0.6, 0.8], rtol=1e-6)


def untrained(name, modalities=2):
    """A set-up and parameters of order one, for which sigmoid is not everywhere a half."""
    setup = set_up(small_dataset(modalities), Config(name, backbone_kind(name).Settings(embedding_size=4)))
    params = init_params(jax.random.key(1), setup.data, backbone=setup.backbone)
    return setup, {name: 3 * table if name in setup.backbone.id_tables() else table for name, table in params.items()}


def slope_and_batch(setup, params):
    """The slope for a batch in which not every triplet counts, and the batch."""
    users, positives = setup.dataset.train.T
    batch = (users, positives, np.array([4, 3, 2, 2, 0, 1, 5, 4], np.int32))
    weights = np.array([1, 0, 1, 1, 1, 0, 1, 1], np.float32)
    triplets = tuple(map(jnp.asarray, batch))
    return slope(params, setup.data, triplets, jnp.asarray(weights), backbone=setup.backbone), batch, weights


def test_slope_by_hand():
    setup, params = untrained("mf")
    ours, (users, positives, negatives), weights = slope_and_batch(setup, params)
    e_u, e_i = (np.asarray(params[name], np.float64) / 2 for name in ("user_embedding", "item_embedding"))
    difference = e_i[positives] - e_i[negatives]
    pull = -weights / weights.sum() / (1 + np.exp(np.sum(e_u[users] * difference, axis=1)))
    of_users, of_items = np.zeros_like(e_u), np.zeros_like(e_i)
    np.add.at(of_users, users, pull[:, None] * difference)
    np.add.at(of_items, positives, pull[:, None] * e_u[users])
    np.add.at(of_items, negatives, -pull[:, None] * e_u[users])
    assert set(ours) == {"user_embedding", "item_embedding"}
    np.testing.assert_allclose(ours["user_embedding"], of_users, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours["item_embedding"], of_items, rtol=1e-5, atol=1e-7)


def test_slope_by_the_views_of_a_backbone_with_graphs():
    """MGCN: half of the id tables, the layers and features as they are."""
    setup, params = untrained("mgcn")
    ours, batch, weights = slope_and_batch(setup, params)
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


def gradient_by_hand(z, data, negatives, kept):
    """Of the mean BPR of some pairs by rows z, float64."""
    gradient = np.zeros_like(z)
    for (u, i), j in zip(data.train[kept], negatives[kept], strict=True):
        plus, minus = data.num_users + i, data.num_users + j
        c = -1 / (1 + np.exp(z[u] @ (z[plus] - z[minus]))) / kept.sum()
        gradient[u] += c * (z[plus] - z[minus])
        gradient[plus] += c * z[u]
        gradient[minus] -= c * z[u]
    return gradient


def a_hat_by_hand(data, pairs):
    size = data.num_users + data.num_items
    a = np.zeros((size, size))
    a[pairs[:, 0], data.num_users + pairs[:, 1]] = 1
    a += a.T
    root = np.sqrt(np.maximum(a.sum(axis=1), 1))
    return a / root / root[:, None]


def pulled(original, forget_set, negatives):
    """The pull on all rows before and after, by propagation."""
    data = original.dataset
    before = sides(data.train, data.num_users, data.num_items)
    layers = taken_back(np.asarray(original.rows), data.train, negatives, before, original.backbone.id_layers)
    every = {"users": np.arange(data.num_users), "items": np.arange(data.num_items)}
    gone = np.flatnonzero(forget_set.forget)
    after = before.without(data.train, gone)
    changes = {kind: before.change(after, kind, rows) for kind, rows in every.items()}
    return layers.whole(), pull_after(layers, data.train, negatives, gone, every, changes, after.between(every))


@pytest.mark.parametrize(("name", "layers"), [("mf", 0), ("lightgcn", 0), ("lightgcn", 1), ("lightgcn", 3)])
def test_the_pull_by_hand(name, layers):
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
    of_all, ours = pulled(original, forget_set, negatives)

    z = np.asarray(original.rows, np.float64) / 2

    def pull(kept):
        layer = total = gradient_by_hand(z, data, negatives, kept)
        for _ in range(layers):
            layer = a_hat_by_hand(data, data.train[kept]) @ layer
            total = total + layer
        return total / (layers + 1)

    whole = pull(np.ones(len(data.train), bool))
    np.testing.assert_allclose(np.vstack([of_all["users"], of_all["items"]]), whole, rtol=1e-4, atol=1e-7)
    theirs = pull(~forget_set.forget)
    np.testing.assert_allclose(np.vstack([ours["users"], ours["items"]]), theirs, rtol=1e-4, atol=1e-7)


def test_where_no_pair_counts_any_more_nothing_pulls():
    """All pairs that stay have a removed item as their negative: what pulls before is all that changes."""
    setup = set_up(small_dataset(0), Config("mf", backbone_kind("mf").Settings(embedding_size=4)))
    original = Recommender(setup, init_params(jax.random.key(1), setup.data, backbone=setup.backbone))
    data, before = setup.dataset, sides(setup.dataset.train, setup.dataset.num_users, setup.dataset.num_items)
    negatives = np.array([4, 3, 2, 2, 0, 1, 5, 4], np.int32)
    layers = taken_back(np.asarray(original.rows), data.train, negatives, before, 0)
    every = {"users": np.arange(data.num_users), "items": np.arange(data.num_items)}
    found = pull_after(layers, data.train, negatives, np.arange(len(data.train)), every, {}, {})
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
    layers = taken_back(np.asarray(original.rows), data.train, negatives, before, 0)
    every = {"users": np.arange(data.num_users), "items": np.arange(data.num_items)}
    found = pull_after(layers, data.train, negatives, own, every, {}, {})
    np.testing.assert_array_equal(found["users"][1], 0)
    assert found["users"].any()


@pytest.mark.parametrize("words", [["items:2"], ["items:2", "users:1"]])
def test_the_last_item_with_a_modality(words):
    """It takes the modality with it, though nobody asked for content to go."""
    dataset = small_dataset(2, graphs=False)
    only = np.where(np.arange(7)[:, None] == 2, dataset.features["image"], np.float32(0))
    dataset = dataset.replace(features={**dataset.features, "image": only})
    original = fit(dataset, Config(train=TrainConfig(batch_size=8, max_epochs=1)))
    answered = answer(original, words, "delta")
    assert answered.dataset.modalities == ("audio",)
    assert np.isfinite(answered.rows).all()


# --- answers


@pytest.fixture(scope="module")
def originals(shop):
    """A trained model of each backbone, made when it is first asked for."""

    @functools.cache
    def original(name):
        config = TrainConfig(batch_size=128, learning_rate=2e-2, max_epochs=6)
        return fit(shop, Config(name, backbone_kind(name).Settings(embedding_size=8), config))

    return original


def test_a_backbone_without_rows_of_users(shop, monkeypatch):
    """A user is the mean of its items' rows; nothing of a user's own is moved."""

    @functools.cache
    def make(shape, settings):
        whole = mf.make(shape, settings)

        def rows(params, data):
            pairs, table = data.sampler.pairs, params["item_embedding"]
            real = (jnp.arange(len(pairs)) < data.sampler.num_pairs)[:, None]
            users = jax.ops.segment_sum(jnp.where(real, table[pairs[:, 1]], 0), pairs[:, 0], shape.num_users)
            return jnp.concatenate([users / 6, table])

        def views(params, data, users, positives, negatives):
            table = rows(params, data)
            own, *items = (table[ids] for ids in (users, shape.num_users + positives, shape.num_users + negatives))
            return losses.Views(own, *items)

        def loss(params, data, batch, batch_size):
            return losses.bpr(*losses.scores(views(params, data, *batch[:3])), weights=batch[3])

        return dataclasses.replace(
            whole,
            name="items_only",
            init=lambda key, data: {"item_embedding": whole.init(key, data)["item_embedding"]},
            init_ids=lambda key: {"item_embedding": whole.init_ids(key)["item_embedding"]},
            rows=rows,
            views=views,
            loss=loss,
            tables={"item_embedding": "items"},
            id_layers=None,
        )

    monkeypatch.setitem(BACKBONES, "items_only", BackboneKind(mf.Settings, make))
    original = fit(shop, Config("items_only", mf.Settings(8), TrainConfig(batch_size=128, max_epochs=2)))
    for words in (["users:3,14"], ["items:7"], ["pairs:5%"]):
        answered = answer(original, words, "delta")
        moved = (np.asarray(answered.params["item_embedding"]) != original.params["item_embedding"]).any(axis=1)
        assert 0 < moved.sum() < len(moved)
        assert np.isfinite(answered.rows).all()


def changed(answered, original):
    """For users and items, which id rows are not those of the original, bool."""
    rows = {"users": [], "items": []}
    for name, kind in original.backbone.id_tables().items():
        rows[kind].append((np.asarray(answered[name]) != np.asarray(original.params[name])).any(axis=1))
    return [np.any(found, axis=0) for found in rows.values()]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["users:3,14"], ["pairs:10%"], ["items:7", "users:5"]])
def test_the_pull_by_propagation_is_nearly_the_whole_models(words, originals):
    """Content is left out of the way back, and rows that a request moves are taken as they were: the same direction, and the same size
    within a fifth; so rows turn nearly the same way, and as far within a quarter."""
    original = originals("mgcn")
    problem = posed(original, words, seed=1)
    data = original.dataset
    negatives = np.random.default_rng(0).choice(np.unique(data.train[:, 1]), len(data.train)).astype(np.int32)
    ours = pulled(original, problem.forget_set, negatives)
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


def moves_by_hand(before, after, forget_set, backbone, least):
    """The share of its pairs that each user and item loses, and whether its evidence changes."""
    share = {kind: 1 - after[kind].sum(axis=1) / np.maximum(before[kind].sum(axis=1), 1) for kind in before}
    share = {kind: np.where(before[kind].sum(axis=1) > 0, share[kind], 0) for kind in before}
    nothing = np.zeros(len(before["items"]), bool)
    lost = forget_set.features.get("image", nothing) if "image" in backbone.modalities else nothing
    moves = {"items": (share["items"] > 0) | lost, "users": share["users"] > 0}
    for user, row in enumerate(after["users"]):
        moves["users"][user] |= row.any() and share["items"][row > 0].mean() > least
    return share, moves


def in_direction(rows, direction):
    """The part of each row along a direction; none along zeros."""
    unit = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-30)
    return np.sum(rows * unit, axis=1, keepdims=True) * unit


def down(rows, gradient):
    """As long as each row, down its gradient."""
    there = np.linalg.norm(gradient, axis=1, keepdims=True)
    return -gradient / np.where(there > 0, there, 1) * np.linalg.norm(rows, axis=1, keepdims=True)


def pulls_by_hand(original, problem, negatives, counted, moving):
    """Before and after: where ids are propagated, each layer as it was but for the rows that move; else through the whole model. Without a
    problem nothing is forgotten."""
    data, backbone = original.dataset, original.backbone
    forget = problem.forget_set.forget if problem else np.zeros(len(data.train), bool)
    reads = bool(problem) and any(m in backbone.modalities for m in problem.forget_set.features)
    if backbone.id_layers is None or reads:
        columns = {kind: [n for n, rows in backbone.id_tables().items() if rows == kind] for kind in SIDES}
        triplets = tuple(map(jnp.asarray, (*data.train.T, negatives)))
        slopes = [
            slope(original.params, of, triplets, jnp.asarray(pairs, jnp.float32), backbone=backbone)
            for of, pairs in ((original.data, np.ones(len(counted))), (problem.retain.data, counted))
        ]
        return ({k: np.hstack([np.asarray(g[n]) for n in names]) for k, names in columns.items()} for g in slopes)
    z = np.asarray(original.rows, np.float64) / 2
    there = np.concatenate([moving["users"], moving["items"]])[:, None]
    more = len(counted) / counted.sum()
    own = gradient_by_hand(z, data, negatives, np.ones(len(counted), bool))
    layers = [(own, np.where(there, gradient_by_hand(z, data, negatives, counted), more * own))]
    a, a_left = a_hat_by_hand(data, data.train), a_hat_by_hand(data, data.train[~forget])
    for _ in range(backbone.id_layers):
        own = a @ layers[-1][0]
        layers.append((own, np.where(there, a_left @ layers[-1][1], more * own)))
    means = (np.mean(part, axis=0) for part in zip(*layers, strict=True))
    return (dict(zip(SIDES, np.split(mean, [data.num_users]), strict=True)) for mean in means)


ODD = Settings(turn_users=0.7, turn_items=0.1, follow=0.6, shed_users=0.3, shed_items=0.9, resize=0.7, penalty=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mf", "vbpr", "lightgcn"])
@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["users:3,14"], Settings()),
        (["pairs:10%", "items:7", "users:5"], ODD),
        (["modality:image:1,2,5", "items:9"], Settings()),
        (["pairs:5%"], "after another request"),
    ],
)
def test_the_rows_that_the_formulas_give(name, words, settings, originals):
    """Items by the users' rows; users by the items' rows as they were and as they are; both as far as partners do not echo, turned with
    BPR's gradient, less of what their neighbourhood leaves open, and as long as rows of their new degree."""
    original = originals(name)
    if settings == "after another request":  # its arrays are longer than its data
        original, settings = answer(original, ["users:20", "items:0"], "surgery"), Settings()
    problem = posed(original, words, "delta", settings, seed=1)
    data, forget_set, backbone = original.dataset, problem.forget_set, original.backbone
    moved, info = delta(KEY, problem, settings)
    params = put_in(original.params, moved)

    kept = ~forget_set.forget
    before = {kind: seen(data.train, data.num_users, data.num_items, kind) for kind in SIDES}
    after = {kind: seen(data.train[kept], data.num_users, data.num_items, kind) for kind in SIDES}
    columns = {kind: [n for n, rows in backbone.id_tables().items() if rows == kind] for kind in SIDES}
    old = {k: np.hstack([np.asarray(original.params[n], np.float64) for n in names]) for k, names in columns.items()}

    share, moves = moves_by_hand(before, after, forget_set, backbone, settings.least)
    moving = {kind: moves[kind] & (after[kind].sum(axis=1) > 0) for kind in SIDES}

    # One negative a pair, of the items with a pair, the same before and after; a removed item is none any more.
    negatives = problem.record.negatives
    assert set(negatives) <= set(data.train[:, 1])
    counted = kept & ~forget_set.items[negatives]
    pulled = {"users": moving["users"] & (share["users"] > 0), "items": moving["items"]}
    whole, left = pulls_by_hand(original, problem, negatives, counted, pulled)
    known = whole if backbone.id_layers is None else next(pulls_by_hand(original, None, negatives, counted, moving))
    phis = {kind: oracle_phi(before[kind], old[other]) for kind, other in OTHER.items()}
    maps = {
        kind: oracle_ridge(phis[kind][rows], old[kind][rows], settings.penalty)
        for kind, rows in ((kind, before[kind].sum(axis=1) > 0) for kind in SIDES)
    }
    new = {kind: rows.copy() for kind, rows in old.items()}
    for kind, partners in (("items", "users"), ("users", "items")):
        trained, weights = before[kind].sum(axis=1) > 0, maps[kind]
        said = oracle_psi(before[kind], old[kind], old[partners], maps[partners]) @ weights
        turn, across = (getattr(settings, f"{part}_{kind}") for part in ("turn", "shed"))
        follower = old[kind] - (turn * down(old[kind], known[kind]) if kind == "items" else 0)
        strength = np.clip(np.sum((follower * said)[trained]) / np.sum(said[trained] ** 2), 0, 2)
        explained = phis[kind] @ weights
        predicted = oracle_phi(after[kind], new[partners]) @ weights - explained
        turned = np.where(pulled[kind][:, None], down(old[kind], left[kind]) - down(old[kind], whole[kind]), 0)
        moved = old[kind] + settings.follow * strength * predicted + turn * turned
        rest = old[kind] - explained
        along = in_direction(rest, predicted)
        moved -= share[kind][:, None] * (along + across * (rest - along))
        # log |E| = p log degree + c
        degree, size = before[kind].sum(axis=1), np.linalg.norm(old[kind], axis=1)
        alike = len(set(degree[trained])) == 1  # such as the users of the toy
        power = 0 if alike else np.polyfit(np.log(degree[trained]), np.log(size[trained]), 1)[0]
        ratio = np.divide(after[kind].sum(axis=1), degree, out=np.ones(len(degree)), where=degree > 0)
        factor = size[moving[kind]] * ratio[moving[kind]] ** power / np.linalg.norm(moved[moving[kind]], axis=1)
        moved[moving[kind]] *= factor[:, None] ** settings.resize
        new[kind][moving[kind]] = moved[moving[kind]]
        assert info[f"moved_{kind}"] == moving[kind].sum()
        ours = np.hstack([np.asarray(params[n]) for n in columns[kind]])
        np.testing.assert_allclose(ours[moving[kind]], new[kind][moving[kind]], rtol=2e-3, atol=2e-4)
        still = ~moves[kind] & (after[kind].sum(axis=1) > 0)
        np.testing.assert_array_equal(ours[still], old[kind][still].astype(np.float32))
        assert moving[kind].any() == (np.abs(new[kind] - old[kind]).max() > 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mf", "mgcn"])
def test_rows_without_a_share_of_forgotten_evidence_stay(name, originals):
    """Theirs or their neighbours', told by sets of ids; layers and features stay too, and what should move does."""
    original = originals(name)
    users, items = original.dataset.train.T
    gone = items[np.isin(users, [3, 14])]
    near = np.isin(np.arange(80), users[np.isin(items, gone)])
    assert 0 < near.sum() < 80
    answered = answer(original, ["users:3,14"], "delta", Settings(least=0.0)).params
    moved_users, moved_items = changed(answered, original)
    np.testing.assert_array_equal(moved_users, near)
    np.testing.assert_array_equal(moved_items, np.isin(np.arange(60), gone))
    others = set(original.params) - set(original.backbone.id_tables())
    for path, leaf in flat({name: original.params[name] for name in others}).items():
        np.testing.assert_array_equal(flat(answered)[path], leaf)


def with_an_island(shop):
    """The shop where user 5 has item 59 and nothing else, and nobody else has it."""
    train = shop.train[(shop.train[:, 0] != 5) & (shop.train[:, 1] != 59)]
    train = np.concatenate([train, np.array([[5, 59]], np.int32)])
    return shop.replace(train=train[np.lexsort((train[:, 1], train[:, 0]))])


@pytest.fixture(scope="module")
def island(shop):
    return fit(with_an_island(shop), Config("mf", train=TrainConfig(batch_size=128, learning_rate=2e-2, max_epochs=4)))


@pytest.mark.slow
@pytest.mark.parametrize("words", ["users:5", "items:59", "pairs:5-59"])
def test_a_request_that_concerns_nobody_else_moves_nobody_else(words, island):
    """And what is left without any pair starts anew, whether or not it was asked for."""
    answered = answer(island, [words], "delta")
    assert answered.info == {"moved_users": 0, "moved_items": 0}
    moved_users, moved_items = changed(answered.params, island)
    assert np.flatnonzero(moved_users).tolist() == [5]
    assert np.flatnonzero(moved_items).tolist() == [59]


@pytest.mark.slow
def test_rows_left_without_pairs_are_drawn_anew(island):
    problem = posed(island, ["pairs:5-59"], "delta")
    params = put_in(island.params, delta(KEY, problem, Settings())[0])
    fresh = problem.fresh
    np.testing.assert_array_equal(params["user_embedding"][5], fresh["user_embedding"][5])
    np.testing.assert_array_equal(params["item_embedding"][59], fresh["item_embedding"][59])


@pytest.mark.slow
def test_content_that_a_backbone_never_saw_touches_nothing(originals):
    """A request for it edits the data and leaves every row as it was."""
    original = originals("mf")
    for words in (["modality:image"], ["modality:text:1,2,3"]):
        answered = answer(original, words, "delta")
        assert answered.dataset.checksum != original.dataset.checksum
        for name, table in original.params.items():
            np.testing.assert_array_equal(answered.params[name], table)


KINDS = {
    "users": ["users:3,14"],
    "items": ["items:7,11"],
    "both": ["users:4", "items:9"],
    "pairs": ["pairs:10%"],
    "feature rows": ["modality:image:1,2,5"],
    "all of them": ["users:4", "items:9", "pairs:5%", "modality:text:3,6"],
}
WHOLE = {"a modality": ["modality:image"], "all modalities": ["modality:image", "modality:text", "users:5%"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "ease"])
def test_every_backbone_and_every_kind_of_request_in_one_program(name, originals):
    """A program for users, items and pairs, and one for content; a whole modality is another shape of data, which has its own."""
    original = originals(name)
    before = jax.tree.map(np.array, original.params)
    for i, (kind, words) in enumerate((KINDS | WHOLE).items()):
        answered = answer(original, words, "delta")
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((answered.params, answered.rows))), kind
        first = i == 0 or kind == "feature rows"  # of content, for which the gradient goes back through the model
        assert first or kind in WHOLE or answered.seconds.programs == 0, (kind, answered.seconds)
        assert (answered.info["moved_items"] > 0) or kind not in {"users", "pairs", "all of them"}
        assert (answered.info["moved_users"] > 0) or kind not in {"items", "both", "pairs"}
    again = answer(original, ["modality:image", "users:7"], "delta")
    further = answer(answer(original, ["users:3"], "delta"), ["pairs:5%"], "delta")
    assert again.seconds.programs == further.seconds.programs == 0
    jax.tree.map(np.testing.assert_array_equal, before, original.params)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [8, 30])
def test_it_takes_apart_what_only_forgotten_users_had_taught(epochs):
    """Six users each had two items that nobody else has together: near each other they stay by surgery, and delta moves them as far
    apart as retraining does, however long the original trained. Rows that followed echoes would go too far."""
    dataset, canaries = plant(toy(200, 90, pairs_per_user=8, clusters=4, modalities=()), 3, seed=1)
    config = TrainConfig(batch_size=256, learning_rate=2e-2, max_epochs=epochs, patience=30)
    original = fit(dataset, Config("mf", backbone_kind("mf").Settings(embedding_size=16), config))
    words = [f"users:{','.join(map(str, canaries.users))}"]
    models = {method: answer(original, words, method) for method in ("surgery", "coupled", "delta")}
    memory = prepare(original, "delta")
    assert memory.record.strengths["items"] < 1
    as_regressed = memory.record._replace(strengths={"users": 1.0, "items": 1.0})
    models["lambda 1"] = answer(original, words, "delta", memory=memory._replace(record=as_regressed))
    near = canary_ranks(models["surgery"].rows, canaries, dataset.num_users)
    assert np.median(near) < 10, near  # of 89; half of them by chance

    def cosines(model):
        items = np.asarray(model.rows)[dataset.num_users :]
        a, b = (items[ids] / np.linalg.norm(items[ids], axis=1, keepdims=True) for ids in canaries.pairs.T)
        return np.sum(a * b, axis=1)

    apart = {name: np.abs(cosines(model) - cosines(models["coupled"])).mean() for name, model in models.items()}
    assert apart["delta"] < 0.1, apart
    assert apart["delta"] < 0.7 * apart["lambda 1"], apart
    assert apart["delta"] < 0.2 * apart["surgery"], apart
