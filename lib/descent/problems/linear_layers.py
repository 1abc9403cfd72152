"""Two linear layers, f(x) = W₂W₁x under square loss: minimisers W₂W₁ = M, balanced or not.

With S the slope of the loss with respect to the product, the layers move along W₂ᵀS and SW₁ᵀ, so that every step
changes W₂ᵀW₂ and W₁W₁ᵀ alike to first order. Gradient flow conserves their difference; to leading order a rule of
effective step e and momentum factor c moves it by ec·(W₁SᵀSW₁ᵀ − W₂ᵀSSᵀW₂) per unit of time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from descent.engine.probes import Leaves
from descent.engine.streams import Purpose, Streams

__all__ = ["LinearLayers", "imbalance"]


@dataclass(frozen=True, eq=False)
class LinearLayers:
    """The mean of ½|W₂W₁x − y|² over examples inputs (n, D), targets (n, C); params first (R, H, D), second (R, C, H).

    batch_size: examples per step, drawn with replacement; None for all of them.
    """

    inputs: Tensor
    targets: Tensor
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2 or self.targets.ndim != 2 or len(self.inputs) != len(self.targets):
            shapes = tuple(self.inputs.shape), tuple(self.targets.shape)
            raise ValueError(f"inputs (n, D) and targets (n, C) must have equally many rows, got {shapes}")

    @classmethod
    def fitting(cls, target: Tensor) -> LinearLayers:
        """Return ½|W₂W₁ − M|² itself, for M (C, D)."""
        size = target.shape[1]
        scale = size**0.5
        return cls(torch.eye(size, dtype=target.dtype) * scale, target.T * scale)

    def gradient(self, params: Leaves, streams: Streams, step: int) -> Leaves:
        """Return the gradient of the batch's mean loss."""
        first, second = params["first"], params["second"]
        x, y = self.inputs.expand(len(first), -1, -1), self.targets.expand(len(first), -1, -1)
        if self.batch_size is not None:
            rows = streams.integers(Purpose.BATCH, step, len(self.inputs), (self.batch_size,))
            x, y = self.inputs[rows], self.targets[rows]
        slope = _slope(params, x, y)
        return {"first": second.transpose(1, 2) @ slope, "second": slope @ first.transpose(1, 2)}

    def value(self, params: Leaves) -> Tensor:
        """Return the loss (R,)."""
        outputs = self.inputs @ (params["second"] @ params["first"]).transpose(1, 2)
        return (outputs - self.targets).square().sum(-1).mean(-1) / 2

    def drift(self, params: Leaves) -> Tensor:
        """Return d(W₂ᵀW₂ − W₁W₁ᵀ)/dτ in units of e·c, W₁SᵀSW₁ᵀ − W₂ᵀSSᵀW₂, (R, H, H); to leading order in e."""
        count = len(params["first"])
        slope = _slope(params, self.inputs.expand(count, -1, -1), self.targets.expand(count, -1, -1))
        outer, inner = slope @ params["first"].transpose(1, 2), params["second"].transpose(1, 2) @ slope
        return outer.transpose(1, 2) @ outer - inner @ inner.transpose(1, 2)


def imbalance(params: Leaves) -> Tensor:
    """Return W₂ᵀW₂ − W₁W₁ᵀ, (R, H, H)."""
    first, second = params["first"], params["second"]
    return second.transpose(1, 2) @ second - first @ first.transpose(1, 2)


def _slope(params: Leaves, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return ∂L/∂(W₂W₁), (R, C, D), for examples (R, n, …)."""
    error = inputs @ (params["second"] @ params["first"]).transpose(1, 2) - targets
    return error.transpose(1, 2) @ inputs / inputs.shape[1]
