"""Each paper's formula as a limit of the one kernel, both sides evaluated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame
from scipy.optimize import brentq

from descent.experiments.lab import Estimates, Experiment, Lab, Result, Tables
from descent.stats import exact
from descent.theory.linear import aligned_edge, mean_square_edge
from descent.theory.mode import kernel

Row = tuple[str, str, float, float]  # paper, quantity, value from the kernel, value of the paper's formula


@dataclass(frozen=True)
class Limits:
    """One mode of curvature h with noise σ² and multiplicative variance s², at raw rate α, momentum β and batch k."""

    curvature: float = 0.8
    lr: float = 0.3
    momentum: float = 0.9
    noise: float = 1.7
    multiplicative: float = 0.04
    batch: int = 4
    close: float = 0.9999  # a momentum that stands for the limit 1


@dataclass(frozen=True, eq=False)
class LimitsResult(Result[Limits]):
    """Every quantity from both sides."""

    rows: tuple[Row, ...]

    @property
    def table(self) -> DataFrame:
        """The rows with their relative difference."""
        frame = DataFrame(self.rows, columns=["paper", "quantity", "from the kernel", "formula"])
        off = (frame["from the kernel"] / frame["formula"] - 1).abs()
        return frame.assign(difference=off.map("{:.0e}".format)).round(6)


def run(config: Limits, lab: Lab) -> LimitsResult:
    """Evaluate every pair."""
    parts = (_direction, _tolerance, _saddle, _inertia, _geometry)
    return LimitsResult(config, lab, tuple(row for part in parts for row in part(config)))


def _direction(c: Limits) -> Iterator[Row]:
    """P1: the noise of the direction from the stationary moments A = σ²/(K − s²) and b = (1 + β − αh)A/(1 + β)."""
    k, mu = float(kernel(c.curvature, c.curvature, c.lr, c.momentum)), 1 + c.momentum - c.lr * c.curvature
    a = c.noise / (k - c.multiplicative)
    b, total = mu * a / (1 + c.momentum), c.noise + c.multiplicative * a
    e = c.lr / (1 - c.momentum)
    powers = [((1 - u * c.curvature) ** 2 * a - 2 * (1 - u * c.curvature) * b + a) / u**2 / total for u in (c.lr, e)]
    z, beta, lift = e * c.curvature, c.momentum, c.lr * c.curvature
    raw = (2 - lift * (1 - beta)) / ((1 - beta) * (2 * (1 + beta) - lift))
    average = (2 * (1 - beta) + z * (3 * beta - 1)) / (2 * (1 + beta) - z * (1 - beta))
    yield "P1", "noise of a heavy-ball direction", powers[0], raw
    yield "P1", "noise of an averaged direction", powers[1], average


def _tolerance(c: Limits) -> Iterator[Row]:
    """P2: the edge of one direction with curvatures h ± s, and the batch at which momentum stops lowering it."""
    spread = math.sqrt(c.multiplicative)
    rows = np.sqrt([[c.curvature - spread], [c.curvature + spread]])
    ratio = (1 + c.momentum) / (1 - c.momentum)
    formula = 2 * c.curvature * (1 + c.momentum) / (c.curvature**2 + ratio * c.multiplicative / c.batch)

    def gain(size: float) -> float:
        return mean_square_edge(rows, c.momentum, 1 / size) - mean_square_edge(rows, 0.0, 1 / size)

    crossover = c.multiplicative / c.curvature**2 * ratio
    yield "P2", "mean-square threshold", mean_square_edge(rows, c.momentum, 1 / c.batch), formula
    yield "P2", "crossover batch", float(brentq(gain, 0.05, 50)), crossover


def _saddle(c: Limits) -> Iterator[Row]:
    """P3: the floor of additive noise, and the growth at a saddle as momentum tends to 1 at fixed inertia."""
    floor, e = c.noise / float(kernel(c.curvature, c.curvature, c.lr, c.momentum)), c.lr / (1 - c.momentum)
    shrink = 1 - e * c.curvature * (1 - c.momentum) / (2 * (1 + c.momentum))
    lam, gap = 2.5, 1 - c.close
    top = np.roots([1, -(1 + c.close + lam * gap**2), c.close]).max()
    yield "P3", "floor at an optimum", floor, e * c.noise / (2 * c.curvature) / shrink
    yield "P3", "growth at a saddle", float(np.log(top)) / gap, (math.sqrt(1 + 4 * lam) - 1) / 2


def _inertia(c: Limits) -> Iterator[Row]:
    """P4: damping in units of 1 − β as momentum tends to 1 at fixed inertia, and where it turns critical."""
    lam, gap = 0.1, 1 - c.close
    root = np.roots([1, -(1 + c.close - lam * gap**2), c.close]).max()
    yield "P4", "damping with inertia", float(np.log(root)) / gap, (-1 + math.sqrt(1 - 4 * lam)) / 2
    yield "P4", "critical inertia", (1 - math.sqrt(c.close)) ** 2 / gap**2, 0.25


def _geometry(c: Limits) -> Iterator[Row]:
    """P5: the edge of noise aligned with curvature, and its plain twin."""
    h, beta = np.arange(1, 11.0) ** -0.5, c.momentum
    edge = aligned_edge(h, beta, 1 / c.batch)
    load = edge * (1 + beta) / (1 - beta) / c.batch * float(np.sum(h / (2 * (1 + beta) - edge * h)))
    twin = aligned_edge(h, 0.0, (1 + beta) / (1 - beta) / c.batch) * (1 + beta)
    yield "P5", "load at the edge of aligned noise", 1.0, load
    yield "P5", "edge of the equivalent plain SGD", edge, twin


def estimates(result: LimitsResult) -> Estimates:
    """Return the largest relative difference, for S-32."""
    return {"S-32.limits": exact(max(abs(value / formula - 1) for _, _, value, formula in result.rows))}


def tables(result: LimitsResult) -> Tables:
    """Return the pairs."""
    return {"limits": result.table}


LIMITS = Experiment("limits", small=Limits(), large=Limits(), run=run, estimates=estimates, tables=tables)
