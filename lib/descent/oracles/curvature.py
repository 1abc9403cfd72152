"""Curvature: products, spectra, traces, sharpness, Gram matrices and alignment against dense matrices."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from scipy import linalg
from torch import Tensor, nn
from torch.func import functional_call

from descent.measure import alignment, curvature, gram, operators, parts, sharpness, spectra, tangents, traces
from descent.nets.convolutional import CNN, ResNet
from descent.nets.dense import MLP, CrossEntropy, SquaredError
from descent.nets.supervised import Supervised
from descent.oracles.common import (
    ALGEBRA,
    CHANCE,
    F64,
    SOLVED,
    Array,
    Leaves,
    Oracle,
    absolute,
    each,
    errors,
    module_of,
    normals,
    relative,
    score,
    slopes,
    streams,
    task,
    tensor,
    worst,
)
from descent.theory import features

__all__ = ["ORACLES"]

N, CLASSES = 9, 3


def _net() -> tuple[Supervised, Leaves, MLP]:
    net = MLP((4, 5, CLASSES), "tanh")
    return *task(net, tensor(1, N, 4), CLASSES), net


def _images() -> tuple[Supervised, Leaves, CNN]:
    net = CNN(widths=(2,), dense=(4,), size=4, classes=CLASSES, channels=2)
    return *task(net, tensor(2, N, 2, 4, 4), CLASSES), net


def _jacobians(module: nn.Module, params: Leaves, inputs: Tensor) -> Tensor:
    """Return J (R, n, C, p), one backward pass per example and output."""
    found = []
    for r in range(len(next(iter(params.values())))):
        own = module_of(module, params, r)
        rows = [torch.autograd.grad(z, list(own.parameters()), retain_graph=True) for z in own(inputs).reshape(-1)]
        found.append(torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]))
    jacobian = torch.stack(found)
    return jacobian.view(len(jacobian), len(inputs), -1, jacobian.shape[2])


def _softmax(module: nn.Module, params: Leaves, inputs: Tensor) -> Tensor:
    """Return diag(p) − ppᵀ (R, n, C, C), the second derivative of cross-entropy, typed out."""
    p = torch.stack([module_of(module, params, r)(inputs).detach().softmax(1) for r in range(2)])
    return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)


def _dense_hessians(module: nn.Module, params: Leaves, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return ∇²L (R, p, p) by reverse differentiation twice."""

    def loss(flat: Tensor) -> Tensor:
        pieces = torch.split(flat, [leaf[0].numel() for leaf in params.values()])
        leaves = {name: p.view(leaf.shape[1:]) for (name, leaf), p in zip(params.items(), pieces, strict=True)}
        outputs: Tensor = functional_call(module, leaves, (inputs,))
        return nn.functional.cross_entropy(outputs, labels)

    rows = [torch.cat([leaf[r].flatten() for leaf in params.values()]) for r in range(2)]
    return torch.stack([torch.autograd.functional.hessian(loss, row) for row in rows])  # type: ignore[no-untyped-call]


@cache
def _dense_gauss_newton() -> Tensor:
    """Return G = 1/n Σ Jᵀ ℓ″ J of the small net, (R, p, p)."""
    objective, params, net = _net()
    jacobian = _jacobians(net.module(), params, objective.inputs)
    curves = _softmax(net.module(), params, objective.inputs)
    return torch.einsum("rnap,rnab,rnbq->rpq", jacobian, curves, jacobian) / N


def _matrix(a: operators.Operator) -> Tensor:
    """Multiply an operator out, (R, p, p)."""
    unit = torch.eye(a.size, dtype=a.dtype)
    return torch.stack([a(e.expand(a.replicas, -1).clone()) for e in unit], dim=2)


def _operator(matrix: Array, replicas: int) -> operators.Operator:
    """Return a known matrix as an operator that only multiplies."""
    a = torch.from_numpy(matrix)
    return operators.Operator(lambda v: v @ a.T, {"": torch.zeros(replicas, len(matrix), dtype=F64)})


def _with_spectrum(values: Array) -> Array:
    """Return a matrix with these eigenvalues and random eigenvectors."""
    q, _ = np.linalg.qr(normals(3, len(values), len(values)))
    return np.asarray(q * values @ q.T)


def _hessian() -> float:
    deviations = []
    for objective, params, net in (_net(), _images()):
        truth = _dense_hessians(net.module(), params, objective.inputs, objective.targets)
        deviations.append(relative(_matrix(curvature.hessian(objective, params)), truth))
    return worst(*deviations)


def _gauss_newton() -> float:
    objective, params, _ = _net()
    return relative(_matrix(curvature.gauss_newton(objective, params)), _dense_gauss_newton())


def _second_moment() -> float:
    deviations = []
    for objective, params, net in (_net(), _images()):
        g = slopes(objective, params, net.module())
        deviations.append(relative(_matrix(curvature.second_moment(objective, params)), g.mT @ g / N))
    return worst(*deviations)


def _output_loss() -> float:
    z, labels = tensor(4, 2, N, CLASSES), torch.arange(N).expand(2, N) % CLASSES
    p = z.softmax(-1)
    truth = (torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)) / N
    return relative(parts.OutputLoss(CrossEntropy(), z, labels, 1 / N).matrices(), truth)


def _tangents() -> float:
    objective, params, net = _net()
    (part,) = parts.split(objective, params, 1 << 30)
    v = tensor(5, 2, sum(leaf[0].numel() for leaf in params.values()))
    truth = torch.einsum("rncp,rp->rnc", _jacobians(net.module(), params, objective.inputs), v)
    return relative(tangents.Tangents(part).push(operators.unflatten(v, params)), truth)


def _joined() -> float:
    matrices = [_with_spectrum(np.linspace(-1, 2, 6)), _with_spectrum(np.arange(6.0))]
    v = normals(6, 5, 6)
    both = operators.Operator.joined([_operator(matrices[0], 2), _operator(matrices[1], 3)])
    return relative(both(torch.from_numpy(v)), np.concatenate([v[:2] @ matrices[0], v[2:] @ matrices[1]]))


def _eigenpairs() -> float:
    values = np.linspace(-1.3, 2.0, 200) ** 3
    found = spectra.top_eigenpairs(_operator(_with_spectrum(values), 2), 6, streams(2))
    return each(found.values, values[::-1][:6])


def _eigenpairs_of_a_net() -> float:
    objective, params, net = _net()
    dense = _dense_hessians(net.module(), params, objective.inputs, objective.targets)
    found = spectra.top_eigenpairs(curvature.hessian(objective, params), 3, streams(2), end="smallest")
    return relative(found.values, np.linalg.eigvalsh(dense)[:, :3])


def _hutchinson() -> float:
    dense = _with_spectrum(np.linspace(-1, 2, 30))
    found = traces.hutchinson(_operator(dense, 100), 40, streams(100)).samples
    error = math.sqrt(2 * (np.sum(dense**2) - np.sum(np.diag(dense) ** 2)) / found.numel())
    return score(found.mean(), np.trace(dense), error)


def _hutch_plus_plus() -> float:
    dense = _with_spectrum(1.0 / np.arange(1, 61) ** 2)
    return errors(traces.hutch_plus_plus(_operator(dense, 100), 30, streams(100)).values, np.trace(dense))


def _gauss_newton_trace() -> float:
    objective, params, _ = _net()
    truth = _dense_gauss_newton().diagonal(dim1=1, dim2=2).sum(1)
    return each(traces.gauss_newton_trace(objective, params), truth)


def _gauss_newton_frobenius() -> float:
    objective, params, _ = _net()
    return each(traces.gauss_newton_frobenius(objective, params), _dense_gauss_newton().square().sum((1, 2)))


def _quadratic() -> tuple[Supervised, Leaves, Tensor]:
    """Return linear regression at its minimum, two replicas alike, and its Hessian XᵀX/n."""
    x, w = tensor(8, 8, 5), tensor(9, 1, 5)
    objective = Supervised(MLP((5, 1), bias=False), SquaredError(), x, x @ w.T, sampling="full")
    return objective, {"0.weight": w.expand(2, 1, 5).clone()}, x.T @ x / 8


def _worst_case() -> float:
    objective, params, h = _quadratic()
    found = sharpness.worst_case(objective, params, 0.3, streams(2), steps=100)
    return each(found.increase, 0.09 / 2 * np.linalg.eigvalsh(h)[-1])


def _average_case() -> float:
    objective, params, h = _quadratic()
    found = sharpness.average_case(objective, params, 0.2, streams(2), draws=500).samples
    return errors(found.flatten(), 0.04 / 2 * h.trace())


def _gram() -> float:
    deviations = []
    for net, shape in ((ResNet(blocks=(1, 1), widths=(8, 16), classes=2), (4, 3, 8, 8)), (MLP((12, 7, 3)), (9, 12))):
        params, x = net.initial(streams(2)), tensor(10, *shape)
        jacobian = _jacobians(net.module(), params, x).flatten(1, 2)
        deviations.append(relative(gram.gram(net, params, x), jacobian @ jacobian.mT))
    return worst(*deviations)


def _two_layer() -> float:
    x, inner, outer = tensor(11, 6, 4), tensor(12, 5, 4).requires_grad_(), tensor(13, 5)
    outputs = torch.tanh(x @ inner.T) @ outer
    rows = torch.stack([torch.autograd.grad(z, inner, retain_graph=True)[0].flatten() for z in outputs])
    found = features.two_layer(features.ACTIVATIONS["tanh"], x, inner.detach(), outer)[1]
    return relative(found, rows @ rows.T)


def _explicit(rows: Array, residuals: Array) -> tuple[Array, Array, Array]:
    """Return G, the second moment of the gradients and their covariance, as matrices."""
    gradients = residuals[:, None] * rows
    mean = gradients.mean(0)
    second = gradients.T @ gradients / len(rows)
    return rows.T @ rows / len(rows), second, second - np.outer(mean, mean)


def _loss_alignment() -> float:
    rows, r = normals(15, 7, 12), normals(16, 7)
    g, second, centred = _explicit(rows, r)
    truth = np.array([np.sum(second * g), np.sum(centred * g)]) / (np.mean(r**2) * np.sum(g**2))
    found = alignment.loss_alignment(torch.from_numpy(rows @ rows.T), torch.from_numpy(r))
    return each([float(found.uncentred), float(found.centred)], truth)


def _directional_alignment() -> float:
    rows, r = normals(17, 12, 7), normals(18, 12)
    g, second, centred = _explicit(rows, r)
    values, v = np.linalg.eigh(g)
    truth = [np.einsum("ai,ab,bi->i", v, s, v)[::-1] / (np.mean(r**2) * values[::-1]) for s in (second, centred)]
    found = alignment.directional_alignment(torch.from_numpy(rows @ rows.T), torch.from_numpy(r), keep=7)
    return worst(each(found.curvature, values[::-1]), relative(torch.stack([found.uncentred, found.centred]), truth))


def _block_alignment() -> float:
    jacobian, r, root = normals(19, 6, 3, 11), normals(20, 6, 3), normals(21, 6, 3, 3)
    hessians = root @ root.swapaxes(1, 2)
    gradients = np.einsum("ncp,nc->np", jacobian, r)
    g = np.einsum("ncp,ncd,ndq->pq", jacobian, hessians, jacobian) / 6
    truth = np.sum(gradients.T @ gradients / 6 * g) / (np.sum(r**2) / 6 * np.sum(g**2))
    blocks = np.einsum("icp,jdp->icjd", jacobian, jacobian)
    return each(alignment.block_alignment(*(torch.from_numpy(a) for a in (blocks, r, hessians))), truth)


def _reachable_extremes() -> float:
    x = normals(22, 10, 4)
    scores = np.mean((x @ x.T) ** 2, axis=1)
    truth = linalg.eigh(x.T * scores @ x, x.T @ x * scores.mean(), eigvals_only=True)[[0, -1]]
    reached = torch.stack(alignment.reachable_extremes(torch.from_numpy(x @ x.T)))
    return worst(each(reached, truth), each(torch.stack(alignment.linear_extremes(torch.from_numpy(x))), truth))


def _extreme_directions() -> float:
    x = normals(23, 12, 2)
    q, _ = np.linalg.qr(x)
    angle = np.arange(2000) * np.pi / 2000
    along = q @ np.stack([np.cos(angle), np.sin(angle)])
    pairs = 12 * (along**2).T @ along**2 - np.cos(angle[:, None] - angle) ** 2
    found = alignment.extreme_directions(torch.from_numpy(x)[None], tensor(24, 1, 30, 2))
    return absolute([float(found.low), float(found.high)], [pairs.min(), pairs.max()])


_M = "descent.measure"
_TWICE, _ONE_BY_ONE = "dense matrix by differentiating twice", "gradients of torch's module, example by example"
_JACOBIAN = "Jacobian of torch's module, a backward pass per output"

# fmt: off
ORACLES = (
    Oracle(f"{_M}.curvature.hessian", "Hessian times vectors, dense and convolutional nets", _TWICE, ALGEBRA,
           "relative", _hessian),
    Oracle(f"{_M}.curvature.gauss_newton", "Gauss–Newton matrix times vectors", "Jᵀℓ″J from dense Jacobians", ALGEBRA,
           "relative", _gauss_newton),
    Oracle(f"{_M}.curvature.second_moment", "second moment of the gradients times vectors", _ONE_BY_ONE, ALGEBRA,
           "relative", _second_moment),
    Oracle(f"{_M}.parts.OutputLoss", "second derivative of a loss in its outputs", "diag(p) − ppᵀ of the softmax",
           ALGEBRA, "relative", _output_loss),
    Oracle(f"{_M}.tangents.Tangents", "derivative of the outputs along a vector, by hand", _JACOBIAN, ALGEBRA,
           "relative", _tangents),
    Oracle(f"{_M}.operators.Operator", "product of a joined operator", "matrix products in NumPy", ALGEBRA,
           "relative", _joined),
    Oracle(f"{_M}.spectra.top_eigenpairs", "six largest eigenvalues of 200 by Lanczos", "the spectrum planted", 1e-6,
           "relative", _eigenpairs),
    Oracle(f"{_M}.spectra.top_eigenpairs", "three most negative curvatures of a net", f"LAPACK on the {_TWICE}", 1e-6,
           "relative", _eigenpairs_of_a_net),
    Oracle(f"{_M}.traces.hutchinson", "trace from random signs", "the trace, with the variance known", CHANCE,
           "standard errors", _hutchinson),
    Oracle(f"{_M}.traces.hutch_plus_plus", "trace from a sketch and random signs", "the trace", CHANCE,
           "standard errors", _hutch_plus_plus),
    Oracle(f"{_M}.traces.gauss_newton_trace", "trace of the Gauss–Newton matrix", "Jᵀℓ″J from dense Jacobians",
           ALGEBRA, "relative", _gauss_newton_trace),
    Oracle(f"{_M}.traces.gauss_newton_frobenius", "Frobenius norm of the Gauss–Newton matrix",
           "Jᵀℓ″J from dense Jacobians", ALGEBRA, "relative", _gauss_newton_frobenius),
    Oracle(f"{_M}.sharpness.worst_case", "largest rise in a ball, by ascent", "½ radius² λ₁ of a quadratic", 1e-6,
           "relative", _worst_case),
    Oracle(f"{_M}.sharpness.average_case", "mean rise under Gaussian perturbations", "½ radius² tr H of a quadratic",
           CHANCE, "standard errors", _average_case),
    Oracle(f"{_M}.gram.gram", "Gram matrix of residual and dense nets, layer by layer", _JACOBIAN, ALGEBRA,
           "relative", _gram),
    Oracle("descent.theory.features.two_layer", "Gram matrix of a two-layer net", "Jacobian by autograd", ALGEBRA,
           "relative", _two_layer),
    Oracle(f"{_M}.alignment.loss_alignment", "alignment of noise and curvature from the Gram matrix",
           "noise and curvature as p × p matrices", ALGEBRA, "relative", _loss_alignment),
    Oracle(f"{_M}.alignment.directional_alignment", "alignment along each eigenvector",
           "noise and curvature as p × p matrices", SOLVED, "relative", _directional_alignment),
    Oracle(f"{_M}.alignment.block_alignment", "alignment of a model with several outputs",
           "noise and curvature as p × p matrices", ALGEBRA, "relative", _block_alignment),
    Oracle(f"{_M}.alignment.reachable_extremes", "extreme alignments over all residuals",
           "generalised eigenvalues in the parameters, SciPy", SOLVED, "relative", _reachable_extremes),
    Oracle(f"{_M}.alignment.extreme_directions", "extreme alignments over residuals and directions",
           "a grid of 2000 × 2000 angles", 1e-4, "absolute", _extreme_directions),
)
# fmt: on
