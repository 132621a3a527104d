"""What noise guarantees: (epsilon, delta) of projected noisy steps. Floats in, floats out; imports no jax.

A chain takes T steps on retained data, starting from x_0:

    x_t = Pi_C(step_t(x_{t-1})) + N(0, sigma^2 I),     Pi_C projects onto the ball of radius C around a point that no forgotten data moved

It starts at the model to unlearn from; another chain takes the same steps from a model that never saw the forgotten data. For every set S

    P(x_T in S) <= e^epsilon P(x'_T in S) + delta,     delta = theta^T
    theta = Phi(C / sigma - epsilon sigma / 2 C) - e^epsilon Phi(-C / sigma - epsilon sigma / 2 C)

and the same holds with the two exchanged. It holds wherever they start: nothing is required of the training. It is about real numbers and
noise that nobody knows; for float32 and a generator it holds as far as these pass for them.

Derivation. Let gamma = e^epsilon and E(P, Q) = sup_S P(S) - gamma Q(S), so that the claim is E(P_T, Q_T) <= delta.

1. Given its batch, a step is a kernel K(x) = N(Pi_C(step(x)), sigma^2 I). Two of its means are at most 2 C apart, and E of two Gaussians
   at a distance r is Phi(r / 2 sigma - epsilon sigma / r) - gamma Phi(-r / 2 sigma - epsilon sigma / r), which grows with r: at most theta.
2. A step multiplies E by at most theta. Let m be the positive part of P - gamma Q, of mass a = E(P, Q) <= 1; the negative part has mass
   a + gamma - 1 = gamma a + (gamma - 1)(1 - a) >= gamma a, so it holds a part n of mass gamma a. Then
   P K(S) - gamma Q K(S) <= int K(x)(S) m(dx) - int K(x')(S) n(dx') = int int [K(x)(S) - gamma K(x')(S)] m(dx) n(dx') / gamma a <= a theta.
3. E of the starts is at most 1, and T steps multiply. Batches are drawn alike in both chains, and E is jointly convex: an average over them
   keeps the bound.

For T = 1 it is the analytic Gaussian mechanism (Balle and Wang 2018, arXiv 1805.06530) of sensitivity 2 C. The contraction: Asoodeh, Diaz
and Calmon 2020 (arXiv 2012.11035). Projected noisy fine-tuning as unlearning: Koloskova et al. 2025 (arXiv 2506.06985). Accounting by
Renyi divergence, `renyi_of_gaussian` and `epsilon_of_renyi`, asks for more noise.
"""

import math
from collections.abc import Callable
from numbers import Integral, Real

from scipy.special import log_ndtr

from recunlearn_jax.errors import InputError, shown


def delta_of(epsilon: float, radius: float, sigma: float, steps: int = 1) -> float:
    """delta of a chain.

    Args:
        epsilon: at least 0.
        radius: C, above 0.
        sigma: of the noise, above 0.
        steps: T, at least 1.

    Examples:
        >>> round(delta_of(1.0, 0.5, 1.0), 6), round(delta_of(1.0, 0.5, 1.0, steps=3), 6)
        (0.126937, 0.002045)
    """
    _check(epsilon=(epsilon, 0, True), radius=(radius, 0, False), sigma=(sigma, 0, False), steps=(steps, 1, True))
    half = radius / sigma
    if half < 1e-12:  # below what differences of floats can resolve; 2 phi(0) half is an upper bound
        return min(1.0, 0.8 * max(half, 1e-300)) ** steps
    first, second = float(log_ndtr(half - epsilon / half / 2)), float(log_ndtr(-half - epsilon / half / 2))
    ratio = epsilon + second - first  # log of the second term over the first, below 0
    return math.exp(steps * (first + _log_one_less(ratio))) if ratio < 0 else (0.8 * half) ** steps


def epsilon_of(delta: float, radius: float, sigma: float, steps: int = 1) -> float:
    """The least epsilon for a delta, arguments as for `delta_of`.

    Examples:
        >>> round(epsilon_of(1e-5, 0.5, 1.0), 3), round(epsilon_of(1e-5, 0.5, 1.0, steps=10), 3)
        (4.377, 0.221)
    """
    _check(delta=(delta, 0, False))
    if delta_of(0, radius, sigma, steps) <= delta:
        return 0.0
    return _least(lambda epsilon: delta_of(epsilon, radius, sigma, steps) <= delta)


def sigma_of(epsilon: float, delta: float, radius: float, steps: int = 1) -> float:
    """The least noise for a guarantee, arguments as for `delta_of`.

    Examples:
        >>> round(sigma_of(1.0, 1e-5, 0.5), 2), round(sigma_of(1.0, 1e-5, 0.5, steps=100), 2)
        (3.73, 0.27)
    """
    _check(epsilon=(epsilon, 0, True), delta=(delta, 0, False), radius=(radius, 0, False), steps=(steps, 1, True))
    return radius * _least(lambda sigma: delta_of(epsilon, 1.0, sigma, steps) <= delta)


def renyi_of_gaussian(order: float, distance: float, sigma: float) -> float:
    """Renyi divergence of two Gaussians of one sigma whose means are a distance apart, order distance^2 / 2 sigma^2 (arXiv 1702.07476).

    Examples:
        >>> renyi_of_gaussian(4.0, 1.0, 2.0)
        0.5
    """
    _check(order=(order, 1, False), distance=(distance, 0, True), sigma=(sigma, 0, False))
    return order * distance**2 / (2 * sigma**2)


def epsilon_of_renyi(order: float, divergence: float, delta: float) -> float:
    """epsilon of a Renyi divergence, divergence + log(1 / delta) / (order - 1) (Mironov 2017, arXiv 1702.07476, proposition 3).

    Examples:
        >>> round(epsilon_of_renyi(2.0, 0.5, 1e-5), 3), round(epsilon_of_renyi(11.0, 0.5, 1e-5), 3)
        (12.013, 1.651)
    """
    _check(order=(order, 1, False), divergence=(divergence, 0, True), delta=(delta, 0, False))
    return divergence + math.log(1 / delta) / (order - 1)


def _log_one_less(x: float) -> float:
    """log(1 - e^x) for x < 0."""
    return math.log(-math.expm1(x)) if x > -math.log(2) else math.log1p(-math.exp(x))


def _least(holds: Callable[[float], bool]) -> float:
    """The least positive number for which it holds, to twelve digits; it holds for all larger ones, too."""
    low, high = 0.0, 1.0
    while not holds(high):
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _check(**values: tuple[float, float, bool]) -> None:
    """Check that each value is a number: at least its bound, or above it."""
    for name, (value, bound, included) in values.items():
        kind = "whole number" if name == "steps" else "number"
        allowed = isinstance(value, Integral if name == "steps" else Real) and not isinstance(value, bool)
        if not allowed or not (value >= bound if included else value > bound) or not math.isfinite(value):
            raise InputError(
                f"{name} is {shown(value)}; a {kind} {'of at least' if included else 'above'} {bound} is allowed"
            )
    if "delta" in values and values["delta"][0] >= 1:
        raise InputError(f"delta is {values['delta'][0]}; a number below 1 is allowed")
