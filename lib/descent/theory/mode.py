"""One mode of the linear heavy-ball system, exactly and at any step size.

Conventions, here and in `escape` and `linear`: v ← momentum·v + g, x ← x − lr·v from rest (v = 0), so
`lr` is always the raw heavy-ball rate α (see `convert`); `noise` is the variance σ² of the gradient noise of
one step, `multiplicative` the variance s² of the curvature of one step, both with the batch already in them.
Everything is float64 and broadcasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from descent.arrays import Array

Convention = Literal["heavy_ball", "ema", "dampened"]


@dataclass(frozen=True)
class Steps:
    """The same iteration in every convention.

    lr: raw heavy-ball rate α; effective: e = α/(1 − β), the travel per step along a constant gradient;
    inertia: λ = α/(1 − β)²; first: weight of the very first gradient in the heavy-ball buffer (1 from rest).
    """

    lr: Array
    effective: Array
    inertia: Array
    first: Array


def convert(
    lr: ArrayLike,
    momentum: ArrayLike,
    convention: Convention = "heavy_ball",
    *,
    dampening: ArrayLike | None = None,
    first: Literal["zero", "gradient"] | None = None,
) -> Steps:
    """Translate a learning rate into the heavy-ball rate, the effective step and the inertia.

    heavy_ball: v ← βv + g (torch, dampening 0); ema: v ← βv + (1 − β)g; dampened: v ← βv + (1 − τ)g with
    τ = `dampening`. The buffer starts at zero or at the first gradient, undampened, as torch does: then that
    gradient weighs 1/(1 − τ) in the heavy-ball buffer, a difference that lasts some 3/(1 − β) steps.
    Default: zero for heavy_ball and ema, gradient for dampened.

    convention: whose rate it is, "heavy_ball", "ema" or "dampened"; dampening: τ, for the convention of that name
    alone; first: whether the buffer starts at zero or at the first gradient.

    >>> steps = convert(0.1, 0.9)  # torch.optim.SGD(lr=0.1, momentum=0.9)
    >>> print(f"{steps.effective:.3g}, {steps.inertia:.3g}")
    1, 10
    >>> print(f"{convert(0.1, 0.9, 'ema').lr:.3g}")  # a running average makes the same steps at a tenth of the raw rate
    0.01
    """
    rate, beta = _rate(lr), _momentum(momentum)
    if (convention == "dampened") != (dampening is not None):
        raise ValueError(f"dampening belongs to convention='dampened' alone, got {convention!r}")
    gain = {"heavy_ball": np.ones_like(beta), "ema": 1 - beta}.get(convention)
    if gain is None:
        gain = 1 - np.asarray(dampening, dtype=np.float64)
    if (gain <= 0).any():
        raise ValueError("dampening must stay below 1: at 1 the buffer never receives a gradient")
    start = first or ("gradient" if convention == "dampened" else "zero")
    raw, weight = rate * gain, 1 / gain if start == "gradient" else np.ones_like(gain)
    return Steps(raw, raw / (1 - beta), raw / (1 - beta) ** 2, weight + np.zeros_like(raw))


def matched_lr(effective: ArrayLike, momentum: ArrayLike) -> Array:
    """Return the raw rate α = e(1 − β) with the given effective step e: the equal-effective-step control.

    >>> matched_lr(1.0, [0.0, 0.5, 0.9]).round(3).tolist()
    [1.0, 0.5, 0.1]
    """
    return _rate(effective) * (1 - _momentum(momentum))


def roots(curvature: ArrayLike, lr: ArrayLike, momentum: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return z₊, z₋ of z² − (1 + β − αh)z + β = 0; complex arrays where any mode is underdamped.

    A saddle has negative curvature; there z₊ > 1 > z₋ ≥ 0. Always z₊z₋ = β.
    """
    h, alpha, beta = _broadcast(curvature, lr, momentum)
    trace, lift = 1 + beta - alpha * h, alpha * h
    width = np.emath.sqrt((1 - beta - lift) ** 2 - 4 * beta * lift)  # trace² − 4β without its cancellation
    return (trace + width) / 2, (trace - width) / 2


def nesterov_roots(curvature: ArrayLike, lr: ArrayLike, momentum: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both roots of z² − (1 + β)(1 − αh)z + β(1 − αh) = 0, Nesterov's form without dampening."""
    h, alpha, beta = _broadcast(curvature, lr, momentum)
    factor = 1 - alpha * h
    width = np.emath.sqrt(((1 + beta) * factor) ** 2 - 4 * beta * factor)
    return ((1 + beta) * factor + width) / 2, ((1 + beta) * factor - width) / 2


def growth(instability: ArrayLike, lr: ArrayLike, momentum: ArrayLike) -> Array:
    """Return the growth rate per step log z₊ along unstable curvature −b, b = `instability` > 0.

    >>> growth(instability=1.0, lr=0.1, momentum=[0.0, 0.9]).round(3).tolist()  # at equal lr momentum leaves sooner
    [0.095, 0.275]
    >>> growth(instability=1.0, lr=[0.1, 0.01], momentum=[0.0, 0.9]).round(3).tolist()  # at equal effective step later
    [0.095, 0.063]
    """
    b, alpha, beta = _broadcast(_unstable(instability), lr, momentum)
    lift = alpha * b  # z₊ − 1 solves δ² + δ(1 − β − αb) = αb; written without cancellation for small αb
    brake = 1 - beta - lift
    width = np.sqrt(brake**2 + 4 * lift)
    excess = np.where(brake > 0, 2 * lift / (brake + width), (width - brake) / 2)
    return np.asarray(np.log1p(excess))


def growth_ceiling(instability: ArrayLike, lr: ArrayLike) -> Array:
    """Return the growth rate as momentum → 1 at fixed lr, log(1 + (αb + √(α²b² + 4αb))/2) ≈ √(αb)."""
    lift = _rate(lr) * _unstable(instability)
    return np.asarray(np.log1p((lift + np.sqrt(lift**2 + 4 * lift)) / 2))


def inertial_efficiency(inertia_instability: ArrayLike) -> Array:
    """Return growth/(eb) as momentum → 1 at fixed λb, (√(1 + 4λb) − 1)/(2λb); 1 where inertia is nil.

    inertia_instability: λb.
    """
    y = np.asarray(inertia_instability, dtype=np.float64)
    return np.asarray(2 / (1 + np.sqrt(1 + 4 * y)))


def inertial_roots(curvature: ArrayLike, inertia: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the rates (−1 ± √(1 − 4λh))/2 of x'' = −x' − λhx, in units of (1 − β) per step, for β → 1."""
    h, inertia = np.asarray(curvature, dtype=np.float64), np.asarray(inertia, dtype=np.float64)
    width = np.emath.sqrt(1 - 4 * inertia * h)
    return (-1 + width) / 2, (-1 - width) / 2


def critical_damping(momentum: ArrayLike) -> Array:
    """Return αh = (1 − √β)², below which a mode of an optimum does not oscillate (λh = 1/4 as β → 1)."""
    return np.asarray((1 - np.sqrt(_momentum(momentum))) ** 2)


def stable(curvature: ArrayLike, lr: ArrayLike, momentum: ArrayLike) -> NDArray[np.bool_]:
    """Tell where the noise-free iteration contracts: 0 < αh < 2(1 + β).

    >>> stable(curvature=1.0, lr=[1.9, 2.1], momentum=0.0).tolist()
    [True, False]
    >>> stable(curvature=1.0, lr=[1.9, 2.1], momentum=0.9).tolist()
    [True, True]
    """
    h, alpha, beta = _broadcast(curvature, lr, momentum)
    return np.asarray((alpha * h > 0) & (alpha * h < 2 * (1 + beta)))


def kernel(h_i: ArrayLike, h_j: ArrayLike, lr: ArrayLike, momentum: ArrayLike) -> Array:
    """Return K(h_i, h_j), noise covariance over stationary covariance of two modes; for drifts see `memory`.

    K = (h_i + h_j)/e − (1 − β)/(1 + β)·h_i h_j + β/(1 − β²)·(h_i − h_j)², e = α/(1 − β).
    The diagonal is plain SGD's at lr α/(1 + β) and a batch smaller by (1 − β)/(1 + β); the last term,
    dephasing, is what no SGD imitates.

    h_i, h_j: curvatures of the two modes.

    >>> kernel(1.0, [1.0, 2.0], lr=0.1, momentum=0.9).round(3).tolist()
    [1.947, 7.632]
    """
    h, k, alpha, beta = _broadcast(h_i, h_j, lr, momentum)
    drift, shrink = (h + k) * (1 - beta) / alpha, (1 - beta) / (1 + beta) * h * k
    return np.asarray(drift - shrink + beta / (1 - beta**2) * (h - k) ** 2)


def stationary_variance(
    curvature: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0, multiplicative: ArrayLike = 0.0
) -> Array:
    """Return E x² at the optimum of a mode, σ²/(K(h, h) − s²); infinite where it does not exist.

    Without multiplicative noise ασ²(1 + β)/((1 − β)h(2(1 + β) − αh)) ≈ eσ²/(2h) for small steps.

    >>> stationary_variance(curvature=1.0, lr=[0.01, 0.1, 4.0], momentum=0.9).round(3).tolist()
    [0.05, 0.514, inf]
    """
    margin = kernel(curvature, curvature, lr, momentum) - np.asarray(multiplicative, dtype=np.float64)
    exists = stable(curvature, lr, momentum) & (margin > 0)
    return np.asarray(np.where(exists, np.asarray(noise) / np.where(exists, margin, 1.0), np.inf))


def displacement_variance(
    curvature: ArrayLike, lr: ArrayLike, momentum: ArrayLike, noise: ArrayLike = 1.0, multiplicative: ArrayLike = 0.0
) -> Array:
    """Return E(x_{t+1} − x_t)² at stationarity, 2V(1 − ρ₁) = 2V·αh/(1 + β)."""
    h, alpha, beta = _broadcast(curvature, lr, momentum)
    return stationary_variance(h, alpha, beta, noise, multiplicative) * (2 * alpha * h / (1 + beta))


def autocorrelation(lag: ArrayLike, curvature: ArrayLike, lr: ArrayLike, momentum: ArrayLike) -> Array:
    """Return the autocorrelation ρ at a whole-number lag, with or without multiplicative noise.

    ρ₁ = (1 + β − αh)/(1 + β), ρ_{k+1} = (1 + β − αh)ρ_k − βρ_{k−1}; an underdamped mode oscillates.

    lag: how many steps apart.
    """
    lags = np.abs(np.asarray(lag))
    if not np.issubdtype(lags.dtype, np.integer):
        raise ValueError(f"lag counts steps and must be of integer type, got {lags.dtype}")
    h, alpha, beta = _broadcast(curvature, lr, momentum)
    lags, trace, beta = np.broadcast_arrays(lags, 1 + beta - alpha * h, beta)
    earlier, value = trace / (1 + beta), np.ones_like(trace)  # ρ₋₁ = ρ₁
    result = value.copy()
    for step in range(1, int(lags.max(initial=0)) + 1):
        earlier, value = value, trace * value - beta * earlier
        result = np.where(lags == step, value, result)
    return result


def search_noise_power(
    curvature: ArrayLike,
    lr: ArrayLike,
    momentum: ArrayLike,
    noise: ArrayLike = 1.0,
    multiplicative: ArrayLike = 0.0,
    convention: Literal["heavy_ball", "ema"] = "heavy_ball",
) -> Array:
    """Return E(direction − hx)² at stationarity, the noise of the search direction.

    In units of the gradient noise N = σ² + s²V, and for small steps:
    heavy_ball, direction v: (2 − αh(1 − β))/((1 − β)(2(1 + β) − αh)) → 1/(1 − β²);
    ema, direction (1 − β)v, z = eh: (2(1 − β) + z(3β − 1))/(2(1 + β) − z(1 − β)) → (1 − β)/(1 + β),
    below 1 exactly where z < 2. `lr` is the raw rate in both: the iterates are the same.

    convention: whose direction it is, v or (1 − β)v.
    """
    h, alpha, beta = _broadcast(curvature, lr, momentum)
    variance = stationary_variance(h, alpha, beta, noise, multiplicative)
    exists, s2 = np.isfinite(variance), np.asarray(multiplicative, dtype=np.float64)
    power = np.asarray(noise) + s2 * np.where(exists, variance, 0.0)
    raw = (2 - alpha * h * (1 - beta)) / ((1 - beta) * (2 * (1 + beta) - alpha * h))
    z = alpha * h / (1 - beta)
    unit = (2 * (1 - beta) + z * (3 * beta - 1)) / (2 * (1 + beta) - z * (1 - beta))
    return np.asarray(np.where(exists, power * (raw if convention == "heavy_ball" else unit), np.inf))


def mode_edge(curvature: ArrayLike, momentum: ArrayLike, multiplicative: ArrayLike) -> Array:
    """Return the largest mean-square stable raw lr of one mode, 2h(1 + β)/(h² + (1 + β)/(1 − β)·s²).

    >>> mode_edge(1.0, momentum=[0.0, 0.9], multiplicative=0.5).round(3).tolist()
    [1.333, 0.362]
    """
    h, beta, s2 = _broadcast(curvature, momentum, multiplicative)
    return np.asarray(2 * h * (1 + beta) / (h**2 + (1 + beta) / (1 - beta) * s2))


def crossover_batch(curvature: ArrayLike, momentum: ArrayLike, multiplicative: ArrayLike) -> Array:
    """Return the batch above which momentum raises the edge at equal raw lr, (s₁²/h²)(1 + β)/(1 − β).

    `multiplicative` is s₁², of one example. At equal effective step momentum raises the edge at every batch.

    >>> print(f"{crossover_batch(1.0, momentum=0.9, multiplicative=2.0):.3g}")
    38
    """
    h, beta, s2 = _broadcast(curvature, momentum, multiplicative)
    return np.asarray(s2 / h**2 * (1 + beta) / (1 - beta))


def _broadcast(*values: ArrayLike) -> tuple[Array, ...]:
    return tuple(np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values)))


def _momentum(momentum: ArrayLike) -> Array:
    beta = np.asarray(momentum, dtype=np.float64)
    if not ((beta >= 0) & (beta < 1)).all():
        raise ValueError(f"momentum must lie in [0, 1), got {beta}")
    return beta


def _rate(lr: ArrayLike) -> Array:
    rate = np.asarray(lr, dtype=np.float64)
    if not (rate > 0).all():
        raise ValueError(f"lr must be positive, got {rate}")
    return rate


def _unstable(instability: ArrayLike) -> Array:
    b = np.asarray(instability, dtype=np.float64)
    if not (b > 0).all():
        raise ValueError(f"instability is minus the negative curvature: it must be positive, got {b}")
    return b
