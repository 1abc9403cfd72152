"""Drift along minima that form a curve, to leading order in the step.

Gradient flow conserves the balance |u|² − |v|² of two factors; every finite step shrinks it, a step made of signal
c = (1 + β)/(1 − β) times as much with momentum as without, a step made of noise as much. The exact discrete law is in
`balance`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from descent.arrays import Array
from descent.theory.memory import Memory, momentum_factor
from descent.theory.mode import _rate

__all__ = ["imbalance_rate", "uv_drift", "uv_path", "uv_residual"]

_GONE = 1e3  # from where no step comes back


def imbalance_rate(signal: ArrayLike, noise: ArrayLike, effective: ArrayLike, momentum: ArrayLike) -> Array:
    """Return −d log|u_i² − v_i²|/dτ = e(c·g_i² + Σ_ii) of a product w_i = u_i v_i.

    signal: g_i², of the mean gradient with respect to w; noise: Σ_ii, its variance in one step, the batch in it.

    >>> imbalance_rate(signal=1.0, noise=[0.0, 1.0], effective=0.1, momentum=0.9).round(3).tolist()
    [1.9, 2.0]
    """
    power, spread = np.asarray(signal, dtype=np.float64), np.asarray(noise, dtype=np.float64)
    return np.asarray(_rate(effective) * (momentum_factor(momentum) * power + spread))


def uv_residual(u: ArrayLike, v: ArrayLike) -> Array:
    """Return ∫(uv − 1)²dτ along gradient flow on ½(uv − 1)², from (u, v) to the hyperbola uv = 1.

    F(w_0) − F(1) with F(w) = ¼√(q² + 4w²) − ½ asinh(2w/|q|), w = uv and q = u² − v² conserved.

    u, v: the two factors at the start.

    >>> print(f"{uv_residual(3.0, 0.05):.8f}")
    0.03992729
    """
    first, second = (np.asarray(value, dtype=np.float64) for value in (u, v))
    q, w = np.abs(first**2 - second**2), first * second
    if not (q > 0).all():
        raise ValueError("u² = v² is balanced, and stays it under every rule: there is nothing that could drift")
    return np.asarray(_potential(w, q) - _potential(np.ones_like(w), q))


def uv_drift(u: ArrayLike, v: ArrayLike, effective: ArrayLike, momentum: ArrayLike) -> Array:
    """Return the change of log|u² − v²| on ½(uv − 1)², −ec∫(uv − 1)²dτ; the minimum found has curvature √(q² + 4).

    u, v: the two factors at the start.

    >>> uv_drift(3.0, 0.05, effective=0.002, momentum=[0.0, 0.9]).round(7).tolist()
    [-7.99e-05, -0.0015172]
    """
    return np.asarray(-_rate(effective) * momentum_factor(momentum) * uv_residual(u, v))


def uv_path(rule: Memory, start: tuple[float, float], effective: float, steps: int) -> Array:
    """Return the path of a linear rule on ½(uv − 1)² from rest, (steps + 1, 2); one that leaves stops.

    >>> print((uv_path(Memory.heavy_ball(0.9), (3.0, 0.05), 0.2, 600)[-1] ** 2).sum().round(6))
    7.898718
    """
    shares, path, gradients = rule.shares, [np.array(start)], [np.zeros(2)] * len(rule.weights)
    tail = np.zeros(2)
    for _ in range(steps):
        u, v = path[-1]
        gradients = [(u * v - 1) * np.array([v, u]), *gradients[:-1]]
        tail = rule.tail * tail + shares[-1] * gradients[-1]
        step = sum((w * g for w, g in zip(shares[:-1], gradients[:-1], strict=True)), start=tail)
        path.append(path[-1] - effective * step if np.abs(path[-1]).max() < _GONE else path[-1])
    return np.array(path)


def _potential(w: Array, q: Array) -> Array:
    return np.asarray(np.sqrt(q**2 + 4 * w**2) / 4 - np.arcsinh(2 * w / q) / 2)
