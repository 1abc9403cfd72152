"""How far the feature coasts once large margins are fitted, and where plain descent and momentum stop learning it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Params
from descent.engine.rules import ema, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.arms import Task, arms_hyper, compete
from descent.experiments.margins.race import EQUAL
from descent.problems.patches import Patches
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean, slope_of_mean
from descent.theory.inertia import coasting, coasting_distance


@dataclass(frozen=True)
class Feature:
    """The feature alone: loss log(1 + e^(−α³Σs³)), m neurons s ~ N(0, scale²); no small margins and no noise."""

    large_margin: float

    def gradient(self, params: Params, streams: Streams, step: int) -> Tensor:
        """Return the gradient in s, (R, m)."""
        assert isinstance(params, Tensor)
        cube = self.large_margin**3
        return -3 * cube * params.square() * torch.sigmoid(-cube * params.pow(3).sum(-1, keepdim=True))


@dataclass(frozen=True)
class Coast:
    """Arms (EMA rate, momentum) of the feature alone, run until they stand; then scans of the two margins."""

    seeds: int
    task: Task
    arms: tuple[tuple[float, float], ...] = (
        (0.1, 0.9),
        (0.3, 0.9),
        (1.0, 0.9),
        (0.1, 0.99),
        (1.0, 0.99),
        (10.0, 0.99),
        (1.0, 0.0),
        (10.0, 0.0),
        (100.0, 0.0),
    )
    near: float = 0.1  # the law is claimed for 1 − momentum up to this
    neurons: int = 8
    rest: float = 40.0  # steps times 1 − momentum
    large_margins: tuple[float, ...] = (0.75, 1.5, 3.0)
    small_margins: tuple[float, ...] = (0.1, 0.15, 0.3)
    slow: float = 0.25  # learning rate of the scan of large margins, plain descent
    strong: float = 0.99  # momentum of the scan of small margins

    @classmethod
    def cpu(cls, settings: Settings) -> Coast:
        """Take a few dozen seeds."""
        return cls(max(32, settings.replicas // 10), Task.cpu(settings, 32))

    @classmethod
    def paper(cls, settings: Settings) -> Coast:
        """Scan more margins on the large task; much larger ones a step of that rate would overshoot."""
        return cls(
            settings.replicas,
            Task.paper(settings),
            large_margins=(0.75, 1.0, 1.5, 2.0, 3.0),
            small_margins=(0.1, 0.125, 0.15, 0.2, 0.3),
        )


@dataclass(frozen=True, eq=False)
class CoastResult:
    """Norm of s at rest (A, N) and the law of every arm (A,); the largest s at equal loss over each scan (K, S)."""

    config: Coast
    distance: Array
    law: Array
    by_large: Array
    by_small: Array
    seconds: float

    @property
    def inertia(self) -> Array:
        """λ of every arm."""
        return np.array([lr / (1 - momentum) for lr, momentum in self.config.arms])


def run(config: Coast) -> CoastResult:
    """Coast, then scan."""
    clock = time.perf_counter()
    alpha = config.task.large_margin
    distance = np.stack([_coast(config, alpha, lr, momentum) for lr, momentum in config.arms])
    law = np.array([coasting(lr / (1 - momentum) * alpha**2)[0] / alpha for lr, momentum in config.arms])
    by_large = [_stop(replace(config.task, large_margin=a), config.slow, 0.0, 3000) for a in config.large_margins]
    by_small = [_stop(replace(config.task, small_margin=b), 1.0, config.strong, 1500) for b in config.small_margins]
    return CoastResult(config, distance, law, np.stack(by_large), np.stack(by_small), time.perf_counter() - clock)


def _coast(config: Coast, alpha: float, lr: float, momentum: float) -> Array:
    """Return ‖s‖ at rest of the seeds with a neuron to begin with, (N,); a start at s < 0 throughout goes nowhere."""
    streams = Streams(replica_seeds(config.task.seed, config.seeds, config.task.device), torch.float64)
    start = config.task.scale * streams.normal(Purpose.INIT, 0, (config.neurons,))
    start = torch.where((start < 0).all(-1, keepdim=True), -start, start)
    steps = int(config.rest / (1 - momentum)) if momentum else 400
    found = train(Feature(alpha), start, repeat(ema(lr, momentum), config.seeds), steps, streams).params
    assert isinstance(found, Tensor)
    return to_numpy(found.norm(dim=-1))


def _stop(task: Task, lr: float, momentum: float, steps: int) -> Array:
    """Return the largest s at equal loss, (S,); not a number where it was not met or no neuron was there to grow."""
    problem = Patches(task.data(), 1)
    (found,), _ = compete(task, problem, arms_hyper([lr], [momentum], task), steps, (EQUAL,))
    started = to_numpy(task.start(1)["s"].amax(-1)) > 0
    return np.where(started & (found.step[0] >= 0), found.feature[0], np.nan)


def estimates(result: CoastResult) -> Estimates:
    """Return what coasting says about P4-C7, P4-C8 and P4-C17."""
    config, seed = result.config, result.config.task.seed
    near = [i for i, (_, momentum) in enumerate(config.arms) if 0 < 1 - momentum <= config.near + 1e-9]
    cells = [mean(result.distance[i] / result.law[i]) for i in near]
    return {
        "P4-C7.exponent": _exponent(config.large_margins, result.by_large, seed),
        "P4-C8.exponent": _exponent(config.small_margins, result.by_small, seed),
        "P4-C17.coast": max(cells, key=lambda cell: abs(cell.value - 1)),
    }


def _exponent(margins: tuple[float, ...], found: Array, seed: int) -> Estimate:
    whole = np.isfinite(found).all(axis=0)
    return slope_of_mean(np.array(margins), found[:, whole].T, seed)


def tables(result: CoastResult) -> dict[str, DataFrame]:
    """Return mean distances beside the law, and the feature learned against the margins."""
    config = result.config
    arms = DataFrame(
        [
            {
                "lr": lr,
                "momentum": momentum,
                "inertia": inertia,
                "distance": distance.mean(),
                "law": law,
                "asymptote": coasting_distance(inertia, config.task.large_margin),
            }
            for (lr, momentum), inertia, distance, law in zip(
                config.arms, result.inertia, result.distance, result.law, strict=True
            )
        ]
    )
    scans = [
        DataFrame({"scan": name, "margin": margins, "feature": np.nanmean(found, axis=1)})
        for name, margins, found in (
            ("large", config.large_margins, result.by_large),
            ("small", config.small_margins, result.by_small),
        )
    ]
    return {"coast": arms, "margins": concat(scans, ignore_index=True)}


COAST = Experiment(
    "coast", ("P4-C7", "P4-C8", "P4-C17"), lambda settings: run(configure(Coast, settings)), estimates, tables
)
