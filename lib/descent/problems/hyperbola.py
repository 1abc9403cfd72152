"""A continuum of minimisers to choose from: f_i(u, v) = ½ x_i²(uv − 1)², whose noise vanishes on the hyperbola uv = 1.

x_i² has mean 1. A minimiser has one curved direction, along (v, u), of curvature s = u² + v² ≥ 2, and one flat
direction, along the hyperbola.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from descent.arrays import Array
from descent.engine.split import Drawn, Split
from descent.engine.streams import Purpose, Streams
from descent.problems.styblinski import noise_scale
from descent.theory.mode import mode_edge
from descent.theory.weights import BatchSize, Gamma, WeightLaw

__all__ = ["FLATTEST", "Hyperbola", "flow_sharpness", "hessian", "minimiser", "residual", "sharpness"]


_SQUARED_NORMAL = Gamma(0.5)

FLATTEST = 2.0
"""Curvature of the flattest minimiser, u = v = ±1."""


def residual(params: Tensor) -> Tensor:
    """Return uv − 1, (R, 2) → (R,)."""
    return params.prod(dim=-1) - 1


def sharpness(params: Tensor) -> Tensor:
    """Return s = u² + v², (R, 2) → (R,): on the hyperbola, the curvature across it."""
    return params.square().sum(dim=-1)


def flow_sharpness(params: Tensor) -> Tensor:
    """Return the curvature of the minimiser gradient flow ends in, √((u² − v²)² + 4): it conserves u² − v²."""
    u, v = params.square().unbind(dim=-1)
    return ((u - v).square() + 4).sqrt()


def minimiser(curvature: ArrayLike) -> Array:
    """Return the minimiser of that curvature with u ≥ v > 0, (…) → (…, 2)."""
    s = np.asarray(curvature, dtype=np.float64)
    if not (s >= FLATTEST).all():
        raise ValueError(f"no point of the hyperbola has a curvature below {FLATTEST:g}, got {s}")
    u = np.sqrt((s + np.sqrt(s**2 - 4)) / 2)
    return np.stack([u, 1 / u], axis=-1)


def hessian(point: ArrayLike) -> Array:
    """Return the Hessian at a minimiser, g gᵀ with g = (v, u), (…, 2) → (…, 2, 2).

    point: a minimiser (u, v).
    """
    g = np.asarray(point, dtype=np.float64)[..., ::-1]
    return np.asarray(g[..., :, None] * g[..., None, :])


@dataclass(frozen=True)
class Hyperbola(Split[Tensor]):
    """The sum with squared examples x² of this law (χ² with one degree of freedom for normal x). Parameters (R, 2).

    batch_size: examples per step, None for all of them (no noise); a sequence gives equal consecutive blocks of
    replicas their own. jitter: standard deviation per coordinate and example of gradient noise that does not vanish on
    the hyperbola.
    """

    weights: WeightLaw = _SQUARED_NORMAL
    batch_size: BatchSize = 1
    jitter: float = 0.0

    def draw(self, streams: Streams, step: int, like: Tensor) -> Drawn:
        """Draw w̄ (R,), the mean of x² over the batch, and ξ (R, 2) where there is jitter."""
        drawn = {"weight": self.weights.batch_mean(streams, step, self.batch_size)}
        return drawn | ({"noise": streams.normal(Purpose.NOISE, step, (2,))} if self.jitter else {})

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write w̄(uv − 1)(v, u) + jitter/√k ξ, (R, 2)."""
        factor = residual(params).mul_(drawn["weight"])
        torch.mul(params.flip(-1), factor.unsqueeze(-1), out=out)
        if self.jitter:
            out.addcmul_(drawn["noise"], noise_scale(self.batch_size, params), value=self.jitter)

    def threshold(self, batch_size: int | None, momentum: float = 0.0) -> float:
        """Return the largest lr·s of a mean-square stable minimiser, 2(1 + β)/(1 + (1 + β)/(1 − β)·κ/k)."""
        spread = 0.0 if batch_size is None else self.weights.variance / batch_size
        return float(mode_edge(1.0, momentum, spread))
