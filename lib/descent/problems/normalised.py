"""A scale-invariant loss: linear regression on normalised weights, f(x) = x·w/|w|.

The gradient is orthogonal to w and falls as 1/|w|. So |w|² grows with every step, by exactly cΣ|Δw|² under heavy ball
from rest (`theory.balance.squared_change`; of momentum Heo et al. 2021): c times as fast as without momentum where the
steps are signal, as fast where they are noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from descent.engine.streams import Purpose, Streams

__all__ = ["NormalisedRegression"]


@dataclass(frozen=True, eq=False)
class NormalisedRegression:
    """The mean of ½(x·w/|w| − y)² over examples inputs (n, p), targets (n,); params (R, p).

    With inputs (D, n, p), targets (D, n) replica r has draw r mod D. batch_size: examples per step, drawn with
    replacement; None for all of them.
    """

    inputs: Tensor
    targets: Tensor
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.inputs.ndim not in (2, 3) or self.targets.shape != self.inputs.shape[:-1]:
            shapes = tuple(self.inputs.shape), tuple(self.targets.shape)
            raise ValueError(f"inputs (…, n, p) and targets (…, n) must have equally many rows, got {shapes}")

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return (s − (s·ŵ)ŵ)/|w| with s the slope in ŵ = w/|w|, (R, p)."""
        size = _size(params)
        unit = params / size
        x, y = self._examples(len(params))
        if self.batch_size is not None:
            rows = streams.integers(Purpose.BATCH, step, x.shape[1], (self.batch_size,))
            x, y = torch.take_along_dim(x, rows.unsqueeze(-1), dim=1), torch.take_along_dim(y, rows, dim=1)
        error = (x @ unit.unsqueeze(-1)).squeeze(-1) - y
        slope = (error.unsqueeze(1) @ x).squeeze(1) / x.shape[1]
        return (slope - (slope * unit).sum(-1, keepdim=True) * unit) / size

    def value(self, params: Tensor) -> Tensor:
        """Return the loss (R,)."""
        x, y = self._examples(len(params))
        unit = params / _size(params)
        return ((x @ unit.unsqueeze(-1)).squeeze(-1) - y).square().mean(-1) / 2

    def _examples(self, replicas: int) -> tuple[Tensor, Tensor]:
        """Return the examples of every replica, (R, n, p) and (R, n)."""
        x, y = (part if self.inputs.ndim == 3 else part.unsqueeze(0) for part in (self.inputs, self.targets))
        if replicas % len(x):
            raise ValueError(f"{replicas} replicas cannot share {len(x)} draws of the data evenly; take a multiple")
        rounds = replicas // len(x)
        if len(x) == 1:
            return x.expand(rounds, -1, -1), y.expand(rounds, -1)
        return x.repeat(rounds, 1, 1), y.repeat(rounds, 1)


def _size(params: Tensor) -> Tensor:
    return params.square().sum(-1, keepdim=True).sqrt()
