"""Gradient noise, curvature and mean-square stability of a model with several outputs, from its Gram matrix.

Example i has C outputs, its loss there the slope s_i = B_i t_i and the curvature ℓ_i″ = B_i B_iᵀ, B_i (C, C). What the
loss adds to the Gram matrix K = J Jᵀ goes into it, K̃ = BᵀKB, and what remains is a square loss with residuals t:

    ∇L = (BᵀJ)ᵀt/n        G = (BᵀJ)ᵀ(BᵀJ)/n, the Gauss–Newton matrix, whose eigenvalues over n are those of K̃

    view = cross_entropy(logits, labels)           # or square_loss(outputs, targets, factor)
    k = view.seen(gram(net, None, inputs)[0])      # K̃ (nC, nC)
    block_threshold(k, C, momentum, share=1 / batch_size)

The noise of a batch multiplies the steps by matrices, one per example: with x_i (C, q) the rows of example i in the
eigenbasis of G, E xxᵀ = S stays bounded where the load of S ↦ p(Σ_i x_iᵀ(x_i S x_iᵀ)x_i/n − ΛSΛ)/K(λ_a, λ_b) is below
1; p the share of the noise a batch keeps (`descent.theory.linear.batch_share`). One output gives `measure.stability`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from descent.measure.gram import blocks
from descent.theory.mode import kernel

__all__ = ["AtOutputs", "block_load", "block_threshold", "cross_entropy", "square_loss"]

RANK_CUT = 1e-12
"""Eigenvalues of K̃ below this share of the largest count as zero."""


@dataclass(frozen=True, eq=False)
class AtOutputs:
    """A loss as a function of the outputs, at one point: losses (n,), roots B (n, C, C) and residuals t (n, C)."""

    losses: Tensor  # one per example
    roots: Tensor  # B of the second derivative BBᵀ
    residuals: Tensor  # t of the first derivative Bt

    def seen(self, gram: Tensor) -> Tensor:
        """Return K̃ = BᵀKB, (nC, nC), of the outputs' K (nC, nC)."""
        k = blocks(gram, len(self.losses))
        left = torch.einsum("icb,icjd->ibjd", self.roots, k)
        return torch.einsum("ibjd,jda->ibja", left, self.roots).reshape(gram.shape)

    def to_gain(self, seen: Tensor) -> float:
        """Return ∇LᵀG⁺∇L/2L, the share of the loss that Newton's step by G would take; 0 at a minimum."""
        values, vectors = torch.linalg.eigh(seen)
        along = (vectors.mT @ self.residuals.flatten())[values > RANK_CUT * values[-1]]
        return float(along.square().sum() / (2 * self.losses.sum()))


def square_loss(outputs: Tensor, targets: Tensor, factor: float = 0.5) -> AtOutputs:
    """Return factor·mean_c (f_c − y_c)² of every example; outputs and targets (n, C).

    >>> square_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]]), factor=1.0).losses
    tensor([2.])
    """
    n, count = outputs.shape
    scale = (2 * factor / count) ** 0.5
    residuals = scale * (outputs - targets)
    roots = scale * torch.eye(count).to(outputs).expand(n, count, count)
    return AtOutputs(residuals.square().sum(dim=1) / 2, roots, residuals)


def cross_entropy(outputs: Tensor, labels: Tensor) -> AtOutputs:
    """Return −log softmax(f)_y of every example; outputs (n, C), labels y (n,) int64.

    With p = softmax(f): ℓ″ = diag(p) − ppᵀ = BBᵀ of B = diag(√p) − p√pᵀ, and p − e_y = Bt of t = √p − e_y/√p_y.

    >>> cross_entropy(torch.zeros(1, 2).double(), torch.tensor([0])).residuals.round(decimals=3).tolist()
    [[-0.707, 0.707]]
    """
    p = outputs.softmax(dim=1).clamp_min(1e-200 if outputs.dtype == torch.float64 else 1e-30)
    root, picked = p.sqrt(), nn.functional.one_hot(labels, outputs.shape[1])
    roots = torch.diag_embed(root) - p.unsqueeze(2) * root.unsqueeze(1)
    losses = nn.functional.cross_entropy(outputs, labels, reduction="none")
    return AtOutputs(losses, roots, root - picked / root)


def block_threshold(
    gram: Tensor,
    outputs: int,
    momentum: float = 0.0,
    *,
    share: float = 1.0,
    tolerance: float = 1e-5,
    iterations: int = 10_000,
) -> float:
    """Return the largest lr at which E|x|² stays bounded; heavy ball. gram K̃ (nC, nC), C = outputs.

    tolerance: of the iteration's residual; the relative error of the result is of the order of its square.
    Raises: ValueError when the iteration does not converge.
    """
    values, rows = _rows(gram, outputs)
    ceiling = 2 * (1 + momentum) / float(values[-1])
    if share == 0:
        return ceiling
    scale, low = share / len(rows), 1 / ceiling
    rise = (1 - momentum) * (values.unsqueeze(1) + values)
    rest = _kernel(values, np.inf, momentum) + share * values.unsqueeze(1) * values
    u, q = low, _unit((rows * values) @ rows.mT)
    for _ in range(iterations):
        moment = scale * _gathered(rows, q) / (u * rise + rest)
        image = rows @ moment @ rows.mT
        # q·image is 1 at the threshold; its inverse is concave and rising in u, so Newton's steps on it come from below
        total = float((q * image).sum())
        u = max(u + scale * total * (total - 1) / float((moment.square() * rise).sum()), low)
        if float((image - q).norm()) <= tolerance:
            return 1 / u
        q = _unit(image)
    raise ValueError(f"the threshold is still moving after {iterations} iterations; raise `iterations` or `tolerance`")


def block_load(
    gram: Tensor,
    outputs: int,
    lr: float,
    momentum: float = 0.0,
    *,
    share: float = 1.0,
    tolerance: float = 1e-7,
    iterations: int = 10_000,
) -> float:
    """Return the mean-square load Λ at a step: E|x|² stays bounded where Λ < 1; heavy ball. gram K̃ (nC, nC).

    Infinite where the step is unstable without noise. tolerance: of the residual, in units of Λ.
    Raises: ValueError when the iteration does not converge.
    """
    values, rows = _rows(gram, outputs)
    if not lr * float(values[-1]) < 2 * (1 + momentum):
        return float("inf")
    root, outer = _kernel(values, lr, momentum).sqrt(), values.unsqueeze(1) * values
    state = torch.diag(values) * root
    for _ in range(iterations):
        moment = _unit(state) / root
        noise = _gathered(rows, rows @ moment @ rows.mT) / len(rows) - outer * moment
        image, state = share * noise / root, moment * root
        found = float((state * image).sum())
        if float((image - found * state).norm()) <= tolerance * found or found <= 1e-15:
            return max(found, 0.0)
        state = image
    raise ValueError(f"the load is still moving after {iterations} iterations; raise `iterations` or `tolerance`")


def _rows(gram: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Return λ > 0 (q,) of K̃/n, rising, and the rows x (n, C, q) in the eigenbasis of G: xᵀx/n = diag λ."""
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.shape[0] % outputs:
        raise ValueError(f"gram must be ({outputs}n, {outputs}n) for {outputs} outputs, got {tuple(gram.shape)}")
    n = gram.shape[0] // outputs
    values, vectors = torch.linalg.eigh(gram.double() / n)
    kept = values > RANK_CUT * values[-1]
    values = values[kept]
    return values, (vectors[:, kept] * (n * values).sqrt()).reshape(n, outputs, -1)


def _kernel(values: Tensor, lr: float, momentum: float) -> Tensor:
    h = values.cpu().numpy()
    return torch.from_numpy(kernel(h[:, None], h[None, :], lr, momentum)).to(values)


def _gathered(rows: Tensor, between: Tensor) -> Tensor:
    """Return Σ_i x_iᵀ q_i x_i, (q, q), of rows x (n, C, q) and what lies between, (n, C, C)."""
    return rows.flatten(0, 1).mT @ (between @ rows).flatten(0, 1)


def _unit(state: Tensor) -> Tensor:
    found: Tensor = state / state.norm()
    return found
