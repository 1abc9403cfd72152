"""One noisy direction under every control: noise of the search direction, floor at an optimum, escape from a saddle.

Every one of them has an exact value; what is measured is said against it and against plain SGD.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import FirstPassage, Noisy, Purpose, Streams, Watch, outside
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, each, tidy
from descent.experiments.synthesis.lineup import GRID, UNDEFINED, Arm, Cell, Column, arms_at, cells_table, pair, rule_of
from descent.stats import Estimate, exact, mean, paired_ratio, ratio_of_means
from descent.stats.intervals import blocks
from descent.theory.escape import escape_mean
from descent.theory.mode import kernel, search_noise_power, stationary_variance

Mechanism = Literal["direction", "floor", "escape"]
MECHANISMS: tuple[Mechanism, ...] = ("direction", "floor", "escape")


@dataclass(frozen=True)
class Modes:
    """A mode of curvature 1 with additive and multiplicative noise, and a saddle of instability 1; unit noise."""

    lr: float = 0.01
    replicas: Share = Share()
    leaving: Share = Share(times=4)  # replicas on the saddle, and under the strong noise
    multiplicative: float = 0.25
    strong: float = 20.0  # multiplicative variance at which the floor is compared again: a load of a tenth at lr 0.01
    burn: int = 1000
    watch: int = 2000
    sizes: tuple[float, ...] = (0.1, 1.0, 1.9, 2.1, 3.0)  # e·h of averaged directions, below 2 and above
    averages: tuple[float, ...] = (0.5, 0.9)

    def averaged(self, effective: float) -> list[Arm]:
        """Return averages of gradients at an effective step."""
        return [Arm(effective * (1 - m), m) for m in self.averages]

    def predicted(self, mechanism: Mechanism, arm: Arm) -> float:
        """Return the exact value of a mechanism for an arm; infinite where nothing is stationary."""
        if mechanism == "escape":
            return float(escape_mean(1.0, 1.0, arm.lr, arm.momentum, arm.noise))
        noises = (arm.noise, arm.noise * self.multiplicative)
        if mechanism == "floor":
            return float(stationary_variance(1.0, arm.lr, arm.momentum, *noises))
        units: Literal["heavy_ball", "ema"] = "heavy_ball" if arm.lr == self.lr else "ema"
        return float(search_noise_power(1.0, arm.lr, arm.momentum, *noises, convention=units))

    def predicted_ratio(self, mechanism: Mechanism, column: Column, momentum: float) -> float:
        """Return the exact value of an arm over that of its control."""
        arm, control = (self.predicted(mechanism, arms_at(self.lr)[place]) for place in pair(column, momentum))
        return arm / control


@dataclass(frozen=True, eq=False)
class ModesResult(Result[Modes]):
    """Time averages and passages per arm and replica, (A, N); more replicas in `escape` and in `strong`."""

    direction: Array  # power of its noise
    floor: Array  # E x²
    escape: Array  # steps to leave the saddle
    strong: Array  # (1 + M, N): E x² of plain SGD and of averages under the stronger multiplicative noise
    levels: Array  # (Z, M, N): power of averaged directions over the gradient's, by e·h and momentum

    def ratio(self, mechanism: Mechanism, column: Column, momentum: float, *, predicted: float = 1.0) -> Estimate:
        """Return the mean over replicas with momentum over that of its control, over what is predicted."""
        values = {"direction": self.direction, "floor": self.floor, "escape": self.escape}[mechanism]
        arm, control = (blocks(values[place]) for place in pair(column, momentum))
        return ratio_of_means(arm, control * predicted, self.lab.seed)

    @property
    def cells(self) -> Iterator[Cell]:
        """The rows of the control table: direction, floor and escape."""
        for mechanism in MECHANISMS:
            for column, m in GRID:
                control = arms_at(self.config.lr)[pair(column, m)[1]]
                if np.isfinite(self.config.predicted(mechanism, control)):
                    known = self.config.predicted_ratio(mechanism, column, m)
                    yield Cell(mechanism, column, m, known, self.ratio(mechanism, column, m))
                else:
                    yield Cell(mechanism, column, m, None, None, UNDEFINED)


def run(config: Modes, lab: Lab) -> ModesResult:
    """Watch the optimum under both noises, leave the saddle, and average directions at every e·h."""
    arms = arms_at(config.lr)
    direction, floor = _hover(config, lab, arms, config.multiplicative, config.replicas)
    _, strong = _hover(config, lab, [arms[0], *config.averaged(config.lr)], config.strong, config.leaving)
    averaged = [arm for size in config.sizes for arm in config.averaged(size)]
    power, _ = _hover(config, lab, averaged, 0.0, config.replicas, averages=True)
    levels = power.reshape(len(config.sizes), len(config.averages), -1)
    stack = lab.arms(rule_of(arms), config.leaving)
    saddle = _noisy(-1.0, 0.0, stack.spread([arm.noise for arm in arms]))
    steps = round(40 / (config.lr * (1 - max(arm.momentum for arm in arms)) ** 0.5))  # far beyond the slowest run
    out = FirstPassage(outside(1.0), stop=True)
    escape = stack.run(saddle, torch.zeros(1, 1), steps, probes={"out": out})["out"]
    return ModesResult(config, lab, direction, floor, escape, strong, levels)


def _noisy(curvature: float, multiplicative: float, factor: Tensor) -> Noisy[Tensor]:
    """Return (curvature + s ξ)x + ζ with the variance of both noises times `factor` (R,)."""
    size = factor.sqrt()[:, None]

    def noise(params: Tensor, streams: Streams, step: int) -> Tensor:
        drawn = streams.normal(Purpose.NOISE, step, (2,))
        found: Tensor = size * (multiplicative**0.5 * drawn[:, :1] * params + drawn[:, 1:])
        return found

    return Noisy(lambda params: curvature * params, noise)


def _hover(
    config: Modes, lab: Lab, arms: Sequence[Arm], multiplicative: float, replicas: Share, *, averages: bool = False
) -> list[Array]:
    """Return time averages of the direction's noise power and of x², (A, N); infinite where an arm is lost."""
    stack = lab.arms(rule_of(arms), replicas)
    # heavy ball's own units at equal lr, those of the gradient where momentum is an average: with `averages`, always
    units = [1.0 if arm.lr == config.lr and not averages else 1 - arm.momentum for arm in arms]
    lr, unit = stack.spread([arm.lr for arm in arms]), stack.spread(units)

    def look(step: int, params: Tensor, velocity: Tensor) -> dict[str, Tensor]:  # at v less x before the step, and at x
        x, v = params[:, 0], velocity[:, 0]
        return {"direction": (unit * v - (x + lr * v)).square(), "floor": x.square()}

    probe = Watch(max(1, config.watch // 100), look)  # a hundred looks: a whole record fits into memory
    problem = _noisy(1.0, multiplicative, stack.spread([arm.noise for arm in arms]))
    early = stack.run(problem, torch.zeros(1, 1), config.burn)
    late = early.then(config.burn + config.watch, probes={"": probe}).whole.records
    found = [stack.split(late[name].values.double().mean(0)) for name in (".direction", ".floor")]
    stable = np.array([arm.lr < 2 * (1 + arm.momentum) for arm in arms])[:, None]
    return [np.where(stable, values, np.inf) for values in found]


def estimates(result: ModesResult) -> Estimates:
    """Return what one direction says about S-5 to S-8."""
    config = result.config

    def over_exact(mechanism: Mechanism, column: Column, m: float) -> Estimate:
        return result.ratio(mechanism, column, m, predicted=config.predicted_ratio(mechanism, column, m))

    half = float(kernel(1.0, 1.0, config.lr, 0.0)) / 2  # the multiplicative variance that makes the load one half
    averages = [stationary_variance(1.0, a.lr, a.momentum, 1.0, half) for a in config.averaged(config.lr)]
    loaded = [float(average / stationary_variance(1.0, config.lr, 0.0, 1.0, half)) for average in averages]
    sides = np.where(np.array(config.sizes) < 2, 1.0, -1.0)[:, None, None]
    floors = [result.ratio("floor", "average", m) for m in config.averages]
    floors += [paired_ratio(average, result.strong[0], result.lab.seed) for average in result.strong[1:]]
    return {
        "S-5.sign": each(mean, sides * (1 - result.levels)).ravel(),
        "S-6.floor": floors,
        "S-6.half": [exact(ratio) for ratio in loaded],
        "S-7.floor": result.ratio("floor", "equal_power", 0.5),
        "S-7.size": over_exact("floor", "equal_power", 0.5),
        "S-8.slower": [result.ratio("escape", "equal_step", m) for m in (0.5, 0.9)],
        "S-8.size": [over_exact("escape", "equal_step", m) for m in (0.5, 0.9)],
    }


def tables(result: ModesResult) -> Tables:
    """Return the cells, and the power of averaged directions by e·h."""
    config = result.config
    size, m = np.array(config.sizes)[:, None], np.array(config.averages)
    noise = tidy(
        {"eh": config.sizes, "momentum": config.averages},
        value=each(mean, result.levels),
        exact=search_noise_power(1.0, size * (1 - m), m, 1.0, convention="ema"),
    )
    return {"modes": cells_table(result.cells), "direction_noise": noise.rename(columns={"value": "power"})}


MODES = Experiment(
    "modes", small=Modes(), run=run, estimates=estimates, tables=tables,
    # more replicas would sharpen nothing that is told apart, and their records and random numbers would fill the memory
    large=Modes(0.001, Share(times=100), Share(times=100), burn=10_000, watch=20_000),
)  # fmt: skip
