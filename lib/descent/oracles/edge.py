"""The edge of stability: curvature that batches feel, eigenvalues above a level, blocks, and the central flow."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from descent.measure import batch_sharpness, central_flow, filters, operators, tracking
from descent.nets.dense import MLP
from descent.oracles.common import (
    ALGEBRA,
    F64,
    SOLVED,
    Array,
    Oracle,
    absolute,
    each,
    module_of,
    normals,
    relative,
    streams,
    task,
    tensor,
    worst,
)

__all__ = ["ORACLES"]


def _turned(seed: int, values: Array) -> Array:
    """Return a matrix with these eigenvalues and random eigenvectors."""
    q, _ = np.linalg.qr(normals(seed, len(values), len(values)))
    return np.asarray(q * values @ q.T)


def _operator(matrix: Array, like: dict[str, tuple[int, ...]]) -> operators.Operator:
    """Return a known matrix as an operator of two replicas on leaves of these shapes."""
    a = torch.from_numpy(matrix)
    return operators.Operator(lambda v: v @ a.T, {k: torch.zeros(2, *shape, dtype=F64) for k, shape in like.items()})


def _block() -> float:
    matrix = _turned(120, np.arange(9.0))
    found = filters.block(_operator(matrix, {"0.weight": (3,), "0.bias": (2,), "2.weight": (2, 2)}), "*.weight")
    kept = [0, 1, 2, 5, 6, 7, 8]
    columns = [found(torch.eye(7, dtype=F64)[i].expand(2, -1).clone())[1] for i in range(7)]
    return relative(torch.stack(columns, dim=1), matrix[np.ix_(kept, kept)])


def _above() -> float:
    """Seven eigenvalues above the level of one replica, three above that of the other; then from where they were."""
    values, levels = np.concatenate([np.linspace(-2, 1, 60), [1.5, 2, 2.4, 3, 5, 8, 13]]), torch.tensor([1.2, 4.0])
    matrix = _turned(121, values)
    first = tracking.eigenpairs_above(_operator(matrix, {"": (67,)}), levels, streams(2), tolerance=1e-6)
    moved = _operator(matrix + 1e-3 * _turned(122, np.linspace(-1, 1, 67)), {"": (67,)})
    second = tracking.eigenpairs_above(moved, levels, streams(2), tolerance=1e-6, start=first.basis)
    shifted = np.linalg.eigvalsh(matrix + 1e-3 * _turned(122, np.linspace(-1, 1, 67)))[::-1]
    truth = torch.tensor(np.stack([values[::-1][:7], shifted[:7]]).copy())
    found = torch.stack([first.values[0], second.values[0]])
    return worst(each(found, truth), each(first.values[1, :3], truth[0, :3]), absolute(second.count, [7, 3]))


def _curved(module: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradient (p,) and Hessian (p, p) of the mean cross-entropy, a backward pass per row."""
    at = list(module.parameters())
    slopes = torch.autograd.grad(nn.functional.cross_entropy(module(x), y), at, create_graph=True)
    g = torch.cat([part.flatten() for part in slopes])
    rows = [torch.cat([p.flatten() for p in torch.autograd.grad(one, at, retain_graph=True)]) for one in g]
    return g.detach(), torch.stack(rows)


def _batch_sharpness() -> float:
    net, source, draws = MLP((3, 4, 3), "tanh"), streams(2, 9), 5
    objective, params = task(net, tensor(123, 8, 3), 3, batch_size=2)
    felt = batch_sharpness.batch_sharpness(objective, params, source, draws=draws)
    own, full, squares = np.zeros((3, 2, draws))
    gradient = np.zeros(2)
    for r in range(2):
        module = module_of(net.module(), params, r)
        mean, h = _curved(module, objective.inputs, objective.targets)
        gradient[r] = float(mean @ mean)
        for step in range(draws):
            rows = objective.indices(source, step)[r]
            g, h_batch = _curved(module, objective.inputs[rows], objective.targets[rows])
            own[r, step], full[r, step], squares[r, step] = float(g @ h_batch @ g), float(g @ h @ g), float(g @ g)
    ratios = [np.mean(own, 1) / np.mean(squares, 1), np.mean(full, 1) / gradient]
    parts = ((felt.own, own), (felt.full, full), (felt.squares, squares), (felt.gradient, gradient))
    found = torch.stack([felt.sharpness, felt.interaction])
    return worst(*(relative(*pair) for pair in parts), relative(found, ratios))


SLOPES, LR = (0.3, 0.5), 0.5


def _ratchet(turn: Tensor) -> central_flow.Scalar:
    """Return Σ_k ½ y_k x_k² − c_k y_k in turned coordinates: y_k, the curvature along x_k, rises at the pace c_k."""

    def loss(w: Tensor) -> Tensor:
        x, y = (turn @ w).view(2, 2)
        found: Tensor = (y * x.square() / 2 - torch.tensor(SLOPES, dtype=F64) * y).sum()
        return found

    return loss


def _central_flow() -> float:
    """Both curvatures rise evenly to 2/lr and stay, held there by variances 2c: while one rises only the other's."""
    turn, begin = torch.from_numpy(np.linalg.qr(normals(124, 4, 4))[0]), np.array([2.0, 3.0])
    start = turn.T @ torch.cat([torch.zeros(2, dtype=F64), torch.from_numpy(begin)])
    path = central_flow.central_flow(_ratchet(turn), start, LR, 20)
    rising = begin + LR * np.outer(path.times, SLOPES)
    variance = np.where(rising + LR * 0.5 * np.array(SLOPES) > 2 / LR + 1e-9, 2 * np.array(SLOPES), 0.0)
    meets = np.abs(rising - 2 / LR) < LR * 0.5 * np.array(SLOPES)  # the step on which the edge is reached
    settled = torch.from_numpy(~meets.any(axis=1))
    heights = torch.from_numpy(np.minimum(rising, 2 / LR))
    return worst(
        absolute((path.points @ turn.T)[:, 2:], heights),
        relative(path.covariance[settled], torch.from_numpy(variance.sum(axis=1))[settled]),
    )


_M = "descent.measure"

# fmt: off
ORACLES = (
    Oracle(f"{_M}.filters.block", "curvature in some of the parameters", "rows and columns of a matrix in NumPy",
           ALGEBRA, "relative", _block),
    Oracle(f"{_M}.batch_sharpness.batch_sharpness", "curvature along the gradients of batches, theirs and all data's",
           "gradients and Hessians of torch's module, batch by batch", ALGEBRA, "relative", _batch_sharpness),
    Oracle(f"{_M}.tracking.eigenpairs_above", "all eigenvalues above a level, from nothing and from others",
           "the spectrum planted, and LAPACK", 1e-6, "relative", _above),
    Oracle(f"{_M}.central_flow.central_flow", "curvatures held at the edge, and by how much oscillation",
           "straight lines up to 2/lr, and variances 2c", SOLVED, "relative", _central_flow),
)
# fmt: on
