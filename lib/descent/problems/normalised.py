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
        x, y = self._draws(len(params))
        if self.batch_size is None:
            error = self._outputs(unit) - y.unsqueeze(-1)
            slope = (x.mT @ error).permute(2, 0, 1).reshape(params.shape) / x.shape[1]
        else:
            rows = streams.integers(Purpose.BATCH, step, x.shape[1], (self.batch_size,))
            draw = (torch.arange(len(params), device=params.device) % len(x)).unsqueeze(1)
            some = x[draw, rows]
            error = (some @ unit.unsqueeze(-1)).squeeze(-1) - y[draw, rows]
            slope = (error.unsqueeze(1) @ some).squeeze(1) / self.batch_size
        return (slope - (slope * unit).sum(-1, keepdim=True) * unit) / size

    def value(self, params: Tensor) -> Tensor:
        """Return the loss (R,)."""
        error = self._outputs(params / _size(params)) - self._draws(len(params))[1].unsqueeze(-1)
        return error.square().mean(1).T.flatten() / 2

    def _outputs(self, unit: Tensor) -> Tensor:
        """Return what every replica says on its examples, (D, n, R/D): a draw meets all of its replicas at once."""
        x, _ = self._draws(len(unit))
        return x @ unit.view(-1, len(x), unit.shape[-1]).permute(1, 2, 0)

    def _draws(self, replicas: int) -> tuple[Tensor, Tensor]:
        """Return inputs (D, n, p) and targets (D, n)."""
        x, y = (part if self.inputs.ndim == 3 else part.unsqueeze(0) for part in (self.inputs, self.targets))
        if replicas % len(x):
            raise ValueError(f"{replicas} replicas cannot share {len(x)} draws of the data evenly; take a multiple")
        return x, y


def _size(params: Tensor) -> Tensor:
    return params.square().sum(-1, keepdim=True).sqrt()
