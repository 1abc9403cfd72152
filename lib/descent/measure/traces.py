"""Traces and Frobenius norms of curvature: estimated from products with random vectors, or exact for Gauss–Newton.

An estimate keeps its samples, so that it comes with its spread:

    trace = hutch_plus_plus(hessian(objective, params), 60, streams)
    trace.values, trace.estimate(0)                     # (R,), and an Estimate for one replica
    gauss_newton_trace(objective, params)               # (R,), exact
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import grad

from descent.engine.probes import Leaves
from descent.engine.streams import Purpose, Streams
from descent.measure.curvature import BUDGET
from descent.measure.gram import gram
from descent.measure.operators import Operator, flatten
from descent.measure.parts import OutputLoss, Part, split, trained
from descent.measure.tangents import Tangents
from descent.nets.dense import MLP
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean

__all__ = ["Sampled", "gauss_newton_frobenius", "gauss_newton_trace", "hutch_plus_plus", "hutchinson"]

_SIGNS = 1 << 20  # probes are numbered from here, apart from the starts of other instruments at the same step


@dataclass(frozen=True, eq=False)
class Sampled:
    """One number per replica by independent unbiased samples (R, m)."""

    samples: Tensor

    @property
    def values(self) -> Tensor:
        """The means (R,), NaN for a replica whose samples are not finite."""
        return self.samples.mean(dim=1)

    def estimate(self, replica: int, *, level: float = 0.95) -> Estimate:
        """Return the mean of one replica with its interval over samples, by Student's t."""
        return mean(self.samples[replica].cpu().numpy(), level=level)


def hutchinson(operator: Operator, probes: int, streams: Streams, *, power: int = 1, step: int = 0) -> Sampled:
    """Estimate tr A, or tr A² = ‖A‖²_F with power=2, by gᵀAg, or ‖Ag‖², with random signs g (Hutchinson 1990).

    The variance is 2 Σ_{i≠j} A_ij² per probe for tr A: a spread of about √2 ‖A‖_F / √probes.

    power: the exponent of the matrix; probes: number of sign vectors.
    """
    if power not in (1, 2):
        raise ValueError(f"power must be 1 (trace) or 2 (squared Frobenius norm), got {power}")
    samples = []
    for signs in _signs(operator, probes, streams, step):
        found = operator(signs)
        samples.append(((signs if power == 1 else found) * found).sum(dim=1))
    return Sampled(torch.stack(samples, dim=1))


def hutch_plus_plus(operator: Operator, products: int, streams: Streams, *, step: int = 0) -> Sampled:
    """Estimate tr A with that many products: exactly on a sketch of the range, by Hutchinson on the rest.

    A third of the products goes into each of Q = orth(A·signs), tr QᵀAQ, and gᵀ(1 − QQᵀ)A(1 − QQᵀ)g (Meyer, Musco,
    Musco & Woodruff 2021). Good where few eigenvalues make up most of A, as for a trained network; the interval is that
    of the last part, given Q.

    products: how many products with the matrix in all.
    """
    third = products // 3
    if third < 2:
        raise ValueError(f"Hutch++ divides its products by three and needs 2 of each kind, 6 in all; got {products}")
    sketch = torch.stack([operator(s) for s in _signs(operator, third, streams, step)], dim=2)
    lost = ~sketch.isfinite().flatten(1).all(dim=1)
    basis = torch.linalg.qr(sketch.masked_fill(lost.view(-1, 1, 1), 0.0)).Q  # (R, p, min(third, p))
    inside = sum((q * operator(q)).sum(dim=1) for q in basis.unbind(2))
    samples = []
    for signs in _signs(operator, third, streams, step, skip=third):
        rest = signs - (basis @ (basis.mT @ signs.unsqueeze(2))).squeeze(2)
        samples.append(inside + (rest * operator(rest)).sum(dim=1))
    return Sampled(torch.stack(samples, dim=1))


def _signs(operator: Operator, count: int, streams: Streams, step: int, skip: int = 0) -> Iterator[Tensor]:
    """Draw vectors (R, p) of random signs, the same for a replica in any stack."""
    if streams.replicas != operator.replicas:
        raise ValueError(f"the operator has {operator.replicas} replicas and the streams {streams.replicas}")
    like = next(iter(operator.like.values()))
    for index in range(skip, skip + count):
        yield streams.signs(Purpose.PROBE, step + ((_SIGNS + index) << 32), (operator.size,)).to(like)


def gauss_newton_trace(objective: Supervised, params: Leaves, *, budget: int = 64 << 20) -> Tensor:
    """Return tr G = 1/n Σ_i tr(ℓ_i″ J_i J_iᵀ), (R,), exactly.

    For cross-entropy it is 1/n Σ_i Σ_y p_y ‖∇(−log p_y)‖², for square loss ½r² it is 1/n Σ_i ‖J_i‖². An MLP carries one
    slope per output back: J_i J_iᵀ = Σ_layers (‖a‖² + 1) δδᵀ. Any other model takes the gradient of every output at
    every example, as if each example were a replica of its own.
    """
    couples = getattr(objective.model, "couples", None)
    if couples is not None and couples(params):
        raise ValueError(
            "batch statistics couple the examples, so that none has a Jacobian of its own; "
            "use hutch_plus_plus(gauss_newton(…), …), or settled parameters"
        )
    one = _by_layers if isinstance(objective.model, MLP) else _by_examples
    first = next(iter(params.values()))
    trace = first.new_zeros(len(first))
    for part in split(objective, params, budget, extra=_jacobian_bytes(objective, params)):
        with torch.no_grad():
            trace[part.rows] += one(part)
    return trace


def gauss_newton_frobenius(objective: Supervised, params: Leaves, *, budget: int = BUDGET) -> Tensor:
    """Return ‖G‖²_F = 1/n² Σ_ij tr(ℓ_i″ K_ij ℓ_j″ K_ji), (R,), exactly, from the Gram matrix K_ij = J_i J_jᵀ.

    Raises: ValueError where that matrix (nC, nC) is too large for the budget.
    """
    found = []
    for r in range(len(next(iter(params.values())))):
        one = {name: leaf[r : r + 1] for name, leaf in params.items()}
        parts = split(objective.subset(slice(r, r + 1)), one, budget)
        with torch.no_grad():
            curves = torch.cat([_output_loss(part).matrices()[0] for part in parts])
        side = curves.shape[0] * curves.shape[1]
        if 3 * side**2 * curves.element_size() > budget:
            raise ValueError(
                f"three matrices of {side} × {side} are more than the budget of {budget} bytes; give a larger one, "
                "fewer examples, or estimate by hutchinson(gauss_newton(…), …, power=2)"
            )
        inputs = torch.cat([part.inputs[0] for part in parts])
        k = gram(objective.model, parts[0].params, inputs, budget=budget)[0]
        curved = torch.bmm(curves, k.view(len(curves), -1, side)).view(side, side)
        found.append((curved * curved.T).sum())
    return torch.stack(found)


def _output_loss(part: Part) -> OutputLoss:
    return OutputLoss(part.objective.loss, part.outputs({}), part.targets, part.weight)


def _jacobian_bytes(objective: Supervised, params: Leaves) -> int:
    """Return what the slopes of all outputs take per example: of every value of an MLP, else of every parameter."""
    part = split(objective, params, BUDGET)[0]
    if isinstance(objective.model, MLP):
        width, outputs = sum(objective.model.sizes), objective.model.sizes[-1]
    else:
        width = sum(leaf[0].numel() for leaf in trained(params).values())
        some = {name: leaf[:1] for name, leaf in params.items()}
        with torch.no_grad():
            outputs = objective.model.forward(some, part.inputs[:1, :1]).numel()
    return 2 * outputs * width * next(iter(params.values())).element_size()


def _by_layers(part: Part) -> Tensor:
    """Return the share of a part of an MLP in tr G: Σ_layers (‖a‖² + 1) tr(ℓ″ δδᵀ), with δ (C, out) per example."""
    tangents = Tangents(part)
    curves = tangents.loss.matrices()
    seeds = torch.eye(curves.shape[-1], dtype=curves.dtype, device=curves.device).expand_as(curves)
    total = curves.new_zeros(len(curves))
    for layer, slopes in tangents.back(seeds.flatten(1, 2)):
        slopes = slopes.view(*curves.shape[:3], -1)
        squares = ((curves @ slopes) * slopes).sum(dim=(2, 3))
        total += (squares * (layer.values.square().sum(dim=2) + tangents.bias)).sum(dim=1)
    return total


def _by_examples(part: Part) -> Tensor:
    """Return the share of a part of any model in tr G, every example a replica with a batch of one."""
    count = part.inputs.shape[1]
    leaves = {name: leaf.repeat_interleave(count, dim=0) for name, leaf in part.params.items()}
    free = {name: leaf.requires_grad_() for name, leaf in trained(leaves).items()}
    with torch.enable_grad():
        outputs = part.objective.model.forward(leaves, part.inputs.flatten(0, 1).unsqueeze(1))
        rows = [_slopes(one.sum(), free) for one in outputs.flatten(1).unbind(1)]
    jacobian = torch.stack(rows, dim=1)
    curves = _output_loss(part).matrices()
    return ((jacobian @ jacobian.mT).view_as(curves) * curves).sum(dim=(1, 2, 3))


def _slopes(total: Tensor, free: Leaves) -> Tensor:
    """Return the gradient of a sum over replicas, flat (R, p)."""
    found = grad(total, list(free.values()), retain_graph=True, allow_unused=True, materialize_grads=True)
    return flatten(dict(zip(free, found, strict=True)))
