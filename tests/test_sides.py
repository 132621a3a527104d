"""Users and items as each other's neighbours: without some pairs, and what that changes."""

import numpy as np
import pytest
from formulas import ITEMS, PAIRS, USERS

from recunlearn_jax.sides import KINDS as SIDES
from recunlearn_jax.sides import sides


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
