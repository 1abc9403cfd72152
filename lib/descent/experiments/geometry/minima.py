"""Interpolating minima of tanh nets on odd and even digits: found to rounding, linearised, and moved away from."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from descent.data.draws import Draws
from descent.data.images import centred, load, signs
from descent.engine import Arms, Streams, sgd
from descent.engine.probes import Leaves
from descent.experiments.lab import Lab
from descent.nets import MLP, SquaredError, Supervised


def odd_or_even(lab: Lab, sizes: tuple[int, ...], images: int, draws: int) -> tuple[Draws, Supervised]:
    """Return draws of digits, and the square loss of tanh nets on all of a draw, −1 for even and +1 for odd, float64.

    Net i sees draw i mod D. The draws have no digit in common while there are enough of them.
    """
    data = load("digits")
    sets = lab.draws(len(data), images, draws)
    inputs, targets = centred(data.images).double(), signs(data.labels % 2, torch.float64)
    inputs, targets = lab.bring(inputs, targets.unsqueeze(1))
    return sets, Supervised(MLP(sizes, "tanh"), SquaredError(), inputs, targets, sampling="full", rows=sets.rows)


def find_minimum(problem: Supervised, streams: Streams, warm: int = 300, newton: int = 12) -> Leaves:
    """Return parameters with residuals near rounding: `warm` steps of descent, then Newton steps of least length."""
    arms = Arms.paired(sgd(0.1), streams)
    params = arms.run(problem, problem.model.initial, warm).params
    for _ in range(newton):
        jacobian, residual = linearised(problem, params)
        gram = jacobian @ jacobian.mT
        step = (jacobian.mT @ torch.linalg.solve(gram, residual.unsqueeze(-1))).squeeze(-1)
        params = shifted(params, -step)
    return params


def linearised(problem: Supervised, params: Leaves) -> tuple[Tensor, Tensor]:
    """Return the Jacobian of the outputs of a tanh net (N, n, p) and its residuals (N, n)."""
    model = cast(MLP, problem.model)
    inputs, targets = problem.data.seen(slice(0, len(next(iter(params.values())))))

    def outputs(leaves: Leaves, images: Tensor) -> Tensor:
        stack = {name: leaf.unsqueeze(0) for name, leaf in leaves.items()}
        return _forward(model, stack, images.unsqueeze(0))[0, :, 0]

    parts = vmap(jacrev(outputs))(params, inputs)
    jacobian = torch.cat([part.flatten(2) for part in parts.values()], dim=2)
    return jacobian, (_forward(model, params, inputs) - targets)[..., 0]


def _forward(model: MLP, params: Leaves, inputs: Tensor) -> Tensor:
    """Return the outputs (N, n, out) without the fast path's activations in place, which autograd cannot follow."""
    value = inputs
    for layer in range(len(model.sizes) - 1):
        value = torch.tanh(value) if layer else value
        value = value @ params[f"{2 * layer}.weight"].mT + params[f"{2 * layer}.bias"].unsqueeze(1)
    return value


def shifted(params: Leaves, step: Tensor) -> Leaves:
    """Return the parameters moved by a flat step (N, p), leaves in order."""
    sizes = [leaf[0].numel() for leaf in params.values()]
    parts = torch.split(step, sizes, dim=1)
    return {name: leaf + part.view_as(leaf) for (name, leaf), part in zip(params.items(), parts, strict=True)}
