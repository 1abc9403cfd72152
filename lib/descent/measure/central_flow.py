"""Gradient descent at its edge of stability as a smooth flow of where it is on average, for any loss.

At a step size lr descent oscillates along the eigenvectors U of the Hessian whose eigenvalue has reached 2/lr. With Σ
the covariance of the oscillation, zero outside span U, its time average moves by (Cohen et al. 2024)

    dw/dt = −lr ∇[L(w) + ½ ⟨Σ, H(w)⟩],         t in steps of descent,

and Σ is what keeps every eigenvalue at or below 2/lr: Σ = U X Uᵀ with X ⪰ 0, UᵀHU − 2/lr ⪯ 0, and one of the two zero
in every direction. Below the edge Σ = 0 and this is gradient flow. On average the loss is ½⟨Σ, H⟩ above that at w.

    loss, start = flat_loss(objective, params)
    path = central_flow(loss, start, lr=0.1, steps=500)
    path.points, path.loss, path.covariance             # (T, p), (T,), tr Σ (T,)

The flow is integrated by steps of `every` steps of descent, each of which brings an eigenvalue that has passed the edge
back to it. It costs some Hessian products a step, and K² gradients of Hessian products at K eigenvalues on the edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import grad

from descent.engine.probes import Leaves
from descent.engine.streams import Streams, replica_seeds
from descent.measure.operators import Operator, flatten, unflatten
from descent.measure.parts import trained
from descent.measure.tracking import eigenpairs_above
from descent.nets.supervised import Supervised

__all__ = ["CentralFlow", "central_flow", "edge_covariance", "flat_loss"]

Scalar = Callable[[Tensor], Tensor]
"""A loss as a function of flat parameters (p,) → ()."""

_NEAR = 0.9  # of the edge: eigenvalues below it cannot reach it within a step of the flow


@dataclass(frozen=True, eq=False)
class CentralFlow:
    """Times t (T,) in steps of descent, points (T, p), the loss there (T,), tr Σ (T,) and the largest eigenvalue (T,).

    sharpness is NaN while no eigenvalue is near the edge.
    """

    times: Tensor
    points: Tensor  # the parameters, flat
    loss: Tensor  # at the points, without the oscillation
    covariance: Tensor  # tr Σ of the oscillation
    sharpness: Tensor  # largest eigenvalue of the Hessian
    lr: float

    @property
    def mean_loss(self) -> Tensor:
        """The loss that descent has on average, L + ½⟨Σ, H⟩ = L + tr Σ/lr, (T,)."""
        return self.loss + self.covariance / self.lr


def central_flow(loss: Scalar, start: Tensor, lr: float, steps: int, *, every: float = 0.5) -> CentralFlow:
    """Integrate the flow from `start` (p,) over `steps` steps of descent at `lr`, by Euler's steps of length `every`.

    start: flat parameters, where the flow begins.

    Raises: ValueError for a start above the edge, which no slow flow describes, and where the path is lost.
    """
    if not (0 < every <= 1 and lr > 0):
        raise ValueError(f"lr must be positive and every in (0, 1], got {lr} and {every}")
    w, basis = start.detach().clone(), None
    rows: list[tuple[Tensor, ...]] = []
    streams = Streams(replica_seeds(0, 1, w.device), w.dtype)
    for _ in range(round(steps / every)):
        operator = _hessian(loss, w)
        found = eigenpairs_above(operator, _NEAR * 2 / lr, streams, start=basis, tolerance=1e-6)
        basis, sharpest = found.basis, found.values[0, :1]
        if not rows and bool((sharpest > 2 / lr).any()):
            raise ValueError(f"the start has sharpness {float(sharpest):.3g}, above 2/lr = {2 / lr:.3g}; lower lr")
        slope, tensors = _gradient(loss, w), _third(loss, w, found.vectors[0])
        slack = (2 / lr - found.values[0]) / (lr * every)
        x = edge_covariance(tensors, slope, slack)
        largest = sharpest[0] if len(sharpest) else w.new_tensor(torch.nan)
        rows.append((w, loss(w).detach(), x.diagonal().sum(), largest))
        w = w - lr * every * (slope + torch.einsum("ab,abp->p", x, tensors) / 2)
        if not bool(w.isfinite().all()):
            raise ValueError(f"the flow is lost after {len(rows) * every:g} steps; lower lr, or shorten `every`")
    times = torch.arange(len(rows), dtype=w.dtype) * every
    points, losses, traces, sharpness = (torch.stack(column) for column in zip(*rows, strict=True))
    return CentralFlow(times, points, losses, traces, sharpness, lr)


def flat_loss(objective: Supervised, params: Leaves, replica: int = 0) -> tuple[Scalar, Tensor]:
    """Return the mean loss over all examples as a function of one replica's flat parameters, and these, in float64.

    replica: whose parameters they are.
    """
    own = {name: leaf[replica : replica + 1].detach().double() for name, leaf in params.items()}
    inputs, targets = objective.subset(slice(replica, replica + 1)).data.everything(1)
    inputs, targets = (x.double() if x.is_floating_point() else x for x in (inputs, targets))

    def loss(w: Tensor) -> Tensor:
        outputs = objective.model.forward(own | unflatten(w.unsqueeze(0), trained(own)), inputs)
        return objective.loss(outputs, targets).mean()

    return loss, flatten(trained(own))[0]


def edge_covariance(tensors: Tensor, slope: Tensor, slack: Tensor, iterations: int = 2000) -> Tensor:
    """Return X (K, K), the covariance of the oscillation in the basis U, from the derivatives of UᵀHU.

    tensors (K, K, p): ∇(u_aᵀ H u_b); slope (p,): ∇L; slack (K,): by how much each eigenvalue may rise, over lr and the
    time. X ⪰ 0, M X + b ⪰ 0 with b_ab = ⟨∇H_ab, ∇L⟩ + slack, M = ½⟨∇H, ∇H⟩, and X (M X + b) = 0: the minimum of
    ½⟨X, MX⟩ + ⟨b, X⟩ over X ⪰ 0, by accelerated projected gradients. For K = 1 it is max(0, −b/M).

    >>> edge_covariance(torch.tensor([[[0.0, 1.0]]]), torch.tensor([0.0, -0.3]), torch.zeros(1))
    tensor([[0.6000]])
    """
    k = len(tensors)
    if k == 0:
        return tensors.new_zeros(0, 0)
    b = torch.einsum("abp,p->ab", tensors, slope) + torch.diag(slack)
    m = torch.einsum("abp,cdp->abcd", tensors, tensors).reshape(k * k, k * k) / 2
    step = 1 / torch.linalg.matrix_norm(m, 2).clamp_min(torch.finfo(m.dtype).tiny)
    x = ahead = torch.zeros_like(b)
    for i in range(1 if k == 1 else iterations):
        before, x = x, _positive(ahead - step * ((m @ ahead.flatten()).view(k, k) + b))
        ahead = x + (i / (i + 3)) * (x - before)
    return x


def _positive(x: Tensor) -> Tensor:
    """Return the nearest positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh((x + x.mT) / 2)
    nearest: Tensor = (vectors * values.clamp_min(0)) @ vectors.mT
    return nearest


def _gradient(loss: Scalar, w: Tensor) -> Tensor:
    at = w.detach().requires_grad_()
    with torch.enable_grad():
        return grad(loss(at), at)[0]


def _hessian(loss: Scalar, w: Tensor) -> Operator:
    """Return the Hessian at w as an operator of one replica, from a graph that is kept."""
    at = w.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = grad(loss(at), at, create_graph=True)

    def product(v: Tensor) -> Tensor:
        return grad(slope, at, v[0], retain_graph=True)[0].unsqueeze(0)

    return Operator(product, {"": w.unsqueeze(0)})


def _third(loss: Scalar, w: Tensor, vectors: Tensor) -> Tensor:
    """Return ∇(u_aᵀ H u_b) (K, K, p) for eigenvectors (K, p)."""
    k, at = len(vectors), w.detach().requires_grad_()
    found = w.new_zeros(k, k, len(w))
    if k == 0:
        return found
    with torch.enable_grad():
        (slope,) = grad(loss(at), at, create_graph=True)
        curved = torch.stack([grad(slope, at, u, create_graph=True)[0] for u in vectors])
        for a in range(k):
            for b in range(a + 1):
                found[a, b] = found[b, a] = grad(curved[a] @ vectors[b], at, retain_graph=True, allow_unused=True)[0]
    return found
