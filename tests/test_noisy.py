"""Projected noisy fine-tuning: the chain does what its guarantee is about."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import recunlearn_jax as ru
from recunlearn_jax.accounting import sigma_of
from recunlearn_jax.unlearn.noisy import Settings, noisy_steps, projected

pytestmark = pytest.mark.slow
QUICK = {"steps": 4, "batch_size": 64, "epochs": 0, "noise_seed": 5}


@pytest.fixture(scope="module")
def original(shop):
    return ru.fit(shop, ru.Config("mf", train=ru.TrainConfig(batch_size=128, learning_rate=1e-2, max_epochs=3)))


def distance(a, b):
    return float(jnp.sqrt(sum(jnp.sum(jnp.square(x - y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))))


def test_projection():
    centre = {"a": jnp.ones(3), "b": {"c": jnp.zeros((2, 2))}}
    inside = jax.tree.map(lambda x: x + 0.1, centre)
    for radius in (1e-3, 0.2, 10.0):
        moved = projected(inside, centre, radius)
        assert distance(moved, centre) == pytest.approx(min(radius, 0.1 * np.sqrt(7)), rel=1e-3)
    assert distance(projected(inside, centre, 10.0), inside) < 1e-6
    assert distance(projected(centre, centre, 1.0), centre) == 0
    lost = jax.tree.map(lambda x: x.at[0].set(jnp.nan), inside)
    assert distance(projected(lost, centre, 10.0), centre) == pytest.approx(0.1 * np.sqrt(4), rel=1e-3)


def chain(original, start, *, radius, sigma, rate=0.1, steps=3, seed=0):
    centre = jax.tree.map(jnp.zeros_like, start)
    settings = {"steps": steps, "size": 64, "rate": rate, "radius": radius, "sigma": sigma}
    return noisy_steps(
        jax.random.key(seed),
        jax.random.key(seed + 1),
        start,
        centre,
        original.data,
        **settings,
        backbone=original.backbone,
    )


def test_from_any_two_starts_the_means_are_in_one_ball(original):
    """What the guarantee rests on: with one draw of batches and noise, two chains end at most 2 C apart, here from far away."""
    other = jax.tree.map(lambda x: 5 - 30 * x, original.params)
    ends = [chain(original, start, radius=0.5, sigma=0.3) for start in (original.params, other)]
    assert 0 < distance(*ends) <= 2 * 0.5
    assert distance(original.params, other) > 100


def test_the_noise_has_its_size_and_is_new_in_each_step_and_table(original):
    still = chain(original, original.params, radius=1e-6, sigma=2.0, steps=1)
    again = chain(original, original.params, radius=1e-6, sigma=2.0, steps=2)
    for name, table in still.items():
        assert np.std(table) == pytest.approx(2.0, rel=0.03)
        assert abs(np.corrcoef(np.ravel(table), np.ravel(again[name]))[0, 1]) < 0.05
    users, items = (np.ravel(still[name])[:1000] for name in ("user_embedding", "item_embedding"))
    assert abs(np.corrcoef(users, items)[0, 1]) < 0.1


def test_without_noise_and_in_a_large_ball_it_descends(original):
    params = chain(original, original.params, radius=1e6, sigma=0.0, rate=0.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, original.params)
    moved = chain(original, original.params, radius=1e6, sigma=0.0, rate=1.0, steps=20)
    pairs = original.dataset.train

    def margin(params):
        rows = original.backbone.rows(params, original.data)
        items = rows[original.dataset.num_users :]
        return float(
            jnp.mean(jnp.sum(rows[pairs[:, 0]] * (items[pairs[:, 1]] - jnp.mean(items, axis=0)[None]), axis=1))
        )

    assert margin(moved) > margin(original.params)


def test_an_answer_tells_its_guarantee_and_does_not_depend_on_the_model_it_forgets_from(original):
    """With a small ball two originals, one of them spoilt, give nearly the same answer; the noise is that of the guarantee."""
    spoilt = ru.Recommender(original.setup, jax.tree.map(lambda x: x + 7, original.params))
    chosen = {**QUICK, "radius": 1e-4, "epsilon": 2.0}
    one, other = (ru.answer(model, ["users:3,14"], "noisy", chosen, seed=4) for model in (original, spoilt))
    assert distance(one.params, other.params) <= 2e-4
    assert one.info["sigma"] == sigma_of(2.0, 1e-5, 1e-4, 4)
    assert (one.info["epsilon"], one.info["delta"]) == (None, 1e-5)  # its noise can be drawn again
    secret = [ru.answer(original, ["users:3,14"], "noisy", {**chosen, "noise_seed": 0}, seed=4) for _ in range(2)]
    assert secret[0].info["epsilon"] == 2.0
    assert distance(secret[0].params, secret[1].params) > 1e-3  # with one seed, other noise


def test_training_on_brings_quality_back(original):
    nothing, trained = (ru.answer(original, ["users:3,14"], "noisy", {**QUICK, "epochs": n}) for n in (0, 40))
    task = ru.held_out_task(trained.dataset, "valid")
    recall = [ru.ranking_metrics(model.rows, task, (20,))["recall@20"] for model in (nothing, trained)]
    assert recall[1] > recall[0] + 0.1


def test_settings():
    assert Settings().delta == 1e-5
    for wrong in ({"delta": 1.0}, {"delta": 0.0}, {"epsilon": 0.0}, {"radius": -1.0}, {"steps": 0}):
        with pytest.raises(ru.InputError):
            Settings(**wrong)
