"""What averaging before a nonlinearity does, in closed form: signs, Adam, cycles, floors and the bias of the median.

A kernel is how a rule averages gradients, m_t = Σ c_k g_{t−k} with Σ c_k = 1. Three numbers say how much larger a batch
it is worth: for the mean update N_s = 1/Σc², for the bias N_b = Σc²/Σc³; for diffusion it is worth none, D is power at
frequency zero. Chains are in units of lr = 1 and curvature 1, with r = noise/(curvature·lr).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from descent.arrays import Array

__all__ = [
    "EULER", "Kernel", "adam_bias", "adam_rare", "adam_rms", "closure", "ema", "largest_cycle", "lion", "median_bias",
    "nesterov", "normalised_efficiency", "outlier", "plain_floor", "rare_frequency", "shot_median", "sign_efficiency",
    "sign_floor", "sign_mean", "signum_floor", "window",
]  # fmt: skip

EULER = 0.5772156649015329
"""Euler's constant γ."""

_TAIL = 1e-18
_NEAR = 1.1  # events per memory up to which the shot noise's median is that of its lower tail


@dataclass(frozen=True, eq=False)
class Kernel:
    """Weights c_k of the gradients k steps back, (K,), of sum 1."""

    weights: Array

    @property
    def lag(self) -> float:
        """Mean age Σ k c_k."""
        return float((np.arange(len(self.weights)) * self.weights).sum())

    @property
    def for_mean(self) -> float:
        """N_s = 1/Σc²: the larger batch whose mean update it has."""
        return float(1 / (self.weights**2).sum())

    @property
    def for_bias(self) -> float:
        """N_b = Σc²/Σc³: the larger batch whose bias it has."""
        return float((self.weights**2).sum() / (self.weights**3).sum())

    @property
    def diffusion(self) -> float:
        """D = 1 + (4/π)Σ arcsin ρ_k, the zero-frequency power of sign(m) over that of independent signs."""
        size = 2 ** math.ceil(math.log2(2 * len(self.weights)))
        power = np.abs(np.fft.rfft(self.weights, size)) ** 2
        correlation = np.fft.irfft(power, size)[: len(self.weights)]
        return float(1 + 4 / np.pi * np.arcsin(np.clip(correlation[1:] / correlation[0], -1, 1)).sum())

    @property
    def floor_ratio(self) -> float:
        """D/N_s: the floor of the averaged sign over that of the plain one at matched response."""
        return self.diffusion / self.for_mean


def ema(momentum: float) -> Kernel:
    """Return (1 − momentum)·momentum^k.

    >>> found = ema(0.9)
    >>> round(found.for_mean, 6), round(found.for_bias, 4), round(found.diffusion, 4)
    (19.0, 14.2632, 13.2789)
    """
    return Kernel((1 - momentum) * momentum ** np.arange(_length(momentum), dtype=np.float64))


def nesterov(momentum: float) -> Kernel:
    """Return the kernel of momentum·m + (1 − momentum)·g."""
    weights = momentum * ema(momentum).weights
    weights[0] += 1 - momentum
    return Kernel(weights)


def lion(momentum: float, slow: float) -> Kernel:
    """Return the kernel of momentum·(the average before) + (1 − momentum)·g, the average forgetting at `slow`."""
    return Kernel(np.concatenate([[1 - momentum], momentum * ema(slow).weights]))


def window(length: int) -> Kernel:
    """Return equal weights.

    length: steps, all of equal weight.
    """
    return Kernel(np.full(length, 1 / length))


def sign_mean(gradient: ArrayLike, noise: ArrayLike, larger: ArrayLike = 1.0) -> Array:
    """Return E sign(m) = erf(g√N/(√2 σ)) under Gaussian noise; larger: N, 1 for the plain sign.

    gradient: g, the mean; noise: σ, the standard deviation.
    """
    g, s = np.asarray(gradient, dtype=np.float64), np.asarray(noise, dtype=np.float64)
    return np.asarray(special.erf(g * np.sqrt(larger) / (math.sqrt(2) * s)))


def sign_floor(lr: float, noise: float, curvature: float, kernel: Kernel | None = None) -> float:
    """Return the variance ½(lr·noise/curvature)√(π/2)·D/√N_s around a minimum, for noise ≫ lr·curvature.

    noise: standard deviation of the gradient's noise.
    """
    shape = 1.0 if kernel is None else kernel.diffusion / math.sqrt(kernel.for_mean)
    return lr * noise / (2 * curvature) * math.sqrt(math.pi / 2) * shape


def plain_floor(noise: float, phase: float = 0.0) -> float:
    """Return E x² of plain sign descent on ½x², exactly: π(x + 1)/π(x) = Φ(−x/r)/Φ((x + 1)/r) on phase + ℤ.

    noise: r, the standard deviation of the noise over lr·curvature; phase: where the lattice of steps lies.
    """
    reach = math.ceil(12 * math.sqrt(closure(noise)) + 12)
    x = np.arange(-reach, reach + 1) + phase
    logs = np.concatenate([[0.0], np.cumsum(special.log_ndtr(-x[:-1] / noise) - special.log_ndtr(x[1:] / noise))])
    weight = np.exp(logs - logs.max())
    return float((weight * x**2).sum() / weight.sum())


def closure(noise: float) -> float:
    """Return (π/16)(1 + √(1 + 32r²/π)), the Gaussian closure of the plain floor.

    noise: r, as in `plain_floor`.
    """
    return math.pi / 16 * (1 + math.sqrt(1 + 32 * noise**2 / math.pi))


def signum_floor(noise: float, momentum: float, nodes: int = 80, tolerance: float = 1e-13) -> float:
    """Return E x² of x ← x − sign(m), m ← momentum·m + (1 − momentum)(x + rξ), on ℤ: a chain in (x, m).

    The density in m is held at Gauss and Legendre's nodes on either side of 0, where it jumps.

    noise: r, as in `plain_floor`; nodes: of the quadrature on either side of 0.
    """
    kernel = ema(momentum)
    spread = sign_floor(1, noise, 1, kernel) + 3 + 1 / (1 - momentum)
    width, most = (1 - momentum) * noise, math.ceil(7 * math.sqrt(spread)) + 4
    side = 8 * math.sqrt(noise**2 / kernel.for_mean + spread)
    points, weights = np.polynomial.legendre.leggauss(nodes)
    half = (points + 1) * side / 2
    m, w = np.concatenate([-half[::-1], half]), np.concatenate([weights[::-1], weights]) * side / 2
    x = np.arange(-most, most + 1)
    centre = momentum * m[None, None, :] + (1 - momentum) * x[:, None, None]
    step = np.exp(-0.5 * ((m[None, :, None] - centre) / width) ** 2) / (width * math.sqrt(2 * math.pi)) * w
    density = np.exp(-0.5 * x**2 / spread)[:, None] * np.exp(-0.5 * m**2 / (side / 6) ** 2)[None, :]
    value, before = math.inf, 0.0
    for _ in range(20_000):
        moved = (step @ density[:, :, None])[:, :, 0]
        after = np.zeros_like(density)
        after[:-1, m > 0] += moved[1:, m > 0]
        after[1:, m < 0] += moved[:-1, m < 0]
        density = density / (density @ w).sum() + after / (after @ w).sum()  # lazy: x changes its parity every step
        before, value = value, float((density @ w) @ x**2 / (density @ w).sum())
        if abs(value - before) < tolerance * value:
            break
    return value


def largest_cycle(momentum: float) -> int:
    """Return the largest half-period n of Signum's antisymmetric orbits without noise; they are free of curvature."""
    n, mu = 2, momentum
    while (n / 2 - 0.5) * (1 - mu ** (n + 1)) * (1 - mu) < mu * (1 - (n + 1) * mu**n + n * mu ** (n + 1)):
        n += 1
    return n


def median_bias(third: float, variance: float, batch_size: int = 1, kernel: Kernel | None = None) -> float:
    """Return κ₃/(6σ²)/(B·N_b), the mean gradient at which slow sign descent stops, to first order.

    third: κ₃, the third cumulant of the noise.
    """
    return third / (6 * variance) / (batch_size * (1.0 if kernel is None else kernel.for_bias))


def rare_frequency(batch_size: ArrayLike) -> Array:
    """Return 1 − 2^(−1/B): plain sign descent drives the logit of a rarer class down for ever."""
    return np.asarray(-np.expm1(-math.log(2) / np.asarray(batch_size, dtype=np.float64)))


def shot_median(events: ArrayLike) -> Array:
    """Return q/p that Signum learns of a class with ν = pB/(1 − momentum) events per memory.

    events: ν, expected per memory.
    """
    nu = np.asarray(events, dtype=np.float64)
    few = np.exp((math.log(0.5) + special.gammaln(1 + nu) + EULER * nu) / nu) / nu
    return np.where(nu <= _NEAR, few, 1 - 1 / (9 * nu))


def adam_bias(momentum: float, second: float) -> float:
    """Return ½(1 − β₁)(1 − β₂)/(1 − β₁β₂), Adam's bias in units of κ₃/σ², to leading order.

    second: momentum factor β₂ of the average of squares.
    """
    return 0.5 * (1 - momentum) * (1 - second) / (1 - momentum * second)


def adam_rare(events: ArrayLike) -> Array:
    """Return q/p = 1 − 1/(2ν) that Adam learns with ν = pB/(1 − β₂), 0 below ν = ½; β₂ → 1 and eps = 0.

    events: ν, expected per memory of the squares.
    """
    return np.maximum(0.0, 1 - 1 / (2 * np.asarray(events, dtype=np.float64)))


def adam_rms(momentum: ArrayLike) -> Array:
    """Return the root mean square of Adam's update under noise alone over lr, √((1 − β₁)/(1 + β₁))."""
    mu = np.asarray(momentum, dtype=np.float64)
    return np.sqrt((1 - mu) / (1 + mu))


def outlier(momentum: float, second: float) -> float:
    """Return how far one infinite gradient moves Adam, (1 − β₁)/(√(1 − β₂)(1 − β₁/√β₂)), in units of lr.

    second: momentum factor β₂ of the average of squares.
    """
    return (1 - momentum) / (math.sqrt(1 - second) * (1 - momentum / math.sqrt(second)))


def sign_efficiency(momentum: float | None = None) -> float:
    """Return what a sign keeps of the information: 2/π, averaged first (2/π)·N_s/D, at most 2/(π ln 2)."""
    return 2 / math.pi if momentum is None else 2 / (math.pi * ema(momentum).floor_ratio)


def normalised_efficiency(dimension: ArrayLike) -> Array:
    """Return 2Γ((d + 1)/2)²/(d Γ(d/2)²) of g/|g| under isotropic Gaussian noise."""
    d = np.asarray(dimension, dtype=np.float64)
    return np.asarray(2 * np.exp(2 * (special.gammaln((d + 1) / 2) - special.gammaln(d / 2))) / d)


def _length(momentum: float) -> int:
    return 1 if momentum == 0 else math.ceil(math.log(_TAIL) / math.log(momentum))
