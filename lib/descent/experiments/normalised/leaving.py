"""Leaving a saddle by signs: averaged first, plain at its rate, plain at its response, and averaged after.

Noise is far larger than the gradient, so that a plain sign is nearly a coin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import FirstPassage, Probe, sign, stack
from descent.engine.rule import AnyRule
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, each, tidy
from descent.problems.noisy import Bowl
from descent.stats import mean, paired_ratio
from descent.theory.signs import ema

PLAIN, BEFORE, MATCHED, AFTER = range(4)
ARMS = ("plain", "averaged before", "plain, matched response", "averaged after")


@dataclass(frozen=True)
class Leaving:
    """−½x² from x = 0, rate one."""

    momentum: float = 0.9
    noise: float = 100.0  # of a gradient, in units of curvature times rate
    levels: tuple[float, ...] = (20.0, 100.0, 400.0)  # of |x|, in units of the rate
    replicas: Share = Share()
    steps: int = 20_000  # at most: the run ends when the last one has left

    @property
    def rule(self) -> AnyRule:
        """The arms, in the order of ARMS."""
        response = math.sqrt(ema(self.momentum).for_mean)
        return stack(sign([1.0, 1.0, response], [0.0, self.momentum, 0.0]), sign(1.0, self.momentum, "after"))


@dataclass(frozen=True, eq=False)
class LeavingResult(Result[Leaving]):
    """First passages (A, L, N) of every arm through every level."""

    times: Array


def run(config: Leaving, lab: Lab) -> LeavingResult:
    """Let every arm go until all have passed the last level."""
    saddle = Bowl(size=config.noise, curvature=-1.0)
    probes: dict[str, Probe[torch.Tensor]] = {
        str(level): FirstPassage(beyond(level), stop=level == config.levels[-1]) for level in config.levels
    }
    done = lab.arms(config.rule, config.replicas).run(saddle, torch.zeros(1, 1), config.steps, probes=probes)
    return LeavingResult(config, lab, np.stack([done.passed(str(level)) for level in config.levels], axis=1))


def beyond(level: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the condition that |x| has passed a level."""
    return lambda x: x[:, 0].abs() >= level


def estimates(result: LeavingResult) -> Estimates:
    """Return what the passages say about N-12."""
    before, seed = result.times[BEFORE], result.lab.seed
    ratios = {arm: each(paired_ratio, before, result.times[arm], seed=seed) for arm in (PLAIN, MATCHED)}
    return {"N-12.equal_rate": list(ratios[PLAIN]), "N-12.matched": list(ratios[MATCHED])}


def tables(result: LeavingResult) -> Tables:
    """Return mean passages."""
    axes = {"arm": ARMS, "level": result.config.levels}
    return {"leaving": tidy(axes, steps=each(mean, result.times))}


LEAVING = Experiment(
    "leaving", small=Leaving(), run=run, estimates=estimates, tables=tables,
    large=Leaving(replicas=Share(times=20)),
)  # fmt: skip
