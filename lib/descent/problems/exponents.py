"""Three thresholds from one exponent: when single runs leave a minimiser at which the noise vanishes.

Along one direction of unit curvature log|x| is a random walk with increments log|1 − lr·w̄|, w̄ the mean weight of a
batch. Its drift γ is the growth of single runs. Where γ < 0 there is one α > 0 with E|1 − lr·w̄|^α = 1 (Cramér), and
it orders everything: α = 2 at the mean-square threshold, α = 1 where the mean distance stops shrinking, α = 0 at the
almost-sure threshold. The chance to get from ε to R is ~ (ε/R)^α; a little additive noise of size s makes the mean
time to R grow like (R/s)^α (Kesten). `Features` carries all of this to d equally curved directions, where log|x| is
a random walk too. `lr` is in units of 1/curvature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from descent.arrays import Array
from descent.engine.streams import Purpose, Streams
from descent.theory.mode import mode_edge, stationary_variance
from descent.theory.weights import Gamma, StepLaw, WeightLaw, lyapunov, moment, spread_of_logs

__all__ = [
    "Features",
    "Law",
    "Minimum",
    "Walk",
    "almost_sure_threshold",
    "exit_spread",
    "exit_time",
    "exponent",
    "exponent_threshold",
    "finite_horizon",
    "lyapunov",
    "mean_square_threshold",
]

_FINER = 1.05  # a threshold is looked for in steps of this factor: stable islands beyond it are not counted


class Law(StepLaw, Protocol):
    """A law of one step with the variance that sets its mean-square threshold."""

    @property
    def variance(self) -> float:
        """σ² in E|factor|² = (1 − lr)² + lr²σ²/k."""


@dataclass(frozen=True)
class Features:
    """Squared errors on isotropic Gaussian features in d dimensions: f_i = ½(x_i·θ)², x_i ~ N(0, I).

    By symmetry |θ| is multiplied each step by an independent factor of square (1 − lr·g)² + lr²gh/k, with g the mean
    of k squared normals and h the sum of d − 1. One dimension is Gamma(½).
    """

    dimension: int

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise ValueError(f"dimension must be at least 1, got {self.dimension}")

    @property
    def variance(self) -> float:
        """What makes the mean-square threshold 2k/(k + d + 1): one more than the dimension."""
        return self.dimension + 1.0

    def factors(self, lr: float, batch_size: int) -> tuple[Array, Array]:
        """Return the factors of |θ| on the product of the quadratures over g and h, and their probabilities."""
        along, distance, chance = Gamma(0.5).quadrature(batch_size, 1 / lr)
        if self.dimension == 1:
            return distance, chance
        across, _, weight = Gamma(0.5).quadrature(self.dimension - 1)
        sideways = lr**2 / batch_size * (self.dimension - 1) * np.multiply.outer(along, across)
        return np.sqrt(distance[:, None] ** 2 + sideways).ravel(), np.multiply.outer(chance, weight).ravel()


@dataclass(frozen=True)
class Minimum:
    """A minimiser of unit curvature at the origin, seen through fresh batches of random weights or features.

    batch_size: examples per step, None for all of them. jitter: standard deviation per coordinate and example of
    gradient noise that does not vanish at the minimiser. Parameters (R, d).
    """

    law: WeightLaw | Features
    batch_size: int | None = 1
    jitter: float = 0.0

    @property
    def dimension(self) -> int:
        """Coordinates a run needs: those of the features, one where random weights act on all alike."""
        return 1 if isinstance(self.law, WeightLaw) else self.law.dimension

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return w̄x, or the mean of x_i(x_i·x) over k feature vectors, plus jitter/√k ξ."""
        if self.batch_size is None:
            return params
        slope = self._slope(params, self.batch_size, streams, step)
        if self.jitter == 0:
            return slope
        noise = streams.normal(Purpose.NOISE, step, params.shape[1:])
        return slope.add_(noise, alpha=self.jitter / self.batch_size**0.5)

    def _slope(self, x: Tensor, batch_size: int, streams: Streams, step: int) -> Tensor:
        if isinstance(self.law, WeightLaw):
            return x * self.law.batch_mean(streams, step, batch_size).unsqueeze(-1)
        rows = streams.normal(Purpose.BATCH, step, (batch_size, self.law.dimension))
        return torch.bmm((rows @ x.unsqueeze(-1)).mT, rows).squeeze(1).div_(batch_size)


@dataclass(frozen=True)
class Walk:
    """Plain descent at a minimiser at one lr, along one direction: log|x| is a random walk."""

    law: WeightLaw
    lr: float
    batch_size: int
    jitter: float = 0.0

    @property
    def minimum(self) -> Minimum:
        """The objective."""
        return Minimum(self.law, self.batch_size, self.jitter)

    @property
    def exponent(self) -> float:
        """The exact α of the chance to leave."""
        return exponent(self.law, self.lr, self.batch_size)

    @property
    def growth(self) -> float:
        """The exact γ of single runs."""
        return lyapunov(self.law, self.lr, self.batch_size)

    @property
    def variance(self) -> float:
        """The stationary variance under the jitter alone."""
        return float(stationary_variance(1.0, self.lr, 0.0, self.jitter**2 / self.batch_size))


def mean_square_threshold(law: Law, batch_size: int | None = 1) -> float:
    """Return the lr at which E|x|² stops shrinking (α = 2), 2/(1 + σ²/k)."""
    return float(mode_edge(1.0, 0.0, law.variance / batch_size if batch_size else 0.0))


def almost_sure_threshold(law: Law, batch_size: int | None = 1) -> float:
    """Return the lr at which single runs stop shrinking (α = 0, γ = 0); never below the mean-square threshold."""
    if batch_size is None:
        return 2.0
    return _crossing(lambda lr: lyapunov(law, lr, batch_size), 0.9 * mean_square_threshold(law, batch_size))


def exponent(law: StepLaw, lr: float, batch_size: int = 1) -> float:
    """Return the α > 0 with E factor^α = 1: 0 from the almost-sure threshold on, ∞ where no step ever stretches."""
    if lyapunov(law, lr, batch_size) >= 0:
        return 0.0
    size, probability = law.factors(lr, batch_size)
    if not (size[probability > 0] > 1).any():
        return math.inf

    def excess(alpha: float) -> float:
        return float(size**alpha @ probability) - 1

    low, high = 1.0, 1.0
    while excess(high) < 0:
        low, high = high, 2 * high
    while excess(low) >= 0:
        low, high = low / 2, low
    return float(optimize.brentq(excess, low, high, xtol=1e-13))


def exponent_threshold(law: Law, batch_size: int, alpha: float) -> float:
    """Return the lr at which the exponent is α > 0; between the two thresholds above for α from 2 to 0.

    alpha: the exponent that is asked for.
    """
    start = 0.9 * mean_square_threshold(law, batch_size) * (1.0 if alpha <= 2 else 1e-3)
    return _crossing(lambda lr: moment(law, lr, batch_size, alpha) - 1, start)


def finite_horizon(law: Law, batch_size: int, radius: float, jitter: float, steps: int) -> float:
    """Return the lr at which half of the runs have left after that many steps, α = ln N / ln(R√k/s).

    jitter: standard deviation s of the minimiser of one example, which is its gradient noise over the curvature;
    radius: half-width R of the basin. A rule of exponents, without prefactors: it needs R√k ≫ s and N ≫ 1.
    """
    room = radius * math.sqrt(batch_size) / jitter
    if room <= 1 or steps <= 1:
        raise ValueError(
            f"need radius·√batch_size above jitter and steps above 1, got a ratio of {room:.3g} and {steps} steps"
        )
    return exponent_threshold(law, batch_size, math.log(steps) / math.log(room))


def exit_time(law: StepLaw, lr: float, batch_size: int, widths: float) -> float:
    """Return the mean time to get e^widths times farther out, widths/γ, above the almost-sure threshold.

    The last step goes too far, by an amount that does not grow with `widths`: the slope in `widths` is exact.

    widths: log of the ratio of distances.
    """
    return widths / _drift(law, lr, batch_size)


def exit_spread(law: StepLaw, lr: float, batch_size: int, widths: float) -> float:
    """Return the standard deviation of that time over its mean, sd(log factor)/√(γ·widths): ever more certain.

    widths: log of the ratio of distances.
    """
    return spread_of_logs(law, lr, batch_size) / math.sqrt(_drift(law, lr, batch_size) * widths)


def _drift(law: StepLaw, lr: float, batch_size: int) -> float:
    drift = lyapunov(law, lr, batch_size)
    if drift <= 0:
        raise ValueError(
            f"at lr {lr:g} and batch size {batch_size} single runs shrink (γ = {drift:.3g}): the mean "
            "exit time is infinite; take lr above almost_sure_threshold"
        )
    return drift


def _crossing(function: Callable[[float], float], start: float) -> float:
    """Return the first zero above `start`, where the function is negative."""
    low, high = start, start * _FINER
    while function(high) < 0:
        low, high = high, high * _FINER
    return float(optimize.brentq(function, low, high, xtol=1e-13))
