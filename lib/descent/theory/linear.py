"""The exact linear heavy-ball system: every mode, their covariances, and where noise makes it unstable.

The stochastic gradient is (H + Δ_t)x + ξ_t: Σ the covariance of ξ, V(S) = E[QSQ] − HSH the second moment of
Δ over the examples' Hessians Q with mean H. A batch scales both by its `share` (see batch_share). White noise
goes in through a deterministic filter, so that the stationary covariance is noise covariance over the kernel,
entrywise in the eigenbasis of H. Conventions as in `mode`; one mode alone is there, the saddle in `escape`,
both re-exported here.

`examples` is either X of shape (n, d), for Hessians x xᵀ (rows of a Jacobian; gram_rows makes them from a
Gram matrix), or an array (n, d, d) of symmetric Hessians.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize
from scipy.sparse.linalg import LinearOperator, cg

from descent.arrays import Array
from descent.theory.escape import (
    escape_cdf,
    escape_from_offset,
    escape_level,
    escape_mean,
    escape_mean_asymptotic,
    escape_quantile,
    escape_sd,
    kramers_time,
    variance_from_rest,
)
from descent.theory.mode import (
    Steps,
    autocorrelation,
    convert,
    critical_damping,
    crossover_batch,
    displacement_variance,
    growth,
    growth_ceiling,
    inertial_efficiency,
    inertial_roots,
    kernel,
    matched_lr,
    mode_edge,
    nesterov_roots,
    roots,
    search_noise_power,
    stable,
    stationary_variance,
)

__all__ = [
    "Equivalent",
    "Steps",
    "aligned_edge",
    "autocorrelation",
    "batch_share",
    "convert",
    "critical_batch",
    "critical_damping",
    "crossover_batch",
    "displacement_variance",
    "edge_profile",
    "escape_cdf",
    "escape_from_offset",
    "escape_level",
    "escape_mean",
    "escape_mean_asymptotic",
    "escape_quantile",
    "escape_sd",
    "gram_rows",
    "growth",
    "growth_ceiling",
    "inertial_efficiency",
    "inertial_roots",
    "kernel",
    "kramers_time",
    "matched_lr",
    "mean_hessian",
    "mean_square_edge",
    "mean_square_load",
    "mode_edge",
    "multiplicative_covariance",
    "nesterov_roots",
    "roots",
    "search_noise_power",
    "sgd_equivalent",
    "stable",
    "stationary_covariance",
    "stationary_variance",
    "variance_from_rest",
]


class Equivalent(NamedTuple):
    """Plain SGD with the same diagonal of the kernel."""

    lr: Any
    batch_size: Any


def sgd_equivalent(lr: ArrayLike, momentum: ArrayLike, batch_size: ArrayLike) -> Equivalent:
    """Return plain SGD's lr α/(1 + β) and batch B(1 − β)/(1 + β) with the same variances, mode by mode.

    Exact where covariances between modes vanish; otherwise the true edge is higher, by dephasing.

    >>> sgd = sgd_equivalent(lr=0.1, momentum=0.9, batch_size=64)
    >>> print(f"lr {sgd.lr:.4f}, batch {sgd.batch_size:.2f}")
    lr 0.0526, batch 3.37
    """
    rate, beta, size = (np.asarray(value, dtype=np.float64) for value in (lr, momentum, batch_size))
    return Equivalent(rate / (1 + beta), size * (1 - beta) / (1 + beta))


def batch_share(batch_size: ArrayLike, population: int | None = None) -> Array:
    """Return the factor p of the noise of a batch: 1/B with replacement, (n − B)/(B(n − 1)) without.

    >>> batch_share([1, 4, 10]).tolist()
    [1.0, 0.25, 0.1]
    >>> batch_share([1, 4, 10], population=10).round(3).tolist()  # all ten without replacement: no noise
    [1.0, 0.167, 0.0]
    """
    size = np.asarray(batch_size, dtype=np.float64)
    return 1 / size if population is None else (population - size) / (size * (population - 1))


def mean_hessian(examples: ArrayLike) -> Array:
    """Return H, the mean of the examples' Hessians, shape (d, d)."""
    q = _examples(examples)
    return np.asarray(q.T @ q / len(q) if q.ndim == 2 else q.mean(0))


def multiplicative_covariance(examples: ArrayLike, covariance: ArrayLike) -> Array:
    """Return V(S) = E[QSQ] − HSH for S = `covariance`, per example (not divided by the batch).

    covariance: S of the parameters.
    """
    q, s = _examples(examples), np.asarray(covariance, dtype=np.float64)
    h = mean_hessian(q)
    second = (q.T * np.einsum("na,ab,nb->n", q, s, q)) @ q / len(q) if q.ndim == 2 else (q @ s @ q).mean(0)
    return np.asarray(second - h @ s @ h)


def gram_rows(gram: ArrayLike, keep: int | None = None) -> Array:
    """Return rows X (n, q) with XXᵀ = gram restricted to its `keep` largest eigenvalues, XᵀX/n diagonal.

    gram: JJᵀ of a model under square loss near interpolation (the residual's own curvature is not in it).

    >>> rows = gram_rows([[2.0, 1.0], [1.0, 2.0]])
    >>> (rows @ rows.T).round(6).tolist()
    [[2.0, 1.0], [1.0, 2.0]]
    """
    values, vectors = np.linalg.eigh(np.asarray(gram, dtype=np.float64))
    order = np.flatnonzero(values > values[-1] * 1e-12)[::-1][:keep]
    return np.asarray(vectors[:, order] * np.sqrt(values[order]))


def stationary_covariance(
    H: ArrayLike, Sigma: ArrayLike, lr: float, momentum: float, V: ArrayLike | None = None, share: float = 1.0
) -> Array:
    """Return M = E xxᵀ at stationarity, shape (d, d): K∘M − pV(M) = pΣ in the eigenbasis of H.

    V: examples with mean Hessian H, or None for additive noise alone; `share` p scales Σ and V together. H: mean
    Hessian; Sigma: covariance of one example's gradient at the minimum.

    Raises: ValueError where no stationary state exists (load ≥ 1, or an eigenvalue outside (0, 2(1 + β)/lr)).
    """
    values, basis = np.linalg.eigh(np.asarray(H, dtype=np.float64))
    if not stable(values, lr, momentum).all():
        raise ValueError(
            f"no stationary state: lr·eigenvalue must lie in (0, {2 * (1 + momentum):g}), got "
            f"{lr * values[0]:g} to {lr * values[-1]:g}; lower lr or project out the null space"
        )
    k = kernel(values[:, None], values[None, :], lr, momentum)
    noise = share * basis.T @ np.asarray(Sigma, dtype=np.float64) @ basis
    if V is None:
        return np.asarray(basis @ (noise / k) @ basis.T)
    load = mean_square_load(V, lr, momentum, share)
    if load >= 1:
        raise ValueError(f"no stationary state: the mean-square load is {load:g}, at or above 1; lower lr")
    spread = _spread(_rotated(_examples(V), basis), values, share)
    return np.asarray(basis @ _solve(k, spread, noise) @ basis.T)


def _solve(k: Array, spread: Callable[[Array], Array], noise: Array) -> Array:
    """Solve K∘M − pV(M) = N, self-adjoint and positive below the edge, by conjugate gradients in √K M."""
    root = np.sqrt(k)

    def apply(flat: Array) -> Array:
        s = flat.reshape(k.shape)
        return (s - spread(s / root) / root).ravel()

    operator = LinearOperator((k.size, k.size), matvec=apply)
    solution, failed = cg(operator, (noise / root).ravel(), rtol=1e-14, maxiter=10 * k.size + 100)
    if failed:
        raise ValueError("the stationary covariance did not converge: the load is too close to 1")
    return np.asarray(solution.reshape(k.shape) / root)


def mean_square_load(
    examples: ArrayLike,
    lr: float,
    momentum: float,
    share: float = 1.0,
    *,
    tolerance: float = 1e-10,
    iterations: int = 100_000,
) -> float:
    """Return Λ, the spectral radius of S ↦ pV(S)/K: E x² stays bounded exactly where Λ < 1, for any momentum.

    Power iteration from S = H with Rayleigh quotients, until the residual bounds the error by tolerance·Λ.
    Infinite where the noise-free iteration is unstable. The null space of H is projected out.

    Raises: ValueError when the iteration does not converge.

    >>> rows = [[2**0.5, 0.0], [0.0, 2**0.5]]  # two examples, each seen by one direction of curvature 1
    >>> print(f"{mean_square_load(rows, lr=0.5, momentum=0.0):.4f}")
    0.3333
    """
    values, rotated = _eigenmodes(examples)
    if not stable(values, lr, momentum).all():
        return float("inf")
    k = kernel(values[:, None], values[None, :], lr, momentum)
    root, spread = np.sqrt(k), _spread(rotated, values, share)
    s = np.diag(values) * root
    for _ in range(iterations):
        s = s / np.linalg.norm(s)
        image = spread(s / root) / root
        load = float(np.vdot(s, image))
        if np.linalg.norm(image - load * s) <= tolerance * load or load <= 1e-15:
            return max(load, 0.0)
        s = image
    raise ValueError(f"the mean-square load is still {load:g} and moving after {iterations} iterations")


def mean_square_edge(examples: ArrayLike, momentum: float, share: float = 1.0) -> float:
    """Return the raw lr at which the mean-square load is 1: the largest mean-square stable step.

    >>> rows = [[2**0.5, 0.0], [0.0, 2**0.5]]
    >>> print(f"{mean_square_edge(rows, momentum=0.0):.4f}, {mean_square_edge(rows, momentum=0.0, share=0.0):.4f}")
    1.0000, 2.0000
    """
    values, rotated = _eigenmodes(examples)
    ceiling = 2 * (1 + momentum) / values.max()

    def headroom(inverse: float) -> float:  # nearly linear in 1/lr, as the kernel is
        load = mean_square_load(rotated, 1 / inverse, momentum, share)
        return 1e15 if load == 0 else 1 / load - 1

    low = high = (1 + 1e-12) / ceiling
    while headroom(high) <= 0:
        high *= 2
    if high == low:
        return float(ceiling)
    return float(1 / optimize.brentq(headroom, low, high, xtol=1e-300, rtol=1e-13))


def _eigenmodes(examples: ArrayLike) -> tuple[Array, Array]:
    """Return the positive eigenvalues of H and the examples in their eigenbasis."""
    q = _examples(examples)
    values, basis = np.linalg.eigh(mean_hessian(q))
    kept = values > values[-1] * 1e-12
    lost = np.abs(q @ basis[:, ~kept]).max(initial=0.0)
    if values[0] < -1e-12 * abs(values[-1]) or lost > 1e-5 * np.abs(q).max():
        raise ValueError(
            f"the mean Hessian must be positive on the examples' span, got eigenvalues {values[0]:g} to {values[-1]:g}"
        )
    return values[kept], _rotated(q, basis[:, kept])


def _spread(rotated: Array, values: Array, share: float) -> Callable[[Array], Array]:
    """Return S ↦ pV(S) in the eigenbasis, where H is diagonal."""
    outer = values[:, None] * values[None, :]
    if rotated.ndim == 3:
        return lambda s: np.asarray(share * ((rotated @ s @ rotated).mean(0) - outer * s))
    weights = rotated / len(rotated)
    return lambda s: np.asarray(share * (weights.T * ((rotated @ s) * rotated).sum(1) @ rotated - outer * s))


def _rotated(q: Array, basis: Array) -> Array:
    return np.asarray(q @ basis if q.ndim == 2 else basis.T @ q @ basis)


def _examples(examples: ArrayLike) -> Array:
    q = np.asarray(examples, dtype=np.float64)
    if q.ndim == 2 or (q.ndim == 3 and q.shape[1] == q.shape[2] and np.allclose(q, q.swapaxes(1, 2))):
        return q
    raise ValueError(f"examples must be rows (n, d) or symmetric Hessians (n, d, d), got shape {q.shape}")


def aligned_edge(curvatures: ArrayLike, momentum: float, share: float = 1.0, *, gaussian: bool = False) -> float:
    """Return the raw lr at the mean-square edge of aligned noise, V(M) = tr(HM)H: p·Σ h²/K(h, h) = 1.

    gaussian: Gaussian features, V(M) = tr(HM)H + HMH, for which K − p h² replaces K.
    """
    h = _curvatures(curvatures)

    def excess(lr: float) -> float:
        return float(np.sum(share * h**2 / (kernel(h, h, lr, momentum) - gaussian * share * h**2)) - 1)

    # the largest mode alone reaches its own pole here, where the sum jumps through infinity
    pole = 2 * (1 + momentum) / (h.max() * (1 + gaussian * share * (1 + momentum) / (1 - momentum)))
    return float(optimize.brentq(excess, pole * 1e-12, pole * (1 - 1e-14), xtol=1e-300, rtol=1e-13))


def edge_profile(curvatures: ArrayLike, momentum: float, share: float = 1.0, *, gaussian: bool = False) -> Array:
    """Return each mode's share of the loss that escapes at the edge of aligned_edge; shape (d,), sum 1.

    ∝ h²/K(h, h) ∝ h/(2(1 + β) − αh), with K − p h² in place of K for Gaussian features.

    gaussian: whether features are Gaussian, instead of noise aligned with the curvature.
    """
    h = _curvatures(curvatures)
    lr = aligned_edge(h, momentum, share, gaussian=gaussian)
    profile = h**2 / (kernel(h, h, lr, momentum) - gaussian * share * h**2)
    return np.asarray(profile / profile.sum())


def critical_batch(curvatures: ArrayLike, momentum: ArrayLike = 0.0) -> Array:
    """Return the batch between noise-led and curvature-led escape, (1 + β)/(1 − β)·Σ' h_i/(h₁ − h_i).

    >>> print(f"{critical_batch([1.0, 0.5, 0.25]):.3f}, {critical_batch([1.0, 0.5, 0.25], momentum=0.9):.3f}")
    1.333, 25.333
    """
    h, beta = np.sort(_curvatures(curvatures))[::-1], np.asarray(momentum, dtype=np.float64)
    if h[0] == h[1:].max(initial=0.0):
        raise ValueError("critical_batch needs a largest curvature that is not repeated")
    return np.asarray((1 + beta) / (1 - beta) * np.sum(h[1:] / (h[0] - h[1:])))


def _curvatures(curvatures: ArrayLike) -> Array:
    h = np.asarray(curvatures, dtype=np.float64)
    if h.ndim != 1 or not (h > 0).all():
        raise ValueError(f"curvatures must be positive numbers of shape (d,), got {h}")
    return h
