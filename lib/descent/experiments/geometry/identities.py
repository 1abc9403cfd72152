"""What the alignment is: an identity in the Gram matrix, and what noise adds to the loss of one step.

Random Jacobians are compared with explicit p × p matrices. The loss that noise adds to one step is averaged over every
possible batch, so that its formula is checked without sampling: on a regression, and on a small net.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from descent.arrays import Array
from descent.engine import Purpose, Streams
from descent.engine.arms import to_numpy
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables
from descent.measure.alignment import loss_alignment
from descent.stats import exact, furthest, ratio_of_means


@dataclass(frozen=True)
class Identities:
    """Random Jacobians, and steps of every possible batch from random places of a quadratic and of a small net."""

    replicas: Share = Share(over=5, least=32, most=400)
    shapes: tuple[tuple[int, int], ...] = ((4, 3), (8, 40), (30, 8))  # examples × parameters of the random Jacobians
    points: tuple[int, int] = (4, 3)  # examples × inputs of the regression; every batch of it can be listed
    batch_sizes: tuple[int, ...] = (1, 2, 4)
    lr: float = 0.1
    net: tuple[int, int, int] = (6, 3, 4)  # examples, inputs, hidden units of the net
    net_lr: float = 1e-4


@dataclass(frozen=True, eq=False)
class IdentitiesResult(Result[Identities]):
    """What the identities deviate by, per replica."""

    error: Array  # (S, N): relative error of the identity for every shape
    violations: Array  # (S, N): of its bounds
    quadratic: Array  # (K, N): loss that noise adds to one step, over η²p Tr(HΣ)/2
    network: Array  # (2, N): the same two, undivided, since the Hessian of a net is not positive


def run(config: Identities, lab: Lab) -> IdentitiesResult:
    """Check the identity on random Jacobians and the one-step formula over all batches."""
    streams = lab.streams(config.replicas, torch.float64)
    error, violations = zip(*(_check(streams, step, shape) for step, shape in enumerate(config.shapes)), strict=True)
    return IdentitiesResult(
        config, lab, np.stack(error), np.stack(violations), _quadratic(config, streams), _network(config, streams)
    )


def _check(streams: Streams, step: int, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Compare with the explicit p × p matrices; return relative errors and violations of the bounds, (N,) each."""
    jacobian = streams.normal(Purpose.DATA, step, shape)
    residuals = streams.normal(Purpose.LABEL, step, shape[:1])
    found = loss_alignment(jacobian @ jacobian.mT, residuals)
    gradients = residuals.unsqueeze(-1) * jacobian
    curvature, noise = jacobian.mT @ jacobian / shape[0], gradients.mT @ gradients / shape[0]
    scale = residuals.square().mean(-1) * curvature.square().sum((-2, -1))
    explicit = (noise * curvature).sum((-2, -1)) / scale
    relative = found.scores / found.scores.mean(-1, keepdim=True)
    outside = (found.uncentred < relative.amin(-1) - 1e-12) | (found.uncentred > relative.amax(-1) + 1e-12)
    return to_numpy((found.uncentred / explicit - 1).abs()), to_numpy(outside)


def _quadratic(config: Identities, streams: Streams) -> Array:
    """Return the mean over ALL batches of the loss added by noise, over its formula: (K, N)."""
    n, d = config.points
    inputs, residuals = streams.normal(Purpose.DATA, 101, (n, d)), streams.normal(Purpose.LABEL, 101, (n,))
    gradients = residuals.unsqueeze(-1) * inputs
    drift, curvature = gradients.mean(1, keepdim=True), inputs.mT @ inputs / n

    def after(steps: Tensor) -> Tensor:  # the loss after each step (N, S, d), averaged over the steps
        moved = residuals.unsqueeze(1) - config.lr * steps @ inputs.mT
        return 0.5 * moved.square().mean((-2, -1))

    found = []
    for size in config.batch_sizes:
        batches = torch.tensor(list(itertools.product(range(n), repeat=size)), device=streams.device)
        noise = gradients[:, batches].mean(2) - drift  # (N, batches, d)
        covariance = noise.mT @ noise / len(batches)
        formula = 0.5 * config.lr**2 * (curvature * covariance).sum((-2, -1))
        found.append((after(drift + noise) - after(drift)) / formula)
    return to_numpy(torch.stack(found))


def _network(config: Identities, streams: Streams) -> Array:
    """Return loss added and formula for batches of one example of a tanh net, with its full Hessian, (2, N)."""
    n, inputs, hidden = config.net
    net = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1)).to(torch.float64)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    x, y = streams.normal(Purpose.DATA, 202, (n, inputs)), streams.normal(Purpose.LABEL, 202, (n,))
    start = streams.normal(Purpose.INIT, 202, (sum(sizes),))

    def losses(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        leaves = {k: p.view(shapes[k]) for k, p in zip(shapes, torch.split(flat, sizes), strict=True)}
        outputs: Tensor = functional_call(net, leaves, (x,)).squeeze(-1)
        return 0.5 * (outputs - y).square()

    def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return losses(flat, x, y).mean()

    def both(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        gradients = jacrev(losses)(flat, x, y)
        drift = gradients.mean(0)
        covariance = (gradients - drift).T @ (gradients - drift) / n
        after = vmap(loss, in_dims=(0, None, None))(flat - config.net_lr * gradients, x, y).mean()
        added = after - loss(flat - config.net_lr * drift, x, y)
        curvature = jacrev(jacrev(loss))(flat, x, y)
        return torch.stack([added, 0.5 * config.net_lr**2 * (curvature * covariance).sum()])

    return to_numpy(vmap(both, out_dims=1)(start, x, y))


def estimates(result: IdentitiesResult) -> Estimates:
    """Return what the identities say about P5-X3 and P5-C1."""
    return {
        "P5-X3.identity": exact(float(result.error.max())),
        "P5-X3.bounds": exact(float(result.violations.mean())),
        "P5-C1.quadratic": [furthest(list(map(exact, size))) for size in result.quadratic],  # no seed moves it
        "P5-C1.network": ratio_of_means(result.network[0], result.network[1], result.lab.seed),
    }


def tables(result: IdentitiesResult) -> Tables:
    """Return the ratios of loss added to its formula, one row per batch size."""
    added, formula = result.network
    sizes = zip(result.config.batch_sizes, result.quadratic, strict=True)
    rows = [("regression", size, row.mean(), row.max()) for size, row in sizes]
    rows.append(("network", 1, added.sum() / formula.sum(), (added / formula).max()))
    return {"identities": DataFrame(rows, columns=["problem", "batch_size", "ratio", "largest"])}


IDENTITIES = Experiment("identities", Identities(), Identities(Share(times=10)), run, estimates, tables)
