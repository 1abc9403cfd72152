"""Exact mean-square theory of SGD on a random quadratic: thresholds, growth rates, bounds, noise floors.

A step sees the mean of k random Hessians Q. With M = E[Q] and V(S) = E[QSQ] − MSM, the second moment S = E[v vᵀ] of
the distance v to a common minimiser obeys

    S ↦ (I − CM) S (I − CM) + C² p V(S),

C the step (`lr`) and p the share of one example's noise that a batch keeps: 1/k with replacement, (n − k)/(k(n − 1))
without. It decays exactly where C stays below C*(k), `threshold`. Everything lives in the range of M, in its
eigenbasis: where M is singular, the full space holds directions that no step moves.

A `problem` is an array of examples, rows (n, d) for Hessians x xᵀ or symmetric Hessians (n, d, d), all equally likely;
or its moments: `Gaussian` features, or one quadratic under random weights, `Weighted`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize
from scipy.sparse.linalg import LinearOperator, eigs, eigsh

from descent.arrays import Array
from descent.theory.linear import (
    _eigenmodes,
    _spread,
    aligned_edge,
    batch_share,
    mean_hessian,
    mean_square_edge,
    mode_edge,
    stationary_covariance,
)

__all__ = [
    "Bounds", "CheapBounds", "Finite", "Gaussian", "Moments", "Problem", "Weighted", "bounds", "cheap_bounds",
    "gaussian_threshold", "growth_rate", "moment_operator", "nesterov_growth", "nesterov_threshold", "noise_floor",
    "noise_range", "residuals", "step_range", "threshold",
]  # fmt: skip

_DENSE = 400  # entries of a second moment up to which its operator is written out


@runtime_checkable
class Moments(Protocol):
    """The first two moments of a random Hessian, in the eigenbasis of its mean."""

    @property
    def curvatures(self) -> Array:
        """The positive eigenvalues λ of M, (m,)."""

    def spread(self, covariance: Array) -> Array:
        """Return V(S) of one example, (m, m) → (m, m)."""

    def edge(self, momentum: float, share: float) -> float:
        """Return the largest mean-square stable lr of heavy ball."""


class Finite:
    """Examples that are all equally likely, rows (n, d) or symmetric Hessians (n, d, d)."""

    def __init__(self, examples: ArrayLike) -> None:
        self.curvatures, self.rotated = _eigenmodes(examples)
        self._spread = _spread(self.rotated, self.curvatures, 1.0)

    def spread(self, covariance: Array) -> Array:
        """Return V(S)."""
        return self._spread(covariance)

    def edge(self, momentum: float, share: float) -> float:
        """Return 2/λ_max(K^{−½}(M⊗M + pV)K^{−½}), K = ½(M⊗I + I⊗M); with momentum by root finding."""
        if momentum:
            return mean_square_edge(self.rotated, momentum, share)
        root, outer = np.sqrt(np.add.outer(self.curvatures, self.curvatures) / 2), _outer(self.curvatures)

        def pencil(s: Array) -> Array:
            s = s / root
            return np.asarray((outer * s + share * self.spread(s)) / root)

        return 2 / _largest(pencil, len(root), symmetric=True)


@dataclass(frozen=True)
class Gaussian:
    """Q = x xᵀ with x ~ N(0, diag(spectrum)): V(S) = MSM + tr(MS)M."""

    spectrum: tuple[float, ...]

    @property
    def curvatures(self) -> Array:
        """The eigenvalues of M."""
        return np.array(self.spectrum)

    def spread(self, covariance: Array) -> Array:
        """Return V(S)."""
        h = self.curvatures
        return np.asarray(_outer(h) * covariance + np.diag(h) * (h @ np.diag(covariance)))

    def edge(self, momentum: float, share: float) -> float:
        """Return the C of Σ g/(1 − g) = 1, g = pCλ(1 + β)/((1 − β)(2(1 + β) − Cλ))."""
        if share == 0:
            return float(2 * (1 + momentum) / self.curvatures.max())
        return aligned_edge(self.curvatures, momentum, share, gaussian=True)


@dataclass(frozen=True)
class Weighted:
    """Q = w·diag(spectrum) with E w = 1 and Var w = `variance`: V(S) = variance·MSM."""

    spectrum: tuple[float, ...] = (1.0,)
    variance: float = 1.0

    @property
    def curvatures(self) -> Array:
        """The eigenvalues of M."""
        return np.array(self.spectrum)

    def spread(self, covariance: Array) -> Array:
        """Return V(S)."""
        return np.asarray(self.variance * _outer(self.curvatures) * covariance)

    def edge(self, momentum: float, share: float) -> float:
        """Return 2(1 + β)/(λ(1 + p·variance·(1 + β)/(1 − β))) of the largest λ."""
        h = self.curvatures
        return float(mode_edge(h, momentum, share * self.variance * h**2).min())


Problem = Moments | ArrayLike
"""Moments of the examples' Hessians, or the Hessians themselves."""


class Bounds(NamedTuple):
    """One-step bounds: below `lower` E[vᵀMv] shrinks from any v, above `upper` it grows from any v."""

    lower: float  # no start grows below it
    upper: float  # every start grows above it


class CheapBounds(NamedTuple):
    """Upper bounds on the threshold from two test matrices, u₁u₁ᵀ and M."""

    top: float  # from u₁u₁ᵀ
    mean: float  # from M


def threshold(problem: Problem, batch_size: float, momentum: float = 0.0, *, replacement: bool = True) -> float:
    """Return C*(k), the lr below which E|v|² decays. batch_size may be infinite: 2(1 + β)/λ₁.

    Plain SGD as in Mulayoff and Michaeli (COLT 2024, arXiv:2306.07850); heavy ball by the kernel of `mode`.
    """
    moments, share = _resolve(problem, batch_size, replacement)
    return moments.edge(momentum, share)


def growth_rate(
    problem: Problem, lr: float, batch_size: float, momentum: float = 0.0, *, replacement: bool = True
) -> float:
    """Return ½ log ρ(T), the growth of √E|v|² per step, T the map of second moments."""
    step, size = _second_moment(*_resolve(problem, batch_size, replacement), lr, momentum)
    return float(np.log(_largest(step, size, symmetric=momentum == 0)) / 2)


def moment_operator(
    problem: Problem, lr: float, batch_size: float, momentum: float = 0.0, *, replacement: bool = True
) -> Array:
    """Return the matrix T of S ↦ E s'sᵀ' on vectorised second moments, (m², m²), in the eigenbasis of M.

    The state s is v, or (v_t, v_{t−1}) of heavy ball: T = A₀⊗A₀ + C²p(E⊗E)V(R⊗R), (4m², 4m²).
    """
    return _written(*_second_moment(*_resolve(problem, batch_size, replacement), lr, momentum))


def bounds(problem: Problem, batch_size: float, *, replacement: bool = True) -> Bounds:
    """Return min and max of 2λ/(λ² + p t) over λ, with t the largest and the smallest of noise_range.

    The minimum sits at λ₁ for k > t/(λ₁λ_m), at λ_m below. Eigenvalues under 1e-12 of the largest count as zero.
    """
    moments, share = _resolve(problem, batch_size, replacement)
    h, (least, most) = moments.curvatures, noise_range(moments)
    low, high = (2 * h / (h**2 + share * t) for t in (most, least))
    return Bounds(float(low.min()), float(high.max()))


def noise_range(problem: Problem) -> tuple[float, float]:
    """Return the smallest and the largest vᵀV(M)v / vᵀMv over v in the range of M, of one example."""
    moments, _ = _resolve(problem, 1, True)
    return _relative_range(moments.spread(np.diag(moments.curvatures)), moments.curvatures)


def step_range(problem: Problem, lr: float, batch_size: float, *, replacement: bool = True) -> tuple[float, float]:
    """Return the smallest and the largest one-step ratio E[v'ᵀMv'] / vᵀMv over v in the range of M."""
    moments, share = _resolve(problem, batch_size, replacement)
    h = np.diag(moments.curvatures)
    return _relative_range(h - 2 * lr * h**2 + lr**2 * (h**3 + share * moments.spread(h)), moments.curvatures)


def cheap_bounds(problem: Problem, batch_size: float, *, replacement: bool = True) -> CheapBounds:
    """Return 2λ₁/(λ₁² + p Var(u₁ᵀQu₁)) and 2 tr M³/(tr M⁴ + p tr(M V(M))), both at least the threshold."""
    moments, share = _resolve(problem, batch_size, replacement)
    h = moments.curvatures
    top, axis = int(h.argmax()), np.zeros((len(h), len(h)))
    axis[top, top] = 1.0
    noise = share * h @ np.diag(moments.spread(np.diag(h)))
    first = 2 * h[top] / (h[top] ** 2 + share * moments.spread(axis)[top, top])
    return CheapBounds(float(first), float(2 * np.sum(h**3) / (np.sum(h**4) + noise)))


def gaussian_threshold(curvatures: ArrayLike, batch_size: float, momentum: float = 0.0) -> float:
    """Return C*(k) of Gaussian features; 2(1 + β)/(λ(1 + (1 + β)(d + 1)/((1 − β)k))) for d equal curvatures λ."""
    return threshold(Gaussian(tuple(np.atleast_1d(np.asarray(curvatures, dtype=np.float64)))), batch_size, momentum)


def noise_floor(
    examples: ArrayLike,
    offsets: ArrayLike,
    lr: float,
    batch_size: float,
    momentum: float = 0.0,
    *,
    replacement: bool = True,
) -> Array:
    """Return S_∞ = E[v vᵀ] at stationarity where gradients Qθ + r do not all vanish at the minimiser, (d, d).

    S_∞ = (I − T)^{−1} C²p Cov(Qθ* + r); one direction: C p σ²/(2m − C(m² + p s²)). offsets: r, (n, d).
    Raises: ValueError at or above the threshold, where there is no floor.
    """
    share = float(batch_share(batch_size, None if replacement else len(np.asarray(examples))))
    mean = mean_hessian(examples)
    residual = residuals(examples, offsets)
    noise = residual.T @ residual / len(residual)
    return stationary_covariance(mean, noise, lr, momentum, V=examples, share=share)


def residuals(examples: ArrayLike, offsets: ArrayLike) -> Array:
    """Return the examples' gradients Qθ* + r at the minimiser θ* of the mean, (n, d).

    offsets: r of every example, (n, d).
    """
    q, r = (np.asarray(values, dtype=np.float64) for values in (examples, offsets))
    best = -np.linalg.pinv(mean_hessian(q), hermitian=True) @ r.mean(0)
    return np.asarray(r + (q * (q @ best)[:, None] if q.ndim == 2 else q @ best))


def nesterov_growth(curvature: float, lr: float, momentum: float, multiplicative: float) -> float:
    """Return ½ log ρ of the moments (v_t², v_t v_{t−1}, v_{t−1}²) under v' = (1 − Cq)((1 + β)v − βv_).

    multiplicative: the variance of the curvature in one step, the batch already in it.
    """
    rho, beta = 1 - lr * curvature, momentum
    e, up = rho**2 + lr**2 * multiplicative, 1 + momentum
    rows = [[e * up**2, -2 * e * beta * up, e * beta**2], [rho * up, -rho * beta, 0.0], [1.0, 0.0, 0.0]]
    return float(np.log(np.abs(np.linalg.eigvals(rows)).max()) / 2)


def nesterov_threshold(curvature: float, batch_size: float, momentum: float, multiplicative: float) -> float:
    """Return the largest mean-square stable lr of Nesterov's rule in one direction; `multiplicative` of one example.

    Without noise 2(1 + β)/(m(1 + 2β)): unlike heavy ball's, below plain descent's 2/m.
    """
    limit = 2 * (1 + momentum) / (curvature * (1 + 2 * momentum))
    if not multiplicative / batch_size:
        return limit

    def excess(lr: float) -> float:
        return nesterov_growth(curvature, lr, momentum, multiplicative / batch_size)

    return float(optimize.brentq(excess, 1e-9 * limit, limit, xtol=1e-300, rtol=1e-13))


def _resolve(problem: Problem, batch_size: float, replacement: bool) -> tuple[Moments, float]:
    """Return the moments and the share of one example's noise that a batch keeps."""
    if isinstance(problem, Moments):
        if not replacement:
            raise ValueError("without replacement needs the array of examples: their number sets the noise of a batch")
        return problem, float(batch_share(batch_size))
    examples = np.asarray(problem, dtype=np.float64)
    if not replacement and batch_size > len(examples):
        raise ValueError(f"cannot draw {batch_size} of {len(examples)} examples without replacement")
    return Finite(examples), float(batch_share(batch_size, None if replacement else len(examples)))


def _second_moment(moments: Moments, share: float, lr: float, momentum: float) -> tuple[Callable[[Array], Array], int]:
    """Return the map of second moments of the state, and the size of the state."""
    h = moments.curvatures
    m, noise = len(h), lr**2 * share
    if momentum == 0:
        shrink = _outer(1 - lr * h)
        return lambda s: np.asarray(shrink * s + noise * moments.spread(s)), m
    ones, eye = np.eye(m), np.zeros((m, m))
    advance = np.block([[np.diag(1 + momentum - lr * h), -momentum * ones], [ones, eye]])

    def step(s: Array) -> Array:
        moved = advance @ s @ advance.T
        moved[:m, :m] += noise * moments.spread(s[:m, :m])
        return np.asarray(moved)

    return step, 2 * m


def _written(apply: Callable[[Array], Array], size: int) -> Array:
    """Write a linear map of (size, size) matrices as a matrix."""
    return np.stack([apply(unit).ravel() for unit in np.eye(size**2).reshape(-1, size, size)], axis=1)


def _largest(apply: Callable[[Array], Array], size: int, *, symmetric: bool) -> float:
    """Return the largest eigenvalue of a map that keeps the positive cone, which is its spectral radius.

    Second moments are symmetric, so the map is made to see symmetric matrices only: a nearly antisymmetric rounding
    part would otherwise grow.
    """
    if size**2 <= _DENSE:
        matrix = _written(apply, size)
        return float(np.linalg.eigvalsh(matrix)[-1] if symmetric else np.abs(np.linalg.eigvals(matrix)).max())

    def matvec(flat: Array) -> Array:
        s = flat.reshape(size, size)
        return apply((s + s.T) / 2).ravel()

    operator = LinearOperator((size**2, size**2), matvec=matvec, dtype=np.float64)
    begin = np.eye(size).ravel()
    if symmetric:
        return float(eigsh(operator, 1, which="LA", v0=begin, tol=1e-7, return_eigenvectors=False)[0])
    return float(np.abs(eigs(operator, 1, which="LM", v0=begin, tol=1e-7, return_eigenvectors=False)).max())


def _relative_range(matrix: Array, curvatures: Array) -> tuple[float, float]:
    """Return the range of vᵀAv / vᵀMv."""
    root = np.sqrt(curvatures)
    values = np.linalg.eigvalsh(matrix / np.multiply.outer(root, root))
    return float(values[0]), float(values[-1])


def _outer(values: Array) -> Array:
    return np.asarray(np.multiply.outer(values, values))
