"""Styblinski–Tang sums: f_i = w_i F with random weights w_i ≥ 0 of mean 1, so that noise vanishes at every minimiser.

F(θ) = ½ Σ_j (θ_j⁴ − 16θ_j² + 5θ_j) has two wells per coordinate: a sharp, deep one on the left and a flatter, higher
one on the right. A minimiser in d dimensions is as sharp as its sharpest coordinate: of the 2^d only one is flat, and
it is the highest. All coordinates share the mean weight of a batch, and move independently given it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from descent.arrays import Array
from descent.engine.split import Drawn, Split, placed
from descent.engine.streams import Purpose, Streams
from descent.theory.mode import mode_edge
from descent.theory.weights import BatchSize, TwoPoint, WeightLaw, lyapunov

__all__ = [
    "FLAT",
    "SHARP",
    "TOP",
    "Critical",
    "Cycle",
    "PerWell",
    "StyblinskiTang",
    "crisis",
    "cycle",
    "descent_edge",
    "flip",
    "minimisers",
    "noise_scale",
    "share_flat",
]


_GRADIENT = (2.0, 0.0, -16.0, 2.5)  # F' of one coordinate, as a polynomial
_WEIGHTS = TwoPoint(0.5)
_MOST = 20  # dimensions whose 2^d minimisers may be listed


class Critical(NamedTuple):
    """A critical point of one coordinate: where it is, F'' and F there."""

    x: float
    curvature: float
    value: float


class PerWell(NamedTuple):
    """One number per well."""

    sharp: float  # of the sharp well
    flat: float  # of the flat well


class Cycle(NamedTuple):
    """Two points that full-batch descent maps onto each other, and what two steps multiply a small distance by."""

    low: float
    high: float
    multiplier: float  # attracting while below 1 in size


def _slope(x: float) -> float:
    return float(np.polyval(_GRADIENT, x))


def _curvature(x: float) -> float:
    return 6 * x * x - 16


def _critical(x: float) -> Critical:
    return Critical(x, _curvature(x), (x**4 - 16 * x**2 + 5 * x) / 2)


SHARP, TOP, FLAT = (_critical(float(x)) for x in np.sort(np.roots(_GRADIENT).real))
"""The sharp well, the top of the barrier and the flat well of one coordinate."""


def minimisers(dimension: int) -> Array:
    """Return all minimisers, (2^d, d); the flattest is the last."""
    if not 1 <= dimension <= _MOST:
        raise ValueError(f"dimension must lie between 1 and {_MOST} to list 2^dimension minimisers, got {dimension}")
    return np.array(list(itertools.product((SHARP.x, FLAT.x), repeat=dimension)))


def descent_edge(well: Critical) -> float:
    """Return the largest stable lr of full-batch descent at a well, 2/F''."""
    return 2 / well.curvature


def flip(well: Critical) -> float:
    """Return ½·lr·F'''² − ⅓F'''' at lr = 2/F''; where it is positive a stable cycle of period two is born there."""
    third, fourth = 12 * well.x, 12.0
    return descent_edge(well) * third**2 / 2 - fourth / 3


def cycle(lr: float, well: Critical = SHARP) -> Cycle:
    """Return the cycle of period two of full-batch descent around a well.

    Its points a, b solve a − b = lr·F'(a) = −lr·F'(b); with p = a + b this is 4p³ − (32 + 6/lr)p − 5 = 0 and
    ab = p² − 8 − 1/lr. It attracts while |multiplier| < 1; beyond, its period doubles.
    """
    if lr <= descent_edge(well):
        raise ValueError(f"a cycle exists above lr = 2/F'' = {descent_edge(well):.6g}, got {lr}")
    sums = np.sort(np.roots((4.0, 0.0, -(32 + 6 / lr), -5.0)).real)
    p = float(sums[0] if well.x < TOP.x else sums[-1])
    half = math.sqrt(max(0.0, 32 + 4 / lr - 3 * p * p)) / 2
    low, high = p / 2 - half, p / 2 + half
    return Cycle(low, high, (1 - lr * _curvature(low)) * (1 - lr * _curvature(high)))


def crisis(well: Critical = SHARP) -> float:
    """Return the lr up to which full-batch descent cannot leave the basin of a well it starts close to.

    Descent maps the basin onto an interval with one fold, at lr·F'' = 1. What the fold is sent to bounds the
    invariant band on one side, the image of that on the other; the band opens where this image reaches the top.
    """

    def gap(lr: float) -> float:
        x = math.copysign(math.sqrt((16 + 1 / lr) / 6), well.x - TOP.x)
        for _ in range(2):
            x -= lr * _slope(x)
        return x - TOP.x

    edge = descent_edge(well)
    return float(optimize.brentq(gap, edge, 2 * edge, xtol=1e-15))


@dataclass(frozen=True)
class StyblinskiTang(Split[Tensor]):
    """The sum of Styblinski–Tang functions with these weights, seen through fresh batches. Parameters (R, d).

    batch_size: examples per step, None for all of them (weight 1, no noise); a sequence gives equal consecutive blocks
    of replicas their own. jitter: standard deviation per coordinate and example of gradient noise that does not vanish
    at the minimisers.
    """

    weights: WeightLaw = _WEIGHTS
    batch_size: BatchSize = 1
    jitter: float = 0.0

    def draw(self, streams: Streams, step: int, like: Tensor) -> Drawn:
        """Draw one mean weight w̄ (R, 1) per replica, and ξ (R, d) where there is jitter."""
        drawn = {"weight": self.weights.batch_mean(streams, step, self.batch_size).unsqueeze(-1)}
        return drawn | ({"noise": streams.normal(Purpose.NOISE, step, like.shape[1:])} if self.jitter else {})

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write w̄·(2θ³ − 16θ + 5/2) + jitter/√k ξ, (R, d)."""
        torch.square(params, out=out).mul_(2).sub_(16).mul_(params).add_(2.5).mul_(drawn["weight"])
        if self.jitter:
            out.addcmul_(drawn["noise"], noise_scale(self.batch_size, params), value=self.jitter)

    def loss(self, params: Tensor) -> Tensor:
        """Return F, (R, d) → (R,)."""
        square = params.square()
        return ((square - 16) * square + 5 * params).sum(-1) / 2

    def thresholds(self, batch_size: int | None, momentum: float = 0.0) -> PerWell:
        """Return the largest mean-square stable lr at each well, 2(1 + β)/(F''(1 + (1 + β)/(1 − β)·σ²/k))."""
        curvature = np.array([SHARP.curvature, FLAT.curvature])
        spread = 0.0 if batch_size is None else self.weights.variance / batch_size
        return PerWell(*(float(edge) for edge in mode_edge(curvature, momentum, curvature**2 * spread)))

    def lyapunov(self, lr: float, batch_size: int | None) -> PerWell:
        """Return the exact growth per step of the logarithm of a small distance to each well, E log|1 − lr F'' w̄|."""
        return PerWell(*(lyapunov(self.weights, lr * well.curvature, batch_size) for well in (SHARP, FLAT)))


def noise_scale(batch_size: BatchSize, like: Tensor) -> Tensor:
    """Return 1/√k of every replica, (R, 1) in the type of `like`; 0 where the batch is full."""
    sizes = [batch_size] if batch_size is None or isinstance(batch_size, int) else batch_size
    scales = placed(tuple(0.0 if k is None else 1 / math.sqrt(k) for k in sizes), like)
    return scales.repeat_interleave(len(like) // len(scales)).unsqueeze(-1)


def share_flat(params: Tensor) -> Tensor:
    """Return the share of coordinates in the basin of the flat well, (R, d) → (R,)."""
    return (params > TOP.x).to(params.dtype).mean(dim=-1)
