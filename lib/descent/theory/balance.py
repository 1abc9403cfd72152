"""The balance law: what every run of a homogeneous model keeps account of, exactly.

Let ⟨u, ∂L/∂u⟩ = ⟨v, ∂L/∂v⟩ for every batch: factors of a product, layers of a linear or ReLU net, what goes into a
neuron and what comes out. Under heavy ball from rest, whatever the batches, the noise and the step,

    |u|² − |v|²  changes by  c Σ_t (|Δu_t|² − |Δv_t|²) − 2β/(1 − β) (⟨u_T, Δu_{T−1}⟩ − ⟨v_T, Δv_{T−1}⟩),

c = (1 + β)/(1 − β). The last term vanishes at rest. Where ⟨x, ∂L/∂x⟩ = 0, as for weights that are normalised, |x|²
alone obeys it. Conserved in the flow (Kunin et al. 2021), for finite steps only where the sum is empty.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from descent.arrays import Array
from descent.theory.memory import momentum_factor
from descent.theory.mode import _momentum, _rate

__all__ = ["balance_change", "gram_change", "qhm_change", "squared_change"]


def balance_change(first: ArrayLike, second: ArrayLike, momentum: float) -> Array:
    """Return what |u_T|² − |v_T|² has changed by since the start, (…,), of the paths u and v, (T + 1, …, n).

    The rate of the steps does not enter, and may differ from one path to the next, but must not move along it.
    """
    return np.asarray(squared_change(first, momentum) - squared_change(second, momentum))


def squared_change(path: ArrayLike, momentum: float) -> Array:
    """Return cΣ|Δx|² − 2β/(1 − β)⟨x_T, Δx_{T−1}⟩ of a path (T + 1, …, n), (…,).

    The change of |x|² where the gradient is orthogonal to x; otherwise that plus 2e Σ⟨x, g⟩.

    path: the parameters, step by step.
    """
    points = np.asarray(path, dtype=np.float64)
    return np.asarray(gram_change(points[..., None, :], momentum)[..., 0, 0])


def gram_change(path: ArrayLike, momentum: float) -> Array:
    """Return the same of a path of matrices W (T + 1, …, k, n) for WWᵀ, symmetric, (…, k, k).

    Of two linear layers W₂W₁ the difference gram_change(W₂ᵀ) − gram_change(W₁) is the change of W₂ᵀW₂ − W₁W₁ᵀ.

    path: the matrices, step by step.
    """
    points = _path(path)
    steps = np.diff(points, axis=0)
    beta = float(_momentum(momentum))
    last = 2 * beta / (1 - beta) * _product(points[-1], steps[-1])
    return np.asarray(momentum_factor(beta) * _gram(steps).sum(0) - last)


def qhm_change(path: ArrayLike, gradients: ArrayLike, effective: float, momentum: float, nu: float) -> Array:
    """Return what takes the place of squared_change under QHM, (…,); Nesterov's rule has ν = β.

    cΣ|Δ|² + 2β/(1 − β)·[e(1 − ν)Σ_{t<T−1}⟨Δ, g⟩ − ⟨x_T, Δ_{T−1}⟩], with gradients (T, …, n) of the same steps.

    path: the parameters, step by step. gradients: at the first T of them.
    """
    points, slopes = np.asarray(path, dtype=np.float64), np.asarray(gradients, dtype=np.float64)
    steps = np.diff(points, axis=0)
    if slopes.shape != steps.shape:
        raise ValueError(f"a path of {steps.shape} steps needs as many gradients, got {slopes.shape}")
    beta = float(_momentum(momentum))
    work = float(_rate(effective)) * (1 - nu) * (steps * slopes)[:-1].sum((0, -1))
    return np.asarray(squared_change(points, beta) + 2 * beta / (1 - beta) * work)


def _path(path: ArrayLike) -> Array:
    points = np.asarray(path, dtype=np.float64)
    if points.ndim < 3 or len(points) < 2:
        raise ValueError(f"a path has at least two points, the steps on its first axis, got shape {points.shape}")
    return points


def _gram(matrices: Array) -> Array:
    return np.asarray(matrices @ matrices.swapaxes(-1, -2))


def _product(left: Array, right: Array) -> Array:
    """Return the symmetric part of left·rightᵀ."""
    product = left @ right.swapaxes(-1, -2)
    return np.asarray(product + product.swapaxes(-1, -2)) / 2
