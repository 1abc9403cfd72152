"""The control: both halves of the trade-off at equal effective step e = lr/(1 − momentum).

If momentum did anything but rescale the step, its arms would still leave sooner or hover further here. Beside it: how
many replicas blow up at large steps, which is not a rescaling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from descent.arrays import Array
from descent.engine import Arms, FirstPassage, every, heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.saddles.arms import ByMomentum
from descent.problems.pca import Samples, StreamingPCA, beyond, error, radius
from descent.stats import paired_ratio, proportion
from descent.theory.escape import Unstable, escape_level, escape_mean_asymptotic
from descent.theory.mode import matched_lr, stationary_variance

LEVELS = (0.5, 0.9)  # squared overlaps with the optimum: half way, arrived
HALF, NEAR = 0, 1
MODERATE = 0.5
SAMPLES: tuple[Samples, ...] = ("gaussian", "signs")


@dataclass(frozen=True)
class Tradeoff:
    """Streaming PCA at several effective steps, each with arms of every momentum at lr = e(1 − momentum)."""

    problem: StreamingPCA = StreamingPCA()
    effective: tuple[float, ...] = (5e-3, 2e-2)  # the smaller first: claims are stated at these two
    momentum: tuple[float, ...] = (0.0, MODERATE, 0.9, 0.95, 0.99)  # and the headline
    replicas: Share = Share()
    look: int = 4  # steps between two looks at the thresholds
    relaxations: float = 15.0  # stationary window in relaxation times 1/(e·gap); a third of it to burn in
    large: tuple[float, ...] = (0.03, 0.05, 0.08)  # effective steps at which replicas are counted that blow up
    large_steps: int = 3000
    plane: tuple[float, float, int] = (1e-4, 1.0, 60)  # range of effective steps of the drawn curves, and points

    def arms(self, lab: Lab, effective: float) -> Arms:
        """Return the arms of one effective step."""
        momentum = lab.momenta(self.momentum)
        return lab.arms(heavy_ball(matched_lr(effective, momentum).tolist(), momentum), self.replicas)


@dataclass(frozen=True, eq=False)
class TradeoffResult(ByMomentum):
    """Both halves at E effective steps and A momenta.

    times (E, A, L, N) through the levels; exact_times (E, A, L). error: per effective step, stationary errors (A, N) of
    the surviving replicas; exact_error (E, A): of the linearised problem. lost (2, F, A): replicas that blew up at the
    large steps, by SAMPLES. plane_time, plane_variance (A, G): exact mean escape time and stationary variance of unit
    curvatures as lr moves (NaN where the law of the escape does not apply).
    """

    config: Tradeoff
    lab: Lab
    times: Array
    exact_times: Array
    error: tuple[Array, ...]
    exact_error: Array
    lost: Array
    plane_time: Array
    plane_variance: Array


def run(config: Tradeoff, lab: Lab) -> TradeoffResult:
    """Measure arrival from the saddle and the floor at the optimum, at every effective step; count what blows up."""
    problem, momentum = config.problem, lab.momenta(config.momentum)
    lr = matched_lr(np.array(config.effective)[:, None], momentum)
    coordinates = range(1, len(problem.eigenvalues))
    floors = [stationary_variance(problem.gap(i), lr, momentum, problem.noise(i)) for i in coordinates]
    large = [
        [config.arms(lab, e).run(kind, kind.at(1), config.large_steps, check=10) for e in config.large]
        for kind in (replace(problem, samples=samples) for samples in SAMPLES)
    ]
    low, high, points = config.plane
    inertia = np.array(momentum)[:, None]
    plane = matched_lr(np.geomspace(low, high, points), inertia)
    sound = escape_level(1.0, 1.0, plane, inertia) >= 4
    return TradeoffResult(
        config, lab,
        times=np.stack([_arrivals(config, lab, e) for e in config.effective]),
        exact_times=Unstable(problem.gap(), lr, np.array(momentum), problem.noise()).by_arm.mean(radius(LEVELS)),
        error=tuple(_floor(config, lab, e) for e in config.effective),
        exact_error=np.sum(floors, axis=0),
        lost=np.array([[done.lost.sum(axis=1) for done in several] for several in large]),
        plane_time=np.where(sound, escape_mean_asymptotic(1.0, 1.0, plane, inertia), np.nan),
        plane_variance=stationary_variance(1.0, plane, inertia),
    )  # fmt: skip


def _arrivals(config: Tradeoff, lab: Lab, effective: float) -> Array:
    """Return passage times (A, L, N) from rest on the saddle."""
    arms, problem = config.arms(lab, effective), config.problem
    law = Unstable(problem.gap(), arms.rule.lr.numpy(), arms.rule.momentum.numpy(), problem.noise())
    slowest = law.quantile(1 - 1e-6, radius(LEVELS[NEAR])).max()
    probes = {str(level): FirstPassage(beyond(level), config.look) for level in LEVELS}
    probes["everyone"] = FirstPassage(beyond(LEVELS[NEAR]), 50, stop=True)
    done = arms.run(problem, problem.at(1), int(slowest), probes=probes)
    return np.stack([done.passed(str(level)) for level in LEVELS], axis=1)


def _floor(config: Tradeoff, lab: Lab, effective: float) -> Array:
    """Return stationary errors (A, N), started at the optimum so that no late escape gets in."""
    window = round(config.relaxations / (effective * config.problem.gap()))
    begun = config.arms(lab, effective).run(config.problem, config.problem.at(0), window // 3)
    done = begun.then(window // 3 + window, probes={"": every(max(1, window // 300), error)})
    return np.asarray(done[""][:, done.alive].mean(axis=2))


def estimates(result: TradeoffResult) -> Estimates:
    """Return what the control says about P3-C10 and P3-X1."""
    seed, head, moderate = result.lab.seed, result.arm(result.lab.momentum), result.arm(MODERATE)
    (small, large), floor = result.times[:2], result.error[0]
    equal_floor = paired_ratio(floor[head], floor[0], seed)
    return {
        "P3-C10.order": paired_ratio(small[head, NEAR], small[0, NEAR], seed),
        "P3-C10.accuracy": equal_floor,
        "P3-X1.slower": paired_ratio(large[head, HALF], large[0, HALF], seed),
        "P3-X1.equal_floor": equal_floor,
        "P3-X1.vanishes": paired_ratio(small[moderate, NEAR], small[0, NEAR], seed),
    }


def tables(result: TradeoffResult) -> Tables:
    """Return arrival times and floors over plain descent's, and the counts of replicas that blew up."""
    seed = result.lab.seed
    columns: dict[str, NDArray[Any]] = {}
    for level, name in ((HALF, "half"), (NEAR, "near")):
        times, exact = result.times[:, :, level], result.exact_times[:, :, level]
        columns |= {
            f"{name}_mean": times.mean(axis=-1), f"{name}_exact": exact, f"{name}_ratio_exact": exact / exact[:, :1],
            name: each(paired_ratio, times, times[:, :1], seed=seed),
        }  # fmt: skip
    frame = tidy(
        {"effective_step": result.config.effective, "momentum": result.momentum}, **columns,
        error_mean=[[arm.mean() for arm in arms] for arms in result.error], error_exact=result.exact_error,
        error=[each(paired_ratio, arms, arms[:1], seed=seed) for arms in result.error],
    )  # fmt: skip
    ratios = {name: f"{name}_ratio" for name in ("half", "near", "error")}
    return {"tradeoff": frame.rename(columns=ratios | {"error_mean": "error"}), "blow_ups": _shares(result)}


def _shares(result: TradeoffResult) -> DataFrame:
    """Return the share of the replicas that blew up, with its interval."""
    replicas = result.lab.count(result.config.replicas)
    found = [[[proportion(int(lost), replicas) for lost in arms] for arms in steps] for steps in result.lost]
    axes = {"samples": SAMPLES, "effective_step": result.config.large, "momentum": result.momentum}
    return tidy(axes, value=found).rename(columns={"value": "share"})


def blow_ups(result: TradeoffResult) -> DataFrame:
    """Return the share of replicas that blew up, one row per law of the samples and effective step, momenta across."""
    wide = _shares(result).pivot(index=["samples", "effective_step"], columns="momentum", values="share")
    return wide.round(4)


LARGE = Tradeoff(effective=(5e-3, 2e-2, 5e-4), replicas=Share(times=100))
TRADEOFF = Experiment("tradeoff", small=Tradeoff(), large=LARGE, run=run, estimates=estimates, tables=tables)
