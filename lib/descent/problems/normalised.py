"""A scale-invariant loss: linear regression on normalised weights, f(x) = x·w/|w|.

The gradient is orthogonal to w and falls as 1/|w|. So |w|² grows with every step, by exactly cΣ|Δw|² under heavy ball
from rest (`theory.balance.squared_change`; of momentum Heo et al. 2021): c times as fast as without momentum where the
steps are signal, as fast where they are noise.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from descent.engine.streams import Purpose, Streams

__all__ = ["NormalisedRegression"]


@dataclass(frozen=True, eq=False)
class NormalisedRegression:
    """The mean of ½(x·w/|w| − y)² over examples inputs (n, D), targets (n,); params (R, D).

    batch_size: examples per step, drawn with replacement; None for all of them.
    """

    inputs: Tensor
    targets: Tensor
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2 or self.targets.shape != self.inputs.shape[:1]:
            shapes = tuple(self.inputs.shape), tuple(self.targets.shape)
            raise ValueError(f"inputs (n, D) and targets (n,) must have equally many rows, got {shapes}")

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return (s − (s·ŵ)ŵ)/|w| with s the slope in ŵ = w/|w|, (R, D)."""
        size = _size(params)
        unit = params / size
        x, y = self.inputs.expand(len(params), -1, -1), self.targets.expand(len(params), -1)
        if self.batch_size is not None:
            rows = streams.integers(Purpose.BATCH, step, len(self.inputs), (self.batch_size,))
            x, y = self.inputs[rows], self.targets[rows]
        error = (x @ unit.unsqueeze(-1)).squeeze(-1) - y
        slope = (error.unsqueeze(1) @ x).squeeze(1) / x.shape[1]
        return (slope - (slope * unit).sum(-1, keepdim=True) * unit) / size

    def value(self, params: Tensor) -> Tensor:
        """Return the loss (R,)."""
        unit = params / _size(params)
        return (unit @ self.inputs.T - self.targets).square().mean(-1) / 2


def _size(params: Tensor) -> Tensor:
    return params.square().sum(-1, keepdim=True).sqrt()
