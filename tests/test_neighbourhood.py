"""What a neighbourhood says of a row, its regression, and what of it is no echo of the row itself, against plain numpy."""

import numpy as np
import pytest
from formulas import ITEMS, PAIRS, USERS, oracle_phi, oracle_psi, oracle_ridge, seen

from recunlearn_jax.sides import KINDS as SIDES
from recunlearn_jax.sides import OTHER, sides
from recunlearn_jax.unlearn.neighbourhood import phi, ridge, said_without_echo, strength


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
