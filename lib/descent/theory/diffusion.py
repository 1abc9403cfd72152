"""The diffusion limit of heavy ball: lr → 0 at fixed momentum, time lr·k. What the exact laws are compared to.

dX = −F'(X)/(1 − β) dt + √α σ/(1 − β) dB: drift and noise both carry 1/(1 − β). The limit needs αb ≪ (1 − β)², a much
stronger demand than αb ≪ 1. Conventions as in `mode`: raw heavy-ball `lr`, `noise` the variance σ².
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from descent.arrays import Array

__all__ = [
    "Diffusion", "diffusion_floor", "diffusion_growth", "diffusion_mean", "diffusion_quantile", "diffusion_variance",
]  # fmt: skip


_MEAN_SHIFT = (np.euler_gamma + math.log(2)) / 2  # −E log|ξ| of a standard normal ξ


@dataclass(frozen=True, eq=False)
class Diffusion:
    """One unstable direction in the diffusion limit; its laws broadcast like those of `escape.Unstable`."""

    instability: ArrayLike
    lr: ArrayLike
    momentum: ArrayLike
    noise: ArrayLike = 1.0

    def mean(self, radius: ArrayLike) -> Array:
        """Return the mean steps to |x| ≥ radius, `diffusion_mean`."""
        return diffusion_mean(radius, self.instability, self.lr, self.momentum, self.noise)

    def quantile(self, p: ArrayLike, radius: ArrayLike) -> Array:
        """Return the steps by which a share p has left, `diffusion_quantile`."""
        return diffusion_quantile(p, radius, self.instability, self.lr, self.momentum, self.noise)

    def variance(self, k: ArrayLike) -> Array:
        """Return the variance after k steps from rest, `diffusion_variance`."""
        return diffusion_variance(k, self.instability, self.lr, self.momentum, self.noise)


def diffusion_growth(instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike) -> Array:
    """Return the growth rate per step at a saddle, αb/(1 − β)."""
    return np.asarray(np.asarray(lr) * np.asarray(instability) / (1 - np.asarray(momentum)))


def diffusion_floor(curvature: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0) -> Array:
    """Return the stationary variance at an optimum, ασ²/(2h(1 − β))."""
    return np.asarray(np.asarray(noise) * np.asarray(lr) / (2 * np.asarray(curvature) * (1 - np.asarray(momentum))))


def diffusion_variance(
    k: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0
) -> Array:
    """Return the variance after k steps from rest on a saddle, ασ²/(2b(1 − β))·(e^{2gk} − 1)."""
    grown = np.expm1(2 * diffusion_growth(instability, lr, momentum) * np.asarray(k))
    return np.asarray(diffusion_floor(instability, lr, momentum, noise) * grown)


def diffusion_mean(
    radius: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0
) -> Array:
    """Return the mean steps to |x| ≥ radius, far outside the noise: (½ log(2b(1 − β)R²/(ασ²)) + 0.635181)/g."""
    level = np.square(radius) / diffusion_floor(instability, lr, momentum, noise)
    return np.asarray((np.log(level) / 2 + _MEAN_SHIFT) / diffusion_growth(instability, lr, momentum))


def diffusion_quantile(
    p: ArrayLike, radius: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0
) -> Array:
    """Return the steps by which a fraction p has left, log(1 + 2(1 − β)bR²/(ασ²q²))/2g with q = Φ⁻¹(1 − p/2)."""
    q = special.ndtri(1 - np.asarray(p, dtype=np.float64) / 2)
    level = np.square(radius) / (q**2 * diffusion_floor(instability, lr, momentum, noise))
    return np.asarray(np.log1p(level) / (2 * diffusion_growth(instability, lr, momentum)))
