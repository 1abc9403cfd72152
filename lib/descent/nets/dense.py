"""Networks that exist as a stack: parameters (R, …) by the names of the torch module they stand for.

`MLP` is written as batched matrix products with a hand-derived backward pass, the engine's fast path.
`Stacked` takes any torch.nn.Module through torch.func. Both give what the modules give, one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from descent.engine.probes import Leaves
from descent.engine.streams import Purpose, Streams

__all__ = [
    "MLP",
    "CrossEntropy",
    "LogisticError",
    "Loss",
    "Model",
    "SquaredError",
    "Stacked",
    "initial_leaves",
    "saved_bytes",
]

Activation = Literal["relu", "tanh", "identity"]


class Model(Protocol):
    """A stack of networks."""

    def initial(self, streams: Streams) -> Leaves:
        """Draw the parameters of every replica."""

    def forward(self, params: Leaves, inputs: Tensor) -> Tensor:
        """Return the outputs (R, B, out) for inputs (R, B, …)."""

    def footprint(self, inputs: Tensor, batch_size: int) -> int:
        """Return the bytes one replica works on during a step."""


class Loss(Protocol):
    """A loss per example."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (R, B) of outputs (R, B, out)."""


class CrossEntropy:
    """−log softmax(outputs)[target], targets int64 (R, B)."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (R, B)."""
        picked = outputs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return outputs.logsumexp(dim=-1) - picked

    def slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂loss/∂outputs = softmax(outputs) − onehot(targets), overwriting `outputs`."""
        outputs.sub_(outputs.amax(dim=-1, keepdim=True)).exp_()
        outputs.div_(outputs.sum(dim=-1, keepdim=True))
        minus = outputs.new_full((*targets.shape, 1), -1.0)
        return outputs.scatter_add_(-1, targets.unsqueeze(-1), minus)


@dataclass(frozen=True)
class SquaredError:
    """factor · Σ_outputs (output − target)², targets (R, B, out); the factor is ½ unless told."""

    factor: float = 0.5

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (R, B)."""
        return self.factor * (outputs - targets).square().sum(dim=-1)

    def slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂loss/∂outputs, overwriting `outputs`."""
        return outputs.sub_(targets).mul_(2.0 * self.factor)


@dataclass(frozen=True)
class LogisticError:
    """Σ_outputs log(1 + e^(−target·output)), targets ±1 (R, B, out)."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (R, B)."""
        return nn.functional.softplus(-targets * outputs).sum(dim=-1)

    def slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂loss/∂outputs = −target/(1 + e^(target·output)), overwriting `outputs`."""
        return outputs.mul_(-targets).sigmoid_().mul_(-targets)


@dataclass(frozen=True)
class MLP:
    """Dense layers of the given sizes, the activation between them; nn.Sequential(Linear, activation, …)."""

    sizes: tuple[int, ...]  # of inputs, hidden layers and outputs
    activation: Activation = "relu"
    bias: bool = True  # whether layers have one
    working_set: int = 8 << 20  # bytes of one chunk per CPU thread: less costs calls, more memory traffic

    def __post_init__(self) -> None:
        if len(self.sizes) < 2:
            raise ValueError(f"an MLP needs at least an input and an output size, got sizes={self.sizes}")
        if self.activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(_ACTIVATIONS)}, got {self.activation!r}")

    def module(self) -> nn.Sequential:
        """Return the torch module of one replica; its parameter names are the names used here."""
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(self.sizes, self.sizes[1:], strict=False):
            layers += [nn.Linear(fan_in, fan_out, self.bias), _ACTIVATIONS[self.activation].module()]
        return nn.Sequential(*layers[:-1])

    def initial(self, streams: Streams) -> Leaves:
        """Draw weights (R, out, in) and biases (R, out), uniform on ±1/√fan_in as torch does."""
        with torch.device("meta"):
            module = self.module()
        return initial_leaves(module, streams)

    def forward(self, params: Leaves, inputs: Tensor) -> Tensor:
        """Return the outputs (R, B, out) for inputs (R, B, …), flattened per example."""
        return self._layers(params, inputs)[-1]

    def gradient_into(self, params: Leaves, inputs: Tensor, slope: Callable[[Tensor], Tensor], out: Leaves) -> None:
        """Write the gradient of Σ_examples loss into `out`; slope(outputs) is ∂loss/∂outputs (R, B, out)."""
        for layer, values, delta in self.backward(params, inputs, slope):
            torch.bmm(delta.transpose(1, 2), values, out=out[f"{2 * layer}.weight"])
            if self.bias:
                torch.sum(delta, dim=1, out=out[f"{2 * layer}.bias"])

    def backward(
        self, params: Leaves, inputs: Tensor, slope: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield from last to first: layer, its inputs a (R, B, in), the slope δ at its outputs (R, B, out).

        The gradient of one example's loss is δaᵀ for the weights and δ for the bias. Neither tensor may be changed.
        """
        values = self._layers(params, inputs)
        delta = slope(values[-1])
        for layer in reversed(range(len(self.sizes) - 1)):
            yield layer, values[layer], delta
            if layer > 0:
                delta = torch.bmm(delta, params[f"{2 * layer}.weight"])
                _ACTIVATIONS[self.activation].backward(delta, values[layer])

    def footprint(self, inputs: Tensor, batch_size: int) -> int:
        """Return the bytes of parameters, velocity, gradient, values and slopes of one replica."""
        weights = sum((a + 1) * b for a, b in zip(self.sizes, self.sizes[1:], strict=False))
        return inputs.element_size() * (3 * weights + 2 * batch_size * sum(self.sizes))

    def _layers(self, params: Leaves, inputs: Tensor) -> list[Tensor]:
        """Return the inputs of every layer and the outputs of the last."""
        values = [inputs.flatten(2)]
        for layer in range(len(self.sizes) - 1):
            if layer > 0:
                _ACTIVATIONS[self.activation].forward(values[-1])
            value = torch.bmm(values[-1], params[f"{2 * layer}.weight"].transpose(1, 2))
            if self.bias:
                value.add_(params[f"{2 * layer}.bias"].unsqueeze(1))
            values.append(value)
        return values


@dataclass(frozen=True, eq=False)
class Stacked:
    """Any torch module as a stack: vmap over the forward pass, autograd outside it.

    Weights of linear and convolutional layers are drawn uniform on ±1/√fan_in (torch's default); every
    other parameter starts at the module's own value. Raises ValueError for batch norm with running
    statistics: one pass would mix what belongs to a step with what belongs to the parameters.
    """

    module: nn.Module
    working_set: int = 64 << 20  # bytes of one chunk
    _buffers: Leaves = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, part in self.module.named_modules():
            if getattr(part, "running_mean", None) is not None:
                raise ValueError(
                    f"{name or type(part).__name__} keeps running statistics, which a stack does not carry; "
                    "build it with track_running_stats=False, or use GroupNorm"
                )
        object.__setattr__(self, "_buffers", dict(self.module.named_buffers()))

    def initial(self, streams: Streams) -> Leaves:
        """Draw the parameters of every replica, each leaf (R, …) by its name in the module."""
        return initial_leaves(self.module, streams)

    def forward(self, params: Leaves, inputs: Tensor) -> Tensor:
        """Return the module's outputs (R, B, …) for inputs (R, B, …)."""

        def one(leaves: Leaves, batch: Tensor) -> Any:
            return functional_call(self.module, (leaves, self._buffers), (batch,))

        outputs: Tensor = vmap(one)(params, inputs)
        return outputs

    def footprint(self, inputs: Tensor, batch_size: int) -> int:
        """Return the bytes of parameters, velocity, gradient and what autograd keeps for one replica."""
        kind = inputs.dtype if inputs.is_floating_point() else None  # a stack takes the type of its examples
        leaves = {k: torch.empty_like(p, dtype=kind, requires_grad=True) for k, p in self.module.named_parameters()}

        def kept(size: int) -> int:
            batch = inputs.new_zeros((size, *inputs.shape[1:]))
            return sum(saved_bytes(lambda: functional_call(self.module, (leaves, self._buffers), (batch,))))

        few = kept(2)  # what is kept grows by the same amount with every example
        return 3 * sum(leaf.nbytes for leaf in leaves.values()) + 2 * (few + (batch_size - 2) * (kept(4) - few) // 2)


@dataclass(frozen=True)
class _Activation:
    """An activation in place, and its backward pass in place on the slope, from the activated values."""

    module: Callable[[], nn.Module]
    forward: Callable[[Tensor], object]
    backward: Callable[[Tensor, Tensor], object]


_ACTIVATIONS = {
    "relu": _Activation(
        nn.ReLU,
        torch.relu_,
        lambda delta, value: torch.ops.aten.threshold_backward.grad_input(delta, value, 0, grad_input=delta),
    ),
    "tanh": _Activation(
        nn.Tanh,
        torch.tanh_,
        lambda delta, value: torch.ops.aten.tanh_backward.grad_input(delta, value, grad_input=delta),
    ),
    "identity": _Activation(nn.Identity, lambda value: value, lambda delta, value: delta),
}


def initial_leaves(module: nn.Module, streams: Streams) -> Leaves:
    """Draw every leaf under a step word of its own, so that leaves are independent of one another."""
    leaves = {}
    for index, (name, parameter) in enumerate(module.named_parameters()):
        owner = module.get_submodule(name.rpartition(".")[0])
        weight = getattr(owner, "weight", None)
        if isinstance(owner, nn.Linear | nn.modules.conv._ConvNd) and isinstance(weight, Tensor):
            bound = 1.0 / math.sqrt(weight[0].numel())
            draw = streams.uniform(Purpose.INIT, index, tuple(parameter.shape))
            leaves[name] = draw.mul_(2.0 * bound).sub_(bound)
        else:
            value = parameter.detach().to(streams.device, streams.dtype)
            leaves[name] = value.expand(streams.replicas, *value.shape).clone()
    return leaves


def saved_bytes(forward: Callable[[], object]) -> list[int]:
    """Return the sizes of what autograd keeps of a forward pass for the backward pass, each storage once.

    forward: the pass, a call without arguments.
    """
    storages = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # held, or its place in memory could be given away and counted as one
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return [storage.nbytes() for storage in storages.values()]
