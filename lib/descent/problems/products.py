"""Products of scalars: f(w) = ½(Π_i w_i − target)², whose minimisers form a surface, flat here and sharp there.

Every step, whatever it is, moves w_i²/2 and w_j²/2 alike to first order: w_i g_i is one number for all i. So gradient
flow conserves w_i² − w_j², and a rule shrinks it along the way, see `theory.balance` for the exact account and
`theory.drift` for two factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from descent.engine.split import Drawn, Split
from descent.engine.streams import Purpose, Streams
from descent.theory.weights import BatchSize, Gamma, WeightLaw

__all__ = ["Products", "end_sharpness", "imbalance"]

_SQUARED_NORMAL = Gamma(0.5)


@dataclass(frozen=True)
class Products(Split[Tensor]):
    """The objective on params (R, D), the D factors of one product.

    batch_size: examples per step, each ½x²(Πw − y)² with x² of the law `weights`; None for all of them.
    label_noise: deviation σ of y about the target, drawn anew at every step, so that it never dies.
    """

    target: float = 1.0
    weights: WeightLaw = _SQUARED_NORMAL
    batch_size: BatchSize = None
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.label_noise < 0:
            raise ValueError(f"label_noise is a standard deviation: it must not be negative, got {self.label_noise}")

    def draw(self, streams: Streams, step: int, like: Tensor) -> Drawn:
        """Draw ξ (R,) where labels are noisy, and x̄² (R,) where there are batches."""
        drawn = {"noise": streams.normal(Purpose.NOISE, step)} if self.label_noise else {}
        if self.batch_size is not None:
            drawn["weight"] = self.weights.batch_mean(streams, step, self.batch_size)
        return drawn

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write x̄²(Πw − target − σξ)·Π_{k≠i}w_k, (R, D)."""
        residual = self.residual(params)
        if "noise" in drawn:
            residual = residual - self.label_noise * drawn["noise"]
        if "weight" in drawn:
            residual = residual * drawn["weight"]
        torch.mul(residual.unsqueeze(-1), _others(params), out=out)

    def residual(self, params: Tensor) -> Tensor:
        """Return Πw − target, (R,)."""
        return params.prod(-1) - self.target

    def value(self, params: Tensor) -> Tensor:
        """Return the loss (R,)."""
        return self.residual(params).square() / 2

    def drift(self, params: Tensor) -> Tensor:
        """Return d log|w_i² − w_j²|/dτ in units of e·c, −r²Π_{k≠i,j}w_k², (R, D, D); to leading order in e."""
        rest = _others(params.unsqueeze(-2).expand(*params.shape, params.shape[-1]).masked_fill(_own(params), 1.0))
        return -self.residual(params).square()[..., None, None] * rest.square()


def imbalance(params: Tensor) -> Tensor:
    """Return w_i² − w_j², (R, D) → (R, D, D)."""
    square = params.square()
    return square.unsqueeze(-1) - square.unsqueeze(-2)


def end_sharpness(params: Tensor) -> Tensor:
    """Return Σ_iΠ_{k≠i}w_k², (R, D) → (R,): at a minimiser the one curvature that is not zero."""
    return _others(params).square().sum(-1)


def _own(params: Tensor) -> Tensor:
    return torch.eye(params.shape[-1], dtype=torch.bool, device=params.device)


def _others(params: Tensor) -> Tensor:
    """Return Π_{k≠i}w_k for every i, (…, D) → (…, D), also where a factor is zero."""
    grid = params.unsqueeze(-2).expand(*params.shape, params.shape[-1])
    return grid.masked_fill(_own(params), 1.0).prod(-1)
