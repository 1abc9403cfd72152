"""Streaming principal components: Oja's rule as descent, and its exact theory.

One sample x per step, covariance diag(λ), objective −½ vᵀΣv on the unit sphere:

    g = −(I − v vᵀ) x xᵀ v,

never renormalised. The critical points are ±e_i: ±e_0 the optima, every other one a strict saddle. At e_i, along
e_0, the unstable curvature is λ_0 − λ_i and the variance of the gradient noise λ_0 λ_i; at the optimum, along e_i,
the curvature is λ_0 − λ_i with the same noise. Coordinates are those of the eigenbasis, counted from 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from descent.arrays import Array
from descent.engine.split import Drawn, Split
from descent.engine.streams import Purpose, Streams

__all__ = ["StreamingPCA", "beyond", "error", "overlap", "radius", "travel_steps"]

Samples = Literal["gaussian", "signs", "mean"]


@dataclass(frozen=True)
class StreamingPCA(Split[Tensor]):
    """Oja's rule for covariance diag(eigenvalues); parameters (R, d).

    samples: "gaussian" draws x ~ N(0, Σ); "signs" draws ±√λ_i, bounded, with the same covariance;
    "mean" replaces x xᵀ by Σ, which leaves the noise-free recursion.
    """

    eigenvalues: tuple[float, ...] = (4.0, 3.0, 2.0, 1.0)  # of the covariance, falling
    samples: Samples = "gaussian"

    def __post_init__(self) -> None:
        falling = all(a >= b for a, b in zip(self.eigenvalues[1:], self.eigenvalues[2:], strict=False))
        if len(self.eigenvalues) < 2 or self.eigenvalues[0] <= self.eigenvalues[1] or not falling:
            raise ValueError(
                f"eigenvalues must fall, with a gap after the first, such as (4, 3, 2, 1); got {self.eigenvalues}"
            )
        if min(self.eigenvalues) <= 0:
            raise ValueError(f"eigenvalues must be positive, got {self.eigenvalues}")
        if self.samples not in ("gaussian", "signs", "mean"):
            raise ValueError(f'samples must be "gaussian", "signs" or "mean", got {self.samples!r}')

    def draw(self, streams: Streams, step: int, like: Tensor) -> Drawn:
        """Draw one sample x per replica, (R, d); nothing where its mean stands in for it."""
        if self.samples == "mean":
            return {}
        draw = streams.normal if self.samples == "gaussian" else streams.signs
        deviations = _row(self.eigenvalues, 0.5, like.dtype, like.device)
        return {"x": draw(Purpose.BATCH, step, (len(self.eigenvalues),)).mul_(deviations)}

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write −(I − vvᵀ)xxᵀv, (R, d)."""
        if self.samples == "mean":
            pull = params * _row(self.eigenvalues, 1.0, params.dtype, params.device)
            torch.sub((params * pull).sum(-1, keepdim=True) * params, pull, out=out)
            return
        x = drawn["x"]
        projection = torch.linalg.vecdot(x, params).unsqueeze(-1)
        torch.addcmul(-x, projection, params, out=out).mul_(projection)

    def at(self, index: int, replicas: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the critical point e_index for every replica, (R, d)."""
        start = torch.zeros(replicas, len(self.eigenvalues), dtype=dtype)
        start[:, index] = 1.0
        return start

    def gap(self, index: int = 1) -> float:
        """Return λ_0 − λ_index: the instability of saddle e_index, or the optimum's curvature along it."""
        return self.eigenvalues[0] - self.eigenvalues[index]

    def noise(self, index: int = 1) -> float:
        """Return λ_0 λ_index, the variance of the gradient noise that goes with `gap`."""
        return self.eigenvalues[0] * self.eigenvalues[index]

    def floor(self, lr: ArrayLike, momentum: ArrayLike) -> Array:
        """Return the stationary error of the diffusion limit, lr/(2(1−momentum)) Σ_i λ_0λ_i/(λ_0−λ_i)."""
        coordinates = range(1, len(self.eigenvalues))
        total = sum(self.noise(i) / self.gap(i) for i in coordinates)
        return np.asarray(np.asarray(lr) / (2 * (1 - np.asarray(momentum))) * total)

    def flow(self, start: ArrayLike, time: ArrayLike) -> Array:
        """Return the gradient flow at times lr·k/(1−momentum), shape (*time, d).

        h_i(t) = h_i(0) e^{λ_i t} / √Σ_j h_j(0)² e^{2λ_j t} for a start of unit norm.
        """
        t = np.asarray(time, dtype=np.float64)[..., None]
        decay = np.asarray(self.eigenvalues) - self.eigenvalues[0]  # a common factor drops out
        grown = np.asarray(start, dtype=np.float64) * np.exp(decay * t)
        return np.asarray(grown / np.linalg.norm(grown, axis=-1, keepdims=True))


@lru_cache(maxsize=16)
def _row(values: tuple[float, ...], power: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device) ** power


def overlap(params: Tensor) -> Tensor:
    """Return h_0²/‖h‖², the squared overlap with the optimum, (R,)."""
    squares = params.square()
    return squares[..., 0] / squares.sum(-1)


def beyond(level: float) -> Callable[[Tensor], Tensor]:
    """Return the condition that the squared overlap with the optimum has reached a level."""
    return lambda params: overlap(params) >= level


def error(params: Tensor) -> Tensor:
    """Return 1 − h_0²/‖h‖² without cancellation, (R,)."""
    squares = params.square()
    return squares[..., 1:].sum(-1) / squares.sum(-1)


def radius(level: ArrayLike) -> Array:
    """Return tan θ = √(x/(1−x)) at which the squared overlap reaches the level x (two modes)."""
    x = np.asarray(level, dtype=np.float64)
    return np.asarray(np.sqrt(x / (1 - x)))


def travel_steps(begin: ArrayLike, end: ArrayLike, instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike) -> Array:
    """Return the steps the flow takes from squared overlap `begin` to `end`: (1−momentum)/(lr·b) log(R_end/R_begin).

    begin: squared overlap at the start; end: squared overlap that is reached.
    """
    pace = (1 - np.asarray(momentum)) / (np.asarray(lr) * np.asarray(instability))
    return np.asarray(pace * np.log(radius(end) / radius(begin)))
