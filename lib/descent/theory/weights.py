"""Laws of random weights w ≥ 0 of mean 1, for sums f_i = w_i F: the mean weight w̄ of a batch, drawn and integrated.

A batch enters plain SGD through w̄ alone. Near a minimiser of curvature h a step multiplies the distance by 1 − lr·h·w̄,
so everything about single runs is an average over |1 − lr·w̄|; `lr` is in units of 1/h throughout.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from scipy import interpolate, special, stats
from torch import Tensor

from descent.arrays import Array
from descent.engine.streams import Purpose, Streams

__all__ = ["BatchSize", "Gamma", "StepLaw", "TwoPoint", "WeightLaw", "lyapunov", "moment", "spread_of_logs"]

BatchSize = int | Sequence[int | None] | None
"""Examples per step; None for all of them. A sequence gives equal consecutive blocks of replicas their own size."""

_REACH = 10.0  # standard normals drawn from 64 bits end before 9.6
_KNOTS = 64  # per unit of the normal: the cubic between two of them is right to ten digits
_TAIL = 1e-30  # probability left out beyond either end of the quadrature


@dataclass(frozen=True)
class WeightLaw(ABC):
    """A law of weights w ≥ 0 with mean 1."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """Variance σ² of one weight; a batch of k has σ²/k."""

    @abstractmethod
    def draw(self, streams: Streams, step: int, shape: tuple[int, ...]) -> Tensor:
        """Draw what `mean_of` turns into batch means, (R, *shape)."""

    @abstractmethod
    def mean_of(self, drawn: Tensor, batch_size: int) -> Tensor:
        """Turn draws into means of a batch, element by element and rising in the draw."""

    @abstractmethod
    def quadrature(self, batch_size: int, pole: float = 1.0) -> tuple[Array, Array, Array]:
        """Return points w̄, their distances |w̄/pole − 1| and probabilities, for averages of |w̄ − pole|^α or its log."""

    def factors(self, lr: float, batch_size: int) -> tuple[Array, Array]:
        """Return |1 − lr·w̄| at the points of a quadrature over w̄, and their probabilities."""
        _, distance, probability = self.quadrature(batch_size, 1 / lr)
        return distance, probability

    def batch_mean(self, streams: Streams, step: int, batch_size: BatchSize, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw w̄, (R, *shape); replicas that share a seed see the same luck whatever their batch size."""
        sizes = [batch_size] if batch_size is None or isinstance(batch_size, int) else list(batch_size)
        if streams.replicas % len(sizes):
            raise ValueError(
                f"{streams.replicas} replicas cannot be cut into {len(sizes)} equal blocks, one per "
                "batch size; give a multiple"
            )
        blocks = self.draw(streams, step, shape).chunk(len(sizes))
        means = [torch.ones_like(b) if k is None else self.mean_of(b, k) for b, k in zip(blocks, sizes, strict=True)]
        return means[0] if len(means) == 1 else torch.cat(means)


@dataclass(frozen=True)
class Gamma(WeightLaw):
    """Gamma weights of mean 1 and variance 1/shape: exponential at 1, squares of a Gaussian feature at ½.

    The mean of k of them is Gamma(k·shape)/(k·shape). It is drawn as its quantile at Φ(z), z one standard normal,
    from a table of cubics good to ten digits: one draw per mean, whatever k.
    """

    shape: float = 1.0  # of the law, 1 for the exponential

    def __post_init__(self) -> None:
        if not (self.shape > 0 and math.isfinite(self.shape)):
            raise ValueError(f"shape must be a positive number, got {self.shape}")

    @property
    def variance(self) -> float:
        """1/shape."""
        return 1 / self.shape

    def draw(self, streams: Streams, step: int, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normals."""
        return streams.normal(Purpose.BATCH, step, shape)

    def mean_of(self, drawn: Tensor, batch_size: int) -> Tensor:
        """Return the Φ(z)-quantile of the mean of a batch."""
        table = _quantiles(self.shape * _counted(batch_size)).to(drawn)
        place = drawn.add(_REACH).mul_(_KNOTS)
        knot = place.floor()
        place.sub_(knot)
        row = knot.long()
        root = table[0][row]
        for coefficients in table[1:]:
            root.mul_(place).add_(coefficients[row])
        return root.square().mul_(root)

    def quadrature(self, batch_size: int, pole: float = 1.0) -> tuple[Array, Array, Array]:
        """Integrate over x = log w̄ by the double exponential rule, both ways from the pole so that nothing cancels."""
        shape = self.shape * _counted(batch_size)
        ends = (max(quantile(shape, _TAIL), 1e-300) for quantile in (special.gammaincinv, special.gammainccinv))
        low, high = (math.log(end / shape) for end in ends)
        middle = min(max(math.log(pole), low), high)
        unit, weight = _double_exponential()
        gap = np.concatenate([(low - middle) * unit, (high - middle) * unit])
        width = np.concatenate([(middle - low) * weight, (high - middle) * weight])
        x = middle + gap
        probability = width * np.exp(shape * (x - np.exp(x) + math.log(shape)) - special.gammaln(shape))
        seen = probability > _TAIL
        distance = np.abs(np.expm1(gap + (middle - math.log(pole))))
        return np.exp(x[seen]), distance[seen], probability[seen]


@dataclass(frozen=True)
class TwoPoint(WeightLaw):
    """Weights 1 ± spread with equal probability; the mean of k of them counts heads."""

    spread: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.spread <= 1:
            raise ValueError(f"spread must lie in [0, 1] so that no weight is negative, got {self.spread}")

    @property
    def variance(self) -> float:
        """spread²."""
        return self.spread**2

    def draw(self, streams: Streams, step: int, shape: tuple[int, ...]) -> Tensor:
        """Draw uniforms."""
        return streams.uniform(Purpose.BATCH, step, shape)

    def mean_of(self, drawn: Tensor, batch_size: int) -> Tensor:
        """Return 1 + spread·(2·heads − k)/k, heads the quantile of the binomial law at the uniform drawn."""
        heads = torch.bucketize(drawn, _binomial(_counted(batch_size)).to(drawn))
        return heads.to(drawn.dtype).mul_(2 * self.spread / batch_size).add_(1 - self.spread)

    def quadrature(self, batch_size: int, pole: float = 1.0) -> tuple[Array, Array, Array]:
        """Return every possible mean with its probability."""
        heads = np.arange(_counted(batch_size) + 1)
        mean = 1 + self.spread * (2 * heads - batch_size) / batch_size
        return mean, np.abs(mean / pole - 1), np.asarray(stats.binom.pmf(heads, batch_size, 0.5))


class StepLaw(Protocol):
    """What the averages below need of one step: a law of the factor by which it stretches a distance."""

    def factors(self, lr: float, batch_size: int) -> tuple[Array, Array]:
        """Return factors ≥ 0 and their probabilities."""


def lyapunov(law: StepLaw, lr: float, batch_size: int | None = 1) -> float:
    """Return γ = E log|1 − lr·w̄|, the growth per step of the logarithm of a small distance, run by run.

    Full batch: log|1 − lr|. Exponential weights, k = 1: −e^{−1/lr} Ei(1/lr).
    """
    with np.errstate(divide="ignore"):  # a weight that hits the minimiser exactly contributes −∞, rightly
        if batch_size is None:
            return float(np.log(abs(1 - lr)))
        size, probability = law.factors(lr, batch_size)
        return float(np.log(size) @ probability)


def moment(law: StepLaw, lr: float, batch_size: int, order: float) -> float:
    """Return E|1 − lr·w̄|^order; at order 2 this is (1 − lr)² + lr²σ²/k.

    order: the exponent.
    """
    size, probability = law.factors(lr, batch_size)
    return float(size**order @ probability)


def spread_of_logs(law: StepLaw, lr: float, batch_size: int) -> float:
    """Return the standard deviation of log|1 − lr·w̄|."""
    size, probability = law.factors(lr, batch_size)
    logs = np.log(size)
    return math.sqrt(float((logs - logs @ probability) ** 2 @ probability))


def _counted(batch_size: int) -> int:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1 (None means all examples), got {batch_size}")
    return batch_size


@lru_cache(maxsize=64)
def _quantiles(shape: float) -> Tensor:
    """Return cubics (4, cells) in place ∈ [0, 1) for the cube root of the Φ(z)-quantile of Gamma(shape)/shape.

    The cube root is nearly linear in z (Wilson and Hilferty), which is what makes the table short.
    """
    z = np.arange(-_REACH * _KNOTS, _REACH * _KNOTS + 1) / _KNOTS
    below, above = special.gammaincinv(shape, special.ndtr(z)), special.gammainccinv(shape, special.ndtr(-z))
    cubic = interpolate.CubicSpline(z, np.cbrt(np.where(z < 0, below, above) / shape))
    powers = _KNOTS ** -np.arange(3.0, -1.0, -1.0)
    return torch.from_numpy(cubic.c * powers[:, None])


@lru_cache(maxsize=64)
def _binomial(batch_size: int) -> Tensor:
    """Return P(heads ≤ j), j = 0 … k − 1."""
    return torch.from_numpy(stats.binom.cdf(np.arange(batch_size), batch_size, 0.5))


@lru_cache(maxsize=1)
def _double_exponential() -> tuple[Array, Array]:
    """Return points and weights of the rule on (0, 1), dense at both ends."""
    t = np.arange(-112, 113) / 32
    u = special.expit(math.pi * np.sinh(t))
    return u, math.pi * np.cosh(t) * u * special.expit(-math.pi * np.sinh(t)) / 32
