"""How the rules come to rest on a parabola: like 1/T without noise, and down to a floor with it.

What the paper's theorems bound is the mean over T steps of ⟨x − x*, ∇f(x)⟩. Here x* is 0, so that it is the mean of
Σ curvature·x², and whatever is left of it at late times is what the noise of batches adds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array, IntArray
from descent.engine import Arms, Purpose, Watch
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.smoothing.arms import NAMES, RULES, Arm, rules
from descent.problems.saddle import Quadratic
from descent.stats import Estimate, mean, slope
from descent.theory.search_noise import floor_factor, recipe_factor


@dataclass(frozen=True)
class Convergence:
    """A parabola in a few directions, from random starts, all rules at one learning rate; C² is one per direction."""

    replicas: Share = Share(over=3, least=100, most=1000)
    curvatures: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    lr: float = 0.01
    batch_sizes: tuple[int, ...] = (1, 16)
    horizons: tuple[int, ...] = (750, 1500, 3000)  # T, rising; by the first the start is forgotten but for e⁻⁷
    settled: int = 1500  # steps after which the floor is looked at, …
    steps: int = 4500  # … until here

    def at(self, momentum: float) -> IntArray:
        """Return T of the three rules, (A, T): of heavy ball 1 − momentum times those of the others, which it outruns.

        At equal T its start would be forgotten to the last digit, and nothing left to see.
        """
        pace = np.array([1.0, 1.0, 1 - momentum])
        least = np.arange(len(self.horizons)) + 1
        return np.maximum(np.rint(np.outer(pace, self.horizons)), least).astype(np.int64)


@dataclass(frozen=True, eq=False)
class ConvergenceResult:
    """Means of ⟨x, ∇f⟩: falling (A, N, T) without noise over the first T steps, floor (A, S, N) with it, at late times.

    Over rules, starts, horizons and batch sizes.
    """

    config: Convergence
    lab: Lab
    falling: Array
    floor: Array

    @property
    def unit(self) -> Array:
        """The floor of plain descent for small steps, ηC²/(2b), per batch size (S, 1)."""
        config = self.config
        return config.lr * len(config.curvatures) / (2 * np.array(config.batch_sizes)[:, None])


def run(config: Convergence, lab: Lab) -> ConvergenceResult:
    """Let all rules come to rest, without noise and at every batch size."""
    arms = lab.arms(rules(config.lr, lab.momentum), config.replicas, torch.float64)
    start = lab.streams(config.replicas, torch.float64).normal(Purpose.INIT, 0, (len(config.curvatures),))
    inner = _inner(config, arms, start, 0.0, config.horizons[-1])
    places = config.at(lab.momentum)[:, None]
    falling = np.take_along_axis(np.cumsum(inner, axis=-1), places - 1, axis=-1) / places
    floors = [_inner(config, arms, start, 1 / size, config.steps)[..., config.settled :] for size in config.batch_sizes]
    return ConvergenceResult(config, lab, falling, np.stack([values.mean(axis=-1) for values in floors], axis=1))


def _inner(config: Convergence, arms: Arms, start: Tensor, noise: float, steps: int) -> Array:
    """Return Σ curvature·x² at every step, (A, N, steps), with noise of that power in every direction."""
    scale = torch.tensor(config.curvatures, dtype=start.dtype, device=start.device)
    inner: Watch[Tensor] = Watch(1, lambda step, x, velocity: (scale * x.square()).sum(dim=1))
    done = arms.run(Quadratic(config.curvatures, noise), start, steps, probes={"inner": inner})
    return done["inner"][..., :steps]  # without the look at the end


def estimates(result: ConvergenceResult) -> Estimates:
    """Return what the parabola says about P1-C26, P1-C27 and P1-X11; of the theorems nothing without momentum."""
    true = [floor_factor(rule, result.lab.momentum) for rule in RULES]
    own = [each(mean, floor / (kappa * result.unit)) for floor, kappa in zip(result.floor, true, strict=True)]
    found: Estimates = {"P1-X11.floor": list(np.concatenate(own))}
    if result.lab.momentum == 0:
        return found
    return {
        **found,
        "P1-C26.falls": falls(result, Arm.HEAVY),
        "P1-C26.floor": under(result, Arm.HEAVY),
        "P1-C27.falls": falls(result, Arm.AVERAGED),
        "P1-C27.floor": under(result, Arm.AVERAGED),
    }


def falls(result: ConvergenceResult, arm: Arm) -> Estimate:
    """Return the exponent in T of the mean over T steps, without noise."""
    return slope(result.config.at(result.lab.momentum)[arm], result.falling[arm], result.lab.seed)


def under(result: ConvergenceResult, arm: Arm) -> list[Estimate]:
    """Return the floor over what the theorem allows, per batch size; its factor divides by the momentum."""
    kappa = recipe_factor(RULES[arm], result.lab.momentum)
    return list(each(mean, result.floor[arm] / (kappa * result.unit)))


def tables(result: ConvergenceResult) -> Tables:
    """Return one row per rule and horizon, and one per rule and batch size."""
    names, config = NAMES[: len(RULES)], result.config
    steps = config.at(result.lab.momentum)
    means = result.falling.mean(axis=1)
    falling = tidy({"arm": names, "place": range(steps.shape[1])}, steps=steps, inner_product=means)
    floors = each(mean, result.floor / result.unit)
    return {
        "convergence": falling.drop(columns="place"),
        "convergence_floor": tidy({"arm": names, "batch_size": config.batch_sizes}, floor=floors),
    }


CONVERGENCE = Experiment(
    "convergence", small=Convergence(), large=Convergence(Share(least=1000, most=2000)), run=run, estimates=estimates,
    tables=tables,
)  # fmt: skip
