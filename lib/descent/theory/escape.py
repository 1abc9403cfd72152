"""Leaving a saddle or a well: the exact discrete law of one unstable mode with additive noise.

F = −b x²/2, b = `instability`, from rest at x = 0 until |x| ≥ `radius`. Conventions as in `mode`: raw
heavy-ball `lr`, `noise` the variance σ² of the gradient noise of one step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from descent.arrays import Array
from descent.theory.diffusion import Diffusion
from descent.theory.mode import _broadcast, _unstable, growth, roots

# An escape is late by −log|ξ| growth times, ξ standard normal: mean ½(γ + log 2), deviation π/(2√2).
_MEAN_SHIFT = (np.euler_gamma + math.log(2)) / 2
_LOG_SPREAD = math.pi / (2 * math.sqrt(2))
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Unstable:
    """One unstable direction under heavy ball, additive noise of variance `noise`: its exact laws, broadcast.

    >>> import numpy as np
    >>> np.round(Unstable(1.0, 5e-4, np.array([0.0, 0.9]), 12.0).mean(1.0), 1).tolist()
    [7085.0, 515.9]
    """

    instability: ArrayLike
    lr: ArrayLike
    momentum: ArrayLike
    noise: ArrayLike = 1.0

    @property
    def diffusion(self) -> Diffusion:
        """The diffusion limit of the same direction."""
        return Diffusion(self.instability, self.lr, self.momentum, self.noise)

    @property
    def by_arm(self) -> Unstable:
        """The same laws with an axis after those of the arms, for what varies within an arm."""
        parts = (np.asarray(part)[..., None] for part in (self.instability, self.lr, self.momentum, self.noise))
        return Unstable(*parts)

    def mean(self, radius: ArrayLike) -> Array:
        """Return the mean steps to |x| ≥ radius, `escape_mean`."""
        return escape_mean(radius, self.instability, self.lr, self.momentum, self.noise)

    def quantile(self, p: ArrayLike, radius: ArrayLike) -> Array:
        """Return the steps by which a share p has left, `escape_quantile`."""
        return escape_quantile(p, radius, self.instability, self.lr, self.momentum, self.noise)

    def cdf(self, k: ArrayLike, radius: ArrayLike) -> Array:
        """Return the share that has left after k steps, `escape_cdf`."""
        return escape_cdf(k, radius, self.instability, self.lr, self.momentum, self.noise)

    def variance(self, k: ArrayLike) -> Array:
        """Return the variance after k steps from rest, `variance_from_rest`."""
        return variance_from_rest(k, self.instability, self.lr, self.momentum, self.noise)


def variance_from_rest(
    k: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0
) -> Array:
    """Return s_k² = Var x_k after k steps from rest on the saddle.

    α²σ²/(z₊ − z₋)²·[z₊²(z₊^{2k} − 1)/(z₊² − 1) − 2β(1 − β^k)/(1 − β) + z₋²(1 − z₋^{2k})/(1 − z₋²)].
    """
    k, b, alpha, beta, variance = _broadcast(k, _unstable(instability), lr, momentum, noise)
    _, z_minus = roots(-b, alpha, beta)
    g = growth(b, alpha, beta)
    with np.errstate(over="ignore"):  # an overflow is a variance too large to write, hence infinite
        grown = np.expm1(2 * g * k) * np.exp(2 * g) / np.expm1(2 * g)
    cross = 2 * beta * (1 - beta**k) / (1 - beta)
    decayed = z_minus**2 * (1 - z_minus ** (2 * k)) / (1 - z_minus**2)
    return np.asarray(variance * (alpha / (np.exp(g) - z_minus)) ** 2 * (grown - cross + decayed))


def escape_level(
    radius: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0
) -> Array:
    """Return Λ = R(z₊ − z₋)√(z₊² − 1)/(z₊ασ), the radius in units of the noise the escape starts from.

    The laws below are the marginal law of |x_k| ≥ R: a lower bound on P(T ≤ k), hence an upper bound on the
    mean. They are sound for Λ ≥ 4, and the closer the larger Λ. At Λ = 1, 2, 3, 4, 6, 8 in the worst case
    (plain SGD, small αb) the true mean is 0.57, 0.86, 0.96, 0.98, 0.995, 0.998 of theirs and the largest
    difference of the distribution functions 0.21, 0.084, 0.037, 0.019, 0.006, 0.003: a test against the law
    with N samples needs a level at which that is small against 1.6/√N.
    """
    radius, b, alpha, beta, variance = _broadcast(radius, _unstable(instability), lr, momentum, noise)
    z_plus, z_minus = roots(-b, alpha, beta)
    kick = alpha * np.sqrt(variance)
    return np.asarray(radius * (z_plus - z_minus) * np.sqrt(z_plus**2 - 1) / (z_plus * kick))


def escape_cdf(
    k: ArrayLike, radius: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0
) -> Array:
    """Return P(T ≤ k) = 2Φ̄(R/s_k) for whole k ≥ 0; valid where escape_level ≥ 4."""
    return np.asarray(special.erfc(_scaled_radius(k, radius, instability, lr, momentum, noise)))


def _scaled_radius(k: ArrayLike, radius: ArrayLike, *mode: ArrayLike) -> Array:
    with np.errstate(divide="ignore"):  # before the first step the spread is zero: nothing has escaped
        return np.asarray(np.asarray(radius) / np.sqrt(2 * variance_from_rest(k, *mode)))


def escape_mean(
    radius: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0
) -> Array:
    """Return E T = Σ_{k≥0} P(T > k) in steps, by the sum; valid where escape_level ≥ 4."""
    values = _broadcast(radius, _unstable(instability), lr, momentum, noise)
    rows = (_survival_sum(*row) for row in zip(*(value.ravel() for value in values), strict=True))
    return np.fromiter(rows, dtype=np.float64).reshape(values[0].shape)


def _survival_sum(radius: float, *mode: float) -> float:
    """Sum P(T > k) until what is left, a geometric series of ratio 1/z₊, is below 1e-13 of the sum."""
    total, start, rate = 0.0, 0, float(growth(*mode[:3]))
    while True:
        left = special.erf(_scaled_radius(np.arange(start, start + _BLOCK), radius, *mode))
        total, start = total + float(left.sum()), start + _BLOCK
        if left[-1] < 1e-13 * total * math.expm1(rate):
            return total


def escape_mean_asymptotic(
    radius: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0
) -> Array:
    """Return E T for a large radius, (log Λ + ½(γ + log 2))/log z₊ + ½."""
    level = escape_level(radius, instability, lr, momentum, noise)
    return np.asarray((np.log(level) + _MEAN_SHIFT) / growth(instability, lr, momentum) + 0.5)


def escape_sd(instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike) -> Array:
    """Return the standard deviation of T for a large radius, π/(2√2 log z₊), whatever the noise."""
    return np.asarray(_LOG_SPREAD / growth(instability, lr, momentum))


def escape_quantile(
    p: ArrayLike, radius: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0
) -> Array:
    """Return the smallest whole k with P(T ≤ k) ≥ p; valid where escape_level ≥ 4."""
    p, *law = _broadcast(_probability(p), radius, _unstable(instability), lr, momentum, noise)
    low, high = np.zeros(p.shape), np.ones(p.shape)
    while (short := escape_cdf(high, *law) < p).any():
        low, high = np.where(short, high, low), np.where(short, 2 * high, high)
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        reached = escape_cdf(middle, *law) >= p
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.asarray(high)


def escape_from_offset(
    offset: ArrayLike, radius: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike
) -> Array:
    """Return the noise-free time from rest at x₀ = `offset`, log(R(z₊ − z₋)/(x₀z₊(1 − z₋)))/log z₊.

    offset: distance from the saddle at the start.
    """
    offset, radius, b, alpha, beta = _broadcast(offset, radius, _unstable(instability), lr, momentum)
    z_plus, z_minus = roots(-b, alpha, beta)
    ratio = radius * (z_plus - z_minus) / (offset * z_plus * (1 - z_minus))
    return np.asarray(np.log(ratio) / growth(b, alpha, beta))


def kramers_time(
    barrier: ArrayLike,
    curvature: ArrayLike,
    instability: ArrayLike,
    lr: ArrayLike,
    momentum: ArrayLike,
    noise: ArrayLike = 1.0,
) -> Array:
    """Return the mean number of steps over a barrier, 2π e^{ΔF/T}/(√(a/b) log z₊), temperature T = eσ²/2.

    `barrier` ΔF ≳ T is the height over the well of curvature a, `instability` b the curvature at its top.
    For small steps: at eh ~ 1 the discrete walker is hotter than T. Count committed crossings: touching the
    top is not one.

    barrier: its height ΔF over the well; curvature: that of the well.
    """
    height, a, b, alpha, beta, variance = _broadcast(barrier, curvature, _unstable(instability), lr, momentum, noise)
    temperature = alpha / (1 - beta) * variance / 2
    return np.asarray(2 * math.pi * np.exp(height / temperature) / (np.sqrt(a / b) * growth(b, alpha, beta)))


def _probability(p: ArrayLike) -> Array:
    values = np.asarray(p, dtype=np.float64)
    if not ((values > 0) & (values < 1)).all():
        raise ValueError(f"p must lie strictly between 0 and 1, got {values}")
    return values
