"""One push in place of momentum: how far the feature must be carried once large margins are fitted.

Plain descent is kicked once, along the feature, and goes on to equal loss. The push that halves its error is compared
with the distance to which the feature coasts where momentum halves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import ema
from descent.engine.probes import Leaves
from descent.engine.surgery import Kick, Surgery
from descent.experiments.lab import Estimates, Experiment, Lab, Tables, tidy
from descent.experiments.margins.arms import LARGE, Task, compete, of_sets
from descent.problems.patches import Patches
from descent.stats import bootstrap, bounded_difference
from descent.theory.inertia import coasting_distance


@dataclass(frozen=True)
class KickSettings:
    """Plain descent; when large margins are fitted, the leading neuron's s is set to a multiple of a distance."""

    task: Task = Task()
    half: float = 3.2  # the distance is that to which the feature coasts at this λ, where momentum has half its benefit
    multiples: tuple[float, ...] = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
    lr: float = 1.0
    fitted: float = 0.1  # mean of 1/(1 + e^(yf)) over large margins below which they count as fitted
    steps: int = 800

    @property
    def distance(self) -> float:
        """The coasting distance at the half-value."""
        return coasting_distance(self.half, self.task.large_margin, self.task.share)


@dataclass(frozen=True, eq=False)
class KickResult:
    """Small-margin errors at equal loss of plain descent (S,) and of every kick (K, S)."""

    config: KickSettings
    lab: Lab
    plain: Array
    kicked: Array


def run(config: KickSettings, lab: Lab) -> KickResult:
    """Kick every arm but the first."""
    data, arms = config.task.data(lab), 1 + len(config.multiples)
    problem, one = Patches(data, arms), Patches(data)
    kicks = [
        Kick(problem.rows(arm), partial(_carry, multiple * config.distance), one.fitted(config.fitted))
        for arm, multiple in enumerate(config.multiples, start=1)
    ]
    rule = ema([config.lr] * arms, 0.0)
    (found,), _ = compete(config.task, lab, problem, rule, config.steps, objective=Surgery(problem, kicks))
    return KickResult(config, lab, found.err2[0], found.err2[1:])


def _carry(feature: float, params: Leaves) -> Leaves:
    """Return what takes the leading neuron's s (rows, m) to `feature`, if it is below."""
    s = params["s"]
    leading = torch.nn.functional.one_hot(s.argmax(-1), s.shape[-1]).to(s)
    return {"s": leading * (feature - s.amax(-1, keepdim=True)).clamp_min(0)}


def half_way(multiples: tuple[float, ...], drawn: Array) -> Array:
    """Return the multiple at which the mean error first falls to half of plain descent's, log-interpolated, (B,).

    drawn (B, S, 1 + K): plain descent first.
    """
    means = drawn.mean(axis=1)
    share = means[:, 1:] / means[:, :1]
    places = np.log(np.array(multiples))
    below = share <= 0.5
    index = np.where(below.any(axis=1), below.argmax(axis=1), len(places) - 1).clip(1)
    rows = np.arange(len(share))
    high, low = share[rows, index - 1], share[rows, index]
    part = ((high - 0.5) / np.maximum(high - low, 1e-12)).clip(0, 1)
    return np.asarray(np.exp(places[index - 1] + part * (places[index] - places[index - 1])))


def estimates(result: KickResult) -> Estimates:
    """Return what the kicks say about P4-N4."""
    multiples = result.config.multiples
    both = np.column_stack([result.plain, result.kicked.T])
    twice = result.kicked[int(np.argmin(np.abs(np.array(multiples) - 2)))]
    found: Estimates = {
        "P4-N4.works": bounded_difference(result.plain, twice),
        "P4-N4.critical": bootstrap(lambda drawn: half_way(multiples, drawn), both, seed=result.lab.seed),
    }
    return of_sets(found)


def tables(result: KickResult) -> Tables:
    """Return mean errors, one row per kick."""
    multiples, errors = np.array(result.config.multiples), np.vstack([result.plain, result.kicked])
    feature = (np.nan, *(multiples * result.config.distance))
    return {"kick": tidy({"multiple": (0.0, *multiples)}, feature=feature, err2=errors.mean(axis=1))}


KICK = Experiment(
    "kick", small=KickSettings(), large=KickSettings(LARGE, steps=4000), run=run, estimates=estimates, tables=tables
)
