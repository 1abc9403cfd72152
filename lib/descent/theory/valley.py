"""How far a valley is left behind on the way down: drift towards flat ground, exactly and at any step.

L = ½h(y)x², y slow. Whatever the rule, y moves by −(e/2)h'Σx². What is drifted beyond gradient flow is, in units of
gradient flow's own way −h'x_0²/(4h),

    D(z; c, b) = z(c + b)/(2 − z(1/c + b)),    z = eh,  c = (1 + β)/(1 − β),

`spread` b the relative variance of a batch's curvature: signal counts c-fold, noise once, and the denominator is the
mean-square edge. Noise that stays (labels) drifts on for ever, at the same pace for every momentum up to discreteness
(Blanc et al. 2020, Damian et al. 2021).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from descent.arrays import Array
from descent.theory.memory import Memory, _valley, ceiling, momentum_factor, noise_gain, squared_travel
from descent.theory.mode import _momentum

__all__ = [
    "drift_crossing",
    "drift_ratio",
    "label_noise_factor",
    "memory_crossing",
    "memory_drift",
    "memory_edge",
    "moment_drift",
    "noisy_drift_factor",
    "qhm_crossing",
    "valley_drift",
    "valley_edge",
]


def valley_drift(z: ArrayLike, momentum: ArrayLike, spread: ArrayLike = 0.0, *, svag: ArrayLike = 1.0) -> Array:
    """Return D(z; c, b), the drift beyond gradient flow's over gradient flow's; infinite at and beyond the edge.

    svag: ℓ steps of e/ℓ with ℓ times the noise power in the place of one, which leaves the noise as it is and divides
    both terms of c by ℓ.

    >>> valley_drift(0.2, momentum=[0.0, 0.9], spread=0.5).round(4).tolist()
    [0.1765, 2.0641]
    """
    step, c, b, fine = np.broadcast_arrays(_valley(z), momentum_factor(momentum), _spread(spread), _svag(svag))
    room = 2 - step * (1 / (c * fine) + b)
    return np.asarray(np.where(room > 0, step * (c / fine + b) / np.where(room > 0, room, 1.0), np.inf))


def drift_ratio(z: ArrayLike, momentum: ArrayLike, spread: ArrayLike = 0.0) -> Array:
    """Return the drift over plain descent's, (c + b)(2 − z(1 + b))/((1 + b)(2 − z(1/c + b))).

    0 where plain descent diverges, not a number where both do.

    >>> drift_ratio([1e-6, 1.0, 1.9], momentum=0.9).round(3).tolist()  # from c = 19 down to 1, at z = 1 + β
    [19.0, 9.757, 1.0]
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(valley_drift(z, momentum, spread) / valley_drift(z, 0.0, spread))


def valley_edge(momentum: ArrayLike, spread: ArrayLike = 0.0) -> Array:
    """Return the largest z = eh that is stable in mean square, 2/(1/c + b).

    >>> valley_edge([0.0, 0.9], spread=0.125).round(3).tolist()
    [1.778, 11.259]
    """
    return np.asarray(2 / (1 / momentum_factor(momentum) + _spread(spread)))


def drift_crossing(momentum: ArrayLike, spread: ArrayLike = 0.0, label_noise: ArrayLike = 0.0) -> Array:
    """Return the z below which heavy ball drifts further than plain descent, (1 + β)/(1 + b + (1 − β)n/2).

    label_noise: n = 2eTσ²/x_0², the drift that T steps of label noise make, in units of plain descent's signal drift at
    small steps.

    >>> drift_crossing(0.8, spread=[0.0, 0.3], label_noise=[0.0, 3.0]).tolist()
    [1.8, 1.125]
    """
    beta, noise = _momentum(momentum), np.asarray(label_noise, dtype=np.float64)
    if not (noise >= 0).all():
        raise ValueError(f"label_noise is a ratio of drifts: it must not be negative, got {noise}")
    return np.asarray((1 + beta) / (1 + _spread(spread) + (1 - beta) / 2 * noise))


def qhm_crossing(momentum: ArrayLike, nu: ArrayLike) -> Array:
    """Return the z below which QHM drifts further than plain descent without noise, (1 + β)/(1 + β − βν).

    Nesterov's rule has ν = β.

    >>> qhm_crossing(0.9, [0.0, 0.9, 1.0]).round(3).tolist()
    [1.0, 1.743, 1.9]
    """
    beta = _momentum(momentum)
    return np.asarray((1 + beta) / (1 + beta * (1 - np.asarray(nu, dtype=np.float64))))


def memory_drift(rule: Memory, z: float, spread: float = 0.0) -> float:
    """Return the drift of any linear rule in the units of `valley_drift`; infinite at and beyond its edge.

    Noise of a batch's curvature is gradient noise of variance b·h²x², so that Σx² = S + b·G·Σx² with S the sum
    without it and G the `noise_gain`.

    >>> rules = Memory.heavy_ball(0.9), Memory.nesterov(0.9), Memory.stale(9)
    >>> [round(memory_drift(rule, 0.1, spread=0.5), 3) for rule in rules]
    [1.003, 0.839, 2.388]
    """
    room = 1 - float(_spread(spread)) * noise_gain(rule, z)
    return 2 * squared_travel(rule, z) / room - 1 if room > 0 else float("inf")


def memory_edge(rule: Memory, spread: float = 0.0) -> float:
    """Return the largest z = eh at which any linear rule is stable in mean square, its ceiling without noise.

    >>> [round(memory_edge(Memory.nesterov(0.9), spread), 3) for spread in (0.0, 0.5)]
    [13.571, 7.192]
    """
    top, b = ceiling(rule), float(_spread(spread))
    if b == 0:
        return top
    gone = next(room for room in 0.5 ** np.arange(1, 50) if b * noise_gain(rule, top * (1 - room)) > 1)
    low = 1e-3 * min(top, 1 / b)
    return float(brentq(lambda z: 1 / noise_gain(rule, z) - b, low, top * (1 - gone), xtol=1e-14, rtol=1e-14))


def memory_crossing(rule: Memory, spread: float = 0.0, share: float = 1.0) -> float:
    """Return the z up to which a linear rule drifts further than plain descent that takes `share` of its step.

    1 − β is the share at one learning rate. A rule that drifts further until it leaves, and plain descent itself, have
    their own edge here.

    share: of its step that plain descent takes.

    >>> [round(memory_crossing(rule), 3) for rule in (Memory.heavy_ball(0.9), Memory.nesterov(0.9), Memory.stale(9))]
    [1.9, 1.743, 0.165]
    """
    own, plain = memory_edge(rule, spread), float(valley_edge(0.0, spread)) / share
    if own <= plain * (1 + 1e-9):
        return own

    def gap(z: float) -> float:
        return 1 / memory_drift(rule, z, spread) - 1 / float(valley_drift(share * z, 0.0, spread))

    return float(brentq(gap, 1e-3 * plain, plain * (1 - 1e-9), xtol=1e-14, rtol=1e-14))


def noisy_drift_factor(momentum: ArrayLike, spread: ArrayLike) -> Array:
    """Return (c + b)/(1 + b), heavy ball's drift over plain descent's at small steps, b noise over signal.

    >>> noisy_drift_factor(0.9, [0.0, 1.0, 100.0]).round(3).tolist()
    [19.0, 10.0, 1.178]
    """
    b = _spread(spread)
    return np.asarray((momentum_factor(momentum) + b) / (1 + b))


def label_noise_factor(z: ArrayLike, momentum: ArrayLike) -> Array:
    """Return 1/(1 − z/(2c)), the drift of label noise over its small-step limit; infinite at and beyond the edge.

    Momentum takes nothing but discreteness from it: c·E|Δx|² = e²N/(1 − eh/(2c)) with noise of power N.

    >>> label_noise_factor(1.0, [0.0, 0.5, 0.9]).round(4).tolist()
    [2.0, 1.2, 1.027]
    """
    room = 1 - _valley(z) / (2 * momentum_factor(momentum))
    return np.asarray(np.where(room > 0, 1 / np.where(room > 0, room, 1.0), np.inf))


def moment_drift(z: float, momentum: float, spread: float = 0.0, noise: float = 0.0, steps: int | None = None) -> float:
    """Return cΣE(Δx)²/x_0² by the recursion of second moments, which knows none of the closed forms.

    noise: power of the gradient noise that stays, in units of h²x_0²; steps: how many (None: all, without noise).
    """
    if noise and steps is None:
        raise ValueError("noise that stays drifts for ever: say over how many steps")
    c, start = float(momentum_factor(momentum)), np.array([1.0, 0.0, 0.0])
    advance = _moments(float(_valley(z)), momentum, float(_spread(spread)))
    if steps is None:
        if np.abs(np.linalg.eigvals(advance)).max() >= 1:
            return float("inf")
        return c * float(np.linalg.solve(np.eye(3) - advance, start)[2])
    whole = np.zeros((5, 5))  # the moments, the constant that noise adds to, and the sum of E Δ²
    whole[:3, :3], whole[:3, 3] = advance, noise * ((1 - momentum) * z) ** 2
    whole[3, 3] = whole[4, 4] = 1
    whole[4, :4] = whole[2, :4]
    return c * float((np.linalg.matrix_power(whole, steps) @ [*start, 1.0, 0.0])[4])


def _moments(z: float, momentum: float, spread: float) -> Array:
    """Return the map of E(x², xΔ, Δ²), Δ the last step: Δ ← βΔ − (1 − β)z·w·x, x ← x + Δ, Var w = b."""
    pull = (1 - momentum) * z
    x, d = 1 - pull, momentum  # x' = x·(1 − pull) + βΔ, Δ' = −pull·x + βΔ
    noise = pull**2 * spread
    return np.array(
        [
            [x**2 + noise, 2 * x * d, d**2],
            [-pull * x + noise, d * (x - pull), d**2],
            [pull**2 + noise, -2 * pull * d, d**2],
        ]
    )


def _spread(spread: ArrayLike) -> Array:
    b = np.asarray(spread, dtype=np.float64)
    if not (b >= 0).all():
        raise ValueError(f"spread is the relative variance of a batch's curvature: it must not be negative, got {b}")
    return b


def _svag(svag: ArrayLike) -> Array:
    fine = np.asarray(svag, dtype=np.float64)
    if not (fine >= 1).all():
        raise ValueError(f"svag counts the steps that one is cut into: it must be at least 1, got {fine}")
    return fine
