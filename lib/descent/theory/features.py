"""Models whose Gram matrix is a closed form: two-layer nets with a fixed outer layer, and deep linear nets.

Inputs X (…, n, d). A two-layer net f = Σ_k a_k σ(b_kᵀx) with trained b has K = XXᵀ ∘ σ′(Z) diag(a²) σ′(Z)ᵀ, Z = XBᵀ;
with slopes of σ in [s, S] its scores lie within [s⁴, S⁴]·κ_i times a constant, κ_i = Σ_j (x_iᵀx_j)²/n, so that its
loss alignment is at least (s/S)⁴ min κ/mean κ, whatever the width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ACTIVATIONS", "Activation", "alignment_floor", "deep_linear", "two_layer"]


@dataclass(frozen=True)
class Activation:
    """σ, its slope, and the ends between which the slope lies."""

    value: Callable[[Tensor], Tensor]  # σ
    slope: Callable[[Tensor], Tensor]  # σ′
    least: float  # smallest slope
    largest: float  # largest slope


def _leaky(z: Tensor) -> Tensor:
    return torch.where(z > 0, z, 0.5 * z)


ACTIVATIONS: Mapping[str, Activation] = {
    "linear": Activation(lambda z: z, torch.ones_like, 1.0, 1.0),
    "leaky": Activation(_leaky, lambda z: torch.where(z > 0, 1.0, 0.5).to(z), 0.5, 1.0),
    "relu": Activation(torch.relu, lambda z: (z > 0).to(z), 0.0, 1.0),
    "tanh": Activation(torch.tanh, lambda z: 1 - torch.tanh(z).square(), 0.0, 1.0),
    "softplus": Activation(torch.nn.functional.softplus, torch.sigmoid, 0.0, 1.0),
}
"""The nonlinearities, with their slopes, by name."""


def two_layer(activation: Activation, inputs: Tensor, inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs (…, n) and Gram matrix (…, n, n) with respect to `inner` (…, m, d); outer (…, m) is fixed.

    inner: weights of the hidden layer. outer: weights of the output.
    """
    hidden = inputs @ inner.mT
    weighted = activation.slope(hidden) * outer.unsqueeze(-2)
    outputs = (activation.value(hidden) @ outer.unsqueeze(-1)).squeeze(-1)
    return outputs, (inputs @ inputs.mT) * (weighted @ weighted.mT)


def alignment_floor(activation: Activation, inputs: Tensor) -> Tensor:
    """Return the bound (s/S)⁴ min κ/mean κ on the loss alignment of every such net, (…)."""
    scores = (inputs @ inputs.mT).square().mean(dim=-1)
    return (activation.least / activation.largest) ** 4 * scores.amin(dim=-1) / scores.mean(dim=-1)


def deep_linear(inputs: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return outputs (…, n) and Gram matrix (…, n, n) of x ↦ W_L … W_1 x with respect to all W; W_L is (…, 1, m).

    Σ_layers (A Aᵀ)·(D Dᵀ), A the inputs of a layer and D the product of the layers above: one row for all examples.

    weights: of every layer, from the inputs up.
    """
    below = [inputs]
    for weight in weights:
        below.append(below[-1] @ weight.mT)
    above = torch.ones_like(weights[-1][..., :1, :1])
    gram = torch.zeros_like(inputs @ inputs.mT)
    for layer in reversed(range(len(weights))):
        gram = gram + below[layer] @ below[layer].mT * above.square().sum(dim=(-2, -1), keepdim=True)
        above = above @ weights[layer]
    return below[-1].squeeze(-1), gram
