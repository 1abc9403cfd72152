"""An objective cut into parts that fit in memory: some replicas, some examples, and the loss seen from its outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.autograd import grad

from descent.engine.probes import Leaves
from descent.nets.dense import Loss, Model, Stacked
from descent.nets.supervised import Supervised

__all__ = ["OutputLoss", "Part", "split", "trained"]

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, eq=False)
class Part:
    """Some replicas `rows` at their parameters, and some of their examples; weight 1/n."""

    objective: Supervised
    rows: slice  # which replicas
    params: Leaves
    examples: slice  # which examples
    weight: float  # of one example in the mean, 1/n
    nbytes: int  # of working memory, about

    @property
    def inputs(self) -> Tensor:
        """The inputs (R', B, …), in the type of the parameters; gathered anew where replicas see rows of their own."""
        return _typed(self.objective.data.seen(self.rows, self.examples)[0], self.params)

    @property
    def targets(self) -> Tensor:
        """The targets (R', B, …)."""
        return self.objective.data.seen(self.rows, self.examples)[1]

    def outputs(self, free: Leaves) -> Tensor:
        """Return the outputs (R', B, …) at the parameters `free`; what is not among them stays as it is."""
        return self.objective.model.forward(self.params | free, self.inputs)

    def losses(self, free: Leaves) -> Tensor:
        """Return the losses (R', B) at the parameters `free`."""
        return self.objective.loss(self.outputs(free), self.targets)

    def free(self) -> Leaves:
        """Return the trained parameters as leaves of a new graph."""
        return {name: leaf.detach().requires_grad_() for name, leaf in trained(self.params).items()}


class OutputLoss:
    """weight · Σ_i ℓ_i as a function of the outputs z (R, B, …): its slope, and products with its second derivative.

    weight: the factor in front of the sum.
    """

    def __init__(self, loss: Loss, outputs: Tensor, targets: Tensor, weight: float) -> None:
        self._outputs = outputs.detach().requires_grad_()
        self.weight = weight
        with torch.enable_grad():
            total = loss(self._outputs, targets).sum() * weight
            (self._slope,) = grad(total, self._outputs, create_graph=True)
        self.slope = self._slope.detach()

    def curve(self, u: Tensor) -> Tensor:
        """Return weight · ℓ_i″ u_i, u like the outputs."""
        if not self._slope.requires_grad:  # a loss linear in the outputs
            return torch.zeros_like(u)
        (found,) = grad(self._slope, self._outputs, u, retain_graph=True, materialize_grads=True)
        return found

    def square(self, u: Tensor) -> Tensor:
        """Return weight · ∇_z ℓ_i (∇_z ℓ_i · u_i)."""
        along = (self.slope * u).flatten(2).sum(dim=2) / self.weight
        return self.slope * along.view(*along.shape, *[1] * (u.ndim - 2))

    def matrices(self) -> Tensor:
        """Return weight · ℓ_i″ as matrices (R, B, C, C) over the flattened outputs."""
        like = self._outputs
        columns = torch.eye(like[0, 0].numel(), dtype=like.dtype, device=like.device)
        return torch.stack([self.curve(e.view(like.shape[2:]).expand_as(like)).flatten(2) for e in columns], dim=-1)


def trained(params: Leaves) -> Leaves:
    """Return the leaves that training moves: all but the stored statistics of batch norms."""
    return {name: leaf for name, leaf in params.items() if not name.endswith(_STATISTICS)}


def split(objective: Supervised, params: Leaves, room: int, *, share: float = 1.0, extra: int = 0) -> list[Part]:
    """Cut into parts of about `room` bytes: `share` times what a training step works on, and `extra` per example.

    As many replicas as fit together, or one with some of the examples. A model that couples examples (batch norm) is
    another function on some of them, so it is cut along replicas only.

    room: bytes that one part may take; share: of what a training step works on; extra: further bytes per example.
    """
    replicas, n = len(next(iter(params.values()))), len(objective.data)
    objective.data.fits(replicas)
    if objective.rows is None:
        objective = replace(objective, inputs=_typed(objective.inputs, params))  # once, and not for every part
    x = _typed(objective.inputs[:1], params)
    weights = 3 * sum(leaf[0].nbytes for leaf in trained(params).values())
    one = int(share * max(n, _footprint(objective.model, x, n) - weights)) + extra * n
    couples = getattr(objective.model, "couples", None)
    pieces = 1 if couples is not None and couples(params) else min(n, -(-one // room))
    return [
        Part(
            objective,
            rows,
            {name: leaf[rows].detach() for name, leaf in params.items()},
            some,
            1.0 / n,
            one * (some.stop - some.start) * (rows.stop - rows.start) // n,
        )
        for rows in _even(replicas, -(-replicas // max(1, room // one)))
        for some in _even(n, pieces)
    ]


def _typed(inputs: Tensor, params: Leaves) -> Tensor:
    """Return inputs in the type of the parameters, unless they are whole numbers."""
    return inputs.to(next(iter(params.values())).dtype) if inputs.is_floating_point() else inputs


def _footprint(model: Model, inputs: Tensor, count: int) -> int:
    """Return the bytes of a training step on `count` examples like the inputs, in their type."""
    if not isinstance(model, Stacked):
        return model.footprint(inputs, count)
    own = next(model.module.parameters()).dtype  # that of a module is found by running it as it is
    measured = inputs.to(own) if inputs.is_floating_point() else inputs
    return model.footprint(measured, count) * inputs.element_size() // measured.element_size()


def _even(length: int, pieces: int) -> list[slice]:
    """Cut 0 … length into slices of nearly equal length."""
    edges = [length * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]
