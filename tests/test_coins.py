"""The lower bound on epsilon: no larger than what is there, and above 0 for a model that has not forgotten."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binomtest

import recunlearn_jax as ru
from recunlearn_jax.audit import Case, Subject, examine
from recunlearn_jax.audit.canary import RARE, plant
from recunlearn_jax.audit.case import with_users
from recunlearn_jax.audit.coins import candidates, epsilon_at_least, right_guesses
from recunlearn_jax.requests import resolve, retained


@pytest.fixture(scope="module")
def market():
    return ru.toy(300, 240, pairs_per_user=6, clusters=6, feature_size=4)


@pytest.fixture(scope="module")
def planted(market):
    return plant(market, 12, seed=3)


def test_candidates_could_all_have_been_drawn(market, planted):
    dataset, canaries = planted
    rows = candidates(dataset, canaries, np.zeros(dataset.num_items, bool), among=5)
    np.testing.assert_array_equal(rows[:, :2], canaries.pairs)
    assert rows.shape == (12, 6)
    assert len(np.unique(rows)) == rows.size
    known = np.bincount(market.train[:, 1], minlength=market.num_items)
    assert ((known[rows] >= RARE[0]) & (known[rows] <= RARE[1])).all()
    histories = {item: set(market.train[market.train[:, 1] == item, 0].tolist()) for item in np.unique(rows)}
    assert not any(histories[a] & histories[b] for a, *others in rows.tolist() for b in others)
    spared = np.zeros(dataset.num_items, bool)
    spared[[canaries.pairs[4, 0], rows[0, 3]]] = True
    left = candidates(dataset, canaries, spared, among=5)
    assert len(left) == 11
    assert not spared[left].any()
    everywhere = candidates(dataset, canaries, spared, among=10**6)
    assert 2 < everywhere.shape[1] < 300  # as many as there are


def test_second_items_are_exchangeable_with_the_others(market):
    """Over many plantings, no candidate is better known than another by where it stands."""
    means = []
    known = np.bincount(market.train[:, 1], minlength=market.num_items)
    for seed in range(60):
        dataset, canaries = plant(market, 6, seed=seed)
        means.append(
            known[candidates(dataset, canaries, np.zeros(dataset.num_items, bool), among=4, seed=seed)][:, 1:].mean(
                axis=0
            )
        )
    spread = np.std(means, axis=0) / np.sqrt(len(means))
    assert (np.abs(np.mean(means, axis=0) - np.mean(means)) < 3.5 * spread).all()


def test_a_guess_is_the_nearest_and_nothing_is_guessed_where_all_are_alike():
    z = jnp.asarray([[9.0, 9.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0], [2.0, 0.1]])  # one user, items 0 to 4
    rows = np.array([[0, 1, 2, 3], [3, 1, 2, 0]])
    assert right_guesses(z, rows, 1) == 1
    assert right_guesses(jnp.ones((6, 2)), rows, 1) == 0


def test_the_bound_is_that_of_clopper_and_pearson():
    for right, guesses, among in ((9, 10, 10), (60, 100, 2), (700, 1000, 5)):
        least = binomtest(right, guesses, alternative="greater").proportion_ci(0.95, "exact").low
        expected = max(0, np.log((among - 1) * least / (1 - least)) / 2)
        assert epsilon_at_least(right, guesses, among) == pytest.approx(expected, rel=1e-6)
    assert epsilon_at_least(0, 10, 10) == epsilon_at_least(45, 100, 2) == 0


@pytest.mark.parametrize("epsilon", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("among", [2, 10])
def test_it_is_above_what_there_is_in_one_of_twenty_runs(epsilon, among):
    """A mechanism that tells each throw with the probability that epsilon allows, no more and no less."""
    rng = np.random.default_rng(1)
    right = rng.binomial(400, np.exp(2 * epsilon) / (among - 1 + np.exp(2 * epsilon)), size=2000)
    bounds = np.array([epsilon_at_least(int(v), 400, among) for v in right])
    assert np.mean(bounds > epsilon) < 0.06
    assert np.median(bounds) > epsilon - 0.2  # it is not idle either


def test_a_model_that_remembers_is_told_and_an_exact_answer_is_not(market, planted):
    dataset, canaries = planted
    original = ru.fit(
        dataset,
        ru.Config("lightgcn", train=ru.TrainConfig(batch_size=256, learning_rate=0.01, max_epochs=60, patience=60)),
    )
    forget_set = resolve(with_users(ru.parse(["users:5%"], 1), market, dataset, canaries.users), dataset)
    gold = ru.answer(original, forget_set, "gold")
    case = Case(dataset, forget_set, retained(dataset, forget_set), {"canary": canaries}, original)
    found = examine(case, [Subject("original", original), Subject("gold", gold)], ["coins"])["figures"]
    assert found["original"]["coins guessed"] > 0.8
    assert found["original"]["epsilon at least"] > 1
    assert found["gold"]["epsilon at least"] == 0
    nothing = case._replace(planted={})
    assert "coins guessed" not in examine(nothing, [Subject("original", original)], ["coins"])["figures"]["original"]
