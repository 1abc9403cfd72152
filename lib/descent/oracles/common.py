"""What an oracle is, how a deviation is measured, and the small problems the checks share.

Data come from NumPy's generator and derivatives of a network from torch's own module and backward pass, so that truths
owe nothing to the streams, stacks and flat vectors of this library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from descent.arrays import Array
from descent.engine.probes import Leaves
from descent.engine.streams import Streams, replica_seeds
from descent.nets.dense import CrossEntropy, Model
from descent.nets.supervised import Supervised

__all__ = [
    "ALGEBRA", "CHANCE", "F64", "SOLVED", "Array", "Kind", "Leaves", "Oracle", "absolute", "companion", "each",
    "errors", "generator", "hermite", "module_of", "normals", "radius", "relative", "score", "slope", "slopes",
    "streams", "task", "tensor", "worst",
]  # fmt: skip

Kind = Literal["relative", "absolute", "standard errors"]
F64 = torch.float64

ALGEBRA = 1e-12
"""Asked where both sides do the same algebra in double precision, in another order."""
SOLVED = 1e-9
"""Asked where one side solves an equation or sums a series, which amplifies rounding by its condition."""
CHANCE = 4.0
"""Standard errors asked of a simulation: a right instrument exceeds them once in sixteen thousand seeds."""


@dataclass(frozen=True)
class Oracle:
    """An instrument, what it measures, the truth it is compared with, and the deviation asked of it.

    check computes instrument and truth and returns the largest deviation; NaN is a failure. "relative" is in units of
    the largest entry of the truth, or of each entry where they differ in size.
    """

    instrument: str
    quantity: str
    truth: str
    asked: float
    kind: Kind
    check: Callable[[], float]


def relative(found: ArrayLike | Tensor, truth: ArrayLike | Tensor) -> float:
    """Return max|found − truth| / max|truth|."""
    a, b = _numbers(found), _numbers(truth)
    return float(_gap(a, b).max() / np.abs(b).max())


def each(found: ArrayLike | Tensor, truth: ArrayLike | Tensor) -> float:
    """Return max|found/truth − 1|, entry by entry."""
    a, b = _numbers(found), _numbers(truth)
    return float((_gap(a, b) / np.abs(b)).max())


def absolute(found: ArrayLike | Tensor, truth: ArrayLike | Tensor) -> float:
    """Return max|found − truth|."""
    return float(_gap(_numbers(found), _numbers(truth)).max())


def errors(samples: ArrayLike | Tensor, truth: ArrayLike | Tensor) -> float:
    """Return max|mean − truth| in standard errors of the mean over the last axis, (…, n) against (…)."""
    a = _numbers(samples)
    return score(a.mean(-1), truth, a.std(-1, ddof=1) / np.sqrt(a.shape[-1]))


def score(found: ArrayLike | Tensor, truth: ArrayLike | Tensor, error: ArrayLike) -> float:
    """Return max|found − truth|/error."""
    return float(np.max(_gap(_numbers(found), _numbers(truth)) / np.asarray(error)))


def worst(*deviations: float) -> float:
    """Return the largest of several deviations; NaN if one of them is."""
    return float(np.max(deviations))


def _gap(found: Array, truth: Array) -> Array:
    if found.size == 0 or np.broadcast_shapes(found.shape, truth.shape) != found.shape:
        raise ValueError(f"a truth of shape {truth.shape} says nothing about numbers of shape {found.shape}")
    return np.abs(found - truth)


def _numbers(values: ArrayLike | Tensor) -> Array:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)


def generator(seed: int) -> np.random.Generator:
    """Return NumPy's generator, which shares nothing with the streams of the library."""
    return np.random.Generator(np.random.Philox(seed))


def normals(seed: int, *shape: int) -> Array:
    """Draw fixed standard normals."""
    return generator(seed).normal(size=shape)


def tensor(seed: int, *shape: int) -> Tensor:
    """Draw fixed standard normals as a tensor."""
    return torch.from_numpy(normals(seed, *shape))


def streams(replicas: int, seed: int = 0) -> Streams:
    """Return double-precision streams of that many replicas."""
    return Streams(replica_seeds(seed, replicas), F64)


def task(model: Model, inputs: Tensor, classes: int, batch_size: int | None = None) -> tuple[Supervised, Leaves]:
    """Return cross-entropy on inputs (n, …) with labels 0, 1, …, 0, 1, …, and two replicas of the model."""
    labels = torch.arange(len(inputs)) % classes
    objective = Supervised(model, CrossEntropy(), inputs, labels, batch_size or len(inputs))
    if batch_size is None:
        objective = replace(objective, batch_size=None, sampling="full")
    return objective, model.initial(streams(2, 7))


def module_of(module: nn.Module, params: Leaves, replica: int) -> nn.Module:
    """Return the torch module of one replica, in double precision."""
    module = module.double()
    module.load_state_dict({name: leaf[replica] for name, leaf in params.items()})
    return module


def slope(module: nn.Module, inputs: Tensor, targets: Tensor, at: Tensor | None = None) -> Tensor:
    """Return the gradient (p,) of the mean cross-entropy by torch's backward pass, at flat parameters if given."""
    if at is not None:
        vector_to_parameters(at.clone(), module.parameters())
    module.zero_grad()
    nn.functional.cross_entropy(module(inputs), targets).backward()  # type: ignore[no-untyped-call]
    found: Tensor = parameters_to_vector([p.grad for p in module.parameters() if p.grad is not None])
    return found


def slopes(objective: Supervised, params: Leaves, module: nn.Module) -> Tensor:
    """Return every example's gradient (R, n, p), one backward pass of the module after the other."""
    x, y, replicas = objective.inputs, objective.targets, len(next(iter(params.values())))
    rows = []
    for r in range(replicas):
        own = module_of(module, params, r)
        rows.append(torch.stack([slope(own, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]))
    return torch.stack(rows)


def companion(hessian: ArrayLike, lr: float, momentum: float) -> Array:
    """Return heavy ball's map (x_t, x_{t−1}) → (x_{t+1}, x_t) of one Hessian."""
    h = np.atleast_2d(np.asarray(hessian, dtype=np.float64))
    eye = np.eye(len(h))
    return np.block([[(1 + momentum) * eye - lr * h, -momentum * eye], [eye, 0 * eye]])


def radius(maps: Sequence[Array]) -> float:
    """Return the spectral radius of the mean of A ⊗ A over equally likely maps A: the growth of second moments."""
    return float(np.abs(np.linalg.eigvals(np.mean([np.kron(a, a) for a in maps], axis=0))).max())


def hermite(dimension: int, nodes: int) -> tuple[Array, Array]:
    """Return points (N, d) and weights of Gauss and Hermite's rule for N(0, I), exact to degree 2·nodes − 1 in each."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    points = np.stack(np.meshgrid(*[x] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    weights = np.stack(np.meshgrid(*[w] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension).prod(1)
    return points, weights / weights.sum()
