"""What a matched step leaves and what it takes away, without noise: stiffness, delays of features, lag and coasting."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pandas import DataFrame

from descent.arrays import Array
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Tables, tidy
from descent.stats import exact
from descent.theory.mode import growth

FORCED = 0.1  # effective step under the force; what is measured does not depend on it


@dataclass(frozen=True)
class Rescaling:
    """Two-mode quadratics of condition κ, two features of a two-layer linear net, and a force switched on and off."""

    condition: float = 100.0
    others: tuple[float, ...] = (10.0, 1e3, 1e4)
    momenta: tuple[float, ...] = (0.0, 0.5, 0.669, 0.8, 0.9)
    starts: tuple[float, ...] = (0.0, 0.1, 1.0)  # shares of the slow mode's amplitude in the fast one's
    small: float = 1e-6
    features: tuple[float, float] = (1.0, 0.5)
    effective: float = 0.2
    seeds: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.3)  # amplitudes the features start from
    strong: tuple[float, ...] = (0.0, 0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, eq=False)
class RescalingResult(Result[Rescaling]):
    """Steps to the goal and delays."""

    matched: Array  # (S, M): steps at descent's own best effective step, by start and momentum
    best: int  # of heavy ball's own best
    gain: Array  # (K,): asymptotic rate of the best heavy ball over that of the best descent, by condition
    delays: Array  # (D, M, 2): steps until half of a feature is learnt, by start
    lag: Array  # (M,): steps by which a run is behind a constant force
    coast: Array  # (M,): travel after it is switched off, over the last step

    @property
    def delay_ratio(self) -> Array:
        """Delay of the weak feature over that of the strong one, (D, M)."""
        return np.asarray(self.delays[..., 1] / self.delays[..., 0])


def run(config: Rescaling, lab: Lab) -> RescalingResult:
    """Count the steps of every arm; nothing here is random."""
    h, momenta, root = np.array([1 / config.condition, 1.0]), np.array(config.momenta), math.sqrt(config.condition)
    roots = np.sqrt([*config.others, config.condition])
    own = 2 / h.sum() * (1 - momenta)  # descent's best step
    starts = [np.array([1.0, share]) for share in config.starts]
    rate, tuned = np.array([(2 / (1 + 1 / root)) ** 2]), np.array([((root - 1) / (root + 1)) ** 2])
    lag, coast = np.array([_force(m) for m in config.strong]).T
    return RescalingResult(
        config, lab,
        matched=np.array([_steps(h, own, momenta, start, config.small) for start in starts]),
        best=int(_steps(h, rate, tuned, starts[-1], config.small)[0]),
        gain=np.log((roots - 1) / (roots + 1)) / np.log((roots**2 - 1) / (roots**2 + 1)),
        delays=np.array([[_delays(config, amplitude, m) for m in config.strong] for amplitude in config.seeds]),
        lag=lag, coast=coast,
    )  # fmt: skip


def _steps(h: Array, lr: Array, momentum: Array, start: Array, goal: float) -> Array:
    """Return the steps until the distance first falls below the goal times the start's, per arm (M,)."""
    x = np.broadcast_to(start, (len(lr), len(h))).copy()
    v, reached = np.zeros_like(x), np.full(len(lr), -1.0)
    for step in range(1, 200_000):
        v = momentum[:, None] * v + h * x
        x = x - lr[:, None] * v
        fresh = (np.linalg.norm(x, axis=1) < goal * np.linalg.norm(start)) & (reached < 0)
        reached[fresh] = step
        if (reached > 0).all():
            return reached
    raise ValueError(f"an arm of lr {lr} and momentum {momentum} does not arrive; lower lr")


def _delays(config: Rescaling, amplitude: float, momentum: float) -> Array:
    """Return the steps until u² reaches s/2 on the loss ½(s − u²)²/2, for both features, (2,)."""
    s = np.array(config.features)
    u, v, found = np.full(2, amplitude), np.zeros(2), np.full(2, -1.0)
    lr, step = config.effective * (1 - momentum), 0
    while (found < 0).any():
        v = momentum * v - u * (s - u**2)
        u, step = u - lr * v, step + 1
        found[(u**2 >= s / 2) & (found < 0)] = step
    return found


def _force(momentum: float) -> tuple[float, float]:
    """Return the lag behind a unit force once it is steady, and the travel after its end over the last step."""
    lr, steps = FORCED * (1 - momentum), round(40 / (1 - momentum))
    x = v = 0.0
    for _ in range(steps):
        v = momentum * v + 1.0
        x += lr * v
    lag, end, last = steps - x / FORCED, x, lr * v
    for _ in range(steps):
        v *= momentum
        x += lr * v
    return lag, (x - end) / last


def growth_ratio(config: Rescaling, momenta: ArrayLike) -> Array:
    """Return the growth rate of the strong feature over that of the weak one, near zero."""
    m = np.asarray(momenta, dtype=np.float64)
    strong, weak = (growth(s, config.effective * (1 - m), m) for s in config.features)
    return np.asarray(strong / weak)


def estimates(result: RescalingResult) -> Estimates:
    """Return what is left at equal effective step, for S-18, S-19 and S-27."""
    config, strong = result.config, np.array(result.config.strong)
    slow = (result.matched[:, 1:] / result.matched[:, :1])[config.starts.index(0.1)]
    small = result.delay_ratio[np.array(config.seeds) <= 1e-2]
    own = strong / (1 - strong)
    return {
        "S-18.least": exact(slow.min()),
        "S-18.most": exact(slow.max()),
        "S-18.tuned": exact(result.matched[-1, 0] / result.best),
        "S-19.falls": [exact(fall) for fall in (small[:, :-1] - small[:, 1:]).ravel()],
        "S-27.lag": exact(np.abs(result.lag - own).max()),
        "S-27.coast": exact(np.abs(result.coast - own).max()),
    }


def tables(result: RescalingResult) -> Tables:
    """Return steps at descent's step by start and momentum, delays of features, lag and coasting."""
    config, strong = result.config, result.config.strong
    stiff = DataFrame(result.matched, columns=[f"{m:g}" for m in config.momenta]).assign(fast_share=config.starts)
    delays = DataFrame(result.delay_ratio, columns=[f"{m:g}" for m in strong]).assign(start=config.seeds)
    ratios = growth_ratio(config, strong)
    force = tidy({"momentum": strong}, lag=result.lag, coast=result.coast, growth_ratio=ratios)
    return {"stiffness": stiff, "feature_delays": delays, "lag": force}


RESCALING = Experiment("rescaling", small=Rescaling(), large=Rescaling(), run=run, estimates=estimates, tables=tables)
