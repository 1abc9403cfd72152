"""How SGD leaves a minimum at which its noise vanishes: exact second moments, and the aligned closure.

At an interpolating minimum of a linear model, in coordinates w around it, M = E wwᵀ obeys

    M ← (I − ηG) M (I − ηG) + η²p [E(xᵀMx)xxᵀ − GMG],   G = E xxᵀ, p the batch's share (`linear.batch_share`).

The aligned closure replaces the bracket by tr(GM) G. Then the parts ℓ_i = λ_i E w_i² of the loss along the
eigenvectors of G close among themselves: ℓ ← (1 − ηλ)²ℓ + pη²λ² Σℓ. Its edge is `linear.aligned_edge`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import optimize
from torch import Tensor

from descent.arrays import Array
from descent.theory.linear import kernel

__all__ = [
    "Escape",
    "closure_escape",
    "closure_step",
    "edge_covariance",
    "eigen_rows",
    "gaussian_escape",
    "outside",
    "outside_bound",
    "second_moment_step",
]


class Escape(NamedTuple):
    """Growth z of the loss per step, and each mode's share of it, (d,)."""

    growth: float  # of the loss per step
    profile: Array  # each mode's share of the loss


def eigen_rows(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return curvatures λ (…, q), falling, and the inputs in the eigenbasis of G = XᵀX/n, (…, n, q), q = min(n, d)."""
    rows, sizes, _ = torch.linalg.svd(inputs, full_matrices=False)
    return sizes.square() / inputs.shape[-2], rows * sizes.unsqueeze(-2)


def second_moment_step(rows: Tensor, moment: Tensor, lr: float | Tensor, share: float) -> Tensor:
    """Return M one step later, (…, q, q), for rows in the eigenbasis of G, (…, n, q); exact, O(nq²).

    rows: the examples in the eigenbasis; moment: M, the second moment of the parameters.
    """
    n = rows.shape[-2]
    curvature = rows.square().mean(dim=-2)
    step = torch.as_tensor(lr, dtype=rows.dtype, device=rows.device)[..., None, None]
    keep = 1 - step * curvature.unsqueeze(-1)
    pull = ((rows @ moment) * rows).sum(dim=-1, keepdim=True)
    noise = (rows * pull).mT @ rows / n - curvature.unsqueeze(-1) * moment * curvature.unsqueeze(-2)
    moved = keep * moment * keep.mT + share * step**2 * noise
    return (moved + moved.mT) / 2  # rounding must not feed an antisymmetric part


def edge_covariance(rows: Tensor, lr: Tensor, momentum: float, share: float, iterations: int = 200) -> Tensor:
    """Return the M ∝ E wwᵀ that escapes at the edge, (…, q, q): the leading fixed point of M ↦ pV(M)/K.

    `kernel` K of heavy ball; lr (…) at the mean-square edge of each problem, where the fixed point has eigenvalue one.

    rows: the examples in the eigenbasis.
    """
    curvature = rows.square().mean(dim=-2)
    moment = torch.diag_embed(torch.ones_like(curvature))
    values, rates = curvature.cpu().numpy(), lr.cpu().numpy()[..., None, None]
    k = torch.as_tensor(kernel(values[..., :, None], values[..., None, :], rates, momentum)).to(rows)
    for _ in range(iterations):
        pull = ((rows @ moment) * rows).sum(dim=-1, keepdim=True)
        noise = (rows * pull).mT @ rows / rows.shape[-2]
        noise = noise - curvature.unsqueeze(-1) * moment * curvature.unsqueeze(-2)
        moment = share * noise / k
        moment = moment / moment.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
    return moment


def closure_step(curvatures: ArrayLike, losses: ArrayLike, lr: float, share: float) -> Array:
    """Return ℓ one step later under aligned noise, (d,).

    losses: ℓ of every mode, (d,).
    """
    h, parts = np.asarray(curvatures, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    return np.asarray((1 - lr * h) ** 2 * parts + share * lr**2 * h**2 * parts.sum())


def closure_escape(curvatures: ArrayLike, lr: float, share: float, *, isotropic: bool = False) -> Escape:
    """Return the growth z of the closure, 1 = pη² Σ λ²/(z − (1 − ηλ)²), and its profile ∝ λ²/(z − (1 − ηλ)²).

    isotropic: the same power 2L tr G spread evenly over all directions, λ tr G/d in place of λ².
    """
    h = np.asarray(curvatures, dtype=np.float64)
    own, push = (1 - lr * h) ** 2, share * lr**2 * h * (h.mean() if isotropic else h)

    def excess(z: float) -> float:
        return float(np.sum(push / (z - own)) - 1)

    low = float(own.max())
    high = low + float(push.sum()) + 1e-12
    found = float(optimize.brentq(excess, low * (1 + 1e-14) + 1e-300, high, xtol=1e-300, rtol=1e-14))
    profile = push / (found - own)
    return Escape(found, np.asarray(profile / profile.sum()))


def outside(losses: ArrayLike, k: int) -> Array:
    """Return D_k, the loss outside the k sharpest directions over the loss inside; losses (…, d), sharpest first.

    k: how many directions count as sharp. losses: of every mode, sharpest first.
    """
    parts = np.asarray(losses, dtype=np.float64)
    return np.asarray(parts[..., k:].sum(axis=-1) / parts[..., :k].sum(axis=-1))


def outside_bound(curvatures: ArrayLike, k: int, lr: float, share: float) -> float:
    """Return the one-step lower bound on D_k of noise aligned with weight p = `share`; curvatures falling, (d,)."""
    h = np.asarray(curvatures, dtype=np.float64)
    push = share * lr**2 * h**2
    return float(push[k:].sum() / (((1 - lr * h[:k]) ** 2).max() + push[:k].sum()))


def gaussian_escape(curvatures: ArrayLike, lr: float, momentum: float, share: float, steps: int) -> Array:
    """Return the losses λ_i E x_i² after some steps of heavy ball on Gaussian features, from E x_i² = 1, (d,).

    No covariance between directions arises: each has moments (A, b, c) of (x_t², x_t x_{t−1}, x_{t−1}²), fed by
    lr²·share·(λ²A + λ Σ λ_j A_j).
    """
    h = np.asarray(curvatures, dtype=np.float64)
    keep = 1 + momentum - lr * h
    now, cross, before = np.ones_like(h), np.ones_like(h), np.ones_like(h)
    for _ in range(steps):
        fed = share * lr**2 * (h**2 * now + h * (h @ now))
        moved = keep**2 * now - 2 * keep * momentum * cross + momentum**2 * before + fed
        now, cross, before = moved, keep * now - momentum * cross, now
    return np.asarray(h * now)
