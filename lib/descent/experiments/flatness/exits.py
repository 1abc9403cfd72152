"""One direction, noise that vanishes at the minimiser: how single runs grow, and who leaves from how close.

Between the two thresholds the chance to leave should be a power α of the starting distance, above both every run
should leave, however close it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.engine import column, sgd
from descent.engine.arms import in_parts
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.passages import first_passages
from descent.problems.exponents import Walk, almost_sure_threshold, exit_spread, exit_time, mean_square_threshold
from descent.stats import Estimate, blocks, bootstrap, mean, proportion
from descent.theory.weights import Gamma, StepLaw, WeightLaw

BLOCKS = 1000  # of walks, which the bootstrap resamples whole
NEAR, FAR = 10.0, 1000.0  # radius over starting distance, at which runs above the threshold are compared


@dataclass(frozen=True)
class Exits:
    """Settings between the two thresholds and above both; walks: runs of each whose way out is watched."""

    walks: Share = Share(times=30, least=960)
    replicas: Share = Share(times=4, least=32)  # whose growth is measured: so many resolve three per cent of it, …
    many: Share = Share(times=50, least=32)  # … and so many where it is slow, barely above the threshold
    law: WeightLaw = Gamma(0.5)
    between: tuple[tuple[int, float], ...] = ((1, 0.5), (1, 0.75), (4, 0.25), (4, 0.5), (4, 0.75), (16, 0.75))
    above: tuple[tuple[int, float], ...] = ((1, 1.1), (1, 1.5), (4, 1.5), (16, 1.5))
    head: tuple[int, int] = (0, 3)  # the settings between at k = 1 and k = 4 that claims are stated at
    barely: int = 1  # settings above that sit close to the threshold, which come first
    decays: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)  # −log of the chance to leave, up to a constant
    forget: float = 6.0  # a run is given up when its chance to come back is e^−forget of what it was
    deep: float = 600.0  # above both thresholds every run comes back: it is given up at e^−deep, where numbers end
    decades: tuple[float, ...] = (1.0, 3.0, 6.0, 12.0)
    steps: int = 200  # over which the growth of single runs is measured
    patience: int = 20_000

    def settings(self) -> tuple[list[Walk], list[Walk]]:
        """Return the settings a share of the way between the thresholds, and at multiples of the almost-sure one."""
        edges = {k: almost_sure_threshold(self.law, k) for k, _ in (*self.between, *self.above)}
        between = [(mean_square_threshold(self.law, k), k, share) for k, share in self.between]
        above = [Walk(self.law, multiple * edges[k], k) for k, multiple in self.above]
        return [Walk(self.law, low + share * (edges[k] - low), k) for low, k, share in between], above

    def followed(self, walks: int) -> tuple[float, ...]:
        """Return the decays that the chance to leave is followed to: down to where some twenty walks are left."""
        return tuple(decay for decay in self.decays if decay < np.log(walks / 20))


@dataclass(frozen=True, eq=False)
class ExitsResult(Result[Exits]):
    """What N walks did in B settings between the thresholds and A above."""

    between: list[Walk]
    above: list[Walk]
    ratios: Array  # (B, L): radius over starting distance
    left: Array  # (B, blocks, L): shares of walks that got there
    times: Array  # (A, N, D): exit times per number of decades
    seen: BoolArray  # alike
    growth: list[Array]  # B + A times (R,): log growth per step of single runs

    @property
    def chances(self) -> list[list[Estimate]]:
        """The chance to leave, in every setting between, from every distance."""
        walks = self.lab.count(self.config.walks)
        return [[proportion(round(share * walks), walks) for share in left.mean(0)] for left in self.left]


def run(config: Exits, lab: Lab) -> ExitsResult:
    """Release all runs at distance 1; a radius that is `ratio` away is the same as a start 1/ratio from radius 1."""
    (between, above), walks = config.settings(), lab.count(config.walks)
    decays, decades = np.array(config.followed(walks)), 10.0 ** np.array(config.decades)
    ratios = np.array([np.exp(decays / setting.exponent) for setting in between])
    left = [_left(setting, row, config, lab) for setting, row in zip(between, ratios, strict=True)]
    streams, floor = lab.streams(walks // 20, torch.float64), np.exp(-config.deep)
    passages = [first_passages(setting, 1.0, decades, config.patience, streams, floor) for setting in above]
    slow = above[: config.barely]
    growth = [_grown(one, config.many if one in slow else config.replicas, config, lab) for one in (*between, *above)]
    times, seen = np.stack([found.times for found in passages]), np.stack([found.seen for found in passages])
    return ExitsResult(config, lab, between, above, ratios, np.stack(left), times, seen, growth)


def _grown(setting: Walk, runs: Share, config: Exits, lab: Lab) -> Array:
    """Return the log growth per step of single runs from distance 1, (R,)."""
    arms, one = lab.arms(sgd(setting.lr), runs, torch.float64), torch.ones(1, 1, dtype=torch.float64)
    done = arms.run(setting.minimum, one, config.steps, limit=1e150, check=config.steps)
    return np.asarray(done.end(lambda params: column(0)(params).abs().log() / config.steps)[0])


def _left(setting: Walk, ratios: Array, config: Exits, lab: Lab) -> Array:
    """Return the shares of walks that got that far out, block by block."""
    floor = float(np.exp(-config.forget / setting.exponent))
    streams = lab.streams(config.walks, torch.float64)

    def seen(rows: slice) -> Tensor:
        found = first_passages(setting, 1.0, ratios, config.patience, streams.subset(rows), floor)
        return torch.from_numpy(found.seen)

    there = np.asarray(in_parts(seen, streams.replicas, 8 * 8 * (8 + len(ratios))))
    return blocks(there, min(BLOCKS, len(there) // 20))


def leaving_exponent(result: ExitsResult, row: int, unit: float = 1.0) -> Estimate:
    """Return the least-squares slope of the log chance to leave against log starting distance, over `unit`."""
    logs = -unit * np.log(result.ratios[row])
    weights = (logs - logs.mean()) / float(((logs - logs.mean()) ** 2).sum())
    return bootstrap(lambda a: np.log(a.mean(1)) @ weights, result.left[row], seed=result.lab.seed)


def stayed(result: ExitsResult, row: int) -> Estimate:
    """Return the share of runs above the threshold that leave from 1/NEAR of the radius but not from 1/FAR."""
    near, far = (result.config.decades.index(float(np.log10(ratio))) for ratio in (NEAR, FAR))
    seen = result.seen[row]
    return proportion(int((seen[:, near] & ~seen[:, far]).sum()), len(seen))


def estimates(result: ExitsResult) -> Estimates:
    """Return what exits in one direction say about P2-C11, P2-C12 and P2-X2."""
    single, several = result.config.head
    above = result.growth[len(result.between) :]
    stays = [stayed(result, row) for row in range(len(result.above))]
    return {
        "P2-C11.above": [mean(row / setting.growth) for row, setting in zip(above, result.above, strict=True)],
        "P2-C11.between": mean(result.growth[single]),
        "P2-C12.above": stays[result.config.barely :],
        "P2-C12.above_first": stays,
        "P2-C12.between": leaving_exponent(result, several),
        "P2-X2.power": [leaving_exponent(result, b, s.exponent) for b, s in enumerate(result.between)],
    }


def tables(result: ExitsResult) -> Tables:
    """Return the settings, the chances to leave between the thresholds, and the exit times above them."""
    between, above, decades = result.between, result.above, result.config.decades
    powers = [leaving_exponent(result, row) for row in range(len(between))]
    stays = [stayed(result, row).value for row in range(len(above))]
    inner, outer = result.growth[: len(between)], result.growth[len(between) :]
    settings = [_about(between, inner, power=powers), _about(above, outer, stayed=stays)]
    names = {"power": "measured_exponent", "power_low": "exponent_low", "power_high": "exponent_high"}
    chances = tidy(
        {"batch_size": [setting.batch_size for setting in between], "place": range(result.ratios.shape[1])},
        lr=[[setting.lr] for setting in between], start_over_radius=1 / result.ratios, value=result.chances,
    )  # fmt: skip
    pairs = zip(result.times.swapaxes(1, 2), result.seen.swapaxes(1, 2), strict=True)
    gone = [[times[seen] for times, seen in zip(*pair, strict=True)] for pair in pairs]  # the runs that leave

    def drift(law: Callable[[StepLaw, float, int, float], float]) -> list[list[float]]:
        return [[law(s.law, s.lr, s.batch_size, d * np.log(10)) for d in decades] for s in above]

    exit_times = tidy(
        {"batch_size": [setting.batch_size for setting in above], "decades": decades},
        lr=[[setting.lr] for setting in above], value=[[mean(times) for times in row] for row in gone],
        spread=[[times.std(ddof=1) / times.mean() for times in row] for row in gone],
        drift_alone=drift(exit_time), spread_limit=drift(exit_spread), share_left=result.seen.mean(axis=1),
    )  # fmt: skip
    return {
        "exits": concat(settings, ignore_index=True).rename(columns=names),
        "exit_chance": chances.drop(columns="place").rename(columns={"value": "chance"}),
        "exit_times": exit_times.rename(columns={"value": "mean"}),
    }


def _about(settings: list[Walk], growth: list[Array], **measured: Sequence[Estimate | float]) -> DataFrame:
    return tidy(
        {"batch_size": [setting.batch_size for setting in settings]}, lr=[setting.lr for setting in settings],
        exponent=[setting.exponent for setting in settings], growth_exact=[setting.growth for setting in settings],
        growth=[mean(runs) for runs in growth], **measured,
    )  # fmt: skip


EXITS = Experiment(
    "exits", small=Exits(), run=run, estimates=estimates, tables=tables,
    large=Exits(
        Share(times=9000), Share(times=80), Share(times=1000), decays=tuple(np.arange(1.0, 8.1, 0.5).tolist()),
        forget=9.0,
    ),
)  # fmt: skip
