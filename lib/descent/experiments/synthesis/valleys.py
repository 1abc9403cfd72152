"""Where drifts cross: valleys exactly, the hyperbola in runs, with the noise of batches and of labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from descent.arrays import Array
from descent.engine.rules import ema
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.problems.products import Products, imbalance
from descent.stats import Estimate, exact, furthest, mean, paired_ratio
from descent.theory.valley import drift_crossing, moment_drift


@dataclass(frozen=True)
class Valleys:
    """Products of two factors and their valleys; u² − v² is what drifts."""

    labels: Share = Share(over=4, least=200)  # runs with label noise
    label_noise: float = 0.01
    label_steps: int = 1500
    label_z: tuple[float, float] = (0.2, 1.0)
    label_imbalance: float = 8.0
    spreads: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 3.0)  # relative variance of a batch's curvature
    exact_momenta: tuple[float, ...] = (0.1, 0.5, 0.8, 0.9, 0.99)
    runs: Share = Share(times=10, least=2000)  # with batches, paired
    sets: int = 20  # that the runs are cut into, each with a crossing of its own
    around: tuple[float, ...] = (0.94, 0.98, 1.02, 1.06)  # of the predicted crossing
    imbalance: float = 30.0
    product: float = 0.5
    batches: tuple[int | None, ...] = (None, 8, 4)
    momentum: float = 0.5
    steps: int = 100


@dataclass(frozen=True, eq=False)
class ValleysResult(Result[Valleys]):
    """Drifts and crossings over what they should be."""

    labels: Array  # (2, 2, R): fall of log|q| by z and rule, heavy ball first
    crossing: Array  # (M, b): root of the recursion over the law
    paths: tuple[Array, ...]  # by batch: crossings of every set of runs, over the law


def run(config: Valleys, lab: Lab) -> ValleysResult:
    """Measure all three."""
    labels = [_labels(config, lab, at) for at in config.label_z]
    crossing = np.array([[_root(m, b) for b in config.spreads] for m in config.exact_momenta])
    paths = tuple(_paths(config, lab, batch, apart) for apart, batch in enumerate(config.batches, 1))
    return ValleysResult(config, lab, np.array(labels), crossing, paths)


def _fell(
    start: tuple[float, float], effective: float, momenta: ArrayLike, steps: int, problem: Products, lab: Lab, n: int,
    apart: int = 0,
) -> Array:  # fmt: skip
    """Return by how much u² − v² has fallen, (A, n), of paired runs."""
    arms = lab.arms(ema(effective, torch.as_tensor(momenta, dtype=torch.float64)), n, torch.float64, apart=apart)
    point = torch.tensor([start], dtype=torch.float64)
    done = arms.run(problem, point, steps, check=steps)
    return float(imbalance(point)[0, 0, 1]) - done.end(lambda x: imbalance(x)[:, 0, 1])


def _labels(config: Valleys, lab: Lab, z: float) -> Array:
    """Return the fall of log|q| under label noise from a minimiser, heavy ball first, (2, R)."""
    q, s = config.label_imbalance, (config.label_imbalance**2 + 4) ** 0.5
    start = ((s + q) / 2) ** 0.5, ((s - q) / 2) ** 0.5
    problem = Products(label_noise=config.label_noise)
    fell = _fell(start, z / s, (0.9, 0.0), config.label_steps, problem, lab, lab.count(config.labels))
    return np.asarray(-np.log1p(-fell / q))


def _root(momentum: float, spread: float) -> float:
    """Return where the recursion of moments has both drifts alike, over the law."""
    law = float(drift_crossing(momentum, spread))

    def gap(z: float) -> float:
        return moment_drift(z, momentum, spread) - moment_drift(z, 0.0, spread)

    return float(brentq(gap, 0.9 * law, law + 0.5 * (2 / (1 + spread) - law), xtol=1e-300, rtol=1e-14)) / law


def _paths(config: Valleys, lab: Lab, batch: int | None, apart: int) -> Array:
    """Return where drifts of noisy runs cross over the law, by a line through the logarithm of their ratio; (sets,)."""
    q, spread = config.imbalance, 0.0 if batch is None else 2 / batch
    law, s = float(drift_crossing(config.momentum, spread)), (config.imbalance**2 + 4) ** 0.5
    u = ((q + (q * q + 4 * config.product**2) ** 0.5) / 2) ** 0.5
    count = 2 if batch is None else lab.count(config.runs)
    gaps = []
    for share in config.around:
        pair = (config.momentum, 0.0)
        problem = Products(batch_size=batch)
        heavy, plain = _fell((u, config.product / u), share * law / s, pair, config.steps, problem, lab, count, apart)
        sets = np.stack([heavy, plain]).reshape(2, min(config.sets, count), -1).mean(-1)
        gaps.append(np.log(sets[0] / sets[1]))
    slope, height = np.polyfit(np.array(config.around) - 1, np.array(gaps), 1)
    return np.asarray(1 - height / slope)


def estimates(result: ValleysResult) -> Estimates:
    """Return drifts and crossings over the laws, for S-37 and S-38."""
    seed = result.lab.seed
    return {
        "S-37.small": paired_ratio(result.labels[0, 0], result.labels[0, 1], seed),
        "S-37.large": paired_ratio(result.labels[1, 0], result.labels[1, 1], seed),
        "S-38.exact": exact(np.abs(result.crossing - 1).max()),
        "S-38.paths": furthest(_crossings(result)),
    }


def _crossings(result: ValleysResult) -> list[Estimate]:
    """Return the crossing of every batch over the law; that of full batches knows no chance."""
    pairs = zip(result.config.batches, result.paths, strict=True)
    return [exact(one.mean()) if batch is None else mean(one) for batch, one in pairs]


def tables(result: ValleysResult) -> Tables:
    """Return the crossings found in runs over the law, by spread."""
    spread = [0.0 if batch is None else 2 / batch for batch in result.config.batches]
    return {"valleys": tidy({"spread": spread}, crossing=np.array(_crossings(result)))}


VALLEYS = Experiment(
    "valleys", small=Valleys(), large=Valleys(runs=Share(times=40)), run=run, estimates=estimates, tables=tables
)
