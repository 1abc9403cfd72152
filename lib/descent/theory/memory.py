"""Linear rules as the weights they give to past gradients: x_{t+1} − x_t = −Σ_k w_k g_{t−k}, from rest.

Of a rule two things are asked: the mean age k̄ = Σ k w_k/Σ w_k of the gradients in its step, which decides how it
drifts, and the curvature at which it leaves. To second order in the step e = Σ w_k its path is that of

    dx/dτ = −∇[L + e(1 + 2k̄)/4·|∇L|²] − e²(A·H²g + B·∇³L[g, g]),    τ = e·t,

so that 1 + 2k̄ is what multiplies plain descent's drift towards flat ground (Barrett and Dherin 2021; of heavy ball
Ghosh et al. 2023; memory as a change of the loss: Cattaneo and Shigida 2025). Of heavy ball alone that number, c =
(1 + β)/(1 − β), is also half the ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_discrete_lyapunov

from descent.arrays import Array
from descent.theory.mode import _momentum

__all__ = [
    "Memory",
    "SecondOrder",
    "age",
    "ceiling",
    "drift_factor",
    "momentum_factor",
    "noise_gain",
    "second_order",
    "slow_rate",
    "squared_travel",
]

_ON_CIRCLE = 1e-7  # how far from it a root may lie by rounding


@dataclass(frozen=True)
class Memory:
    """Weights of the gradients of ages 0, 1, …; after the last given one they go on geometrically, ratio `tail`.

    Their sum is the effective step e, of which only `step` speaks: everything else here depends on shapes alone.

    >>> Memory((0.5, 0.25), tail=0.5).step
    1.0
    """

    weights: tuple[float, ...]
    tail: float = 0.0  # ratio of the weights after the last one given

    def __post_init__(self) -> None:
        if not self.weights or not np.isfinite(self.weights).all():
            raise ValueError(f"a rule needs at least one weight, all of them finite numbers, got {self.weights}")
        if not -1 < self.tail < 1:
            raise ValueError(f"tail is the ratio of a geometric series: it must lie in (−1, 1), got {self.tail}")
        if not self.step > 0:
            raise ValueError(
                f"the weights of a rule must sum to a positive step, got {self.step:g} from weights {self.weights} "
                f"and tail {self.tail}: along a constant gradient such a rule does not descend"
            )

    @classmethod
    def heavy_ball(cls, momentum: float) -> Memory:
        """Heavy ball, which is also the running average: (1 − β)βᵏ."""
        beta = float(_momentum(momentum))
        return cls((1 - beta,), beta)

    @classmethod
    def qhm(cls, momentum: float, nu: float) -> Memory:
        """Quasi-hyperbolic momentum: 1 − νβ, then ν(1 − β)βᵏ."""
        beta = float(_momentum(momentum))
        return cls((1 - nu * beta, nu * (1 - beta) * beta), beta)

    @classmethod
    def nesterov(cls, momentum: float) -> Memory:
        """Nesterov's rule as torch does it, which is QHM with ν = β."""
        return cls.qhm(momentum, momentum)

    @classmethod
    def stale(cls, delay: int) -> Memory:
        """Descent along the gradient of `delay` steps ago."""
        return cls((*[0.0] * _delay(delay), 1.0))

    @classmethod
    def adams_bashforth(cls) -> Memory:
        """Adams–Bashforth, 3/2 g_t − 1/2 g_{t−1}: descent without a drift, gradient flow to second order."""
        return cls((1.5, -0.5))

    @property
    def step(self) -> float:
        """The effective step, Σ w_k."""
        return float(sum(self.weights[:-1]) + self.weights[-1] / (1 - self.tail))

    @property
    def shares(self) -> Array:
        """The given weights over the step."""
        return np.array(self.weights) / self.step


class SecondOrder(NamedTuple):
    """What multiplies −e²H²g and −e²∇³L[g, g] in the modified equation."""

    curvature: float  # of −e²H²g
    third: float  # of −e²∇³L[g, g]


def momentum_factor(momentum: ArrayLike) -> Array:
    """Return c = (1 + β)/(1 − β), the one number that momentum is at a matched step.

    >>> momentum_factor([0.0, 0.5, 0.9]).round(6).tolist()
    [1.0, 3.0, 19.0]
    """
    beta = _momentum(momentum)
    return np.asarray((1 + beta) / (1 - beta))


def age(rule: Memory) -> float:
    """Return the mean age of the gradients in a step, Σ k w_k/Σ w_k.

    >>> print(f"{age(Memory.heavy_ball(0.9)):.3g}, {age(Memory.stale(4)):.3g}, {age(Memory.adams_bashforth()):.3g}")
    9, 4, -0.5
    """
    shares, t, last = rule.shares, rule.tail, len(rule.weights) - 1
    old = last / (1 - t) + t / (1 - t) ** 2
    return float(np.arange(last) @ shares[:-1] + shares[-1] * old)


def drift_factor(rule: Memory) -> float:
    """Return 1 + 2k̄, the drift towards flat ground over plain descent's at the same effective step.

    >>> [round(drift_factor(rule), 6) for rule in (Memory.heavy_ball(0.9), Memory.nesterov(0.9), Memory.stale(9))]
    [19.0, 17.2, 19.0]
    """
    return 1 + 2 * age(rule)


def second_order(rule: Memory) -> SecondOrder:
    """Return A = c(1 + k̄)/2 + m/2 − 1/6 and B = c/4 + m/2 − 1/6, c = 1 + 2k̄, m the mean square of the ages."""
    c, mean, square = drift_factor(rule), age(rule), _square_age(rule)
    return SecondOrder(c / 2 * (1 + mean) + square / 2 - 1 / 6, c / 4 + square / 2 - 1 / 6)


def ceiling(rule: Memory) -> float:
    """Return the eh up to which the rule contracts a mode of curvature h; infinite where it always does.

    On the circle |z| = 1 the eh of a mode z is real where Re z^½ D(1/z) N(z) = 0, N/D the generating function of the
    weights; the smallest positive one is where the first mode leaves.

    >>> print(f"{ceiling(Memory.heavy_ball(0.9)):.6g}, {ceiling(Memory.stale(1)):.6g}")
    38, 1
    """
    top, below = _generating(rule)
    reach = len(top) - 1
    laurent = np.zeros(2 * reach + 3)  # powers −reach − 1 … reach + 1 of z D(1/z) N(z) + D(z) N(1/z)
    for k, weight in enumerate(top):
        for j, value in enumerate(below):
            laurent[reach + 1 + 1 - j + k] += value * weight
            laurent[reach + 1 + j - k] += value * weight
    z = polynomial.polyroots(np.trim_zeros(laurent))
    z = z[np.abs(np.abs(z) - 1) < _ON_CIRCLE]
    z = z / np.abs(z)
    denominator = polynomial.polyval(1 / z, top)
    sound = np.abs(denominator) > _ON_CIRCLE
    steps = (-(z - 1) * polynomial.polyval(1 / z, below))[sound] / denominator[sound]
    found = steps.real[steps.real > _ON_CIRCLE]
    return float(found.min(initial=np.inf))


def slow_rate(rule: Memory, curvature: float, effective: float) -> float:
    """Return κ of the slow mode x ∝ e^{−κτ}, τ = e·t: h at small steps, h + e(1 + 2k̄)h²/2 to the next order.

    Raises: ValueError where no mode decays without oscillating, beyond critical damping.

    >>> print(f"{slow_rate(Memory.heavy_ball(0.0), curvature=0.3, effective=0.1):.6f}")
    0.304592
    """
    modes = np.linalg.eigvals(_advance(rule, float(_valley(effective * curvature))))
    real = modes.real[(np.abs(modes.imag) < 1e-12) & (modes.real > 0) & (modes.real < 1)]
    if not len(real):
        raise ValueError(
            f"eh = {effective * curvature:g} is beyond critical damping: no mode decays without oscillating; lower it"
        )
    return float(-np.log(real.max()) / effective)


def squared_travel(rule: Memory, z: float) -> float:
    """Return z·Σ_t x_t²/x_0² in a valley at z = eh, from rest: ½ for gradient flow, 1/(2 − z) for plain descent.

    The slow coordinate of a valley ½h(y)x² moves by −(h'/2h) x_0² times it, whatever the rule. Infinite at and beyond
    the ceiling.

    >>> print(f"{squared_travel(Memory.heavy_ball(0.0), 0.4):.6f}")
    0.625000
    """
    step = _advance(rule, float(_valley(z)))
    if np.abs(np.linalg.eigvals(step)).max() >= 1:
        return float("inf")
    start = np.zeros_like(step)
    start[0, 0] = 1.0
    return float(z * solve_discrete_lyapunov(step, start)[0, 0])


def noise_gain(rule: Memory, z: float) -> float:
    """Return h²·Var x at z = eh under gradient noise of unit variance, z/(2 − z/c) of heavy ball; infinite likewise.

    >>> print(f"{noise_gain(Memory.heavy_ball(0.0), 0.4):.6f}, {noise_gain(Memory.heavy_ball(0.9), 0.4):.6f}")
    0.250000, 0.202128
    """
    step = _advance(rule, float(_valley(z)))
    if np.abs(np.linalg.eigvals(step)).max() >= 1:
        return float("inf")
    kick = step[:, 0] - np.eye(len(step))[0]  # one gradient that is wrong by h is remembered like a place, and is none
    return float(solve_discrete_lyapunov(step, np.outer(kick, kick))[0, 0])


def _advance(rule: Memory, z: float) -> Array:
    """Return the map of (x_t, x_{t−1}, …, x_{t−m}, s_{t−1}) one step on, s the sum over the geometric tail."""
    shares, last = rule.shares, len(rule.weights) - 1
    step = np.zeros((last + 2, last + 2))
    step[0, : last + 1] -= z * shares
    step[0, 0] += 1
    step[0, -1] = -z * rule.tail
    step[np.arange(1, last + 1), np.arange(last)] = 1
    step[-1, last], step[-1, -1] = shares[-1], rule.tail
    return step


def _generating(rule: Memory) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return N and D of Σ_k w_k qᵏ/Σ w_k = N(q)/D(q), coefficients from the lowest."""
    below = np.array([1.0, -rule.tail])
    head = np.convolve(rule.shares, below)[:-1]  # but for the last weight, whose tail is what D stands for
    return head, below


def _square_age(rule: Memory) -> float:
    shares, t, last = rule.shares, rule.tail, len(rule.weights) - 1
    old = last**2 / (1 - t) + 2 * last * t / (1 - t) ** 2 + t * (1 + t) / (1 - t) ** 3
    return float(np.arange(last) ** 2 @ shares[:-1] + shares[-1] * old)


def _valley(z: ArrayLike) -> Array:
    step = np.asarray(z, dtype=np.float64)
    if not (step > 0).all():
        raise ValueError(f"a valley has positive curvature: z = eh must be positive, got {step}")
    return step


def _delay(delay: int) -> int:
    if delay < 0 or delay != int(delay):
        raise ValueError(f"delay counts steps: it must be a whole number from 0 on, got {delay}")
    return int(delay)
