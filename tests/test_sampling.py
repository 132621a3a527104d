"""Draws of negatives, orders and pairs: their support by brute force, and that they are uniform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from recunlearn_jax.sampling import build_sampler, draw_negatives, draw_order, draw_pairs, has_negative

USERS, ITEMS = 6, 9
# User 4 has no history, user 5 all items of the train set but one; item 8 is in nobody's history.
HISTORY = np.array(
    [[0, 0], [1, 3], [1, 7], [2, 0], [2, 1], [2, 2], [2, 3], [3, 5], [3, 6], [3, 7]]
    + [[5, item] for item in (0, 1, 2, 4, 5, 6, 7)],
    np.int32,
)
SIZE = 17 * 400  # of a batch of pairs
DRAWS = 2000  # for each user
WHO = np.repeat(np.arange(USERS), DRAWS).astype(np.int32)

negatives_of = jax.jit(draw_negatives)
order_of = jax.jit(draw_order)
pairs_of = jax.jit(draw_pairs, static_argnames="size")


def sampler_of(pairs=HISTORY, history=HISTORY, *, padded=True, **settings):
    """Arrays longer than what they hold, always by the same lengths, unless told otherwise: one program serves them all."""
    sizes = {"capacity": 40, "history_capacity": 64} if padded else {}
    return build_sampler(pairs, history, USERS, ITEMS, **sizes, **settings)


def drawn_sets(sampler, seed=0):
    drawn = np.asarray(negatives_of(jax.random.key(seed), sampler, WHO))
    return [set(drawn[user == WHO].tolist()) for user in range(USERS)]


def allowed_sets(candidates, history=HISTORY):
    return [set(candidates) - {item for u, item in history.tolist() if u == user} for user in range(USERS)]


@pytest.mark.parametrize("candidates", [None, [8], [1, 4, 6, 8], range(ITEMS)], ids=["history", "one", "four", "all"])
def test_support(candidates):
    """Exactly the candidates outside the user's history, each of them."""
    chosen = None if candidates is None else np.array(list(candidates))
    sampler = sampler_of(pairs=HISTORY[:3], candidates=chosen)
    assert drawn_sets(sampler) == allowed_sets(range(8) if candidates is None else candidates)


def test_padding_changes_nothing():
    long, short = sampler_of(), sampler_of(padded=False)
    assert long.history.shape == (64,)
    assert short.history.shape == (len(HISTORY),)
    ours, theirs = (negatives_of(jax.random.key(8), sampler, WHO) for sampler in (long, short))
    np.testing.assert_array_equal(ours, theirs)


def test_order_of_history_does_not_matter():
    shuffled = HISTORY[np.random.default_rng(0).permutation(len(HISTORY))]
    ours, theirs = sampler_of(history=shuffled), sampler_of()
    np.testing.assert_array_equal(ours.history, theirs.history)
    np.testing.assert_array_equal(ours.history_pointers, theirs.history_pointers)


def test_random_histories_by_brute_force():
    """Histories of all lengths in arrays of one size, so one program serves them all."""
    rng = np.random.default_rng(1)
    for seed in range(20):
        density = rng.uniform(0.05, 0.8)
        history = np.argwhere(rng.random((USERS, ITEMS)) < density).astype(np.int32)
        history = history[history[:, 1] != rng.integers(ITEMS)]
        sampler = sampler_of(HISTORY[:0], history, candidates=np.arange(ITEMS))
        assert drawn_sets(sampler, seed) == allowed_sets(range(ITEMS), history)


def test_no_history_at_all():
    sampler = sampler_of(HISTORY[:2], HISTORY[:0], candidates=np.array([2, 3]), padded=False)
    assert drawn_sets(sampler) == [{2, 3}] * USERS


@pytest.mark.parametrize("user", [1, 4])
def test_negatives_are_uniform(user):
    """Chi-square of 12000 draws with a fixed key."""
    sampler = sampler_of()
    drawn = np.asarray(negatives_of(jax.random.key(2), sampler, np.full_like(WHO, user)))
    allowed = sorted(allowed_sets(range(8))[user])
    counts = np.bincount(drawn, minlength=ITEMS)[allowed]
    assert counts.sum() == len(WHO)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_draws_depend_on_the_key_alone():
    sampler = sampler_of()
    first, again, other = (negatives_of(jax.random.key(seed), sampler, WHO) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.3


def test_pairs_of_a_user_who_has_everything_weigh_nothing():
    everything = np.array([[4, item] for item in range(8)], np.int32)
    history = np.concatenate([HISTORY, everything])
    sampler = sampler_of(history, history)
    users = jnp.arange(USERS)
    assert has_negative(sampler, users).tolist() == [user != 4 for user in range(USERS)]
    who, _, _, weights = draw_pairs(jax.random.key(0), sampler, 400)
    np.testing.assert_array_equal(np.asarray(weights), np.asarray(who) != 4)
    assert (np.asarray(who) == 4).any()
    # another candidate is enough
    assert drawn_sets(sampler_of(history, history, candidates=np.arange(ITEMS)))[4] == {8}


@pytest.mark.parametrize("padded", [False, True])
def test_order_is_a_permutation_with_real_rows_first(padded):
    sampler = sampler_of(padded=padded)
    orders = [np.asarray(order_of(jax.random.key(seed), sampler)) for seed in (0, 0, 1)]
    real = len(HISTORY)
    for order in orders:
        assert order.dtype == np.int32
        np.testing.assert_array_equal(np.sort(order), np.arange(len(sampler.pairs)))
        np.testing.assert_array_equal(np.sort(order[:real]), np.arange(real))
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0][:real] != orders[2][:real]).any()


def test_every_row_can_come_first():
    sampler = sampler_of(HISTORY[:5])
    orders = jax.jit(jax.vmap(draw_order, (0, None)))(jax.random.split(jax.random.key(5), 3000), sampler)
    assert scipy.stats.chisquare(np.bincount(orders[:, 0], minlength=5)).pvalue > 1e-3


@pytest.mark.parametrize("padded", [False, True])
def test_pairs(padded):
    """Every pair is drawn, equally often; its negative belongs to the user."""
    sampler = sampler_of(padded=padded)
    users, positives, negatives, weights = pairs_of(jax.random.key(6), sampler, size=SIZE)
    places = {tuple(pair): n for n, pair in enumerate(HISTORY.tolist())}
    drawn = [places[pair] for pair in zip(users.tolist(), positives.tolist(), strict=True)]
    assert scipy.stats.chisquare(np.bincount(drawn, minlength=len(HISTORY))).pvalue > 1e-3
    allowed = allowed_sets(range(8))
    assert all(item in allowed[user] for user, item in zip(users.tolist(), negatives.tolist(), strict=True))
    assert weights.dtype == jnp.float32
    np.testing.assert_array_equal(weights, 1)


@pytest.mark.parametrize("padded", [False, True])
def test_pairs_of_an_empty_sampler_weigh_nothing(padded):
    sampler = sampler_of(HISTORY[:0], padded=padded)
    users, positives, negatives, weights = pairs_of(jax.random.key(7), sampler, size=SIZE)
    np.testing.assert_array_equal(weights, 0)
    for array, size in ((users, USERS), (positives, ITEMS), (negatives, ITEMS)):
        assert array.shape == (SIZE,)
        assert ((array >= 0) & (array < size)).all()
