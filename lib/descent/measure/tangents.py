"""Products with the curvature of an MLP by hand: the derivative of its forward and backward pass along a vector.

With a_l the inputs of layer l, z_l = a_l W_lᵀ + b_l, a_{l+1} = φ(z_l), δ_l = ∂(loss)/∂z_l, and Ṽ the derivative of V
along v (Pearlmutter's R-operator; Pearlmutter 1994, Schraudolph 2002),

    forward     z̃_l = ã_l W_lᵀ + a_l V_lᵀ + v_l,     ã_{l+1} = φ′ z̃_l,     δ̃_last = ℓ″ z̃_last
    backward    δ̃_{l−1} = φ′ (δ̃_l W_l + δ_l V_l) + φ″ z̃_{l−1} (δ_l W_l)
    product     δ̃_lᵀ a_l + δ_lᵀ ã_l for the weights, Σ δ̃_l for the bias.

Without the terms in δ it is the Gauss–Newton product. What does not depend on v is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from descent.engine.probes import Leaves
from descent.measure.parts import OutputLoss, Part
from descent.nets.dense import MLP

__all__ = ["Tangents"]


@dataclass(eq=False)
class _Layer:
    """Layer l: weights (R, out, in), inputs a (R, B, in), δ (R, B, out); φ″(δW) at its inputs, where φ bends."""

    name: str
    weight: Tensor
    values: Tensor
    delta: Tensor
    bend: Tensor | None


class Tangents:
    """The layers of an MLP on one part: their derivatives along vectors, and slopes carried back through them.

    part: replicas at their parameters, with some examples.
    """

    def __init__(self, part: Part) -> None:
        model = part.objective.model
        if not isinstance(model, MLP):
            raise ValueError(f"only the layers of an MLP are known here, got {type(model).__name__}")
        self._gate, self.bias = _GATES[model.activation], model.bias

        def slope(outputs: Tensor) -> Tensor:
            self.loss = OutputLoss(part.objective.loss, outputs, part.targets, part.weight)
            return self.loss.slope

        with torch.no_grad():
            found = list(model.backward(part.params, part.inputs, slope))[::-1]
        self.layers = [
            _Layer(f"{2 * index}", part.params[f"{2 * index}.weight"], values, delta, None)
            for index, values, delta in found
        ]
        if model.activation == "tanh":  # φ″ = −2φφ′, and φ′(δ_l W_l) is the slope one layer down
            for below, layer in pairwise(self.layers):
                layer.bend = below.delta * layer.values * -2.0

    def add_hessian(self, v: Leaves, out: Leaves) -> None:
        """Add the product of the Hessian of weight · Σ ℓ_i with v."""
        tangents, bends, outputs = self._forward(v)
        slope = self.loss.curve(outputs)
        for index in reversed(range(len(self.layers))):
            layer, tangent, weight = self.layers[index], tangents[index], f"{self.layers[index].name}.weight"
            self._add(layer, slope, out)
            if tangent is None:
                return
            out[weight].baddbmm_(layer.delta.mT, tangent)
            slope = self._gate(torch.bmm(slope, layer.weight).baddbmm_(layer.delta, v[weight]), layer.values)
            bend = bends[index]
            if bend is not None:
                slope += bend

    def push(self, v: Leaves) -> Tensor:
        """Return J v (R, B, out), the derivative of the outputs along v."""
        return self._forward(v)[2]

    def pull(self, slope: Tensor, out: Leaves) -> None:
        """Add Jᵀ slope, summed over examples."""
        for layer, one in self.back(slope):
            self._add(layer, one, out)

    def back(self, slopes: Tensor) -> Iterator[tuple[_Layer, Tensor]]:
        """Carry m slopes per example at the outputs, (R, B·m, out), back; yield them at every layer, last to first."""
        for layer in reversed(self.layers):
            yield layer, slopes
            if layer is not self.layers[0]:
                slopes = torch.bmm(slopes, layer.weight)
                self._gate(slopes.view(*layer.values.shape[:2], -1, slopes.shape[2]), layer.values.unsqueeze(2))

    def _forward(self, v: Leaves) -> tuple[list[Tensor | None], list[Tensor | None], Tensor]:
        """Return ã_l and φ″z̃(δW) at the inputs of every layer, None where they vanish, and z̃ of the last."""
        tangents: list[Tensor | None] = []
        bends: list[Tensor | None] = []
        z: Tensor | None = None
        for layer in self.layers:
            bends.append(None if z is None or layer.bend is None else z * layer.bend)
            tangents.append(None if z is None else self._gate(z, layer.values))
            z = torch.bmm(layer.values, v[f"{layer.name}.weight"].mT)
            if tangents[-1] is not None:
                z.baddbmm_(tangents[-1], layer.weight.mT)
            if self.bias:
                z += v[f"{layer.name}.bias"].unsqueeze(1)
        assert z is not None
        return tangents, bends, z

    def _add(self, layer: _Layer, slope: Tensor, out: Leaves) -> None:
        out[f"{layer.name}.weight"].baddbmm_(slope.mT, layer.values)
        if self.bias:
            out[f"{layer.name}.bias"] += slope.sum(dim=1)


_GATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # φ′(z) · slope in place, from a = φ(z)
    "relu": lambda slope, a: torch.ops.aten.threshold_backward.grad_input(slope, a, 0, grad_input=slope),
    "tanh": lambda slope, a: torch.ops.aten.tanh_backward.grad_input(slope, a, grad_input=slope),
    "identity": lambda slope, a: slope,
}
