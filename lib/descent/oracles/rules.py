"""Rules and surgery on their memory: against torch.optim, and against recursions typed out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descent.engine import rules, surgery
from descent.engine.probes import column, every
from descent.engine.stack import Objective
from descent.engine.streams import Streams
from descent.engine.train import train
from descent.measure import step
from descent.nets.dense import MLP
from descent.oracles.common import ALGEBRA, F64, Oracle, module_of, relative, slope, streams, task, tensor, worst

__all__ = ["ORACLES"]


def _against_torch(
    hyper: rules.Hyper, schedule: rules.Schedule | None = None, scheduler: Any = None, **options: Any
) -> float:
    """Train a small net for 60 full-batch steps by a rule and by torch.optim.SGD."""
    net, steps = MLP((4, 5, 3), "tanh"), 60
    objective, params = task(net, tensor(52, 12, 4), 3)
    found = train(objective, params, rules.repeat(hyper, 2), steps, streams(2), schedule=schedule).params
    deviations = []
    for r in range(2):
        own = module_of(net.module(), params, r)
        optimizer = torch.optim.SGD(own.parameters(), **options)
        clock = None if scheduler is None else scheduler(optimizer)
        for _ in range(steps):
            slope(own, objective.inputs, objective.targets)
            optimizer.step()
            if clock is not None:
                clock.step()
        truth = own.state_dict()
        assert isinstance(found, dict)
        deviations += [relative(leaf[r], truth[name]) for name, leaf in found.items()]
    return worst(*deviations)


def _heavy_ball() -> float:
    return _against_torch(rules.heavy_ball(0.05, 0.9, weight_decay=0.02), lr=0.05, momentum=0.9, weight_decay=0.02)


def _dampened() -> float:
    hyper = rules.dampened(0.05, 0.9, 0.3, maximize=True, weight_decay=0.02)
    return _against_torch(hyper, lr=0.05, momentum=0.9, dampening=0.3, maximize=True, weight_decay=0.02)


def _nesterov() -> float:
    return _against_torch(rules.nesterov(0.05, 0.9), lr=0.05, momentum=0.9, nesterov=True)


def _cosine() -> float:
    return _against_torch(
        rules.heavy_ball(0.1, 0.9), rules.cosine(50, 0.1),
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.1 + 0.45 * (1 + math.cos(math.pi * min(step / 50, 1)))),
        lr=0.1, momentum=0.9,
    )  # fmt: skip


class _Bowl:
    """½ curvature·x² + slope·x, parameters (R, 1)."""

    def __init__(self, curvature: float, slope: float = 0.0) -> None:
        self.curvature, self.slope = curvature, slope

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        return self.curvature * params + self.slope


def _path(objective: Objective[Tensor], hyper: rules.Hyper, steps: int) -> Tensor:
    """Return x of every step from x = 1, (T + 1, R)."""
    start, probes = torch.ones(hyper.replicas, 1, dtype=F64), {"x": every(1, column(0))}
    return train(objective, start, hyper, steps, streams(hyper.replicas), probes=probes).records["x"].values


def _average() -> float:
    found, x, v, truth = _path(_Bowl(1.7), rules.qhm(0.3, 0.8, [0.7, 1.0]), 60), np.ones(2), np.zeros(2), [np.ones(2)]
    nu = np.array([0.7, 1.0])
    for _ in range(60):
        g = 1.7 * x
        v = 0.8 * v + 0.2 * g
        x = x - 0.3 * ((1 - nu) * g + nu * v)
        truth.append(x)
    average = _path(_Bowl(1.7), rules.ema(0.3, 0.8), 60)[:, 0]
    return worst(relative(found, truth), relative(average, [x[1] for x in truth]))


def _bypass() -> float:
    """Forget half of the gradient: x ← x − lr(m + g/2), m the average of the other half."""
    half = surgery.Bypass(slice(0, 1), lambda _, g: {"": g[""] / 2}, 0.2)
    found = _path(surgery.Surgery(_Bowl(2.0), [half]), rules.ema(0.3, 0.8), 12)[:, 0]
    x, m, truth = 1.0, 0.0, [1.0]
    for _ in range(12):
        g = 2.0 * x
        m = 0.8 * m + 0.2 * g / 2
        x -= 0.3 * (m + g / 2)
        truth.append(x)
    return relative(found, truth)


def _erase() -> float:
    wipe = surgery.Erase(slice(0, 1), lambda p: p[""][:, 0] < 0.5)
    found = _path(surgery.Surgery(_Bowl(2.0), [wipe]), rules.ema(0.3, 0.8), 30)[:, 0]
    x, v, erased, truth = 1.0, 0.0, False, [1.0]
    for _ in range(30):
        if x < 0.5 and not erased:
            v, erased = 0.0, True
        v = 0.8 * v + 0.2 * 2.0 * x
        x -= 0.3 * v
        truth.append(x)
    return relative(found, truth)


def _withhold() -> float:
    """Use that one unit gradient at step 0 displaces an average by lr(1 − μⁿ) after n updates."""
    cut = surgery.Withhold(slice(0, 1), lambda _, g: dict(g), lambda p: p[""][:, 0] < 1)
    found = _path(surgery.Surgery(_Bowl(0.0, 1.0), [cut]), rules.ema(0.3, 0.8), 40)[:, 0]
    return relative(1 - found, 0.3 * (1 - 0.8 ** np.arange(41)))


def _reach() -> float:
    """Ask a bowl without noise for the step of three rules: lr/(1 − momentum), or lr where the buffer averages."""

    class Bare(_Bowl):
        def full(self, params: Tensor) -> Tensor:
            return self.curvature * params

    given = rules.stack(rules.heavy_ball(0.3, 0.8), rules.nesterov(0.3, 0.8), rules.ema(0.3, 0.8))
    at = torch.full((3, 1), 0.7, dtype=F64)
    found = step.step_of(given, Bare(2.0), at, streams=streams(3), steps=4, rings=2, burn=200)
    truth = [0.3 / 0.2, 0.3 / 0.2, 0.3]
    return worst(relative(found.reach, truth), relative(found.response, truth))


_R, _S, _M = "descent.engine.rules", "descent.engine.surgery", "descent.measure.step.step_of"
_TORCH, _TYPED = "torch.optim.SGD, 60 steps on a small net", "the recursion typed out"

# fmt: off
ORACLES = (
    Oracle(f"{_R}.heavy_ball", "training with weight decay", _TORCH, ALGEBRA, "relative", _heavy_ball),
    Oracle(f"{_R}.dampened", "training uphill with dampening and decay", _TORCH, ALGEBRA, "relative", _dampened),
    Oracle(f"{_R}.nesterov", "training", _TORCH, ALGEBRA, "relative", _nesterov),
    Oracle(f"{_R}.qhm", "paths of averaged and quasi-hyperbolic momentum", _TYPED, ALGEBRA, "relative", _average),
    Oracle(f"{_R}.cosine", "training on a cosine schedule", f"{_TORCH}, LambdaLR", ALGEBRA, "relative", _cosine),
    Oracle(f"{_S}.Bypass", "path with half of the gradient forgotten", _TYPED, ALGEBRA, "relative", _bypass),
    Oracle(f"{_S}.Erase", "path with the buffer emptied once", _TYPED, ALGEBRA, "relative", _erase),
    Oracle(f"{_S}.Withhold", "way left after the last gradient", "geometric series", ALGEBRA, "relative", _withhold),
    Oracle(_M, "reach and response of linear rules", "lr/(1 − momentum)", ALGEBRA, "relative", _reach),
)
# fmt: on
