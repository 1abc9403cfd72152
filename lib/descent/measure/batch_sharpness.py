"""Curvature as SGD feels it: along the gradients of its batches, in the batches' own curvature and in that of all data.

With g the gradient and H_B the Hessian of one batch's mean loss, ∇L and H those of all examples,

    batch sharpness             E[gᵀ H_B g] / E|g|²        SGD without momentum has it near 2/lr where it is at its edge
    gradient–noise interaction  E[gᵀ H g] / |∇L|²          2/lr where one step leaves the loss as it is, to second order

(Andreyev & Beneventano 2024). For full batches both are the curvature along ∇L. Expectations are over the batches as
the objective draws them, by sampling; both come with their intervals.

    felt = batch_sharpness(objective, params, streams)
    felt.sharpness, felt.interaction                    # (R,) each
    felt.estimate(0)                                    # the first for one replica, an Estimate
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import grad

from descent.engine.probes import Leaves
from descent.engine.streams import Streams
from descent.measure.curvature import BUDGET, hessian, value_and_gradient
from descent.measure.operators import flatten
from descent.measure.parts import trained
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean, ratio_of_means

__all__ = ["BatchSharpness", "batch_sharpness"]


@dataclass(frozen=True, eq=False)
class BatchSharpness:
    """What each of m batches says: gᵀH_B g, gᵀHg and |g|², (R, m) each, and |∇L|² (R,)."""

    own: Tensor  # gᵀH_B g, by the Hessian of the same batch
    full: Tensor  # gᵀHg, by that of the whole loss
    squares: Tensor  # |g|²
    gradient: Tensor  # |∇L|²

    @property
    def sharpness(self) -> Tensor:
        """Batch sharpness E[gᵀ H_B g] / E|g|², (R,)."""
        return self.own.mean(dim=1) / self.squares.mean(dim=1)

    @property
    def interaction(self) -> Tensor:
        """Gradient–noise interaction E[gᵀ H g] / |∇L|², (R,)."""
        return self.full.mean(dim=1) / self.gradient

    def estimate(self, replica: int, seed: int = 0, *, level: float = 0.95) -> Estimate:
        """Return the batch sharpness of one replica with its interval over batches, by the bootstrap."""
        own, squares = (x[replica].cpu().numpy() for x in (self.own, self.squares))
        return ratio_of_means(own, squares, seed, level=level)

    def interaction_estimate(self, replica: int, *, level: float = 0.95) -> Estimate:
        """Return the gradient–noise interaction of one replica with its interval over batches, by Student's t."""
        return mean((self.full[replica] / self.gradient[replica]).cpu().numpy(), level=level)


def batch_sharpness(
    objective: Supervised, params: Leaves, streams: Streams, *, draws: int = 64, step: int = 0, budget: int = BUDGET
) -> BatchSharpness:
    """Sample batch sharpness and gradient–noise interaction at `params`, leaves (R, …), by `draws` batches.

    Batches are those of steps `step`, `step` + 1, … : give streams that the parameters were not trained with.
    Raises: ValueError for augmented data, which have no full gradient, and for fewer than two draws.

    draws: number of batches.
    """
    if objective.augment is not None:
        raise ValueError("random crops and flips leave no exact gradient; measure on replace(objective, augment=None)")
    if draws < 2:
        raise ValueError(f"an interval needs at least two batches, got draws={draws}")
    curvature = hessian(objective, params, budget=budget)
    gradient = flatten(value_and_gradient(objective, params, budget=budget)[1])
    own, full, squares = [], [], []
    for now in range(step, step + draws):
        g, along = _batch(objective, params, streams, now, budget)
        own.append(along)
        full.append((g * curvature(g)).sum(dim=1))
        squares.append(g.square().sum(dim=1))
    rows = [torch.stack(column, dim=1) for column in (own, full, squares)]
    return BatchSharpness(rows[0], rows[1], rows[2], gradient.square().sum(dim=1))


def _batch(objective: Supervised, params: Leaves, streams: Streams, step: int, budget: int) -> tuple[Tensor, Tensor]:
    """Return g (R, p) and gᵀH_B g (R,) of the batch of one step, in the chunks the objective wants."""
    found = []
    for rows in objective.chunks(streams.replicas, budget):
        some, part = {name: leaf[rows] for name, leaf in params.items()}, objective.subset(rows)
        found.append(_along_itself(part, some, *part.batch(streams.subset(rows), step)))
    gradients, curvatures = zip(*found, strict=True)
    return torch.cat(gradients), torch.cat(curvatures)


def _along_itself(objective: Supervised, params: Leaves, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return g (R, p) and gᵀHg (R,) of the mean loss over the examples given, (R, B, …)."""
    free = {name: leaf.detach().requires_grad_() for name, leaf in trained(params).items()}
    at: Sequence[Tensor] = list(free.values())
    x = inputs.to(at[0].dtype) if inputs.is_floating_point() else inputs
    with torch.enable_grad():
        total = objective.loss(objective.model.forward(params | free, x), targets).mean(dim=1).sum()
        slopes = grad(total, at, create_graph=True, allow_unused=True, materialize_grads=True)
        g = flatten(dict(zip(free, slopes, strict=True)))
        half = (g * g.detach()).sum()  # differentiated once more: H g
    curved = grad(half, at, allow_unused=True, materialize_grads=True)
    return g.detach(), (g.detach() * flatten(dict(zip(free, curved, strict=True)))).sum(dim=1)
