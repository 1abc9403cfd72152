"""Pairs of layers around a ReLU: what goes into a hidden neuron and what comes out are two factors of one product.

For a net Σ_j a_j max(0, w_j·x) without biases, `MLP((D, H, C), "relu", bias=False)` on any data, loss and batch,
⟨w_j, ∂L/∂w_j⟩ = ⟨a_j, ∂L/∂a_j⟩: gradient flow conserves |w_j|² − |a_j|² of every neuron, heavy ball changes it by
exactly `theory.balance.balance_change`, to leading order by ec(|∂L/∂w_j|² − |∂L/∂a_j|²) per unit of time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.engine.probes import Leaves

__all__ = ["drift", "imbalance", "pairs"]


def pairs(params: Leaves) -> tuple[Tensor, Tensor]:
    """Return what goes into every hidden neuron, (R, H, D), and what comes out, (R, H, C).

    Raises: ValueError for nets that are not two layers without biases.
    """
    if set(params) != {"0.weight", "2.weight"}:
        raise ValueError(
            'the balance law is about two layers without biases, MLP((D, H, C), "relu", bias=False); '
            f"these parameters are {', '.join(sorted(params))}"
        )
    return params["0.weight"], params["2.weight"].transpose(1, 2)


def imbalance(params: Leaves) -> Tensor:
    """Return |w_j|² − |a_j|² of every hidden neuron, (R, H)."""
    into, out = pairs(params)
    return into.square().sum(-1) - out.square().sum(-1)


def drift(gradient: Leaves) -> Tensor:
    """Return d(|w_j|² − |a_j|²)/dτ in units of e·c, of the full gradient, (R, H); to leading order in e."""
    return torch.as_tensor(imbalance(gradient))
