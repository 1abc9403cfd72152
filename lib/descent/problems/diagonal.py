"""A linear net with one hidden unit per input, f(x) = Σ u_i v_i x_i: flat and sharp minima that all fit the data.

Inputs x ~ N(0, I), targets xᵀw*, loss the mean of (f − y)²/2. On the manifold of minima u_i v_i = w*_i the Hessian of
the population is diagonal, with eigenvalues λ_i = u_i² + v_i² ≥ 2|w*_i|. Every step of a batch, whatever it is, obeys

    u_i² − v_i²  ←  (u_i² − v_i²)(1 − η²g_i²),   g the gradient used, with respect to w = uv:

coordinate i flattens exactly as far as gradient reaches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from descent.engine.streams import Purpose, Streams

__all__ = ["DiagonalNet", "Noise", "on_manifold"]

Noise = Literal["none", "batch", "aligned", "isotropic"]
"""Which noise the gradient has: none, of a batch, aligned with the curvature, or isotropic."""


@dataclass(frozen=True, eq=False)
class DiagonalNet:
    """The objective on data sets inputs (R, n, d); params (R, 2, d) hold u and v.

    noise: "batch" draws `batch_size` examples with replacement; "aligned" is Gaussian of the same covariance;
    "isotropic" is Gaussian in u and v, of the same trace and the same power in every coordinate.
    """

    inputs: Tensor
    solution: Tensor  # w* (d,)
    noise: Noise = "none"
    batch_size: int = 1

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return the gradient the noise makes, (R, 2, d)."""
        residual = self._residual(params)
        if self.noise == "batch":
            rows = streams.integers(Purpose.BATCH, step, self.inputs.shape[1], (self.batch_size,))
            picked = torch.take_along_dim(self.inputs, rows.unsqueeze(-1), dim=1)
            return _pulled(params, _mean(picked, torch.take_along_dim(residual, rows, dim=1)))
        slope = _mean(self.inputs, residual)
        if self.noise == "aligned":
            weight = streams.normal(Purpose.NOISE, step, (self.inputs.shape[1],))
            weight = (weight - weight.mean(-1, keepdim=True)) * residual / self.batch_size**0.5
            slope = slope + _mean(self.inputs, weight) * self.inputs.shape[1] ** 0.5
        gradient = _pulled(params, slope)
        if self.noise == "isotropic":
            size = (self.noise_power(params) / (2 * params.shape[-1])).sqrt()
            gradient = gradient + size[:, None, None] * streams.normal(Purpose.NOISE, step, tuple(params.shape[1:]))
        return gradient

    def value(self, params: Tensor) -> Tensor:
        """Return the loss (R,)."""
        return self._residual(params).square().mean(-1) / 2

    def noise_power(self, params: Tensor) -> Tensor:
        """Return the trace of the covariance of a batch's gradient, (R,)."""
        residual = self._residual(params)
        curvature = params.square().sum(1)
        squares = torch.bmm((residual.square() / self.inputs.shape[1]).unsqueeze(1), self.inputs.square()).squeeze(1)
        mean = _mean(self.inputs, residual)
        return ((squares - mean.square()) * curvature).sum(-1) / self.batch_size

    def _residual(self, params: Tensor) -> Tensor:
        error = params[:, 0] * params[:, 1] - self.solution
        return torch.bmm(self.inputs, error.unsqueeze(-1)).squeeze(-1)


def on_manifold(solution: Tensor, curvature: Tensor) -> Tensor:
    """Return the minimum (2, d) with u_i v_i = w*_i and u_i² + v_i² = λ_i, u ≥ v; needs λ_i ≥ 2 w*_i > 0.

    solution: the products w*, (d,); curvature: the eigenvalues λ, (d,).
    """
    root = (curvature.square() - 4 * solution.square()).sqrt()
    return torch.stack([((curvature + root) / 2).sqrt(), ((curvature - root) / 2).sqrt()])


def _mean(inputs: Tensor, residual: Tensor) -> Tensor:
    """Return the mean of residual times input, (R, d)."""
    return torch.bmm(residual.unsqueeze(1), inputs).squeeze(1) / inputs.shape[1]


def _pulled(params: Tensor, slope: Tensor) -> Tensor:
    """Return the gradient in u and v of a gradient in w, (R, 2, d)."""
    return slope.unsqueeze(1) * params.flip(1)
