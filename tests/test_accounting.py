"""Guarantees by noise: against numerical integration of whole chains, against dp-accounting, and what must not be got wrong."""

import math

import dp_accounting
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from recunlearn_jax.accounting import delta_of, epsilon_of, epsilon_of_renyi, renyi_of_gaussian, sigma_of
from recunlearn_jax.errors import InputError


def integrated(epsilon, radius, sigma, steps, step, starts):
    """E of two chains in one dimension by their densities on a grid."""
    grid = np.linspace(-radius - 9 * sigma, radius + 9 * sigma, 3001)
    width = grid[1] - grid[0]
    kernel = norm.pdf(grid[:, None], np.clip(step(grid), -radius, radius)[None], sigma)  # [to, from]
    first, second = (norm.pdf(grid, np.clip(step(np.array(x)), -radius, radius), sigma) for x in starts)
    for _ in range(steps - 1):
        first, second = kernel @ first * width, kernel @ second * width
    return width * np.maximum(first - math.exp(epsilon) * second, 0).sum()


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(("radius", "sigma"), [(1.0, 0.7), (0.4, 1.0)])
def test_one_step_is_exact(epsilon, radius, sigma):
    """From starts that the step sends to the two ends of the ball, the bound is what there is."""
    found = integrated(epsilon, radius, sigma, 1, lambda x: 3 * x, (-9.0, 9.0))
    assert found == pytest.approx(delta_of(epsilon, radius, sigma), rel=1e-4)


@pytest.mark.parametrize("steps", [2, 3, 6])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "step", [lambda x: 50 * x, lambda x: 0.9 * x, lambda x: x + np.sin(5 * x)], ids=["sign", "shrink", "bend"]
)
def test_a_chain_is_bounded_whatever_its_steps_do(steps, epsilon, step):
    radius, sigma = 1.0, 0.7
    found = integrated(epsilon, radius, sigma, steps, step, (-9.0, 9.0))
    bound = delta_of(epsilon, radius, sigma, steps)
    assert found <= bound * (1 + 1e-6)


def test_a_step_that_goes_to_the_ends_comes_near_the_bound():
    """So it is no looser than a step of this kind makes it: a bound without the power would be 30 times as large."""
    found = integrated(0.0, 1.0, 0.7, 4, lambda x: 1e6 * x, (-9.0, 9.0))
    assert delta_of(0.0, 1.0, 0.7, 4) / 1.01 < found < delta_of(0.0, 1.0, 0.7, 1) / 1.5


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_one_step_is_the_gaussian_mechanism_of_dp_accounting(delta, sigma):
    theirs = dp_accounting.get_epsilon_gaussian(sigma, delta)
    assert epsilon_of(delta, 0.5, sigma) == pytest.approx(theirs, rel=1e-6)
    if theirs > 0:
        assert sigma_of(theirs, delta, 0.5) == pytest.approx(sigma, rel=1e-6)


@given(
    epsilon=st.floats(0.01, 1e6), delta=st.floats(1e-12, 0.5), radius=st.floats(1e-3, 1e3), steps=st.integers(1, 10_000)
)
def test_the_three_are_inverses_and_monotone(epsilon, delta, radius, steps):
    sigma = sigma_of(epsilon, delta, radius, steps)
    assert delta_of(epsilon, radius, sigma, steps) <= delta
    assert delta_of(epsilon, radius, 0.99 * sigma, steps) > delta
    assert epsilon_of(delta, radius, sigma, steps) <= epsilon * (1 + 1e-6)
    assert sigma_of(epsilon, delta, 2 * radius, steps) == pytest.approx(2 * sigma, rel=1e-6)
    assert sigma_of(epsilon, delta, radius, steps + 1) <= sigma


def test_renyi_divergence_keeps_its_order():
    """With the order, the best of all orders is above the exact epsilon, as it must be; without it a guarantee would be claimed that
    does not hold."""
    sigma, delta = 1.0, 1e-5
    exact = epsilon_of(delta, 0.5, sigma)
    orders = np.linspace(1.01, 200, 20_000)
    right = min(epsilon_of_renyi(a, renyi_of_gaussian(a, 1.0, sigma), delta) for a in orders)
    wrong = min(epsilon_of_renyi(a, renyi_of_gaussian(a, 1.0, sigma) / a, delta) for a in orders)
    assert right == pytest.approx(5.2985, abs=1e-3)  # r^2 / 2 + r sqrt(2 log(1 / delta))
    assert wrong < exact < right


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: delta_of(-1, 1, 1), "epsilon is -1; a number of at least 0"),
        (lambda: delta_of(1, 0, 1), "radius is 0; a number above 0"),
        (lambda: delta_of(1, 1, math.nan), "sigma is nan"),
        (lambda: delta_of(1, 1, 1, 0), "steps is 0; a whole number of at least 1"),
        (lambda: delta_of(1, 1, 1, 2.5), "steps is 2.5; a whole number of at least 1"),
        (lambda: sigma_of(1, 0.1, 1, True), "steps is True; a whole number of at least 1"),
        (lambda: epsilon_of("0.1", 1, 1), "delta is '0.1'; a number above 0"),
        (lambda: sigma_of(1, 1.0, 1), "delta is 1.0; a number below 1"),
        (lambda: epsilon_of_renyi(1.0, 1, 0.1), "order is 1.0; a number above 1"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
