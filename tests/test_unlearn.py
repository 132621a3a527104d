"""Unlearning: how a method is asked, that forgetting lowers forgotten pairs, and MMRecUN's steps; test_leaks.py looks at every answer."""

import dataclasses
import gc
import weakref

import jax
import numpy as np
import pytest
from toys import posed

from recunlearn_jax import losses
from recunlearn_jax.audit.canary import canary_ranks, plant
from recunlearn_jax.backbones import mf, mgcn
from recunlearn_jax.backbones.base import flat
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import forget_task, ranking_metrics
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.recommender import Recommender, set_up
from recunlearn_jax.requests import forget_pairs, parse, resolve, to_json
from recunlearn_jax.sampling import build_sampler, draw_pairs
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import METHODS, answer, finetune, mmrecun, prepare
from recunlearn_jax.unlearn.base import forget_sampler

pytestmark = pytest.mark.slow

CONFIG = Config(
    model=mgcn.Settings(embedding_size=16, neighbours=5, layout="segment"),
    train=TrainConfig(batch_size=256, learning_rate=1e-2, max_epochs=30, patience=30),
)
SETTINGS = {
    "mmrecun": {"steps": 15, "batch_size": 256},
    "finetune": {"epochs": 1},
    "rrl": {"steps": 15},
    "ascent": {"steps": 15},
    "sisa": {"shards": 2},
    "receraser": {"shards": 2, "aggregation_epochs": 1},
}
WORDS = ["users:3,4,5", "items:7", "pairs:5%", "modality:image:1,2,3"]


def made():
    return fit(with_item_graphs(toy(150, 80, pairs_per_user=8, clusters=4, feature_size=8), 5), CONFIG)


@pytest.fixture(scope="module")
def original():
    return made()


def answered(original, words, method="mmrecun", **changes):
    """The answer of a method at the settings of this module, with changes."""
    return answer(original, words, method, SETTINGS.get(method, {}) | changes)


def forget_recall(answer, original, forget_set):
    task = forget_task(answer.dataset, forget_pairs(original.dataset, forget_set))
    return ranking_metrics(answer.rows, task, (20,))["recall@20"]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_all_modalities_can_go(original):
    answer = answered(original, ["modality:image", "modality:text"], "surgery")
    assert sorted(answer.params) == ["item_embedding", "user_embedding"]


def test_words_a_request_and_a_forget_set_are_one(original):
    """However the request is handed in, and however the settings are, the answer is the same to the bit."""
    request = parse(WORDS)
    forget_set = resolve(request, original.dataset)
    changed = mmrecun.Settings(**SETTINGS["mmrecun"])
    kept = to_json(request)
    asked = ((WORDS, SETTINGS["mmrecun"]), (request, changed), (kept, changed), (forget_set, changed))
    first, *others = (answer(original, what, "mmrecun", settings, seed=5) for what, settings in asked)
    for other in others:
        assert same(first.params, other.params)
        assert first.dataset.checksum == other.dataset.checksum
    assert not same(first.params, answer(original, WORDS, "mmrecun", changed, seed=6).params)


def test_no_settings_are_the_defaults_and_no_method_is_delta(original):
    assert same(
        answer(original, ["users:3"], "finetune").params,
        answer(original, ["users:3"], "finetune", finetune.Settings()).params,
    )
    assert next(iter(METHODS)) == "delta"
    assert same(answer(original, ["users:3"]).params, answer(original, ["users:3"], "delta").params)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("mmrecun", {"stepz": 3}, "mmrecun: unknown setting 'stepz'; did you mean 'steps'?"),
        ("mmrecun", {"steps": "many"}, "mmrecun.steps: 'many' is not of type int"),
        ("mmrecun", {"reverse": "turn"}, "'turn' is not one of 'swap', 'ascent'"),
        ("mmrecun", finetune.Settings(), r"mmrecun: settings are recunlearn_jax\.unlearn\.mmrecun\.Settings; got"),
        ("surgery", {"steps": 3}, "surgery: unknown setting 'steps'"),
        ("mmrecum", None, "method 'mmrecum' is not known; did you mean 'mmrecun'?"),
        (None, None, "method None is not known"),
        (["delta"], None, r"method \['delta'\] is not known"),
    ],
)
def test_settings_that_do_not_fit_are_refused(method, settings, message, original, unchecked):
    with pytest.raises(InputError, match=message):
        answer(original, ["users:3"], method, settings)


@pytest.mark.parametrize(("reverse", "forget_graph"), [("swap", "original"), ("ascent", "edited")])
def test_mmrecun_lowers_forgotten_pairs_beyond_surgery(reverse, forget_graph, original):
    """The sign of the reverse term: public re-implementations have raised the scores they meant to lower."""
    forget_set = resolve(parse(["pairs:10%"]), original.dataset)
    cut = answered(original, forget_set, "surgery")
    changes = {"reverse": reverse, "forget_graph": forget_graph, "alpha": 0.5, "learning_rate": 1e-2}
    first, last = (answered(original, forget_set, steps=steps, **changes) for steps in (1, 60))
    assert last.info["forget_margin"] < first.info["forget_margin"] - 1
    assert forget_recall(last, original, forget_set) < 0.8 * forget_recall(cut, original, forget_set)


@pytest.fixture(scope="module")
def plain(original):
    """A model without content and without a contrast."""
    config = Config("mf", mf.Settings(embedding_size=16), dataclasses.replace(CONFIG.train, max_epochs=2))
    return fit(original.dataset, config)


def first_moments(original, problem, settings, key):
    """Loss, forget margin and parameters after the first step, by the whole objective on batches drawn here, and Adam in numpy."""
    data, sizes = original.dataset, {name: original.sizes.pairs for name in ("capacity", "history_capacity")}
    pairs, kept = forget_pairs(data, problem.forget_set), problem.retain.dataset.train
    candidates = np.unique(kept[:, 1])
    forget = build_sampler(pairs, data.train, data.num_users, data.num_items, candidates=candidates, **sizes)
    keys = jax.random.split(jax.random.fold_in(key, 0))
    samplers = (problem.retain.data.sampler, forget)
    batches = [draw_pairs(k, sampler, settings.batch_size) for k, sampler in zip(keys, samplers, strict=True)]
    assert np.isin(batches[1][2], candidates).all()
    models = (problem.retain, original if settings.forget_graph == "original" else problem.retain)

    def objective(params):
        views = [m.backbone.views(params, m.data, *batch[:3]) for m, batch in zip(models, batches, strict=True)]
        weights = {"retain_weights": batches[0][3], "forget_weights": batches[1][3]}
        names = ("alpha", "l2_weight", "temperature", "reverse")
        contrasts = {
            name: getattr(settings, name) if model.backbone.contrast else 0
            for name, model in zip(("retain_contrast", "forget_contrast"), models, strict=True)
        }
        loss = losses.mmrecun(*views, **{name: getattr(settings, name) for name in names}, **contrasts, **weights)
        positive, negative = losses.scores(views[1])
        return loss, (positive - negative).mean()

    (loss, margin), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(original.params)
    # After one step both moments of Adam, freed of their bias, are those of one gradient g: the step is g / (|g| + 1e-8).
    moved = jax.tree.map(
        lambda p, g: p - settings.learning_rate * np.asarray(g) / (np.abs(g) + 1e-8), original.params, gradients
    )
    return loss, margin, moved, gradients


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["users:3", "pairs:1%", "items:7,70"], {}),
        (
            ["users:3", "pairs:1%"],
            {"reverse": "ascent", "forget_graph": "edited", "alpha": 0.3, "retain_contrast": 0.5, "temperature": 0.5}
            | {"learning_rate": 3e-3, "l2_weight": 0.01},
        ),
        (["pairs:2%", "modality:image"], {"alpha": 0.6, "forget_contrast": 0.2, "l2_weight": 0.1}),
        (["pairs:2%", "modality:image", "modality:text"], {"alpha": 0.5}),
    ],
)
@pytest.mark.parametrize("name", ["original", "plain"])
def test_the_first_step_is_adam_on_the_objective(name, words, changes, request):
    """Batches, graphs, backbones, weights and signs; where a modality goes, the retain terms are those of the model without it."""
    model = request.getfixturevalue(name)
    problem, settings = posed(model, words), mmrecun.Settings(steps=1, batch_size=256, **changes)
    key = jax.random.key(3)
    params, info = mmrecun.mmrecun(key, problem, settings)
    loss, margin, moved, gradients = first_moments(model, problem, settings, key)
    np.testing.assert_allclose([info["loss"], info["forget_margin"]], [loss, margin], rtol=1e-5)
    for path, ours in flat(params).items():
        theirs, gradient = np.asarray(flat(moved)[path]), np.abs(flat(gradients)[path])
        clear = gradient > 1e-6 * max(gradient.max(), 1e-6)  # below, rounding decides where Adam goes
        assert clear.any() or not problem.retain.backbone.of_modality(path)
        np.testing.assert_allclose(np.asarray(ours)[clear], theirs[clear], rtol=1e-4, atol=1e-5)


def test_all_parameters_move(original):
    """Every table and layer, and rows that the request does not touch."""
    moved = flat(answered(original, ["pairs:1%"]).params)
    for path, before in flat(original.params).items():
        changed = np.asarray(moved[path]) != np.asarray(before)
        assert changed.reshape(len(before), -1).any(axis=1).mean() > 0.9, path


def test_without_forgotten_pairs_the_retain_terms_alone_count(original):
    """Nothing of the forget terms makes a difference to a request for modality data."""
    words = ["modality:image:1,2,3"]
    one = answered(original, words)
    assert one.info["forget_margin"] is None
    assert not same(one.params, original.params)
    changed = {"forget_contrast": 7.0, "reverse": "ascent", "forget_graph": "edited"}
    other = answered(original, words, **changed)
    for path, ours in flat(one.params).items():
        np.testing.assert_allclose(flat(other.params)[path], ours, rtol=1e-5, atol=1e-6)
    problem = posed(original, words)
    settings = mmrecun.Settings(steps=1, batch_size=256, alpha=0.7)
    _, info = mmrecun.mmrecun(jax.random.key(0), problem, settings)
    batch = draw_pairs(jax.random.split(jax.random.fold_in(jax.random.key(0), 0))[0], problem.retain.data.sampler, 256)
    views = jax.jit(lambda p: original.backbone.views(p, problem.retain.data, *batch[:3]))(original.params)
    np.testing.assert_allclose(info["loss"], losses.mmrecun_retain_jit(views, alpha=0.7), rtol=1e-5)


def test_requests_of_any_kind_share_one_program(original):
    """users -> pairs -> items -> modality at 1 % and 10 %: after the first request no program is compiled.

    Where a whole modality goes, the model without it is another one, with a program of its own.
    """
    answered(original, ["users:5%"])
    for words in (
        ["users:1%"],
        ["users:10%"],
        ["pairs:1%"],
        ["pairs:10%"],
        ["items:1%"],
        ["items:10%"],
        ["modality:text:1%"],
        ["modality:text:10%"],
        ["users:2%", "items:3", "modality:text:4"],
    ):
        forget_set = resolve(parse(words), original.dataset)
        with stopwatch() as seconds:
            answered(original, forget_set)
        assert seconds.programs == 0, f"{words}: {seconds}"
    answered(original, ["modality:image"])
    assert answered(original, ["modality:image", "users:10%"]).seconds.programs == 0


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("mmrecun", {"steps": 4, "alpha": 0.7, "learning_rate": 3e-3, "l2_weight": 1e-3}),
        ("ascent", {"steps": 4}),
        ("rrl", {"steps": 4, "fisher_weight": 0.5}),
    ],
)
def test_other_numbers_share_the_program(method, changes, original):
    """A search over steps, weights and rates compiles once."""
    before = answered(original, ["pairs:5%"], method)
    after = answered(original, ["pairs:5%"], method, **changes)
    assert after.seconds.programs == 0
    assert not same(before.params, after.params)


def test_forgetting_twice_is_harmless(original):
    once = answered(original, ["users:3,4"], "surgery")
    twice = answered(once, ["users:3,4"], "surgery")
    assert twice.dataset.checksum == once.dataset.checksum
    kept = np.setdiff1d(np.arange(150), [3, 4])
    assert np.array_equal(once.rows[kept], twice.rows[kept])


def test_same_seed_same_answer(original):
    a, b = (answer(original, WORDS, "mmrecun", SETTINGS["mmrecun"], seed=5) for _ in range(2))
    assert same(a.params, b.params)


def test_canaries_are_planted_as_described():
    dataset = toy(300, 200, pairs_per_user=8, clusters=4, modalities=())
    planted, canaries = plant(dataset, 5, group=6, fillers=2, seed=3)
    assert planted.num_users == 330
    own = planted.train[planted.train[:, 0] >= 300]
    assert np.array_equal(np.bincount(own[:, 0])[300:], np.full(30, 4))
    history = {user: set(dataset.train[dataset.train[:, 0] == user, 1]) for user in range(300)}
    for group, (a, b) in enumerate(canaries.pairs):
        members = canaries.users[6 * group : 6 * group + 6]
        assert all({a, b} <= set(own[own[:, 0] == user, 1]) for user in members)
        assert not any({a, b} <= items for items in history.values())
    with pytest.raises(InputError, match="500 canaries"):
        plant(dataset, 500)


def test_canary_rank_is_the_rank_by_cosine():
    dataset = toy(300, 200, pairs_per_user=8, clusters=4, modalities=())
    _, canaries = plant(dataset, 3)
    embedding = np.random.default_rng(0).normal(size=(310, 6)).astype(np.float32)
    items = embedding[110:] / np.linalg.norm(embedding[110:], axis=1, keepdims=True)
    for (a, b), rank in zip(canaries.pairs, canary_ranks(jax.numpy.asarray(embedding), canaries, 110), strict=True):
        cosine = items @ items[a]
        cosine[a] = -np.inf
        assert rank == 1 + np.sum(cosine > cosine[b])


def test_something_else_in_the_place_of_a_model_or_a_memory(original, unchecked):
    for other in (3, "memory", {}, original):
        with pytest.raises(InputError, match=r"memory: .* given; a Memory is expected"):
            answer(original, ["users:4"], "delta", memory=other)
    for other in ("runs/model", None, original.setup):
        for call in (lambda other=other: answer(other, ["users:4"]), lambda other=other: prepare(other, "delta")):
            with pytest.raises(InputError, match=r"original: .* given; a Recommender is expected"):
                call()


def test_a_memory_or_a_work_folder_of_something_else_is_refused(original, tmp_path):
    """Otherwise what an earlier request removed would come back, or another request's training would be taken up."""
    memory = prepare(original, "amnesiac", {"epochs": 1})
    first = answer(original, ["users:3"], "amnesiac", {"epochs": 1}, memory=memory)
    twin = Recommender(original.setup, original.params)
    for other in (first, twin):
        with pytest.raises(InputError, match="prepared for another model"):
            answer(other, ["users:4"], "amnesiac", {"epochs": 1}, memory=memory)
    for method in ("delta", "surgery"):
        of_another = prepare(first, method)
        with pytest.raises(InputError, match="prepared for another model"):
            answer(original, ["users:4"], method, memory=of_another)
    with pytest.raises(InputError, match=r"prepared with settings Settings\(.*turn_items=0.5"):
        answer(original, ["users:4"], "delta", memory=prepare(original, "delta", {"turn_items": 0.5}))
    with pytest.raises(InputError, match="prepared with seed 2, not 0"):
        answer(original, ["users:4"], "delta", memory=prepare(original, "delta", seed=2))
    answer(original, ["users:3"], "surgery", work=tmp_path)
    answer(original, ["users:3"], "surgery", work=str(tmp_path))  # the same call goes on
    for words, method, seed in ((["users:4"], "surgery", 0), (["users:3"], "surgery", 1), (["users:3"], "mmrecun", 0)):
        with pytest.raises(InputError, match="holds work on another request"):
            answer(original, words, method, seed=seed, work=tmp_path)
    # Requests that differ in a valid pair alone differ, too.
    user, item = original.dataset.valid[0]
    answer(original, ["users:5", f"pairs:{user}-{item}"], "surgery", work=tmp_path / "valid")
    user, item = original.dataset.valid[1]
    with pytest.raises(InputError, match="holds work on another request"):
        answer(original, ["users:5", f"pairs:{user}-{item}"], "surgery", work=tmp_path / "valid")
    with pytest.raises(InputError, match=r"forget set of .* train pairs"):
        answer(first, resolve(parse(["users:5"]), original.dataset), "surgery")


@pytest.mark.parametrize("method", ["delta", "surgery"])
def test_what_is_prepared_before_a_request_changes_no_bit_of_its_answer(method, original):
    memory = prepare(original, method, seed=4)
    for words in (["users:3,7"], ["pairs:1%", "items:5"]):
        ours = answer(original, words, method, seed=4, memory=memory)
        theirs = answer(original, words, method, seed=4)
        assert same(ours.params, theirs.params)


def test_an_ensemble_is_not_retrained_as_if_it_were_one_model(original):
    """It answers as a matrix factorisation; retraining that would be called exact and be another model."""
    params = {
        "user_embedding": original.rows[: original.dataset.num_users],
        "item_embedding": original.rows[original.dataset.num_users :],
    }
    setup = set_up(
        original.dataset, Config("mf", mf.Settings(embedding_size=16), original.config.train), original.sizes
    )
    ensemble = Recommender(setup, params, info={"ensemble_of": "mgcn"})
    for method in ("gold", "sisa"):
        with pytest.raises(InputError, match="ensemble of mgcn models"):
            answer(ensemble, ["users:3"], method)
    assert answer(ensemble, ["users:3"], "surgery").dataset.removed_users[3]


def test_negatives_are_retained_items(original):
    """A forgotten item that is drawn as a negative would be pushed up."""
    problem = posed(original, ["items:7,11"])
    for sampler in (problem.retain.data.sampler, forget_sampler(problem, problem.retain.dataset.train[:, 1])):
        candidates = np.asarray(sampler.candidates)[: int(sampler.num_candidates)]
        np.testing.assert_array_equal(candidates, np.unique(problem.retain.dataset.train[:, 1]))
        assert not np.isin([7, 11], candidates).any()


def test_an_answer_holds_nothing_of_its_original():
    """Neither the model, nor a method's preparation, nor a cache keeps the original's data alive."""
    model = made()
    gone = [weakref.ref(model.dataset), weakref.ref(model)]
    answers = [answer(model, ["users:3"], method, SETTINGS.get(method)) for method in ("surgery", "mmrecun", "delta")]
    del model
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert all(np.isfinite(answered.rows).all() for answered in answers)
