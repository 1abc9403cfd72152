"""Over a barrier under every control: with noise the first passage of a double well, without noise a rugged bowl.

With noise the question is how long momentum waits; without, whether inertia carries a run over ripples that stop plain
descent, and whether it does so at the same inertia whatever the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.engine import FirstPassage, Purpose
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.experiments.synthesis.lineup import GRID, UNDEFINED, Arm, Cell, Column, arms_at, cells_table, pair, rule_of
from descent.problems.saddle import DoubleWell
from descent.problems.smoothed import Rugged
from descent.stats import Estimate, blocks, bootstrap, censored_ratio, paired_difference, proportion
from descent.theory.escape import kramers_time

OUTSIDE = "no formula: the barrier is below the temperature"
WELL = DoubleWell()
GROUPS = 200  # of starts, that are drawn again as one
BOWL, FINER = Rugged(1.0, 0.1, 10.0), Rugged(1.0, 0.03, 20.0)


class Landscape(NamedTuple):
    """A slope, the first and last start, and which ends are at home, in the middle or on the far, deeper side."""

    slope: Callable[[Array], Array]
    first: float
    last: float
    home: Callable[[Array], BoolArray]


LANDSCAPES = {
    "rugged bowl": Landscape(BOWL.slope, 0.6, 1.6, lambda x: np.abs(x) < BOWL.home),
    "finer ripples": Landscape(FINER.slope, 0.6, 1.6, lambda x: np.abs(x) < FINER.home),
    "tilted well": Landscape(lambda x: x**3 - x + 0.15, 1.2, 2.6, lambda x: x < 0),
}


@dataclass(frozen=True)
class Hopping:
    """A double well ¼(x² − 1)² with its noise set by barrier over plain SGD's temperature; bowls without noise."""

    lr: float = 0.02
    replicas: Share = Share(times=3, over=5, least=32)
    height: float = 4.0
    commit: float = 0.7  # where a passage counts: overshooting noise touches the top often and returns
    patience: float = 1.5  # length of a run in mean times of plain SGD
    starts: int = 1200  # drawn evenly on one side of every bowl; none of so many is less than a hundredth of all
    lams: tuple[float, ...] = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0)  # inertias λ = e/(1 − β)
    effective: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04)  # effective steps at which each is reached
    collapse: float = 0.02  # largest of them at which shares are compared with those of the smallest
    horizon: float = 60.0  # of effective time: fifteen damping times of the largest inertia

    @property
    def noise(self) -> float:
        """Variance of the noise that puts the barrier `height` temperatures high, for plain SGD."""
        return 2 * WELL.barrier / (self.height * self.lr)

    def kramers(self, arm: Arm) -> float:
        """Return Kramers' mean time over the barrier."""
        noise = self.noise * arm.noise
        return float(kramers_time(WELL.barrier, WELL.curvature, WELL.instability, arm.lr, arm.momentum, noise))

    def cold(self, arm: Arm) -> bool:
        """Tell whether the barrier is higher than the temperature, so that Kramers' formula speaks."""
        return arm.lr / (1 - arm.momentum) * self.noise * arm.noise / 2 <= WELL.barrier


@dataclass(frozen=True, eq=False)
class HoppingResult(Result[Hopping]):
    """First passages, and which noise-free runs come home, 1 or 0."""

    times: Array  # (A, N)
    seen: BoolArray  # (A, N): who passed
    steps: int  # watched
    home: dict[str, Array]  # per landscape (E, Λ, S), by effective step, inertia and start
    plain: dict[str, Array]  # of plain descent at the same effective steps, (E, S)

    def slower(self, column: Column, momentum: float) -> Estimate:
        """Return the mean passage time of an arm over that of its control, under censoring."""
        arm, control = ((self.times[place], self.seen[place]) for place in pair(column, momentum))
        return censored_ratio(*arm, *control, self.lab.seed)

    def moved(self) -> list[Estimate]:
        """Return how the share that comes home moves from the smallest step to each up to `most`, from equal starts.

        One for every landscape, step and inertia. Where no start ends elsewhere, the exact bound of how many may.
        """
        config = self.config
        near = [i for i, e in enumerate(config.effective) if i > 0 and e <= config.collapse]
        cells = [(home[i, j], home[0, j]) for home in self.home.values() for i in near for j in range(len(config.lams))]
        return [paired_difference(a, b) if (a != b).any() else proportion(0, len(a)) for a, b in cells]

    def shrinks(self) -> Estimate:
        """Return the largest spread of the share at equal inertia over all effective steps, less over the first two.

        Over every landscape and inertia; starts are drawn again.
        """
        found = blocks(np.moveaxis(np.array(list(self.home.values())), -1, 0), GROUPS)  # (n, L, E, Λ)

        def gap(drawn: Array) -> Array:
            shares = drawn.mean(axis=1)
            wide, narrow = (np.ptp(shares[:, :, :few], axis=2).max(axis=(1, 2)) for few in (None, 2))
            return np.asarray(wide - narrow)

        return bootstrap(gap, found, seed=self.lab.seed)

    def best(self, landscape: str) -> Estimate:
        """Return the share that comes home with the inertia that takes most, mean over effective steps."""
        found = blocks(np.moveaxis(self.home[landscape].mean(axis=0), -1, 0), GROUPS)  # (n, Λ)
        return bootstrap(lambda drawn: drawn.mean(axis=1).max(axis=1), found, seed=self.lab.seed)

    @property
    def cells(self) -> Iterator[Cell]:
        """The row of the control table: mean time over the barrier."""
        config = self.config
        for column, m in GRID:
            arm, control = (arms_at(config.lr)[i] for i in pair(column, m))
            known = config.cold(arm) and config.cold(control)
            predicted = config.kramers(arm) / config.kramers(control) if known else None
            if control.lr * WELL.curvature < 2:
                yield Cell("barrier", column, m, predicted, self.slower(column, m), "" if known else OUTSIDE)
            else:
                yield Cell("barrier", column, m, None, None, UNDEFINED)


def run(config: Hopping, lab: Lab) -> HoppingResult:
    """Watch every arm leave its well, then let runs without noise roll home."""
    lineup = arms_at(config.lr)
    arms = lab.arms(rule_of(lineup), config.replicas)
    well = DoubleWell(config.noise * arms.spread([arm.noise for arm in lineup])[:, None])
    over: FirstPassage[Tensor] = FirstPassage(lambda params: params[:, 0] >= config.commit, stop=True)
    steps = round(config.patience * config.kramers(lineup[0]))
    done = arms.run(well, torch.tensor([[-1.0]]), steps, probes={"over": over}, limit=1e3)
    starts = lab.streams(1, torch.float64).uniform(Purpose.INIT, 0, (len(LANDSCAPES), config.starts))[0].cpu().numpy()
    rolled = {name: _roll(config, LANDSCAPES[name], own) for name, own in zip(LANDSCAPES, starts, strict=True)}
    plain, home = ({name: ends[:, which] for name, ends in rolled.items()} for which in (0, slice(1, None)))
    return HoppingResult(config, lab, done.passed("over"), done["over"] >= 0, done.steps, home, plain)


def _roll(config: Hopping, landscape: Landscape, starts: Array) -> Array:
    """Return who ends at home, by effective step, (E, 1 + Λ, S): plain descent, then inertias; starts within 0 … 1."""
    first = landscape.first + (landscape.last - landscape.first) * starts
    inertia, ends = np.array(config.lams)[:, None], []
    for e in config.effective:
        momentum = np.concatenate([[[0.0]], 1 - e / inertia])
        lr, x = e * (1 - momentum), np.tile(first, (len(momentum), 1))
        v = np.zeros_like(x)
        for _ in range(round(config.horizon / e)):
            v *= momentum
            v += landscape.slope(x)
            x -= lr * v
        ends.append(landscape.home(x).astype(np.float64))
    return np.array(ends)


def estimates(result: HoppingResult) -> Estimates:
    """Return what barriers say about S-15 and S-16."""
    return {
        "S-15.slower": result.slower("average", 0.9),
        "S-16.collapse": result.moved(),
        "S-16.shrinks": result.shrinks(),
        "S-16.crosses": result.best("rugged bowl"),
        "S-16.plain": [proportion(int(ends.sum()), len(ends)) for plain in result.plain.values() for ends in plain],
    }


def tables(result: HoppingResult) -> Tables:
    """Return the cells, and the share of runs that come home by landscape, effective step and inertia."""
    axes = {"landscape": list(result.home), "effective_step": result.config.effective, "inertia": result.config.lams}
    return {
        "barrier": cells_table(result.cells),
        "ballistic": tidy(axes, home=[home.mean(axis=-1) for home in result.home.values()]),
    }


HOPPING = Experiment(
    "hopping", small=Hopping(), run=run, estimates=estimates, tables=tables,
    large=Hopping(0.005, Share(times=10), starts=4000),
)  # fmt: skip
