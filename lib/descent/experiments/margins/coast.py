"""How far the feature coasts once large margins are fitted, and where plain descent and momentum stop learning it.

The feature alone, without small margins and noise, comes to rest at a distance that the law of motion gives. On the
patch task, the feature at equal loss is scanned against the large margin for plain descent and against the small one
with strong momentum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from pandas import concat
from torch import Tensor

from descent.arrays import Array
from descent.engine import Params, Purpose, Streams, ema
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.margins.arms import LARGE, Task, compete, of_sets
from descent.problems.patches import Patches
from descent.stats import Estimate, mean, slope_of_mean
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

    task: Task = Task()
    seeds: Share | int = Share(over=10, least=32)  # of the feature alone
    arms: tuple[tuple[float, float], ...] = (
        (0.1, 0.9), (0.3, 0.9), (1.0, 0.9), (0.1, 0.99), (1.0, 0.99), (10.0, 0.99),
        (1.0, 0.0), (10.0, 0.0), (100.0, 0.0),
    )  # fmt: skip
    near: float = 0.1  # the law is claimed for 1 − momentum up to this
    neurons: int = 8
    rest: float = 40.0  # steps times 1 − momentum
    rest_plain: int = 400  # steps of plain descent
    large_margins: tuple[float, ...] = (0.75, 1.5, 3.0)
    small_margins: tuple[float, ...] = (0.1, 0.15, 0.3)
    slow: float = 0.25  # learning rate of the scan of large margins, plain descent
    strong: float = 0.99  # momentum of the scan of small margins


@dataclass(frozen=True, eq=False)
class CoastResult:
    """Norm of s at rest (A, N) and the law of every arm (A,); the largest s at equal loss over each scan (K, S)."""

    config: Coast
    lab: Lab
    distance: Array
    law: Array
    by_large: Array
    by_small: Array

    @property
    def inertia(self) -> Array:
        """λ of every arm."""
        return np.array([lr / (1 - momentum) for lr, momentum in self.config.arms])


def run(config: Coast, lab: Lab) -> CoastResult:
    """Let the feature coast, then scan."""
    task, alpha, distance = config.task, config.task.large_margin, []
    start = task.scale * lab.streams(config.seeds, torch.float64).normal(Purpose.INIT, 0, (config.neurons,))
    start = torch.where((start < 0).all(-1, keepdim=True), -start, start)  # all neurons at s < 0 would go nowhere
    for lr, momentum in config.arms:
        steps = int(config.rest / (1 - momentum)) if momentum else config.rest_plain
        done = lab.arms(ema(lr, momentum), config.seeds, torch.float64).run(Feature(alpha), start, steps)
        distance.append(done.end(lambda s: s.norm(dim=-1)))
    law = [coasting(lr / (1 - momentum) * alpha**2)[0] / alpha for lr, momentum in config.arms]
    large = [_stop(replace(task, large_margin=a), lab, config.slow, 0.0, 3000) for a in config.large_margins]
    small = [_stop(replace(task, small_margin=b), lab, 1.0, config.strong, 1500) for b in config.small_margins]
    return CoastResult(config, lab, np.concatenate(distance), np.array(law), np.stack(large), np.stack(small))


def _stop(task: Task, lab: Lab, lr: float, momentum: float, steps: int) -> Array:
    """Return the largest s at equal loss, (S,); not a number where it was not met or no neuron was there to grow."""
    (found,), _ = compete(task, lab, Patches(task.data(lab)), ema(lr, momentum), steps)
    started = (task.start(lab)["s"].amax(-1) > 0).cpu().numpy()
    return np.where(started & (found.step[0] >= 0), found.feature[0], np.nan)


def estimates(result: CoastResult) -> Estimates:
    """Return what coasting says about P4-C7, P4-C8 and P4-C17."""
    config, seed = result.config, result.lab.seed
    near = [i for i, (_, momentum) in enumerate(config.arms) if 0 < 1 - momentum <= config.near + 1e-9]
    cells = each(mean, result.distance[near] / result.law[near, None])
    exponents = {
        "P4-C7.exponent": _exponent(config.large_margins, result.by_large, seed),
        "P4-C8.exponent": _exponent(config.small_margins, result.by_small, seed),
    }
    return {**of_sets(exponents), "P4-C17.coast": list(cells)}


def _exponent(margins: tuple[float, ...], found: Array, seed: int) -> Estimate:
    """Return the exponent of the feature (K, S) in the margin, over the seeds that have all of them."""
    whole = np.isfinite(found).all(axis=0)
    return slope_of_mean(np.array(margins), found[:, whole].T, seed)


def tables(result: CoastResult) -> Tables:
    """Return mean distances beside the law, and the feature learned against the margins."""
    config, (lrs, momenta) = result.config, zip(*result.config.arms, strict=True)
    asymptote = [coasting_distance(inertia, config.task.large_margin) for inertia in result.inertia]
    both = (("large", config.large_margins, result.by_large), ("small", config.small_margins, result.by_small))
    scans = [tidy({"scan": [name], "margin": at}, feature=np.nanmean(found, axis=1)) for name, at, found in both]
    return {
        "coast": tidy(
            {"lr": lrs}, momentum=momenta, inertia=result.inertia, distance=result.distance.mean(axis=-1),
            law=result.law, asymptote=asymptote,
        ),
        "margins": concat(scans, ignore_index=True),
    }  # fmt: skip


COAST = Experiment(
    "coast", small=Coast(), run=run, estimates=estimates, tables=tables,
    large=Coast(  # a step of that rate would overshoot much larger margins
        LARGE, Share(), large_margins=(0.75, 1.0, 1.5, 2.0, 3.0), small_margins=(0.1, 0.125, 0.15, 0.2, 0.3)
    ),
)  # fmt: skip
