"""Unlearning: the contract of every method, what a released model must not hold, and that forgetting really lowers forgotten pairs."""

import dataclasses

import jax
import numpy as np
import pytest

from recunlearn_jax import losses
from recunlearn_jax.audit.canary import canary_ranks, plant
from recunlearn_jax.config import Config, ModelConfig, TrainConfig, UnlearnConfig
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import forget_task, ranking_metrics
from recunlearn_jax.graph import from_jraph, with_item_graphs
from recunlearn_jax.models import batch_views
from recunlearn_jax.requests import forget_pairs, parse, resolve
from recunlearn_jax.sampling import draw_pairs
from recunlearn_jax.serving import recommend
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import embed, fit
from recunlearn_jax.unlearn import METHODS
from recunlearn_jax.unlearn.base import edit
from recunlearn_jax.unlearn.mmrecun import TABLES, init, mmrecun, moving_rows, prepare, step

CONFIG = Config(
    model=ModelConfig(embedding_size=16, neighbours=5, layout="segment"),
    train=TrainConfig(batch_size=256, learning_rate=1e-2, max_epochs=30, patience=30),
    unlearn=UnlearnConfig(steps=15, batch_size=256, finetune_epochs=1),
)
WORDS = ["users:3,4,5", "items:7", "pairs:5%", "modality:image:1,2,3"]


@pytest.fixture(scope="module")
def original():
    return fit(with_item_graphs(toy(150, 80, pairs_per_user=8, clusters=4, feature_size=8), 5), CONFIG)


def rows_of(answer):
    return np.asarray(embed(answer.params, answer.data.graphs, answer.data.features, model=answer.model))


def forget_recall(answer, original, forget_set):
    task = forget_task(answer.dataset, forget_pairs(original.dataset, forget_set))
    return ranking_metrics(rows_of(answer), task, (20,))["recall@20"]


@pytest.mark.parametrize("method", METHODS)
def test_contract_and_nothing_forgotten_is_released(method, original):
    forget_set = resolve(parse(WORDS), original.dataset)
    before = jax.tree.map(np.array, original.params)
    answer = METHODS[method](jax.random.key(0), original, forget_set, CONFIG)
    params, data = answer.params, answer.dataset

    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    for name, ids in (("user_embedding", [3, 4, 5]), ("item_embedding", [7])):
        for i in ids:  # no forgotten row is left, and none is a scaled copy
            old, new = before[name][i], np.asarray(params[name][i])
            assert abs(old @ new) / (np.linalg.norm(old) * np.linalg.norm(new)) < 0.9
    for row in (1, 2, 3, 7):
        assert not np.asarray(params["image_features"][row]).any()
        assert not data.features["image"][row].any()
    assert not np.isin(data.train[:, 0], [3, 4, 5]).any()
    assert not (data.train[:, 1] == 7).any()
    edges = from_jraph(answer.data.graphs.user_item)
    assert edges.nnz == 2 * len(data.train)
    assert not edges[:, [3, 4, 5]].nnz
    assert not from_jraph(answer.data.graphs.item_item["image"])[:, [1, 2, 3, 7]].nnz
    served = recommend(rows_of(answer), data, np.unique(data.train[:, 0]), 20)
    assert not (served == 7).any()
    # the original is as it was: nothing was donated or edited in place
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(original.params), strict=True)
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_modality_can_go(method, original):
    forget_set = resolve(parse(["modality:image"]), original.dataset)
    answer = METHODS[method](jax.random.key(0), original, forget_set, CONFIG)
    assert answer.model.modalities == ("text",)
    assert not [name for name in answer.params if name.startswith("image")]
    assert np.isfinite(rows_of(answer)).all()


def test_all_modalities_can_go(original):
    forget_set = resolve(parse(["modality:image", "modality:text"]), original.dataset)
    answer = METHODS["surgery"](jax.random.key(0), original, forget_set, CONFIG)
    assert sorted(answer.params) == ["item_embedding", "user_embedding"]


@pytest.mark.parametrize("reverse", ["swap", "ascent"])
@pytest.mark.parametrize("forget_graph", ["original", "edited"])
def test_mmrecun_lowers_forgotten_pairs_beyond_surgery(reverse, forget_graph, original):
    """The sign of the reverse term: public re-implementations have raised the scores they meant to lower."""
    forget_set = resolve(parse(["pairs:10%"]), original.dataset)
    changes = {
        "reverse": reverse,
        "forget_graph": forget_graph,
        "reset": "none",
        "forget_until": "end",
        "alpha": 0.5,
        "learning_rate": 3e-2,
        "touched_degree": 0,
        "steps": 40,  # ascent starts slowly: its gradient is small where a pair is ranked with confidence
    }
    config = dataclasses.replace(CONFIG, unlearn=dataclasses.replace(CONFIG.unlearn, **changes))
    cut = METHODS["surgery"](jax.random.key(0), original, forget_set, config)
    answer = mmrecun(jax.random.key(0), original, forget_set, config)
    assert forget_recall(answer, original, forget_set) < 0.8 * forget_recall(cut, original, forget_set)


def test_only_touched_rows_move(original):
    forget_set = resolve(parse(["pairs:2%"]), original.dataset)
    answer = mmrecun(jax.random.key(0), original, forget_set, CONFIG)
    users, items = moving_rows(original.dataset, forget_set, CONFIG.unlearn.touched_degree)
    for name, moving in (("user_embedding", users), ("item_embedding", items)):
        changed = (np.asarray(answer.params[name]) != np.asarray(original.params[name])).any(axis=1)
        assert changed[moving].all()
        assert not changed[~moving].any()
    assert np.array_equal(answer.params["attention_hidden"]["kernel"], original.params["attention_hidden"]["kernel"])


def test_retained_data_has_no_part_where_only_forgotten_rows_move(original):
    """All items of the users are too popular to be touched: the neighbourhood is theirs, not the whole graph, and no other row changes."""
    forget_set = resolve(parse(["users:3,5"]), original.dataset)
    config = dataclasses.replace(CONFIG, unlearn=dataclasses.replace(CONFIG.unlearn, touched_degree=1))
    answer = mmrecun(jax.random.key(0), original, forget_set, config)
    assert answer.info["moving_rows"] == 2
    assert answer.info["neighbourhood"][0] == 2
    assert np.isfinite(answer.info["loss"])
    for name, moving in (("user_embedding", forget_set.users), ("item_embedding", forget_set.items)):
        changed = (np.asarray(answer.params[name]) != np.asarray(original.params[name])).any(axis=1)
        np.testing.assert_array_equal(changed, moving)


def test_forget_terms_hold_the_margin_of_unseen_pairs(original):
    """Counting only while forgotten pairs stand out, they bring the margin down to that of unseen pairs; counting always, below it."""
    forget_set = resolve(parse(["pairs:10%"]), original.dataset)
    info = {}
    for until in ("unseen", "end"):
        changes = {"forget_until": until, "reset": "none", "alpha": 0.5, "steps": 60, "touched_degree": 0}
        config = dataclasses.replace(CONFIG, unlearn=dataclasses.replace(CONFIG.unlearn, **changes))
        info[until] = mmrecun(jax.random.key(0), original, forget_set, config).info
    unseen = info["unseen"]["unseen_margin"]
    assert info["end"]["unseen_margin"] is None
    assert abs(info["unseen"]["forget_margin"] - unseen) < 0.5
    assert info["end"]["forget_margin"] < unseen - 0.5


def test_margin_of_unseen_pairs_without_user_0(original):
    """Rows that pad the valid pairs name user 0, who may have none left; the forget terms must go on counting."""
    for users in ("users:0", "users:1"):
        answer = mmrecun(jax.random.key(0), original, resolve(parse([users]), original.dataset), CONFIG)
        assert answer.info["unseen_margin"] is not None, users


def test_steps_on_the_neighbourhood_are_those_on_the_whole_graph(original):
    """Forgotten users, items and pairs; reference: autodiff through the whole model, the same batches in global ids."""
    config = dataclasses.replace(CONFIG.unlearn, steps=4, touched_degree=6)
    forget_set = resolve(parse(["users:3", "pairs:1%", "items:70"]), original.dataset)
    settings = dataclasses.replace(CONFIG, unlearn=config)
    retain = edit(original, forget_set, settings)
    moving = moving_rows(original.dataset, forget_set, config.touched_degree)
    key, model, data = jax.random.key(3), original.model, original.dataset
    arguments = (original, forget_set, retain, original.params, moving)
    nodes, work = prepare(*arguments, config)
    assert len(nodes.users) < 0.9 * data.num_users  # there is something left out
    whole, every = prepare(*arguments, dataclasses.replace(config, scope="all"))
    assert len(whole.users) == data.num_users

    def reference(table_rows, state_key, counts=1):
        batches = []
        for name, side in (("retain", work.retain), ("forget", work.forget)):
            users, positives, negatives, weights = draw_pairs(state_key[name], side.sampler, config.batch_size)
            batches.append((nodes.users[users], nodes.items[positives], nodes.items[negatives], weights))
        params = {**original.params, **{n: original.params[n] + table_rows[n] * mask[n] for n in mask}}
        views = [
            batch_views(model, params, side.hood.graphs, original.data.features, *(jax.numpy.asarray(x) for x in b[:3]))
            for side, b in zip((every.retain, every.forget), batches, strict=True)
        ]
        return losses.mmrecun(
            *views,
            alpha=config.alpha,
            retain_contrast=config.retain_contrast,
            forget_contrast=config.forget_contrast,
            l2_weight=config.l2_weight,
            retain_weights=batches[0][3],
            forget_weights=counts * batches[1][3],
        )

    mask = {n: jax.numpy.asarray(m[:, None], jax.numpy.float32) for n, m in zip(TABLES, moving, strict=True)}
    retain_key, forget_key, _ = jax.random.split(jax.random.fold_in(key, 0), 3)
    zeros = {n: jax.numpy.zeros_like(original.params[n]) for n in TABLES}
    local = model.clone(num_users=nodes.num_users, num_items=nodes.num_items)
    start = init({n: jax.numpy.zeros((len(work.moving[n]), model.embedding_size)) for n in TABLES})
    rest = {n: v for n, v in original.params.items() if n not in TABLES}
    margins = []
    for counts, margin in ((1, jax.numpy.inf), (0, -jax.numpy.inf)):  # what is forgotten stands out, and does not
        loss, gradients = jax.value_and_grad(reference)(zeros, {"retain": retain_key, "forget": forget_key}, counts)
        before = start._replace(margin=jax.numpy.float32(margin))
        state, ours = step(key, before, rest, work, model=local, config=config)
        margins.append(float(state.margin))
        np.testing.assert_allclose(ours, loss, rtol=1e-5)
        # Adam's first moment after one step is a tenth of the gradient.
        for name, ids in zip(TABLES, (nodes.users, nodes.items), strict=True):
            moment = 10 * np.asarray(state.opt_state.mu[name])[: len(ids)]
            theirs = np.asarray(gradients[name])
            np.testing.assert_allclose(moment, theirs[ids], rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
            assert not theirs[np.setdiff1d(np.arange(len(theirs)), ids)].any()
            # Of the rows that retained pairs reach here only those of users move.
            assert np.abs(theirs).max() > 0 or (name == TABLES[1] and not counts)
    np.testing.assert_allclose(*margins, rtol=1e-5)  # it is measured either way


def test_requests_of_any_kind_share_one_program(original):
    """users -> pairs -> items -> modality at 1 % and 10 %: after the first request no program is compiled."""
    mmrecun(jax.random.key(0), original, resolve(parse(["users:5%"]), original.dataset), CONFIG)
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
            mmrecun(jax.random.key(0), original, forget_set, CONFIG)
        assert seconds.programs == 0, f"{words}: {seconds}"


def test_forgetting_twice_is_harmless(original):
    forget_set = resolve(parse(["users:3,4"]), original.dataset)
    once = METHODS["surgery"](jax.random.key(0), original, forget_set, CONFIG)
    again = original._replace(params=once.params, dataset=once.dataset, data=once.data, model=once.model)
    twice = METHODS["surgery"](jax.random.key(0), again, resolve(parse(["users:3,4"]), once.dataset), CONFIG)
    assert twice.dataset.checksum == once.dataset.checksum
    kept = np.setdiff1d(np.arange(150), [3, 4])
    assert np.array_equal(rows_of(once)[kept], rows_of(twice)[kept])


def test_same_key_same_answer(original):
    forget_set = resolve(parse(WORDS), original.dataset)
    a, b = (mmrecun(jax.random.key(5), original, forget_set, CONFIG) for _ in range(2))
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True))


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
