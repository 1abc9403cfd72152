"""What is looked at along the training of a network of one output: its noise against loss and curvature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor

from descent.engine.probes import Leaves, Params
from descent.experiments.arms import in_parts
from descent.measure.alignment import directional_alignment, loss_alignment, trace_of_noise, weighted
from descent.measure.gram import gram
from descent.nets.dense import LogisticError
from descent.nets.supervised import Supervised


def look(problem: Supervised, keep: int = 0) -> Callable[[Params], Mapping[str, Tensor]]:
    """Return the probe (R, …): uncentred and centred alignment, loss, trace of the noise, stable rank ‖G‖²/λ₁².

    With `keep`, also the leading curvatures (R, keep) and the centred alignment along their eigenvectors. Under the
    logistic loss the alignment is normalised by the loss itself.
    """

    def measured(params: Params) -> Mapping[str, Tensor]:
        leaves = cast(Leaves, params)
        kernel = gram(problem.model, leaves, problem.inputs).double()
        outputs = _outputs(problem, leaves).double()
        kernel, residuals, twice = square_form(problem, kernel, outputs)
        found = loss_alignment(kernel, residuals, twice)
        values = {
            "uncentred": found.uncentred,
            "centred": found.centred,
            "loss": twice / 2,
            "noise": trace_of_noise(kernel, residuals),
        }
        if keep:
            along = directional_alignment(kernel, residuals, keep, twice)
            values |= {
                "curvature": along.curvature,
                "along": along.centred,
                "stable_rank": found.scores.mean(-1) / along.curvature[:, 0].square(),
            }
        return values

    return measured


def square_form(problem: Supervised, kernel: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Gram matrix, residuals and 2L of the square-loss problem with the same curvature and noise."""
    targets = problem.targets[:, 0].double()
    if not isinstance(problem.loss, LogisticError):
        residuals = outputs - targets
        return kernel, residuals, residuals.square().mean(-1)
    slopes = -targets * torch.sigmoid(-targets * outputs)
    curvatures = (slopes.abs() * (1 - slopes.abs())).clamp_min(1e-300)
    twice = 2 * torch.nn.functional.softplus(-targets * outputs).mean(-1)
    return *weighted(kernel, slopes, curvatures), twice


def _outputs(problem: Supervised, leaves: Leaves) -> Tensor:
    """Return the one output for every example, (R, n), of as many nets at a time as fit into memory."""
    inputs = problem.inputs

    def forward(rows: slice) -> Tensor:
        some = {name: leaf[rows] for name, leaf in leaves.items()}
        shared = inputs.expand(len(next(iter(some.values()))), *inputs.shape)
        return problem.model.forward(some, shared)[..., 0]

    return in_parts(forward, len(next(iter(leaves.values()))), problem.model.footprint(inputs, len(inputs)))
