"""How a polar factor follows one direction of a large matrix under noise: Muon's mean update.

G = s·uvᵀ + σN, N of independent standard normals, θ = s/(σ√n) for n × n. The overlap E uᵀ polar(G) v is the derivative
in s of the mean nuclear norm. It has no threshold. An average before the factor enters as θ√N_s
(`descent.theory.signs.Kernel.for_mean`). Exact for large matrices.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad

from descent.arrays import Array

__all__ = ["EFFICIENCY", "overlap", "rectangular_overlap"]

EFFICIENCY = (8 / (3 * math.pi)) ** 2
"""What the polar factor of a large square matrix keeps of the information."""
_SMALL = 1e-3


def overlap(signal: ArrayLike) -> Array:
    """Return f(θ) = (2/π)(1/θ + (1 − 1/θ²) arctan θ) of square matrices, 8θ/3π at small θ.

    signal: θ = s/(σ√n), the direction's strength over the noise.

    >>> [round(float(overlap(t)), 4) for t in (0.3, 1, 2, 5)]
    [0.246, 0.6366, 0.8469, 0.9667]
    """
    theta = np.asarray(signal, dtype=np.float64)
    safe = np.where(np.abs(theta) < _SMALL, 1.0, theta)
    far = 2 / math.pi * (1 / safe + (1 - safe**-2) * np.arctan(safe))
    return np.where(np.abs(theta) < _SMALL, 8 / (3 * math.pi) * theta * (1 - theta**2 / 5), far)


def rectangular_overlap(rows: int, columns: int, signal: float, noise: float = 1.0) -> float:
    """Return (1/π)∫ 2sαβ/(1 + s²αβ) dt over t > 0, with α = 1/(t + mσ²β) and β = 1/(t + nσ²α); signal: s.

    rows: m; columns: n; noise: σ, the standard deviation of an entry.
    """

    def density(t: float) -> float:
        both = _resolvents(t, rows * noise**2, columns * noise**2)
        return 2 * signal * both / (1 + signal**2 * both) / math.pi

    scale = noise * math.sqrt(max(rows, columns)) + signal
    near, _ = quad(density, 0, scale, epsabs=1e-12, epsrel=1e-12, limit=200)
    far, _ = quad(lambda u: density(scale / u) * scale / u**2, 0, 1, epsabs=1e-12, epsrel=1e-12, limit=200)
    return float(near + far)


def _resolvents(t: float, n: float, m: float) -> float:
    """Return αβ: from α(t + mβ) = 1 and β(t + nα) = 1, tα is the positive root of nα² t + α(t² + m − n) − t = 0."""
    b = t * t + m - n
    root = math.hypot(b, 2 * t * math.sqrt(n))
    alpha = 2 * t / (b + root) if b > 0 else (root - b) / (2 * n * t)
    return alpha / (t + n * alpha)
