"""Objectives that draw apart from their gradient: what is random of a step first, then what it makes of parameters.

    drawn = objective.draw(streams, step, params)          # tensors by name, a pure function of seed and step
    objective.gradient_at(params, drawn, out)              # no randomness, no number brought to a device or asked of it

The gradient is the two in turn. Kept apart, draws can be made ahead and gradients captured, see
`descent.engine.graphs`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from descent.engine.probes import P
from descent.engine.stack import joined, leaves
from descent.engine.streams import Streams

__all__ = ["Drawn", "Split", "placed"]

Drawn = dict[str, Tensor]
"""What is random of a step, by name."""


@runtime_checkable
class Split(Protocol[P]):
    """An objective in two parts; whoever inherits gets the gradient of both."""

    def draw(self, streams: Streams, step: int, like: P) -> Drawn:
        """Draw what a step needs; of the parameters `like` only shape, type and device are looked at."""

    def gradient_at(self, params: P, drawn: Drawn, out: P) -> None:
        """Write the gradient on what was drawn into `out`, shaped like `params`; `drawn` is left as it is."""

    def gradient(self, params: P, streams: Streams, step: int) -> P:
        """Return the stochastic gradient of every replica."""
        out = cast(P, joined({name: torch.empty_like(leaf) for name, leaf in leaves(params).items()}))
        self.gradient_at(params, self.draw(streams, step, params), out)
        return out


def placed(values: float | tuple[float, ...], like: Tensor) -> Tensor:
    """Return numbers in the type of a tensor and where it is; they are sent there once, and may not be changed."""
    return _placed(values, like.dtype, like.device)


@lru_cache(maxsize=256)
def _placed(values: float | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # whoever asks next may differentiate
        return torch.tensor(values, dtype=dtype, device=device)
