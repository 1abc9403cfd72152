"""Gaussian inputs and a linear model: every moment of the noise geometry in closed form, by Isserlis' theorem.

Inputs x ~ N(0, S), residual r = uᵀx, loss L = uᵀSu/2. In the population the Gauss–Newton matrix is S, the noise
covariance Σ = 2L S + (Su)(Su)ᵀ. `pull` A = JJᵀ is the metric of a reparameterisation w = F(θ) of the linear model;
the identity for plain linear regression.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Expected", "expected_alignment", "population_alignment", "population_directional", "population_extremes"]


class Expected(NamedTuple):
    """Expectations over n examples: Tr(Σ₁G), ‖G‖²_F, ∇LᵀG∇L and 2L; their ratios are the alignments."""

    noise: float  # Tr(Σ₁G)
    frobenius: float  # ‖G‖²_F
    drift: float  # ∇LᵀG∇L
    twice_loss: float

    @property
    def uncentred(self) -> float:
        """The ratio of expectations that A₁ becomes."""
        return self.noise / (self.twice_loss * self.frobenius)

    @property
    def centred(self) -> float:
        """The same for A_c."""
        return (self.noise - self.drift) / (self.twice_loss * self.frobenius)


def population_alignment(covariance: ArrayLike, residual: ArrayLike) -> tuple[float, float]:
    """Return A₁ = 1 + 2q and A_c = 1 + q, q = uᵀS³u/(uᵀSu · tr S²).

    covariance: S of the inputs; residual: u, which makes the residual uᵀx.
    """
    s, u = np.asarray(covariance, dtype=np.float64), np.asarray(residual, dtype=np.float64)
    excess = float(u @ s @ s @ s @ u / ((u @ s @ u) * np.trace(s @ s)))
    return 1 + 2 * excess, 1 + excess


def population_directional(covariance: ArrayLike, residual: ArrayLike, direction: ArrayLike) -> tuple[float, float]:
    """Return g₁ = 1 + 2ρ² and g = 1 + ρ², ρ the correlation of uᵀx and vᵀx.

    covariance: S of the inputs; residual: u, which makes the residual uᵀx; direction: v, along which it is taken.
    """
    s = np.asarray(covariance, dtype=np.float64)
    u, v = np.asarray(residual, dtype=np.float64), np.asarray(direction, dtype=np.float64)
    squared = float((u @ s @ v) ** 2 / ((u @ s @ u) * (v @ s @ v)))
    return 1 + 2 * squared, 1 + squared


def population_extremes(spectrum: ArrayLike) -> tuple[float, float]:
    """Return the least and the largest A₁ over residuals, 1 + 2λ²/tr S² at the ends of the spectrum."""
    values = np.asarray(spectrum, dtype=np.float64)
    total = float(np.sum(values**2))
    return 1 + 2 * float(values.min()) ** 2 / total, 1 + 2 * float(values.max()) ** 2 / total


def expected_alignment(
    covariance: ArrayLike, residual: ArrayLike, examples: int, pull: ArrayLike | None = None
) -> Expected:
    """Return the expectations over n = `examples` Gaussian inputs; P = AS, T_ii and T_ij the pair moments.

    T_ii = E r_i²(x_iᵀAx_i)², T_ij = E r_i²(x_iᵀAx_j)².

    covariance: S of the inputs; residual: u, which makes the residual uᵀx; pull: A = JJᵀ, the metric of the parameters,
    the identity by default.
    """
    s, u = np.asarray(covariance, dtype=np.float64), np.asarray(residual, dtype=np.float64)
    a = np.eye(len(s)) if pull is None else np.asarray(pull, dtype=np.float64)
    p = a @ s
    one, two, power = float(np.trace(p)), float(np.trace(p @ p)), float(u @ s @ u)
    first, second = float(u @ s @ a @ s @ u), float(u @ s @ a @ s @ a @ s @ u)
    same = power * (one**2 + 2 * two) + 4 * one * first + 8 * second
    pair = power * two + 2 * second
    n = examples
    frobenius = (one**2 + 2 * two) / n + (1 - 1 / n) * two
    mixed = 2 * n * (n - 1) * (one * first + 2 * second) + n * (n - 1) * (n - 2) * second
    drift = (n * same + n * (n - 1) * pair + mixed) / n**3
    return Expected(same / n + (1 - 1 / n) * pair, frobenius, drift, power)
