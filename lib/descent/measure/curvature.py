"""Curvature of the mean loss over a data set, exact and for every replica at once, as products with vectors.

L(w) = 1/n Σ_i ℓ_i(f_i(w)) of a `Supervised` objective: its model, loss, inputs and targets; how it draws batches and
augments them plays no part. With J_i (C, p) the derivatives of the C outputs of example i,

    hessian          H = ∇²L
    gauss_newton     G = 1/n Σ_i J_iᵀ ℓ_i″ J_i      PSD if the loss is convex in the outputs; for cross-entropy, and for
                                                    square loss with factor ½, the Fisher matrix
    second_moment    S = 1/n Σ_i ∇ℓ_i ∇ℓ_iᵀ         S − ∇L∇Lᵀ is the covariance of the gradient of one example

    objective = Supervised(Stacked(module), CrossEntropy(), inputs, targets, sampling="full")
    H = hessian(objective, params)                  # an Operator: H(v) for v (R, p), or leaves (R, …)
    top_eigenpairs(H, 10, streams).values           # (R, 10), see `descent.measure.spectra`

Any loss and any model will do. Products come in the type of the parameters: convert these to float64 where small
eigenvalues or differences matter. A product costs two backward passes; what does not depend on the vector is worked
out once and kept, unless the budget is too small for all of it. MLPs have a faster way, by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import grad

from descent.engine.probes import Leaves
from descent.measure.operators import Operator, unflatten
from descent.measure.parts import OutputLoss, Part, split, trained
from descent.measure.tangents import Tangents
from descent.nets.dense import MLP
from descent.nets.supervised import Supervised

__all__ = ["BUDGET", "gauss_newton", "hessian", "second_moment", "value", "value_and_gradient"]

Kind = Literal["hessian", "gauss_newton", "second_moment"]

BUDGET = 1 << 30
"""Bytes kept between products, and worked on at a time, unless told otherwise."""

_CACHED = 8 << 20  # bytes of a part of an MLP on a CPU


def hessian(objective: Supervised, params: Leaves, *, budget: int = BUDGET) -> Operator:
    """Return H = ∇²L at `params`, leaves (R, …); budget: bytes kept and worked on, about."""
    return _operator(objective, params, "hessian", budget)


def gauss_newton(objective: Supervised, params: Leaves, *, budget: int = BUDGET) -> Operator:
    """Return G = 1/n Σ J_iᵀ ℓ_i″ J_i at `params`, leaves (R, …); budget: bytes kept and worked on, about."""
    return _operator(objective, params, "gauss_newton", budget)


def second_moment(objective: Supervised, params: Leaves, *, budget: int = BUDGET) -> Operator:
    """Return S = 1/n Σ ∇ℓ_i ∇ℓ_iᵀ at `params`, leaves (R, …); budget: bytes kept and worked on, about."""
    return _operator(objective, params, "second_moment", budget)


def value(objective: Supervised, params: Leaves, *, budget: int = BUDGET) -> Tensor:
    """Return L (R,) over all examples, part by part, in the type of the parameters."""
    first = next(iter(params.values()))
    found = first.new_zeros(len(first))
    with torch.no_grad():
        for part in split(objective, params, budget):
            found[part.rows] += part.losses({}).sum(dim=1) * part.weight
    return found


def value_and_gradient(objective: Supervised, params: Leaves, *, budget: int = BUDGET) -> tuple[Tensor, Leaves]:
    """Return L (R,) and ∇L, leaves (R, …), over all examples, part by part, in the type of the parameters."""
    slopes = {name: torch.zeros_like(leaf) for name, leaf in trained(params).items()}
    first = next(iter(slopes.values()))
    found = first.new_zeros(len(first))
    for part in split(objective, params, budget):
        free = part.free()
        with torch.enable_grad():
            total = part.losses(free).sum(dim=1) * part.weight
        found[part.rows] += total.detach()
        gradients = grad(total.sum(), list(free.values()), allow_unused=True, materialize_grads=True)
        for name, one in zip(free, gradients, strict=True):
            slopes[name][part.rows] += one
    return found, slopes


Add = Callable[[Leaves, Leaves], None]
"""(v, out) → None: add the product of one part's curvature with v to out, both leaves (R', …)."""


def _operator(objective: Supervised, params: Leaves, kind: Kind, budget: int) -> Operator:
    """Cut the objective into parts, keep what can be kept of them, and join the parts of the same replicas."""
    params = {name: leaf.detach().clone() for name, leaf in params.items()}  # training may go on in place
    make = _by_hand if isinstance(objective.model, MLP) else _by_graph
    parts = split(objective, params, _room(objective, budget), share=_SHARES[make])
    keep = sum(part.nbytes for part in parts) <= budget
    groups = [list(same) for _, same in groupby(parts, key=lambda part: part.rows.start)]
    return Operator.joined([_summed(same, lambda part: make(part, kind), keep) for same in groups])


def _summed(parts: Sequence[Part], make: Callable[[Part], Add], keep: bool) -> Operator:
    """Return the sum over parts of the same replicas; what is not kept is made anew for every product."""
    like = trained(parts[0].params)
    kept = [make(part) for part in parts] if keep else []

    def product(flat: Tensor) -> Tensor:
        found = torch.zeros_like(flat)
        v, out = unflatten(flat, like), unflatten(found, like)
        with torch.no_grad():
            for add in kept or map(make, parts):
                add(v, out)
        return found

    return Operator(product, like)


def _room(objective: Supervised, budget: int) -> int:
    """Return the bytes of one part: a CPU is faster when they fit its caches, or the model's working set."""
    if objective.inputs.device.type != "cpu":
        return budget
    if isinstance(objective.model, MLP):
        return min(budget, _CACHED)
    return min(budget, getattr(objective.model, "working_set", budget))


def _by_hand(part: Part, kind: Kind) -> Add:
    """Multiply by the derivatives of the passes of an MLP."""
    tangents = Tangents(part)
    if kind == "hessian":
        return tangents.add_hessian
    curve = tangents.loss.curve if kind == "gauss_newton" else tangents.loss.square
    return lambda v, out: tangents.pull(curve(tangents.push(v)), out)


def _by_graph(part: Part, kind: Kind) -> Add:
    """Multiply by differentiating slopes a second time, on a graph that is kept."""
    free = part.free()
    at = list(free.values())
    with torch.enable_grad():
        if kind == "hessian":
            total = part.losses(free).sum() * part.weight
            slopes = grad(total, at, create_graph=True, allow_unused=True, materialize_grads=True)
        else:
            outputs = part.outputs(free)
            loss = OutputLoss(part.objective.loss, outputs, part.targets, part.weight)
            u = torch.zeros_like(outputs, requires_grad=True)
            slopes = grad(outputs, at, u, create_graph=True, allow_unused=True, materialize_grads=True)

    def multiply(v: list[Tensor]) -> Sequence[Tensor]:
        if kind == "hessian":
            return _along(slopes, v, at)
        (tangent,) = _along(slopes, v, [u])  # Jᵀu is linear in u: differentiated by u along v it is Jv
        curved = loss.curve(tangent) if kind == "gauss_newton" else loss.square(tangent)
        return grad(outputs, at, curved, retain_graph=True, allow_unused=True, materialize_grads=True)

    def add(v: Leaves, out: Leaves) -> None:
        for name, one in zip(free, multiply([v[name] for name in free]), strict=True):
            out[name] += one

    return add


def _along(slopes: Sequence[Tensor], v: Sequence[Tensor], at: list[Tensor]) -> Sequence[Tensor]:
    """Return the derivative of slopes · v by `at`; slopes that do not depend on anything add nothing."""
    pairs = [(one, along) for one, along in zip(slopes, v, strict=True) if one.requires_grad]
    if not pairs:
        return [torch.zeros_like(x) for x in at]
    ours, theirs = zip(*pairs, strict=True)
    return grad(ours, at, theirs, retain_graph=True, allow_unused=True, materialize_grads=True)


_SHARES = {_by_hand: 2.0, _by_graph: 4.0}  # what a part keeps, against the working memory of a training step
