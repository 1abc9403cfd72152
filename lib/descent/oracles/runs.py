"""Growth, thresholds and passages of runs: instruments that watch many runs, against laws that are known."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from descent.engine import rules
from descent.engine.streams import Purpose, Streams
from descent.measure import critical_batch, exit_laws, growth, passages, thresholds
from descent.oracles.common import (
    ALGEBRA,
    CHANCE,
    F64,
    SOLVED,
    Oracle,
    companion,
    each,
    errors,
    normals,
    radius,
    relative,
    score,
    streams,
)
from descent.problems import exponents
from descent.theory.weights import Gamma

__all__ = ["ORACLES"]


class _TwoPoint:
    """½ q x², q = .2 or 1.8 with equal odds."""

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        return (1 + 0.8 * streams.signs(Purpose.BATCH, step))[:, None] * params


def _resampled_growth() -> float:
    source = streams(1000, 5).subset(torch.arange(1000).repeat(2))
    step = growth.Descent(
        _TwoPoint(), rules.repeat(rules.stack(rules.sgd(1.26), rules.heavy_ball(0.25, 0.9)), 1000), source
    )
    found = growth.resampled_growth(step, step.state(torch.ones(2000, 1, dtype=F64)), 300, source, arms=2)
    arms = ((1.26, 0.0), (0.25, 0.9))
    truth = [math.log(radius([companion(q, lr, beta) for q in (0.2, 1.8)])) / 2 for lr, beta in arms]
    return errors([arm.blocks for arm in found], truth)


def _resampled_mean() -> float:
    """Twenty populations of a thousand at twice the edge; the state (x, u): E x², E xu and E u² over E x² + E u²."""
    lr, beta, steps = 0.6, 0.9, 15
    source = streams(20_000, 6)
    step = growth.Descent(_TwoPoint(), rules.repeat(rules.heavy_ball(lr, beta), 20_000), source)
    found = growth.resampled_mean(
        step,
        step.state(torch.ones(20_000, 1, dtype=F64)),
        steps,
        source,
        lambda state: state[:, [0, 0, 1], 0] * state[:, [0, 1, 1], 0],
        arms=20,
    )
    maps = [np.array([[1 - lr * q, -beta], [lr * q, beta]]) for q in (0.2, 1.8)]
    operator = np.mean([np.kron(a, a) for a in maps], axis=0)
    moment = np.linalg.matrix_power(operator, steps)[:, 0]
    return errors(found.T, moment[[0, 1, 3]] / (moment[0] + moment[3]))


def _median_steps() -> float:
    """Let runs leave at 1 + 0.1ξ: the median has the deviation 0.1√(π/2n)."""
    steps, edges = np.linspace(0.5, 1.5, 81), 1 + 0.1 * normals(65, 4000)
    curve = thresholds.Curve(steps, edges[:, None] < steps)
    found = thresholds.median_steps(lambda c: c, curve, seed=0)
    return score(found.value, 1.0, 0.1 * math.sqrt(math.pi / 2 / 4000))


def _exit_laws() -> float:
    """Fit straight lines with NumPy in the coordinates of each law, and read them off at another radius."""
    radii, at = np.array([1.0, 1.5, 2.0, 3.0]), np.array([5.0])
    times, logs = np.exp(1 + np.abs(normals(66, 2, 4))) + 3 * radii, np.log([*radii, *at])
    found = [exit_laws.predicted(law, times, radii, at) for law in ("barrier", "power", "logarithm")]
    squares = np.square([*radii, *at])
    barrier = [np.polyval(np.polyfit(squares[:4], np.log(row), 1), squares[4:]) for row in times]
    power = [np.polyval(np.polyfit(logs[:4], np.log(row), 1), logs[4:]) for row in times]
    steps = [np.polyval(np.polyfit(logs[:4], row, 1), logs[4:]) for row in times]
    return relative(np.array(found), np.array([barrier, power, np.log(np.maximum(steps, 1.0))]))


def _passages() -> float:
    """Follow forty walks one by one, each with the streams of its row, and note where they first are."""
    walk, radii, steps = exponents.Walk(Gamma(0.5), 1.5, 1), np.array([2.0, 20.0]), 60
    together = streams(40, 67)
    found, truth = passages.first_passages(walk, 1.0, radii, steps, together), np.zeros((40, 2))
    for row in range(40):
        alone, x, far = together.subset(slice(row, row + 1)), torch.ones(1, 1, dtype=F64), 1.0
        for step in range(steps):
            if far < radii[-1]:
                truth[row] += far < radii
                x = x - walk.lr * walk.minimum.gradient(x, alone, step)
                far = max(far, abs(float(x)))
    return relative(found.times, truth)


def _valley() -> float:
    """Cost B/b + b/B: 5 % above its least where B/b + b/B = 2.1."""
    sizes = np.geomspace(10, 1000, 401)
    found = critical_batch.valley(sizes, np.stack([(sizes / 100 + 100 / sizes) / sizes] * 2), 0)
    far = 1.05 + math.sqrt(1.05**2 - 1)
    return each([found.low.value, found.centre.value, found.high.value], [100 / far, 100, 100 * far])


_M = "descent.measure"

# fmt: off
ORACLES = (
    Oracle(f"{_M}.growth.resampled_growth", "growth of the mean square by resampling",
           "spectral radius over both curvatures", CHANCE, "standard errors", _resampled_growth),
    Oracle(f"{_M}.growth.resampled_mean", "second moments of runs at twice the edge, by resampling",
           "powers of the map of moments over both curvatures", CHANCE, "standard errors", _resampled_mean),
    Oracle(f"{_M}.thresholds.median_steps", "step at which half of the runs have left", "a known law of exits",
           CHANCE, "standard errors", _median_steps),
    Oracle(f"{_M}.exit_laws.predicted", "exit times at another radius by three laws", "straight lines of NumPy",
           SOLVED, "relative", _exit_laws),
    Oracle(f"{_M}.passages.first_passages", "first passages of a stack that is cut down", "walks one by one", ALGEBRA,
           "relative", _passages),
    Oracle(f"{_M}.critical_batch.valley", "ends and centre of a valley of cost", "a quadratic equation", 1e-3,
           "relative", _valley),
)
# fmt: on
