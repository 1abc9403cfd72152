"""How gradient noise leans towards sharp directions, from the n × n Gram matrix alone.

K = J Jᵀ with J (n, p) the gradients of the outputs, G = JᵀJ/n the Gauss–Newton matrix, r the residuals, and
k_i = Σ_j K_ij²/n the score of an example. The noise of one example has second moment Σ₁ = Σ_i r_i² J_iᵀJ_i/n and
covariance Σ = Σ₁ − ∇L∇Lᵀ; a batch scales both by its share (`descent.theory.linear.batch_share`). No vector of
p parameters is ever formed. Leading axes are replicas.

One output and square loss L = Σ r²/2n unless said; `weighted` brings any other loss of one output to this form,
`block_alignment` takes several outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Alignment",
    "Directions",
    "Extremes",
    "block_alignment",
    "directional_alignment",
    "extreme_directions",
    "linear_extremes",
    "loss_alignment",
    "reachable_extremes",
    "trace_of_noise",
    "weighted",
]

RANK_CUT = 1e-10
"""Eigenvalues of the Gram matrix below this share of the largest count as zero."""


class Alignment(NamedTuple):
    """Tr(ΣG)/(2L‖G‖²_F) with Σ₁ and with Σ, (…); scores k (…, n)."""

    uncentred: Tensor
    centred: Tensor
    scores: Tensor  # k_i = Σ_j K_ij²/n of example i


class Directions(NamedTuple):
    """vᵀΣv/(2L vᵀGv) along the leading eigenvectors v of G, (…, q), and their curvatures, falling."""

    curvature: Tensor
    uncentred: Tensor
    centred: Tensor


class Extremes(NamedTuple):
    """The least and the largest value over what is varied, (…)."""

    low: Tensor
    high: Tensor


def loss_alignment(gram: Tensor, residuals: Tensor, twice_loss: Tensor | None = None) -> Alignment:
    """Return the loss alignment: 1 + Cov(r², k)/(mean r² · mean k), and less ∇LᵀG∇L over the same, centred.

    gram (…, n, n), residuals (…, n); twice_loss 2L (…) where it is not the mean of r².
    """
    n = gram.shape[-1]
    scores = gram.square().mean(dim=-1)
    power = residuals.square().mean(dim=-1) if twice_loss is None else twice_loss
    scale = power * scores.mean(dim=-1)
    pulled = (gram @ residuals.unsqueeze(-1)).squeeze(-1) / n
    uncentred = (residuals.square() * scores).mean(dim=-1) / scale
    return Alignment(uncentred, uncentred - pulled.square().mean(dim=-1) / scale, scores)


def trace_of_noise(gram: Tensor, residuals: Tensor) -> Tensor:
    """Return Tr Σ = mean r²K_ii − rᵀKr/n² of one example's gradient, (…); gram (…, n, n), residuals (…, n)."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    mean_gradient = ((gram @ residuals.unsqueeze(-1)).squeeze(-1) * residuals).mean(-1) / gram.shape[-1]
    return (diagonal * residuals.square()).mean(-1) - mean_gradient


def directional_alignment(
    gram: Tensor, residuals: Tensor, keep: int | None = None, twice_loss: Tensor | None = None
) -> Directions:
    """Return the alignment along the `keep` sharpest eigenvectors of G: with Kq = nλq it is Σ q²r²/mean r².

    gram (…, n, n), residuals (…, n). Directions of no curvature are left out by `keep`, all n by default.
    """
    n = gram.shape[-1]
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(-1)[..., :keep], vectors.flip(-1)[..., :keep]
    power = residuals.square().mean(dim=-1) if twice_loss is None else twice_loss
    uncentred = (vectors.square() * residuals.square().unsqueeze(-1)).sum(dim=-2) / power.unsqueeze(-1)
    mean = (vectors * residuals.unsqueeze(-1)).sum(dim=-2).square() / (n * power.unsqueeze(-1))
    return Directions(values / n, uncentred, uncentred - mean)


def reachable_extremes(gram: Tensor, *, centred: bool = False) -> Extremes:
    """Return the extremes of the loss alignment over all residuals in the range of J, exactly.

    The eigenvalues of Qᵀdiag(k)Q, less K²/n² in the middle when centred, over mean k; Q spans the range (…, n, q).
    A linear model reaches all of them by its parameters. Replicas must agree in rank.

    centred: whether Σ takes the place of Σ₁.
    """
    n = gram.shape[-1]
    scores = gram.square().mean(dim=-1)
    form = torch.diag_embed(scores)
    if centred:
        form = form - gram @ gram / n**2
    basis = _range(gram)
    values = torch.linalg.eigvalsh(basis.mT @ form @ basis) / scores.mean(dim=-1, keepdim=True)
    return Extremes(values[..., 0], values[..., -1])


def linear_extremes(inputs: Tensor) -> Extremes:
    """Return `reachable_extremes` of the linear model with inputs (…, n, d) of full rank, in O(nd·min(n, d))."""
    n, d = inputs.shape[-2:]
    if n <= d:
        scores = (inputs @ inputs.mT).square().mean(dim=-1)
    else:
        scores = ((inputs @ (inputs.mT @ inputs / n)) * inputs).sum(dim=-1)
    basis, _ = torch.linalg.qr(inputs)
    values = torch.linalg.eigvalsh(basis.mT @ (scores.unsqueeze(-1) * basis)) / scores.mean(dim=-1, keepdim=True)
    return Extremes(values[..., 0], values[..., -1])


def extreme_directions(inputs: Tensor, starts: Tensor, iterations: int = 40) -> Extremes:
    """Return the extremes of a linear model's centred directional alignment over residuals AND directions, (R,).

    n Σ (Qa)²(Qb)² − (a·b)² with unit a and b, Q an orthonormal basis of the inputs' range: alternate exact
    eigenvectors in a and b. inputs (R, n, d); starts (R, S, d) directions a to begin from. The largest is also
    sought from the row of highest leverage. The iteration finds local extremes: bounds from inside.

    starts: directions to begin from.
    """
    basis, _ = torch.linalg.qr(inputs)
    leverage = basis.square().sum(dim=-1).argmax(dim=-1)
    rows = torch.take_along_dim(basis, leverage[:, None, None], dim=1)
    low = _alternate(basis, starts, iterations, pick=0)
    high = _alternate(basis, torch.cat([starts, rows], dim=1), iterations, pick=-1)
    return Extremes(low.amin(dim=-1), high.amax(dim=-1))


def weighted(gram: Tensor, slopes: Tensor, curvatures: Tensor) -> tuple[Tensor, Tensor]:
    """Return Gram matrix and residuals of the square-loss problem with the same G and the same noise.

    slopes ℓ′ and curvatures ℓ″ > 0 of each example's loss in its output, (…, n): K becomes √ℓ″ K √ℓ″ and r becomes
    ℓ′/√ℓ″. Pass the loss's own 2L as `twice_loss`, or the alignment is normalised by mean ℓ′²/ℓ″.
    """
    root = curvatures.sqrt()
    return root.unsqueeze(-1) * gram * root.unsqueeze(-2), slopes / root


def block_alignment(
    blocks: Tensor, slopes: Tensor, hessians: Tensor | None = None, twice_loss: Tensor | None = None
) -> Tensor:
    """Return the uncentred loss alignment of a model with C outputs, (…).

    blocks K (…, n, C, n, C), slopes ∂ℓ/∂f (…, n, C); hessians: ∂²ℓ/∂f² (…, n, C, C), the identity by default.
    Where all outputs have the same kernel it is 1/C times that of one output.
    """
    n = blocks.shape[-2]
    pulled = torch.einsum("...icjd,...jd->...icj", blocks, slopes)  # J_i g_j
    curved = pulled if hessians is None else torch.einsum("...ica,...iaj->...icj", hessians, pulled)
    noise = (pulled * curved).sum(dim=(-3, -2, -1)) / n**2
    other = blocks
    if hessians is not None:
        left = torch.einsum("...ica,...iajd->...icjd", hessians, blocks)
        other = torch.einsum("...icjd,...jda->...icja", left, hessians)
    frobenius = (blocks * other).sum(dim=(-4, -3, -2, -1)) / n**2
    power = slopes.square().sum(dim=-1).mean(dim=-1) if twice_loss is None else twice_loss
    return noise / (power * frobenius)


def _range(gram: Tensor) -> Tensor:
    """Return an orthonormal basis of the range (…, n, q)."""
    values, vectors = torch.linalg.eigh(gram)
    ranks = (values > RANK_CUT * values[..., -1:]).sum(dim=-1)
    rank = int(ranks.max())
    if int(ranks.min()) != rank:
        raise ValueError(f"the Gram matrices have ranks {int(ranks.min())} to {rank}; pass replicas of equal rank")
    basis: Tensor = vectors[..., gram.shape[-1] - rank :]
    return basis


def _alternate(basis: Tensor, starts: Tensor, iterations: int, pick: int) -> Tensor:
    """Return n Σ (Qa)²(Qb)² − (a·b)² at the fixed point of alternating extreme eigenvectors, (R, S)."""
    n, d = basis.shape[1:]
    pairs = (n * basis.unsqueeze(-1) * basis.unsqueeze(-2)).flatten(2)  # (R, n, d²): the form is one product
    direction = starts / starts.norm(dim=-1, keepdim=True)
    value = starts.new_zeros(starts.shape[:2])
    for _ in range(iterations):
        form = ((direction @ basis.mT).square() @ pairs).unflatten(-1, (d, d))
        form = form - direction.unsqueeze(-1) * direction.unsqueeze(-2)
        values, vectors = torch.linalg.eigh(form)
        value, direction = values[..., pick], vectors[..., pick]
    return value
