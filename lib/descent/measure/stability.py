"""The largest step at which SGD can keep a trained network, exactly in mean square, from its n × n Gram matrix.

At interpolation, f_i = y_i for every example, the square loss Σ (f_i − y_i)²/2n is locally the random quadratic with
example Hessians g_i g_iᵀ, g_i the gradient of output i. Everything about its mean-square stability lives in K = J Jᵀ
(`descent.measure.gram`): with K/n = UΛUᵀ the examples are rows x_i = √(nλ) U_i, and E xxᵀ = S is stationary where

    u (1 − β)(λ_a + λ_b) S_ab = [p E(xxᵀ S xxᵀ) − pΛSΛ + (1 − β)/(1 + β) ΛSΛ]_ab − β/(1 − β²)(λ_a − λ_b)² S_ab,

u = 1/lr, β the momentum, p the share of the noise a batch keeps (`descent.theory.linear.batch_share`). S follows from
the n numbers q_i = x_iᵀSx_i, so the largest such u is found on q. For plain SGD it is the threshold of Mulayoff and
Michaeli (2024). Leading axes are replicas; the work is in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from descent.measure.gram import gram
from descent.nets.dense import Model
from descent.theory.linear import batch_share

__all__ = [
    "RANK_CUT", "Bounds", "CheapBounds", "Leading", "bounds", "cheap_bounds", "interpolation_gram", "leading", "load",
    "threshold",
]  # fmt: skip

RANK_CUT = 1e-12
"""Eigenvalues of K below this share of the largest count as zero; the lower bound is proportional to the least kept."""


class Bounds(NamedTuple):
    """One-step bounds, (R,): below `lower` the expected error E[vᵀGv] shrinks from any v, above `upper` it grows."""

    lower: Tensor  # no start grows below it
    upper: Tensor  # every start grows above it


class CheapBounds(NamedTuple):
    """Upper bounds on plain SGD's threshold from two test matrices, u₁u₁ᵀ and G, (R,)."""

    top: Tensor  # from u₁u₁ᵀ
    mean: Tensor  # from G


class Leading(NamedTuple):
    """Sharpness λ₁ of G = JᵀJ/n, (R,), and its direction seen on the examples, (R, n); Jᵀvector in the parameters."""

    sharpness: Tensor
    vector: Tensor  # unit eigenvector of the Gram matrix


def interpolation_gram(
    model: Model, params: dict[str, Tensor], inputs: Tensor, targets: Tensor, *, tolerance: float = 0.05
) -> Tensor:
    """Return K (R, nC, nC) float64 of a trained stack, for the loss Σ (f − y)²/2n, where it fits all its targets.

    tolerance: largest root mean square residual, in units of the targets'. Another factor than ½ in the loss
    multiplies K by twice that factor.
    Raises: ValueError naming the replicas that do not interpolate, where the Hessian is not JᵀJ/n.
    """
    leaves = {name: leaf.detach().double() for name, leaf in params.items()}
    x, y = inputs.double(), targets.double()
    outputs = model.forward(leaves, x.expand(len(next(iter(leaves.values()))), *x.shape))
    ratio = (outputs - y).square().flatten(1).mean(dim=1).sqrt() / y.square().mean().sqrt()
    bad = (~(ratio <= tolerance)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"replicas {bad[:8]}{' …' if len(bad) > 8 else ''} do not interpolate: their residuals reach "
            f"{float(ratio.max()):.2g} of the targets, above {tolerance:g}. The threshold is exact only where they "
            "vanish: train longer, leave these out, or raise `tolerance` to see the part of JᵀJ alone"
        )
    return gram(model, leaves, x)


def leading(gram: Tensor) -> Leading:
    """Return the largest eigenvalue of K/n and its eigenvector; gram (R, n, n)."""
    values, vectors = torch.linalg.eigh(gram.double())
    return Leading(values[:, -1] / gram.shape[-1], vectors[:, :, -1])


def threshold(
    gram: Tensor,
    batch_size: int | None,
    momentum: float = 0.0,
    *,
    replacement: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 10_000,
) -> Tensor:
    """Return C*(k), the largest lr at which E|v|² stays bounded for batches of k, (R,) float64; heavy ball.

    gram (R, n, n); batch_size None for all examples, which gives 2(1 + β)/λ₁. tolerance: of the iteration's residual;
    the relative error of the result is of the order of its square.
    Raises: ValueError when the iteration does not converge.
    """
    share = _share(gram, batch_size, replacement)
    values, rows = _rows(gram)
    ceiling = 2 * (1 + momentum) / values[:, -1]
    if share == 0:
        return ceiling
    rise, rest = _kernel(values, momentum, share)
    scale, low = share / rows.shape[1], 1 / ceiling
    u, q = low, _unit((rows.square() * values.unsqueeze(1)).sum(dim=2))
    for _ in range(iterations):
        moment = rows.mT @ (q.unsqueeze(2) * rows)  # Σ_i q_i x_i x_iᵀ
        moment = moment.mul_(scale).div_(torch.addcmul(rest, u[:, None, None], rise))
        image = ((rows @ moment) * rows).sum(dim=2)
        # q·image is 1 at the threshold; its inverse is concave and rising in u, so Newton's steps on it come from below
        total = (q * image).sum(dim=1)
        u = torch.maximum(u + scale * total * (total - 1) / (moment.square_().mul_(rise)).sum(dim=(1, 2)), low)
        if float((image - q).norm(dim=1).max()) <= tolerance:
            return 1 / u
        q = _unit(image)
    raise ValueError(f"the threshold is still moving after {iterations} iterations; raise `iterations` or `tolerance`")


def load(
    gram: Tensor,
    lr: float,
    batch_size: int | None,
    momentum: float = 0.0,
    *,
    replacement: bool = True,
    keep: int = 60,
    iterations: int = 40,
) -> Tensor:
    """Return the mean-square load Λ at a step, (R,) float64: E|v|² stays bounded where Λ < 1; heavy ball.

    The spectral radius of S ↦ pV(S)/K by power iteration on the `keep` leading eigenvalues of K; gram (R, n, n).
    Infinite where the step is unstable without noise. The Rayleigh quotient is a lower bound, and close where a few
    directions carry the load.
    """
    share = _share(gram, batch_size, replacement)
    n, kept = gram.shape[-1], slice(-min(keep, gram.shape[-1]), None)
    values, vectors = torch.linalg.eigh(gram / n)
    values = values[:, kept].double().clamp_min(1e-12)
    rows = vectors[:, :, kept].double() * (n * values).sqrt().unsqueeze(1)
    rise, rest = _kernel(values, momentum, 0.0)
    kernel, outer = rise / lr + rest, values.unsqueeze(2) * values.unsqueeze(1)
    calm = lr * values[:, -1] < 2 * (1 + momentum)
    root = torch.where(calm[:, None, None], kernel.clamp_min(1e-300), 1.0).sqrt()
    state = torch.diag_embed(values) * root
    found = torch.zeros_like(values[:, 0])
    for _ in range(iterations):
        state = state / state.flatten(1).norm(dim=1)[:, None, None].clamp_min(1e-300)
        moment = state / root
        pushed = rows.mT @ (((rows @ moment) * rows).sum(2, keepdim=True) * rows) / n - outer * moment
        image = share * pushed / root
        found, state = (state * image).sum(dim=(1, 2)), image
    return torch.where(calm, found, torch.inf)


def bounds(gram: Tensor, batch_size: int | None, *, replacement: bool = True) -> Bounds:
    """Return min and max of 2λ/(λ² + p t) over the eigenvalues λ of G, plain SGD.

    t: largest and smallest of vᵀ(E[QGQ] − G³)v / vᵀGv in the range of G, the eigenvalues of diag(s) − (K/n)² there,
    s_i = (K²)_ii/n.
    """
    n, share = gram.shape[-1], _share(gram, batch_size, replacement)
    values, vectors = torch.linalg.eigh(gram.double() / n)
    kept = values > RANK_CUT * values[:, -1:]
    scores = n * (vectors.square() * values.square().unsqueeze(1)).sum(dim=2)
    form = vectors.mT @ (scores.unsqueeze(2) * vectors) - torch.diag_embed(values.square())
    form = form * (kept.unsqueeze(2) & kept.unsqueeze(1))
    inside = form.diagonal(dim1=1, dim2=2).sum(dim=1) / kept.sum(dim=1)  # the mean eigenvalue is never extreme
    noise = torch.linalg.eigvalsh(form + torch.diag_embed(torch.where(kept, 0.0, inside.unsqueeze(1))))
    low, high = (2 * values / (values.square() + share * noise[:, end, None]) for end in (-1, 0))
    return Bounds(low.masked_fill(~kept, torch.inf).amin(dim=1), high.masked_fill(~kept, 0.0).amax(dim=1))


def cheap_bounds(gram: Tensor, batch_size: int | None, *, replacement: bool = True) -> CheapBounds:
    """Return 2λ₁/(λ₁² + p Var(u₁ᵀQu₁)) and 2 tr G³/((1 − p) tr G⁴ + p E tr(QGQG)), both at least the threshold."""
    n, share = gram.shape[-1], _share(gram, batch_size, replacement)
    values, vectors = torch.linalg.eigh(gram.double() / n)
    top = values[:, -1]
    variance = top.square() * (n * vectors[:, :, -1].pow(4).sum(dim=1) - 1)
    scores = n * (vectors.square() * values.square().unsqueeze(1)).sum(dim=2)
    fourth = (1 - share) * values.pow(4).sum(dim=1) + share * scores.square().mean(dim=1)
    return CheapBounds(2 * top / (top.square() + share * variance), 2 * values.pow(3).sum(dim=1) / fourth)


def _share(gram: Tensor, batch_size: int | None, replacement: bool) -> float:
    """Return the part of one example's noise that a batch keeps."""
    n = gram.shape[-1]
    if gram.ndim != 3 or gram.shape[1] != n:
        raise ValueError(f"Gram matrices must be a stack (R, n, n), got shape {tuple(gram.shape)}")
    if batch_size is None:
        return 0.0
    if batch_size < 1 or (batch_size > n and not replacement):
        raise ValueError(f"a batch of {batch_size} out of {n} examples: at least 1, and no more without replacement")
    return float(batch_share(batch_size, None if replacement else n))


def _rows(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return λ (R, n) of K/n, rising, and rows x_i (R, n, n) in the eigenbasis; the null space gives zeros and λ₁."""
    values, vectors = torch.linalg.eigh(gram.double() / gram.shape[-1])
    kept = values > RANK_CUT * values[:, -1:]
    values = torch.where(kept, values, values[:, -1:])
    return values, vectors * (kept * gram.shape[-1] * values).sqrt().unsqueeze(1)


def _kernel(values: Tensor, momentum: float, share: float) -> tuple[Tensor, Tensor]:
    """Return a and b (R, n, n) of a·u + b = K(λ_a, λ_b) + pλ_aλ_b, K the kernel of `problems.mode` at lr 1/u."""
    one, other = values.unsqueeze(2), values.unsqueeze(1)
    dephasing = momentum / (1 - momentum**2) * (one - other).square()
    return (1 - momentum) * (one + other), dephasing + (share - (1 - momentum) / (1 + momentum)) * one * other


def _unit(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / norms
