"""Why momentum learns the feature of small margins: coasting, the race with memory, and the step that overshoots.

EMA convention: v ← γv + (1 − γ)g, x ← x − ηv. For 1 − γ → 0 and τ = (1 − γ)t it becomes W″ = −W′ − λ∇L,
λ = η/(1 − γ): one number replaces the two. Energy ½W′² + λL falls, so the speed never exceeds √(2λΔL), and once the
force is gone the way left to go equals the speed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp

from descent.arrays import Array

__all__ = [
    "CATAPULT",
    "Race",
    "coasting",
    "coasting_distance",
    "critical_feature",
    "feature_flow",
    "race",
    "test_noise_variance",
]


CATAPULT = 0.8086876
"""max over v of 3v^(2/3)/(1 + e^v): a single step of plain descent moves s by at most this times ηα(1 − p)."""


class Race(NamedTuple):
    """The feature s and the memory u of one small-margin example, with the training loss, step by step, (T + 1,)."""

    feature: Array  # s
    memory: Array  # u
    loss: Array


def coasting_distance(inertia: float, large_margin: float, share: float = 0.0) -> float:
    """Return 0.7/α + √(2λ(1 − p) ln 2): how far the feature travels once large margins are fitted, for λα² ≫ 1.

    share: p of the examples with small margins.
    """
    return float(0.7 / large_margin + np.sqrt(2 * inertia * (1 - share) * np.log(2)))


def coasting(strength: float, start: float = 0.15, horizon: float = 50.0) -> tuple[float, float]:
    """Return x(horizon) and the peak speed of x″ = −x′ + 3Λx²/(1 + e^(x³)), x(0) = start at rest; Λ = λα², x = αs.

    strength: Λ = λα²; horizon: the time at which it ends.
    """

    def force(x: float) -> float:
        return float(3 * strength * x**2 / (1 + np.exp(min(x**3, 700.0))))

    def move(_: float, state: Array) -> list[float]:
        return [state[1], -state[1] + force(state[0])]

    def turning(_: float, state: Array) -> float:
        return float(-state[1] + force(state[0]))

    turning.direction = -1.0  # type: ignore[attr-defined]
    found = solve_ivp(move, (0.0, horizon), [start, 0.0], "DOP853", events=turning, rtol=1e-11, atol=1e-12)
    peak = max((float(state[1]) for state in found.y_events[0]), default=0.0)
    return float(found.y[0, -1]), peak


def feature_flow(target: float, start: float = 0.15) -> float:
    """Return the time at which the gradient flow x′ = 3x²/(1 + e^(x³)) reaches `target`."""

    def there(_: float, state: Array) -> float:
        return float(state[0] - target)

    there.terminal = True  # type: ignore[attr-defined]
    found = solve_ivp(
        lambda _, x: 3 * x**2 / (1 + np.exp(x**3)), (0.0, 1e6), [start], "DOP853", events=there, rtol=1e-11, atol=1e-13
    )
    return float(found.t_events[0][0])


def race(
    lr: float,
    momentum: float,
    steps: int,
    *,
    start: tuple[float, float] = (0.142, 0.2),
    large_margin: float = 1.5,
    small_margin: float = 0.15,
    examples: int = 100,
    share: float = 0.1,
    noise_power: float = 1.0,
) -> Race:
    """Return the two-coordinate model: s of the leading neuron, u the overlap with one small-margin example's noise.

    F_s = 3s²[(1 − p)α³S(α³s³) + pβ³S(m)], F_u = 3u²·noise_power·S(m)/N, m = β³s³ + u³, S(z) = 1/(1 + e^z).

    share: p of the examples with small margins.
    """
    a, b = large_margin**3, small_margin**3
    s, u = start
    moving = np.zeros(2)
    rows = np.empty((steps + 1, 3))
    for step in range(steps + 1):
        big, small = a * s**3, b * s**3 + u**3
        rows[step] = s, u, (1 - share) * np.logaddexp(0, -big) + share * np.logaddexp(0, -small)
        slow, fast = _sigmoid(-small), _sigmoid(-big)
        pull = 3 * s**2 * ((1 - share) * a * fast + share * b * slow)
        force = np.array([pull, 3 / examples * noise_power * u**2 * slow])
        moving = momentum * moving + (1 - momentum) * force
        s, u = s + lr * moving[0], u + lr * moving[1]
    return Race(*rows.T)


def critical_feature(memory: float, small_margin: float, examples: int, share: float, noise_power: float) -> float:
    """Return s at which feature and memory of a small-margin example grow equally fast relative to themselves.

    ṡ/s = 3pβ³sS(m) against u̇/u = 3u·noise_power·S(m)/N: s = u·noise_power/(|Z₂|β³), |Z₂| = pN.

    memory: u; share: p of the examples with small margins.

    >>> print(f"{critical_feature(memory=0.5, small_margin=0.2, examples=100, share=0.1, noise_power=1.0):.2f}")
    6.25
    """
    return memory * noise_power / (share * examples * small_margin**3)


def test_noise_variance(weights: Array, patches: int, deviation: float) -> float:
    """Return the variance of Σ_r Σ_j ⟨w_r, X[j]⟩³ over Gaussian patches, weights (m, D), by Isserlis' theorem.

    J σ⁶ Σ_rq [9|w_r|²|w_q|²⟨w_r, w_q⟩ + 6⟨w_r, w_q⟩³].

    deviation: σ of a coordinate. weights: one row per neuron.
    """
    inner = weights @ weights.T
    squares = np.diag(inner)
    return float(patches * deviation**6 * np.sum(9 * np.outer(squares, squares) * inner + 6 * inner**3))


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x))) if x > -700 else 0.0
