"""Averages of independent draws, by characteristic functions: their density at the mean, and where their median is.

Every law has mean 0 and variance 1, and an average is Σ c_k ξ_k with the weights of a kernel (`descent.theory.signs`).
A sign rule feels noise by these two numbers: how steeply the mean sign changes, and where it changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import gammainc, gammaincinv, gammaln

from descent.arrays import Array
from descent.theory.signs import Kernel

__all__ = ["LAWS", "Law", "Skewed", "average_median", "centre_density"]

Law = Literal["normal", "laplace", "student", "exponential"]
"""The name of a law of noise about zero."""
LAWS: tuple[Law, ...] = get_args(Law)
"""Normal, Laplace, Student's t of three degrees of freedom, and an exponential law less its mean."""

_SMALL = 1e-12  # a characteristic function below this is none


def centre_density(law: Law, kernel: Kernel) -> float:
    """Return the density of the average at its mean, (1/π)∫ Re φ dt over t > 0.

    law: the law of one draw.

    >>> from descent.theory.signs import ema
    >>> round(centre_density("laplace", ema(0.0)) * math.sqrt(2), 3)
    1.0
    """
    far = _end(law, kernel)
    found, _ = quad(lambda t: np.exp(_log(law, kernel, t)).real, 0, min(far, 1e4), limit=2000)
    return float(found / math.pi)


def average_median(law: Law, kernel: Kernel) -> float:
    """Return the median of the average, by Gil-Pelaez's inversion; of one exponential draw it is ln 2 − 1.

    law: the law of one draw.

    >>> from descent.theory.signs import ema
    >>> round(average_median("exponential", ema(0.9)), 5)
    -0.02274
    """
    if law != "exponential":
        return 0.0
    if len(kernel.weights) == 1:
        return math.log(2) - 1
    u = np.linspace(0, math.asinh(_end(law, kernel)), 4001)[1:]
    t, wide = np.sinh(u), np.cosh(u) * u[0]  # finest where the characteristic function is large
    log = np.array([_log(law, kernel, each) for each in t])

    def above(x: float) -> float:
        return float((np.exp(log - 1j * t * x).imag / t * wide).sum() - x * u[0] / 2)  # half of the point at 0

    return float(brentq(above, -1.0, 1.0, xtol=1e-12))


@dataclass(frozen=True)
class Skewed:
    """Noise of mean 0 with a deviation and a positive skewness: a gamma law, moved to its mean.

    An average of gamma draws is of this form to third order, see `averaged`; of equal weights it is exactly.
    """

    deviation: float  # standard deviation
    skewness: float  # third moment over its cube

    @property
    def shape(self) -> float:
        """The shape of the gamma law, 4 over the square of the skewness."""
        return 4 / self.skewness**2

    @property
    def median(self) -> float:
        """The median, which lies below the mean.

        >>> round(Skewed(1.0, 2.0).median, 6)  # an exponential law: ln 2 − 1
        -0.306853
        """
        a = self.shape
        return float(self.deviation * (gammaincinv(a, 0.5) - a) / math.sqrt(a))

    @property
    def density(self) -> float:
        """The density at the median, half of the response of a sign there per unit rate."""
        a, at = self.shape, self.shape + self.median * math.sqrt(self.shape) / self.deviation
        return float(math.exp((a - 1) * math.log(at) - at - gammaln(a)) * math.sqrt(a) / self.deviation)

    def mean_sign(self, gradient: ArrayLike) -> Array:
        """Return E sign(gradient + noise)."""
        a = self.shape
        at = a - np.asarray(gradient, dtype=np.float64) * math.sqrt(a) / self.deviation
        return np.asarray(1 - 2 * gammainc(a, np.maximum(at, 0.0)))

    def averaged(self, kernel: Kernel, batch_size: float = 1) -> Skewed:
        """Return the noise of an average over batches: its deviation and its skewness are exact, all else is not."""
        larger, fairer = kernel.for_mean, kernel.for_bias
        skewness = self.skewness * math.sqrt(larger / batch_size) / fairer
        return Skewed(self.deviation / math.sqrt(larger * batch_size), skewness)


def _log(law: Law, kernel: Kernel, t: float) -> complex:
    """Return the logarithm of the average's characteristic function at t."""
    u = kernel.weights * t
    if law == "normal":
        return complex(-(u**2).sum() / 2)
    if law == "laplace":
        return complex(-np.log1p(u**2 / 2).sum())
    if law == "student":
        return complex((np.log1p(np.abs(u)) - np.abs(u)).sum())
    return complex(-(np.log1p(-1j * u) + 1j * u).sum())


def _end(law: Law, kernel: Kernel) -> float:
    """Return from where on the characteristic function is nothing."""
    end = 8.0
    while _log(law, kernel, end).real > math.log(_SMALL) and end < 1e8:
        end *= 1.5
    return end
