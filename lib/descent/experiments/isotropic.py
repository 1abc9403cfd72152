"""Descent with noise of a batch's power and no direction of its own, for more than one chapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from descent.engine.probes import Leaves, Params
from descent.engine.stack import leaves
from descent.engine.streams import Purpose, Streams
from descent.measure.operators import flatten, unflatten
from descent.nets.dense import MLP
from descent.nets.supervised import Supervised


@dataclass(frozen=True, eq=False)
class Isotropic:
    """The full gradient plus normal noise in all directions alike, of the power C²(x)/B of a batch of B examples.

    C² is exact at every point, out of the very pass that makes the gradient: |∇f_i|² = Σ_layers |δ|²(1 + |a|²). That
    asks for an MLP and for a loss that knows its slope.
    """

    full: Supervised
    batch_size: int

    def gradient(self, params: Params, streams: Streams, step: int) -> Leaves:
        """Return the noisy gradient of every replica."""
        gradient, power = self.parts(params, streams, step)
        scale = (power / gradient.shape[1]).sqrt().unsqueeze(1)
        noise = streams.normal(Purpose.NOISE, step, (gradient.shape[1],))
        return unflatten(gradient + scale * noise, leaves(params))

    def parts(self, params: Params, streams: Streams, step: int) -> tuple[Tensor, Tensor]:
        """Return the full gradient (R, p) and the power C²/B (R,)."""
        named, model = leaves(params), cast(MLP, self.full.model)
        slope: Callable[[Tensor, Tensor], Tensor] = self.full.loss.slope  # type: ignore[attr-defined]
        inputs, targets = self.full.batch(streams, step)
        squares, found = inputs.new_zeros(inputs.shape[:2]), dict(named)
        with torch.no_grad():
            for layer, a, delta in model.backward(named, inputs, lambda z: slope(z, targets)):
                squares += delta.square().sum(dim=-1) * (a.square().sum(dim=-1) + 1)
                found[f"{2 * layer}.weight"] = torch.bmm(delta.mT, a)
                found[f"{2 * layer}.bias"] = delta.sum(dim=1)
        gradient = flatten(found) / inputs.shape[1]
        return gradient, (squares.mean(dim=1) - gradient.square().sum(dim=1)).clamp_min(0) / self.batch_size
