"""Delta: its parts and the whole against plain numpy, what stays to the bit, and an answer that can be seen."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formulas import a_hat_by_hand, gradient_by_hand, oracle_phi, oracle_psi, oracle_ridge, seen
from toys import posed, small_dataset

from recunlearn_jax import losses
from recunlearn_jax.audit.canary import canary_ranks, plant
from recunlearn_jax.backbones import BACKBONES, BackboneKind, backbone_kind, mf
from recunlearn_jax.backbones.base import flat
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.sides import KINDS as SIDES
from recunlearn_jax.sides import OTHER
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import answer, prepare
from recunlearn_jax.unlearn.delta import Settings, delta, pointed, power, resized, shed
from recunlearn_jax.unlearn.gradients import bpr_gradient
from recunlearn_jax.unlearn.removal import put_in

KEY = jax.random.key(7)


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


def gradients_by_hand(original, problem, negatives, counted, moving):
    """Before and after: where ids are propagated, each layer as it was but for the rows that move; else through the whole model. Without a
    problem nothing is forgotten."""
    data, backbone = original.dataset, original.backbone
    forget = problem.forget_set.forget if problem else np.zeros(len(data.train), bool)
    reads = bool(problem) and any(m in backbone.modalities for m in problem.forget_set.features)
    if backbone.id_layers is None or reads:
        columns = {kind: [n for n, rows in backbone.id_tables().items() if rows == kind] for kind in SIDES}
        triplets = tuple(map(jnp.asarray, (*data.train.T, negatives)))
        found = [
            bpr_gradient(original.params, of, triplets, jnp.asarray(pairs, jnp.float32), backbone=backbone)
            for of, pairs in ((original.data, np.ones(len(counted))), (problem.retain.data, counted))
        ]
        return ({k: np.hstack([np.asarray(g[n]) for n in names]) for k, names in columns.items()} for g in found)
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
    turning = {"users": moving["users"] & (share["users"] > 0), "items": moving["items"]}
    whole, left = gradients_by_hand(original, problem, negatives, counted, turning)
    known = whole if backbone.id_layers is None else next(gradients_by_hand(original, None, negatives, counted, moving))
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
        turned = np.where(turning[kind][:, None], down(old[kind], left[kind]) - down(old[kind], whole[kind]), 0)
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
