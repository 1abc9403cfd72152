"""What is left of momentum when the step is matched: seven consequences, each as a ratio to plain SGD.

The rule is compared with SGD(η, B) in three ways, by what both have in common (`Held`):
lr, heavy ball at the raw rate η; effective, the running average at η, so that e = η; noise, the same with a batch
of B(1 − β)/(1 + β), so that in the flat limit the search direction is as noisy as SGD's.
Conventions as in `mode`: inside, `lr` is the raw heavy-ball rate α.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from descent.arrays import Array
from descent.theory.escape import escape_level, escape_mean
from descent.theory.inertia import race
from descent.theory.linear import edge_profile
from descent.theory.mode import (
    crossover_batch,
    growth,
    kernel,
    matched_lr,
    mode_edge,
    search_noise_power,
    stable,
    stationary_variance,
)

__all__ = [
    "GAUGES",
    "SPECTRUM",
    "STATES",
    "Arm",
    "Badges",
    "Gauges",
    "Held",
    "Setting",
    "arms",
    "badges",
    "gauges",
    "load",
    "log_quantities",
]

Held = Literal["lr", "effective", "noise"]
"""What momentum and plain SGD have in common: learning rate, effective step, or noise as well."""

GAUGES = ("noise", "edge", "escape", "floor", "feature", "flat", "barrier")
"""The seven consequences, (a) to (g)."""

STATES = ("drawn", "control undefined", "momentum diverges", "law does not hold")
"""What can be said of a ratio."""

SPECTRUM = np.arange(1, 21.0) ** -0.5
"""Curvatures of the problem whose escape at the edge (f) is about."""

RACE_STEPS = 2000
RADIUS = 1.0
_SOUND = 2.0  # escape_level from which the law of escape times is good to 14 %


@dataclass(frozen=True)
class Setting:
    """A step and a landscape.

    lr: learning rate η of plain SGD; curvature: h of the sharp direction; instability: b of the saddle and of the
    barrier's top, F = b(x² − 1)²/4; multiplicative, noise: variances s₁² and σ² of one example.
    """

    lr: float
    momentum: float
    batch_size: float = 1.0
    curvature: float = 1.0
    instability: float = 1.0
    multiplicative: float = 0.25
    noise: float = 1.0


class Arm(NamedTuple):
    """A rule: raw heavy-ball rate, momentum, batch size."""

    lr: float
    momentum: float
    batch_size: float


class Badges(NamedTuple):
    """The numbers that decide: eh, λh, batch over crossover batch, mean-square load; all of the momentum arm."""

    step: float  # effective step times curvature
    inertia: float  # inertia times curvature
    batch: float  # batch size over the crossover batch
    load: float  # mean-square load


class Gauges(NamedTuple):
    """Logarithms of momentum over plain SGD, NaN where there is none, and the state of each; in order of GAUGES."""

    log_ratio: Array  # of momentum over plain SGD
    state: tuple[str, ...]  # in words, one of STATES


def arms(setting: Setting, held: Held) -> tuple[Arm, Arm]:
    """Return the rule with momentum and the plain SGD it is compared with."""
    lr, beta, batch = setting.lr, setting.momentum, setting.batch_size
    raw = lr if held == "lr" else float(matched_lr(lr, beta))
    own = batch * (1 - beta) / (1 + beta) if held == "noise" else batch
    return Arm(raw, beta, own), Arm(lr, 0.0, batch)


def load(arm: Arm, setting: Setting) -> float:
    """Return the mean-square load of the sharp direction, s²/K(h, h); infinite where it diverges without noise."""
    if not stable(setting.curvature, arm.lr, arm.momentum):
        return math.inf
    spread = setting.multiplicative / arm.batch_size
    return float(spread / kernel(setting.curvature, setting.curvature, arm.lr, arm.momentum))


def badges(setting: Setting, held: Held) -> Badges:
    """Return eh, λh, B/k× with k× = (s₁²/h²)(1 + β)/(1 − β), and the load Λ of the momentum arm."""
    own, _ = arms(setting, held)
    step = own.lr / (1 - own.momentum) * setting.curvature
    crossover = float(crossover_batch(setting.curvature, own.momentum, setting.multiplicative))
    return Badges(step, step / (1 - own.momentum), own.batch_size / crossover, load(own, setting))


def gauges(setting: Setting, held: Held) -> Gauges:
    """Return the seven log ratios for one way to hold the step.

    Of what is found at the step itself, (a), (c), (d), (e) and (g), there is no ratio where SGD diverges along the
    sharp direction; (b) and (f) compare both rules at their own edges.
    """
    own, control = (log_quantities(arm, setting, raw=held == "lr") for arm in arms(setting, held))
    state = tuple(_state(*pair) for pair in zip(own, control, strict=True))
    drawn = np.array([each == "drawn" for each in state])
    return Gauges(np.where(drawn, own, np.nan) - np.where(drawn, control, 0.0), state)


def _state(own: float, control: float) -> str:
    if math.isinf(control):
        return STATES[1]
    if math.isinf(own):
        return STATES[2]
    return STATES[3] if math.isnan(own + control) else STATES[0]


def log_quantities(arm: Arm, setting: Setting, *, raw: bool) -> Array:
    """Return the logarithms of the seven quantities of one rule, (7,).

    Infinite where the rule diverges along the sharp direction, NaN outside a law's domain. raw: noise and edge in
    units of the raw rate, direction v and α; otherwise of the effective step, (1 − β)v and e.
    """
    edge, flat = _log_edge(arm, setting, raw), _log_flat(arm.momentum, arm.batch_size)
    if load(arm, setting) >= 1:
        return np.array([np.inf, edge, np.inf, np.inf, np.inf, flat, np.inf])
    sharp = setting.curvature, arm.lr, arm.momentum
    spread = setting.noise / arm.batch_size, setting.multiplicative / arm.batch_size
    power = search_noise_power(*sharp, *spread, "heavy_ball" if raw else "ema")
    floor = stationary_variance(*sharp, *spread)
    return np.array(
        [
            np.log(power),
            edge,
            _log_escape(arm, setting),
            np.log(floor),
            _log_feature(arm.lr / (1 - arm.momentum), arm.momentum),
            flat,
            _log_barrier(arm, setting),
        ]
    )


def _log_edge(arm: Arm, setting: Setting, raw: bool) -> float:
    edge = mode_edge(setting.curvature, arm.momentum, setting.multiplicative / arm.batch_size)
    return float(np.log(edge if raw else edge / (1 - arm.momentum)))


def _log_escape(arm: Arm, setting: Setting) -> float:
    saddle = RADIUS, setting.instability, arm.lr, arm.momentum, setting.noise / arm.batch_size
    return float(np.log(escape_mean(*saddle))) if escape_level(*saddle) >= _SOUND else math.nan


@lru_cache(maxsize=256)
def _log_feature(lr: float, momentum: float) -> float:
    """Return the logarithm of the feature's part of a small-margin logit after RACE_STEPS, up to a constant."""
    return 3 * math.log(race(lr, momentum, RACE_STEPS).feature[-1])


@lru_cache(maxsize=256)
def _log_flat(momentum: float, batch_size: float) -> float:
    """Return log D_1 of the loss that escapes at the edge of aligned noise."""
    profile = edge_profile(SPECTRUM, momentum, 1 / batch_size)
    return float(np.log(profile[1:].sum() / profile[0]))


def _log_barrier(arm: Arm, setting: Setting) -> float:
    """Return log of kramers_time over F = b(x² − 1)²/4: wells of curvature 2b, barrier b/4, which must exceed T."""
    b = setting.instability
    temperature = arm.lr / (1 - arm.momentum) * setting.noise / arm.batch_size / 2
    if b / 4 < temperature or not stable(2 * b, arm.lr, arm.momentum):
        return math.nan
    rate = math.sqrt(2) * float(growth(b, arm.lr, arm.momentum))
    return math.log(2 * math.pi) + b / 4 / temperature - math.log(rate)
