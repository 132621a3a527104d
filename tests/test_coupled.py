"""The coupled Gold: a replay that reads nothing of what is forgotten, equals the original where nothing is, and resumes to the bit."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import posed

from recunlearn_jax.backbones import BACKBONES, mgcn
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.errors import InputError
from recunlearn_jax.mesh import place
from recunlearn_jax.sampling import build_sampler, draw_negatives, draw_order, replayed
from recunlearn_jax.train import fit, initial_params, train
from recunlearn_jax.unlearn import answer
from recunlearn_jax.unlearn.base import NoSettings
from recunlearn_jax.unlearn.coupled import coupled, start_of

TRAIN = TrainConfig(batch_size=128, learning_rate=1e-2, max_epochs=6, patience=2, checkpoint_every=1)
CONFIG = Config(model=mgcn.Settings(embedding_size=8, neighbours=4), train=TRAIN)


@pytest.fixture(scope="module")
def original(shop):
    return fit(shop, CONFIG, seed=3)


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_replay_that_leaves_nothing_out_is_the_original_to_the_bit(shop, backbone):
    config = Config(backbone, train=TRAIN)
    original = fit(shop, config, seed=3)
    setup, epochs = original.setup, original.info["best_epoch"]
    sampler = place(replayed(setup.data.sampler, np.ones(len(shop.train), bool)))
    again = train(setup.with_sampler(sampler), 3, epochs=epochs)
    assert same(original.params, again.params)
    assert len(again.history) == max(epochs, 1)  # one entry where it is solved and not trained


def unchecked(dataset, **changes):
    """The data set with content that its constructor would refuse."""
    changed = copy.copy(dataset)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    return changed


@pytest.mark.parametrize("words", [("users:10%",), ("pairs:5%",), ("users:5%", "items:5%", "modality:image:10%")])
def test_nothing_that_is_forgotten_is_read(original, words):
    """The original's parameters, and its forgotten pairs and feature rows, replaced by garbage: not one bit of the answer changes."""
    problem = posed(original, words)
    gone, data = problem.forget_set, original.dataset
    pairs = data.train.copy()
    pairs[gone.forget] = 0
    features = {
        m: np.where((gone.items | gone.features.get(m, False))[:, None], np.float32(np.nan), rows)
        for m, rows in data.features.items()
    }
    poisoned = dataclasses.replace(
        original,
        params=jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), original.params),
        setup=dataclasses.replace(original.setup, dataset=unchecked(data, train=pairs, features=features)),
    )
    key = jax.random.key(0)
    clean, _ = coupled(key, problem, NoSettings())
    params, info = coupled(key, problem._replace(original=poisoned), NoSettings())
    assert same(clean, params)
    assert info["replays"] == 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_one_pair_changes_little_and_a_tenth_of_the_users_more(original):
    def moved(*words):
        replay = answer(original, list(words), "coupled")
        change = np.asarray(replay.rows - original.rows)
        stays = ~np.concatenate([replay.dataset.removed_users, replay.dataset.removed_items])
        return np.linalg.norm(change[stays]) / np.linalg.norm(np.asarray(original.rows)[stays])

    u, i = original.dataset.train[7]
    few, many = moved(f"pairs:{u}-{i}"), moved("users:10%")
    another = np.asarray(fit(original.dataset, CONFIG, seed=4).rows - original.rows)
    assert 0 < few < 0.3 * many
    assert many < 0.5 * np.linalg.norm(another) / np.linalg.norm(original.rows)


def test_what_is_replayed_at_its_places():
    """Order and proposals are those of the larger set; only what is gone, and what is allowed by it, differs."""
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, [40, 60], (500, 2)), axis=0).astype(np.int32)
    kept = rng.random(len(pairs)) > 0.1
    whole = build_sampler(pairs, pairs, 40, 60)
    left = replayed(
        build_sampler(pairs[kept], pairs[kept], 40, 60, capacity=len(pairs), history_capacity=len(pairs)), kept
    )
    order, again = (np.asarray(draw_order(jax.random.key(1), sampler)) for sampler in (whole, left))
    np.testing.assert_array_equal(order, again)
    rows = np.asarray(left.places)[again]
    np.testing.assert_array_equal(rows >= 0, kept[order])
    np.testing.assert_array_equal(np.asarray(left.pairs)[rows[rows >= 0]], pairs[order[rows >= 0]])
    users = jnp.asarray(pairs[order, 0])
    before, after = (np.asarray(draw_negatives(jax.random.key(2), sampler, users)) for sampler in (whole, left))
    forgotten = {tuple(pair) for pair in pairs[~kept].tolist()}
    changed = [(user, new) for user, old, new in zip(users.tolist(), before, after.tolist(), strict=True) if old != new]
    assert changed, "a forgotten pair may be a negative now"
    assert all(pair in forgotten for pair in changed)


def test_it_goes_on_where_it_was_cut_off(original, tmp_path):
    problem = posed(original, ["users:10%"])
    whole, _ = coupled(jax.random.key(0), problem, NoSettings())

    class CutOff(Exception):
        pass

    def cut(entry):
        if entry["epoch"] == 2:
            raise CutOff

    sampler = replayed(problem.retain.data.sampler, ~problem.forget_set.forget)
    setup = problem.retain.with_sampler(sampler)
    with pytest.raises(CutOff):
        train(setup, 3, epochs=original.info["best_epoch"], run=tmp_path, on_epoch=cut)
    again, info = coupled(jax.random.key(0), problem._replace(work=tmp_path), NoSettings())
    assert same(whole, again)
    assert info["earlier"].total > 0


@pytest.mark.parametrize("backbone", ["mgcn", "freedom", "vbpr"])
def test_without_a_modality_the_other_parameters_start_alike(shop, backbone):
    """Where a backbone without it draws in another order, too."""
    original = fit(shop, Config(backbone, train=dataclasses.replace(TRAIN, max_epochs=1)), seed=3)
    problem = posed(original, ["modality:image"])
    start, before = start_of(problem, 3), initial_params(original.setup, 3)
    for name in original.backbone.id_tables():
        np.testing.assert_array_equal(start[name], before[name])
    assert not any(name.startswith("image") for name in start)


def test_only_what_was_trained_can_be_replayed(original):
    answered = answer(original, ["users:5%"], "surgery")
    with pytest.raises(InputError, match="was not trained from a seed"):
        answer(answered, ["users:5%"], "coupled")
    gold = answer(original, ["users:5%"], "gold", seed=1)  # has a seed and an order of its own
    again = answer(gold, ["users:5%"], "coupled")
    assert again.info["replays"] == gold.info["seed"]
