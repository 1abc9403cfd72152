"""Over a barrier under every control: with noise the first passage of a double well, without noise a rugged bowl."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import FirstPassage
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.synthesis.lineup import UNDEFINED, Arm, Cell, Column, Lineup, cells_table
from descent.problems.saddle import DoubleWell
from descent.problems.smoothed import Rugged
from descent.stats.estimate import Estimate
from descent.stats.intervals import censored_ratio, exact
from descent.theory.escape import kramers_time

OUTSIDE = "no formula: the barrier is below the temperature"
BOWL, FINER = Rugged(1.0, 0.1, 10.0), Rugged(1.0, 0.03, 20.0)
LANDSCAPES: dict[str, tuple[Callable[[Array], Array], float, float, float]] = {
    # slope, first and last start, and how close to its centre 0 a run must end
    "rugged bowl": (BOWL.slope, 0.6, 1.6, BOWL.home),
    "finer ripples": (FINER.slope, 0.6, 1.6, FINER.home),
    "tilted well": (lambda x: x**3 - x + 0.15, 1.2, 2.6, np.nan),
}


@dataclass(frozen=True)
class Hopping:
    """A double well ¼(x² − 1)² with its noise set by barrier over plain SGD's temperature; bowls without noise.

    A passage counts at `commit`, past the top: overshooting noise touches the top often and returns. Starts of the
    bowls are spread evenly; lams are inertias λ = e/(1 − β), reached at several effective steps.
    """

    lr: float
    replicas: int
    seed: int
    device: str
    height: float = 4.0
    commit: float = 0.7
    patience: float = 1.5  # length of a run in mean times of plain SGD
    starts: int = 401
    lams: tuple[float, ...] = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0)
    effective: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04)
    horizon: float = 60.0  # of effective time: fifteen damping times of the largest inertia

    @classmethod
    def cpu(cls, settings: Settings) -> Hopping:
        """Take effective step 0.02 and three fifths of the replicas."""
        return cls(0.02, max(32, 3 * settings.replicas // 5), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Hopping:
        """Take a step four times smaller, ten times the replicas and of the starts, which roll on the host."""
        return cls(0.005, 10 * settings.replicas, settings.seed, settings.device, starts=4001)

    @property
    def lineup(self) -> Lineup:
        """The arms."""
        return Lineup(self.lr)

    @property
    def noise(self) -> float:
        """Variance of the noise that puts the barrier `height` temperatures high, for plain SGD."""
        return 2 * DoubleWell().barrier / (self.height * self.lr)

    def kramers(self, arm: Arm) -> float:
        """Return Kramers' mean time over the barrier."""
        well = DoubleWell()
        return float(
            kramers_time(well.barrier, well.curvature, well.instability, arm.lr, arm.momentum, self.noise * arm.noise)
        )

    def cold(self, arm: Arm) -> bool:
        """Tell whether the barrier is higher than the temperature, so that Kramers' formula speaks."""
        return arm.lr / (1 - arm.momentum) * self.noise * arm.noise / 2 <= DoubleWell().barrier


@dataclass(frozen=True, eq=False)
class HoppingResult:
    """First passages (A, N), with who was seen to pass; `steps` watched; shares of noise-free runs that come home.

    home: per landscape (E, Λ), by effective step and inertia; plain: of plain descent at the same effective steps (E,).
    """

    config: Hopping
    times: Array
    seen: NDArray[np.bool_]
    steps: int
    home: dict[str, Array]
    plain: dict[str, Array]
    seconds: float


def run(config: Hopping) -> HoppingResult:
    """Watch every arm leave its well, then let runs without noise roll home."""
    clock = time.perf_counter()
    lineup, n = config.lineup, config.replicas
    count = len(lineup.arms)
    streams = Streams(replica_seeds(config.seed, n, config.device).repeat(count))
    well = DoubleWell(config.noise * lineup.noise(n, config.device))
    over = FirstPassage(lambda params: cast(Tensor, params)[:, 0] >= config.commit, stop=True)
    steps = round(config.patience * config.kramers(lineup.arms[0]))
    start = -torch.ones(count * n, 1, device=config.device)
    done = train(well, start, lineup.hyper(n, config.device), steps, streams, probes={"over": over}, limit=1e3)
    raw = to_numpy(done.records["over"].values).reshape(count, n)
    rolled = {name: _roll(config, name) for name in LANDSCAPES}
    return HoppingResult(
        config,
        np.where(raw < 0, done.steps, raw),
        raw >= 0,
        done.steps,
        {name: home for name, (home, _) in rolled.items()},
        {name: plain for name, (_, plain) in rolled.items()},
        time.perf_counter() - clock,
    )


def _roll(config: Hopping, name: str) -> tuple[Array, Array]:
    """Return the share of starts that end at home, by effective step and inertia (E, Λ), and for plain descent (E,)."""
    slope, first, last, _ = LANDSCAPES[name]
    lams = np.array([np.inf, *config.lams])[:, None]  # plain descent first
    table = []
    for e in config.effective:
        momentum = np.where(np.isinf(lams), 0.0, 1 - e / np.where(np.isinf(lams), 1.0, lams))
        lr = e * (1 - momentum)
        x = np.broadcast_to(np.linspace(first, last, config.starts), (len(lams), config.starts)).copy()
        v = np.zeros_like(x)
        for _ in range(round(config.horizon / e)):
            v = momentum * v + slope(x)
            x = x - lr * v
        table.append(_home(name, x).mean(axis=1))
    found = np.array(table)
    return found[:, 1:], found[:, 0]


def _home(name: str, x: Array) -> NDArray[np.bool_]:
    """Tell which runs ended in the middle of a bowl; in the tilted well, on the far, deeper side."""
    reach = LANDSCAPES[name][3]
    return x < 0 if np.isnan(reach) else np.abs(x) < reach


def cells(result: HoppingResult) -> list[Cell]:
    """Return the row of the control table: mean time over the barrier."""
    config, found = result.config, []
    arms = config.lineup.arms
    for column, m in config.lineup.cells:
        arm, control = (arms[i] for i in config.lineup.pair(column, m))
        if control.lr * DoubleWell().curvature >= 2:
            found.append(Cell("barrier", column, m, None, None, UNDEFINED))
            continue
        known = config.cold(arm) and config.cold(control)
        predicted = config.kramers(arm) / config.kramers(control) if known else None
        found.append(Cell("barrier", column, m, predicted, slower(result, column, m), "" if known else OUTSIDE))
    return found


def slower(result: HoppingResult, column: Column, momentum: float) -> Estimate:
    """Return the mean passage time of an arm over that of its control, under censoring."""
    arm, control = result.config.lineup.pair(column, momentum)
    return censored_ratio(
        result.times[arm], result.seen[arm], result.times[control], result.seen[control], result.config.seed
    )


def spread(result: HoppingResult, most: float) -> float:
    """Return the largest spread over effective steps up to `most` of the share that comes home, at equal inertia."""
    few = [e <= most for e in result.config.effective]
    return max(float(np.ptp(home[few], axis=0).max()) for home in result.home.values())


def estimates(result: HoppingResult) -> Estimates:
    """Return what barriers say about S-15 and S-16."""
    bowl = result.home["rugged bowl"]
    return {
        "S-15.slower": slower(result, "average", 0.9),
        "S-16.collapse": exact(spread(result, 0.02)),
        "S-16.shrinks": exact(spread(result, 0.04) - spread(result, 0.01)),
        "S-16.crosses": exact(float(bowl.mean(axis=0).max())),
        "S-16.plain": exact(float(max(plain.max() for plain in result.plain.values()))),
    }


def tables(result: HoppingResult) -> dict[str, DataFrame]:
    """Return the cells, and the share of runs that come home by landscape, effective step and inertia."""
    config = result.config
    rows = [
        {"landscape": name, "effective_step": e, "inertia": lam, "home": home[i, j]}
        for name, home in result.home.items()
        for i, e in enumerate(config.effective)
        for j, lam in enumerate(config.lams)
    ]
    return {"barrier": cells_table(cells(result)), "ballistic": DataFrame(rows)}


HOPPING = Experiment("hopping", ("S-15", "S-16"), lambda settings: run(configure(Hopping, settings)), estimates, tables)
