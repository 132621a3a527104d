"""Unlearning: the contract of every method, what a released model must not hold, and that forgetting really lowers forgotten pairs."""

import dataclasses
import functools
import gc
import weakref

import jax
import numpy as np
import pytest

from recunlearn_jax import losses
from recunlearn_jax.audit.canary import canary_ranks, plant
from recunlearn_jax.backbones import mf, mgcn
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import forget_task, ranking_metrics
from recunlearn_jax.graph import from_jraph, with_item_graphs
from recunlearn_jax.recommender import recommender, set_up
from recunlearn_jax.requests import forget_pairs, parse, resolve, retained
from recunlearn_jax.sampling import draw_pairs
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import METHODS, Problem, answer, finetune, mmrecun, prepare
from recunlearn_jax.unlearn.base import row_masks
from recunlearn_jax.unlearn.mmrecun.inputs import local_inputs, whole_inputs
from recunlearn_jax.unlearn.mmrecun.objective import init, step
from recunlearn_jax.unlearn.selection import touched

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


@pytest.fixture(scope="module")
def original():
    return fit(with_item_graphs(toy(150, 80, pairs_per_user=8, clusters=4, feature_size=8), 5), CONFIG)


def answered(original, words, method="mmrecun", **changes):
    """The answer of a method at the settings of this module, with changes."""
    return answer(original, words, method, SETTINGS.get(method, {}) | changes)


def forget_recall(answer, original, forget_set):
    task = forget_task(answer.dataset, forget_pairs(original.dataset, forget_set))
    return ranking_metrics(answer.rows, task, (20,))["recall@20"]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_contract_and_nothing_forgotten_is_released(method, original):
    forget_set = resolve(parse(WORDS), original.dataset)
    memory = prepare(original, method, SETTINGS.get(method))
    served = memory.original  # the model in service, which SISA and RecEraser replace by an ensemble
    before = jax.tree.map(np.array, (original.params, served.params))
    answer_ = answer(original, forget_set, method, SETTINGS.get(method), memory=memory)
    params, data = answer_.params, answer_.dataset

    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    for name, ids in (("user_embedding", [3, 4, 5]), ("item_embedding", [7])):
        for i in ids:  # no forgotten row is left, and none is a scaled copy
            old, new = before[1][name][i], np.asarray(params[name][i])
            assert abs(old @ new) / (np.linalg.norm(old) * np.linalg.norm(new)) < 0.9
    for row in (1, 2, 3, 7):
        assert not data.features["image"][row].any()
    assert not np.isin(data.train[:, 0], [3, 4, 5]).any()
    assert not (data.train[:, 1] == 7).any()
    if "image" in answer_.backbone.modalities:
        for row in (1, 2, 3, 7):
            assert not np.asarray(params["image_features"][row]).any()
        edges = from_jraph(answer_.data.graphs.user_item)
        assert edges.nnz == 2 * len(data.train)
        assert not edges[:, [3, 4, 5]].nnz
        assert not from_jraph(answer_.data.graphs.item_item["image"])[:, [1, 2, 3, 7]].nnz
    else:  # an ensemble of shard models has neither features nor graphs
        assert answer_.backbone.name == "mf"
        assert method in {"sisa", "receraser"}
        assert set(params) == {"user_embedding", "item_embedding"}
        assert answer_.data.graphs is None
    served_lists = answer_.recommend(np.unique(data.train[:, 0]), 20)
    assert not (served_lists == 7).any()
    # the original is as it was: nothing was donated or edited in place
    assert same(before, (original.params, served.params))


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_modality_can_go(method, original):
    answer = answered(original, ["modality:image"], method)
    if method in {"sisa", "receraser"}:
        assert answer.backbone.modalities == ()
    else:
        assert answer.backbone.modalities == ("text",)
    assert answer.dataset.modalities == ("text",)
    assert not [name for name in answer.params if name.startswith("image")]
    assert np.isfinite(answer.rows).all()


def test_all_modalities_can_go(original):
    answer = answered(original, ["modality:image", "modality:text"], "surgery")
    assert sorted(answer.params) == ["item_embedding", "user_embedding"]


def test_words_a_request_and_a_forget_set_are_one(original):
    """However the request is handed in, and however the settings are, the answer is the same to the bit."""
    request = parse(WORDS)
    forget_set = resolve(request, original.dataset)
    changed = mmrecun.Settings(**SETTINGS["mmrecun"])
    asked = ((WORDS, SETTINGS["mmrecun"]), (request, changed), (forget_set, changed))
    first, *others = (answer(original, what, "mmrecun", settings, seed=5) for what, settings in asked)
    for other in others:
        assert same(first.params, other.params)
        assert first.dataset.checksum == other.dataset.checksum
    assert not same(first.params, answer(original, WORDS, "mmrecun", changed, seed=6).params)


def test_no_settings_are_the_defaults(original):
    assert same(
        answer(original, ["users:3"], "finetune").params,
        answer(original, ["users:3"], "finetune", finetune.Settings()).params,
    )


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("mmrecun", {"stepz": 3}, "mmrecun: unknown setting 'stepz'; did you mean 'steps'?"),
        ("mmrecun", {"steps": "many"}, "mmrecun.steps: 'many' is not of type int"),
        ("mmrecun", {"reverse": "turn"}, "'turn' is not one of 'swap', 'ascent'"),
        ("mmrecun", finetune.Settings(), r"mmrecun: settings are recunlearn_jax\.unlearn\.mmrecun\.Settings; got"),
        ("surgery", {"steps": 3}, "surgery: unknown setting 'steps'"),
        ("mmrecum", None, "method 'mmrecum' is not known; did you mean 'mmrecun'?"),
    ],
)
def test_settings_that_do_not_fit_are_refused(method, settings, message, original):
    with pytest.raises(InputError, match=message):
        answer(original, ["users:3"], method, settings)


@pytest.mark.parametrize("reverse", ["swap", "ascent"])
@pytest.mark.parametrize("forget_graph", ["original", "edited"])
def test_mmrecun_lowers_forgotten_pairs_beyond_surgery(reverse, forget_graph, original):
    """The sign of the reverse term: public re-implementations have raised the scores they meant to lower."""
    forget_set = resolve(parse(["pairs:10%"]), original.dataset)
    cut = answered(original, forget_set, "surgery")
    answer = answered(
        original,
        forget_set,
        reverse=reverse,
        forget_graph=forget_graph,
        reset="none",
        forget_until="end",
        alpha=0.5,
        touched_degree=0,
        steps=60,  # ascent starts slowly: its gradient is small where a pair is ranked with confidence
    )
    assert forget_recall(answer, original, forget_set) < 0.8 * forget_recall(cut, original, forget_set)


def test_only_touched_rows_move(original):
    forget_set = resolve(parse(["pairs:2%"]), original.dataset)
    answer = answered(original, forget_set)
    users, items = touched(original.dataset, forget_set, mmrecun.Settings().touched_degree)
    for name, moving in (("user_embedding", users), ("item_embedding", items)):
        changed = (np.asarray(answer.params[name]) != np.asarray(original.params[name])).any(axis=1)
        assert changed[moving].all()
        assert not changed[~moving].any()
    assert np.array_equal(answer.params["attention_hidden"]["kernel"], original.params["attention_hidden"]["kernel"])


def test_retained_data_has_no_part_where_only_forgotten_rows_move(original):
    """All items of the users are too popular to be touched: the neighbourhood is theirs, not the whole graph, and no other row changes."""
    forget_set = resolve(parse(["users:3,5"]), original.dataset)
    answer = answered(original, forget_set, touched_degree=1)
    assert answer.info["moving_rows"] == 2
    assert answer.info["neighbourhood"][0] == 2
    assert np.isfinite(answer.info["loss"])
    for name, moving in (("user_embedding", forget_set.users), ("item_embedding", forget_set.items)):
        changed = (np.asarray(answer.params[name]) != np.asarray(original.params[name])).any(axis=1)
        np.testing.assert_array_equal(changed, moving)


def test_forget_terms_hold_the_margin_of_unseen_pairs(original):
    """Counting only while forgotten pairs stand out, they bring the margin down to that of unseen pairs; counting always, below it."""
    info = {
        until: answered(
            original, ["pairs:10%"], forget_until=until, reset="none", alpha=0.5, steps=60, touched_degree=0
        ).info
        for until in ("unseen", "end")
    }
    unseen = info["unseen"]["unseen_margin"]
    assert info["end"]["unseen_margin"] is None
    assert abs(info["unseen"]["forget_margin"] - unseen) < 0.5
    assert info["end"]["forget_margin"] < unseen - 0.5


def test_margin_of_unseen_pairs_without_user_0(original):
    """Rows that pad the valid pairs name user 0, who may have none left; the forget terms must go on counting."""
    for users in ("users:0", "users:1"):
        assert answered(original, [users]).info["unseen_margin"] is not None, users


def nodes_of(made, original):
    """Global ids of the users and items that the steps see, in the order of their local ids: where what steps add is put."""
    found = []
    for name, count in zip(("user_embedding", "item_embedding"), made.nodes, strict=True):
        numbered = {n: np.zeros_like(rows) for n, rows in made.added.items()}
        numbered[name][:count] = 1 + np.arange(count)[:, None]
        empty = {n: jax.numpy.zeros_like(original.params[n]) for n in numbered}
        place = np.asarray(made.applied(empty, numbered)[name])[:, 0]
        found.append(np.argsort(place)[len(place) - count :])
    return found


@pytest.fixture(scope="module")
def reference(original):
    """A request for users, items and pairs, and the objective's loss and gradient by autodiff through the whole model."""
    settings = mmrecun.Settings(steps=4, batch_size=256, touched_degree=6)
    forget_set = resolve(parse(["users:3", "pairs:1%", "items:70"]), original.dataset)
    backbone = original.backbone
    retain = set_up(retained(original.dataset, forget_set), original.config, original.sizes)
    moving = touched(original.dataset, forget_set, settings.touched_degree)
    mask = row_masks(*moving, backbone)

    def objective(added, batches, counts):
        params = {**original.params, **{n: original.params[n] + added[n] * mask[n] for n in mask}}
        views = [
            backbone.views(params, data, *batch[:3])
            for batch, data in zip(batches, (retain.data, original.data), strict=True)
        ]
        return losses.mmrecun(
            *views,
            alpha=settings.alpha,
            retain_contrast=settings.retain_contrast,
            forget_contrast=settings.forget_contrast,
            l2_weight=settings.l2_weight,
            retain_weights=batches[0][3],
            forget_weights=counts * batches[1][3],
        )

    return Problem(original, forget_set, retain), moving, settings, jax.jit(jax.value_and_grad(objective))


@pytest.mark.parametrize("reach", ["neighbourhood", "whole graph"])
def test_steps_are_those_of_autodiff_on_the_whole_graph(reach, reference, original):
    """The same batches in global ids give the same loss and the same gradient, at each of the two states of the forget terms."""
    problem, moving, settings, gradient = reference
    data, backbone = original.dataset, original.backbone
    make = local_inputs if reach == "neighbourhood" else whole_inputs
    made = make(problem, original.params, moving, settings)
    users, items = nodes_of(made, original)
    if reach == "neighbourhood":
        assert len(users) < 0.9 * data.num_users  # there is something left out
    else:
        assert made.nodes == [data.num_users, data.num_items]
    key = jax.random.key(3)
    batches = []
    for part_key, part in zip(
        jax.random.split(jax.random.fold_in(key, 0), 3), (made.inputs.retain, made.inputs.forget), strict=False
    ):
        *triplets, weights = draw_pairs(part_key, part.sampler, settings.batch_size)
        ids = zip((users, items, items), triplets, strict=True)
        batches.append([*(np.int32(known[np.asarray(local)]) for known, local in ids), weights])
    zeros = {n: jax.numpy.zeros_like(original.params[n]) for n in backbone.id_tables()}
    take_step = jax.jit(
        functools.partial(step, retain=made.retain, forget=made.forget, contrast=backbone.contrast, settings=settings)
    )
    margins = []
    for counts, margin in ((1, np.inf), (0, -np.inf)):  # what is forgotten stands out, and does not
        loss, gradients = gradient(zeros, batches, np.float32(counts))
        before = init(made.added)._replace(margin=jax.numpy.float32(margin))
        state, ours = take_step(key, before, original.params, made.inputs)
        margins.append(float(state.margin))
        np.testing.assert_allclose(ours, loss, rtol=1e-5)
        # Adam's first moment after one step is a tenth of the gradient.
        for name, ids in (("user_embedding", users), ("item_embedding", items)):
            moment = 10 * np.asarray(state.opt_state.mu[name])[: len(ids)]
            theirs = np.asarray(gradients[name])
            np.testing.assert_allclose(moment, theirs[ids], rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
            assert not theirs[np.setdiff1d(np.arange(len(theirs)), ids)].any()
            # Of the rows that retained pairs reach here only those of users move.
            assert np.abs(theirs).max() > 0 or (name == "item_embedding" and not counts)
    np.testing.assert_allclose(*margins, rtol=1e-5)  # it is measured either way


def test_requests_of_any_kind_share_one_program(original):
    """users -> pairs -> items -> modality at 1 % and 10 %: after the first request no program is compiled."""
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
        ["modality:image"],
        ["users:2%", "items:3", "modality:text:4"],
    ):
        forget_set = resolve(parse(words), original.dataset)
        with stopwatch() as seconds:
            answered(original, forget_set)
        assert seconds.programs == 0, f"{words}: {seconds}"


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


def test_a_memory_or_a_work_folder_of_something_else_is_refused(original, tmp_path):
    """Otherwise what an earlier request removed would come back, or another request's training would be taken up."""
    memory = prepare(original, "amnesiac", {"epochs": 1})
    first = answer(original, ["users:3"], "amnesiac", {"epochs": 1}, memory=memory)
    with pytest.raises(InputError, match="prepared for other data"):
        answer(first, ["users:4"], "amnesiac", {"epochs": 1}, memory=memory)
    answer(original, ["users:3"], "surgery", work=tmp_path)
    answer(original, ["users:3"], "surgery", work=tmp_path)  # the same call goes on
    for words, method, seed in ((["users:4"], "surgery", 0), (["users:3"], "surgery", 1), (["users:3"], "mmrecun", 0)):
        with pytest.raises(InputError, match="holds work on another request"):
            answer(original, words, method, seed=seed, work=tmp_path)
    with pytest.raises(InputError, match=r"forget set of .* train pairs"):
        answer(first, resolve(parse(["users:5"]), original.dataset), "surgery")


def test_an_ensemble_is_not_retrained_as_if_it_were_one_model(original):
    """It answers as a matrix factorisation; retraining that would be called exact and be another model."""
    params = {
        "user_embedding": original.rows[: original.dataset.num_users],
        "item_embedding": original.rows[original.dataset.num_users :],
    }
    setup = set_up(
        original.dataset, Config("mf", mf.Settings(embedding_size=16), original.config.train), original.sizes
    )
    ensemble = recommender(setup, params, info={"ensemble_of": "mgcn"})
    for method in ("gold", "sisa"):
        with pytest.raises(InputError, match="ensemble of mgcn models"):
            answer(ensemble, ["users:3"], method)
    assert answer(ensemble, ["users:3"], "surgery").dataset.removed_users[3]


def test_content_that_a_backbone_never_saw_touches_nothing(original):
    """A request for it edits the data and leaves every row as it was."""
    plain = fit(
        original.dataset, Config("mf", mf.Settings(embedding_size=16), dataclasses.replace(CONFIG.train, max_epochs=1))
    )
    answered = answer(plain, ["modality:image"], "mmrecun", {"steps": 2, "batch_size": 64})
    assert answered.dataset.modalities == ("text",)
    assert answered.info["moving_rows"] == 0
    for name, table in plain.params.items():
        np.testing.assert_array_equal(answered.params[name], table)


def test_the_branch_of_a_forgotten_modality_is_the_originals(original):
    """On the edited graph it would be nothing, and the only forget term of such a request would vanish; both paths agree."""
    forget_set = resolve(parse(["modality:image:1,2,3"]), original.dataset)
    retain = set_up(retained(original.dataset, forget_set), original.config, original.sizes)
    problem = Problem(original, forget_set, retain)
    moving = touched(original.dataset, forget_set)
    branches = {}
    for graph in ("original", "edited"):
        settings = mmrecun.Settings(forget_graph=graph)
        local = local_inputs(problem, original.params, moving, settings)
        whole = whole_inputs(problem, original.params, moving, settings)
        branches[graph] = np.asarray(whole.inputs.branch)[1:4]
        items = np.asarray(local.inputs.branch_items)[:3]
        np.testing.assert_allclose(np.asarray(local.inputs.branch)[items], branches[graph], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(branches["edited"], branches["original"])
    assert np.abs(branches["edited"]).min(axis=1).max() > 0


def test_negatives_are_retained_items_on_both_paths(original):
    """A forgotten item that is drawn as a negative would be pushed up."""
    forget_set = resolve(parse(["items:7,11"]), original.dataset)
    retain = set_up(retained(original.dataset, forget_set), original.config, original.sizes)
    problem = Problem(original, forget_set, retain)
    moving = touched(original.dataset, forget_set)
    made = whole_inputs(problem, original.params, moving, mmrecun.Settings())
    for part in (made.inputs.retain, made.inputs.forget):
        candidates = np.asarray(part.sampler.candidates)[: int(part.sampler.num_candidates)]
        assert not np.isin([7, 11], candidates).any()


def test_an_answer_holds_nothing_of_its_original():
    """Neither the model, nor a method's preparation, nor a cache keeps the original's data alive."""
    model = fit(
        toy(40, 32, pairs_per_user=4, clusters=4, feature_size=4),
        dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, max_epochs=1)),
    )
    gone = [weakref.ref(model.dataset), weakref.ref(model)]
    answers = [
        answer(model, ["users:3"], method, {"steps": 2} if method == "mmrecun" else None)
        for method in ("surgery", "mmrecun")
    ]
    del model
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert all(np.isfinite(answered.rows).all() for answered in answers)
