"""Where a stationary run sits: the curvature that batches see, S = E|g_B|²/E xᵀHx, and the edge it is at.

In every stationary state of a quadratic, commuting or not,

    S = (2/e)/(1 − φ(1 − 1/c)),    φ = E|Hx|²/E|g_B|² the part of signal,  c = (1 + β)/(1 − β),

2/e where noise rules (of plain descent always) and 2c/e where there is none: the two plateaus of batch sharpness
(Andreyev and Beneventano 2024; with momentum Andreyev et al. 2026) are one law.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from descent.arrays import Array
from descent.theory.linear import _eigenmodes, _spread, mean_square_edge
from descent.theory.memory import momentum_factor
from descent.theory.mode import kernel
from descent.theory.moments import _written

__all__ = ["Energy", "OwnEdge", "energy", "own_edge", "plateau"]


class Energy(NamedTuple):
    """The curvature S that batches see, and the part φ of signal in the power of their gradients."""

    sharpness: float  # S, the curvature that batches see
    signal: float  # φ = E|Hx|²/E|g|²


class OwnEdge(NamedTuple):
    """The effective step e* at the mean-square edge, eS/2 there, and φ."""

    effective: float
    plateau: float  # eS/2 at the edge
    signal: float  # φ = E|Hx|²/E|g|²


def plateau(signal: ArrayLike, momentum: ArrayLike) -> Array:
    """Return eS/2 = 1/(1 − φ(1 − 1/c)): from 1 where noise rules to c where there is none.

    signal: φ = E|Hx|²/E|g|², the part of the signal in the power of a batch's gradient.

    >>> plateau([0.0, 0.25, 1.0], momentum=0.9).round(4).tolist()
    [1.0, 1.3103, 19.0]
    """
    share = np.asarray(signal, dtype=np.float64)
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"signal is the part of the gradients' power that is no noise, between 0 and 1, got {share}")
    return np.asarray(1 / (1 - share * (1 - 1 / momentum_factor(momentum))))


def energy(hessian: ArrayLike, covariance: ArrayLike, noise: ArrayLike) -> Energy:
    """Return S and φ of a state of covariance E xxᵀ, the noise of a batch's gradient of that covariance.

    hessian: H, (d, d); covariance: E xxᵀ, (d, d); noise: covariance of a batch's gradient, (d, d).
    """
    h, m = np.asarray(hessian, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    signal = float(np.trace(h @ m @ h))
    power = signal + float(np.trace(np.asarray(noise, dtype=np.float64)))
    return Energy(power / float(np.trace(h @ m)), signal / power)


def own_edge(examples: ArrayLike, momentum: float, share: float = 1.0) -> OwnEdge:
    """Return where the mean-square load of examples (see `linear`) is 1, and what the growing state looks like there.

    For few modes: the map of second moments is written out.

    >>> edge = own_edge([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]], momentum=0.9)
    >>> print(f"e* = {edge.effective:.4f}, eS/2 = {edge.plateau:.4f}, φ = {edge.signal:.4f}")
    e* = 1.1781, eS/2 = 1.8582, φ = 0.4875
    """
    lr = mean_square_edge(examples, momentum, share)
    values, rotated = _eigenmodes(examples)
    root = np.sqrt(kernel(values[:, None], values[None, :], lr, momentum))
    spread = _spread(rotated, values, share)

    def noise_over_kernel(state: Array) -> Array:
        return np.asarray(spread(state / root) / root)

    _, vectors = np.linalg.eigh(_written(noise_over_kernel, len(values)))
    top = vectors[:, -1].reshape(root.shape) / root
    found = energy(np.diag(values), top, spread(top))
    effective = lr / (1 - momentum)
    return OwnEdge(effective, effective * found.sharpness / 2, found.signal)
