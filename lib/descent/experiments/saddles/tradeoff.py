"""The control: both halves of the trade-off at equal effective step e = lr/(1 − momentum)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from pandas import DataFrame

from descent.engine.probes import FirstPassage, every
from descent.engine.train import train
from descent.experiments.arms import (
    Arms,
    Array,
    beyond,
    configure,
    momenta,
    paired_ratio,
    passage_times,
    settle,
    survivors,
)
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.pca import StreamingPCA, error, radius
from descent.stats.intervals import mean, proportion
from descent.theory.escape import escape_level, escape_mean, escape_mean_asymptotic, escape_quantile
from descent.theory.mode import matched_lr, stationary_variance

LEVELS = (0.5, 0.9)
MODERATE = 0.5
HALF, NEAR = 0, 1


@dataclass(frozen=True)
class Tradeoff:
    """Streaming PCA at several effective steps, each with arms of every momentum at lr = e(1 − momentum)."""

    problem: StreamingPCA
    effective: tuple[float, ...]  # the smaller first: claims are stated at these two
    momentum: tuple[float, ...]
    headline: float
    replicas: int
    seed: int
    device: str
    look: int = 4  # steps between two looks at the thresholds
    relaxations: float = 15.0  # stationary window in relaxation times 1/(e·gap); a third of it to burn in
    large: tuple[float, ...] = (0.03, 0.05, 0.08)  # effective steps at which replicas are counted that blow up
    large_steps: int = 3000
    plane: tuple[float, float, int] = (1e-4, 1.0, 60)  # range of effective steps of the drawn curves, and points

    @classmethod
    def cpu(cls, settings: Settings) -> Tradeoff:
        """Take effective steps 0.005 and 0.02."""
        return cls._of(settings, settings.replicas, 5e-3, 2e-2)

    @classmethod
    def paper(cls, settings: Settings) -> Tradeoff:
        """Take a hundred times the replicas, and a step ten times smaller."""
        return cls._of(settings, 100 * settings.replicas, 5e-3, 2e-2, 5e-4)

    @classmethod
    def _of(cls, settings: Settings, replicas: int, *effective: float) -> Tradeoff:
        arms = momenta((0.0, MODERATE, 0.9, 0.95, 0.99), settings.momentum)
        return cls(StreamingPCA(), effective, arms, settings.momentum, replicas, settings.seed, settings.device)

    def arms(self, effective: float) -> Arms:
        """Return the arms of one effective step."""
        rates = tuple(float(lr) for lr in matched_lr(effective, self.momentum))
        return Arms(rates, self.momentum, self.replicas, self.seed, self.device)

    def row(self, momentum: float) -> int:
        """Return the index of an arm."""
        return self.momentum.index(momentum)


@dataclass(frozen=True, eq=False)
class TradeoffResult:
    """Both halves at E effective steps and A momenta.

    times (E, A, L, N) through the levels; exact_times (E, A, L). error: per effective step, stationary errors (A, N) of
    the surviving replicas; exact_error (E, A): of the linearised problem. lost (2, F, A): replicas that blew up at the
    large steps, Gaussian and bounded samples. plane_time, plane_variance (A, G): exact mean escape time and
    stationary variance of unit curvatures as lr moves (NaN where the law of the escape does not apply).
    """

    config: Tradeoff
    times: Array
    exact_times: Array
    error: tuple[Array, ...]
    exact_error: Array
    lost: Array
    plane_time: Array
    plane_variance: Array
    seconds: float


def run(config: Tradeoff) -> TradeoffResult:
    """Measure arrival from the saddle and the floor at the optimum, at every effective step."""
    clock = time.perf_counter()
    bounded = replace(config.problem, samples="signs")
    return TradeoffResult(
        config,
        np.stack([_arrivals(config, e) for e in config.effective]),
        np.stack([_exact_times(config, e) for e in config.effective]),
        tuple(_floor(config, e) for e in config.effective),
        np.stack([_exact_error(config, e) for e in config.effective]),
        np.stack([[_lost(config, problem, e) for e in config.large] for problem in (config.problem, bounded)]),
        *_plane(config),
        time.perf_counter() - clock,
    )


def _arrivals(config: Tradeoff, effective: float) -> Array:
    """Return passage times (A, L, N) from rest on the saddle."""
    arms = config.arms(effective)
    law = (config.problem.gap(), np.array(arms.lr), np.array(arms.momentum), config.problem.noise())
    slowest = escape_quantile(1 - 1e-6, radius(LEVELS[NEAR]), *law).max()
    probes = {str(level): FirstPassage(beyond(level), config.look) for level in LEVELS}
    probes["everyone"] = FirstPassage(beyond(LEVELS[NEAR]), 50, stop=True)
    start = config.problem.at(1, arms.rows).to(config.device)
    done = train(config.problem, start, arms.hyper, int(slowest), arms.streams(), probes=probes)
    raw = np.stack([arms.split(done.records[str(level)].values) for level in LEVELS], axis=1)
    return passage_times(raw, done.steps, config.look)


def _exact_times(config: Tradeoff, effective: float) -> Array:
    gap, noise, arms = config.problem.gap(), config.problem.noise(), config.arms(effective)
    return escape_mean(radius(LEVELS), gap, np.array(arms.lr)[:, None], np.array(arms.momentum)[:, None], noise)


def _floor(config: Tradeoff, effective: float) -> Array:
    """Return stationary errors (A, N), started at the optimum so that no late escape gets in."""
    arms = config.arms(effective)
    window = round(config.relaxations / (effective * config.problem.gap()))
    start, probe = config.problem.at(0, arms.rows).to(config.device), every(max(1, window // 300), error)
    end, series = settle(config.problem, start, arms, window // 3, window, probe)
    return np.asarray(arms.split_series(series)[:, survivors(arms, end)].mean(axis=2))


def _exact_error(config: Tradeoff, effective: float) -> Array:
    """Return the stationary error of the linearised problem, Σ_i variance_i, (A,)."""
    arms, problem = config.arms(effective), config.problem
    coordinates = range(1, len(problem.eigenvalues))
    lr, momentum = np.array(arms.lr), np.array(arms.momentum)
    parts = [stationary_variance(problem.gap(i), lr, momentum, problem.noise(i)) for i in coordinates]
    return np.asarray(np.sum(parts, axis=0))


def _lost(config: Tradeoff, problem: StreamingPCA, effective: float) -> Array:
    """Return how many replicas of each arm blow up, (A,)."""
    arms = config.arms(effective)
    start = problem.at(1, arms.rows).to(config.device)
    done = train(problem, start, arms.hyper, config.large_steps, arms.streams(), check=10)
    return np.asarray((arms.split(done.diverged_at) >= 0).sum(axis=1))


def _plane(config: Tradeoff) -> tuple[Array, Array]:
    """Return mean escape time and stationary variance (A, G) for unit curvatures, noise and radius."""
    low, high, points = config.plane
    momentum = np.array(config.momentum)[:, None]
    lr = matched_lr(np.geomspace(low, high, points), momentum)
    valid = escape_level(1.0, 1.0, lr, momentum) >= 4
    times = np.where(valid, escape_mean_asymptotic(1.0, 1.0, lr, momentum), np.nan)
    return times, stationary_variance(1.0, lr, momentum)


def estimates(result: TradeoffResult) -> Estimates:
    """Return what the control says about P3-C10 and P3-X1."""
    config, seed = result.config, result.config.seed
    head, moderate = config.row(config.headline), config.row(MODERATE)
    (small, large), floor = result.times[:2], result.error[0]
    equal_floor = paired_ratio(floor[head], floor[0], seed)
    return {
        "P3-C10.order": paired_ratio(small[head, NEAR], small[0, NEAR], seed),
        "P3-C10.accuracy": equal_floor,
        "P3-X1.slower": paired_ratio(large[head, HALF], large[0, HALF], seed),
        "P3-X1.equal_floor": equal_floor,
        "P3-X1.vanishes": paired_ratio(small[moderate, NEAR], small[0, NEAR], seed),
    }


def tables(result: TradeoffResult) -> dict[str, DataFrame]:
    """Return arrival times and floors over plain descent's, and the counts of replicas that blew up."""
    pairs = [(e, a) for e in range(len(result.config.effective)) for a in range(len(result.config.momentum))]
    return {"tradeoff": DataFrame([_row(result, e, a) for e, a in pairs]), "blow_ups": _lost_table(result)}


def _row(result: TradeoffResult, index: int, arm: int) -> dict[str, float]:
    config = result.config
    row = {"effective_step": config.effective[index], "momentum": config.momentum[arm]}
    for level, name in ((HALF, "half"), (NEAR, "near")):
        times = result.times[index, :, level]
        ratio, exact = paired_ratio(times[arm], times[0], config.seed), result.exact_times[index, :, level]
        row |= {f"{name}_mean": mean(times[arm]).value, f"{name}_exact": float(exact[arm])}
        row |= {f"{name}_ratio": ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
        row |= {f"{name}_ratio_exact": float(exact[arm] / exact[0])}
    floor = paired_ratio(result.error[index][arm], result.error[index][0], config.seed)
    row |= {"error": float(result.error[index][arm].mean()), "error_exact": float(result.exact_error[index, arm])}
    return row | {"error_ratio": floor.value, "error_low": floor.low, "error_high": floor.high}


def _lost_table(result: TradeoffResult) -> DataFrame:
    config, rows = result.config, []
    for s, samples in enumerate(("gaussian", "signs")):
        for e, effective in enumerate(config.large):
            for a, momentum in enumerate(config.momentum):
                share = proportion(int(result.lost[s, e, a]), config.replicas)
                rows.append((samples, effective, momentum, share.value, share.low, share.high))
    return DataFrame(rows, columns=["samples", "effective_step", "momentum", "share", "low", "high"])


def blow_ups(result: TradeoffResult) -> DataFrame:
    """Return the share of replicas that blew up, one row per law of the samples and effective step, momenta across."""
    wide = _lost_table(result).pivot(index=["samples", "effective_step"], columns="momentum", values="share")
    return wide.round(4)


TRADEOFF = Experiment(
    "tradeoff", ("P3-C10", "P3-X1"), lambda settings: run(configure(Tradeoff, settings)), estimates, tables
)
