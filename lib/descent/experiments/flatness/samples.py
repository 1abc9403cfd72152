"""Between the thresholds the mean grows while almost every run shrinks: what samples show of it, and resampling.

One direction, exponential weights, one example per step: E v² grows by (1 − lr)² + lr² per step, carried by runs so
rare that no affordable sample holds them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.growth import Descent, Growth, resampled_growth
from descent.problems.quadratics import RandomWeights, Weighted, growth_rate
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean
from descent.theory.weights import Gamma, lyapunov

LANES = 4  # draws that one word of the generator gives: taken together they cost as much as one
GROUPS = 100  # that run at a time, for memory
PAGE = 1 << 20  # steps of the random numbers between those of two such parts


@dataclass(frozen=True)
class Samples:
    """Runs at one step between the thresholds 1 and 2.68; `group` of them make one sample mean that is judged."""

    runs: int
    group: int
    seed: int
    device: str
    lr: float = 1.5
    steps: int = 24
    horizon: int = 20  # at which sample means are judged
    watched: int = 300  # steps of the resampled runs, of which as many as a group
    shown: int = 60  # single runs kept whole

    @classmethod
    def cpu(cls, settings: Settings) -> Samples:
        """Take a thousand runs for every replica, judged in groups of ten replicas' worth, 10 000 by default."""
        return cls(1000 * settings.replicas, 10 * settings.replicas, settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Samples:
        """Take a hundred times more runs."""
        return cls(100_000 * settings.replicas, 10 * settings.replicas, settings.seed, settings.device)

    @property
    def law(self) -> Gamma:
        """The weights."""
        return Gamma(1.0)

    @property
    def exact(self) -> float:
        """The exact growth ½ log((1 − lr)² + lr²) of the mean square per step."""
        return growth_rate(Weighted(), self.lr, 1)

    @property
    def exact_single(self) -> float:
        """The exact growth of single runs, −e^{−1/lr} Ei(1/lr)."""
        return lyapunov(self.law, self.lr, 1)


@dataclass(frozen=True, eq=False)
class SamplesResult:
    """Errors e = v² at T + 1 points of time, all from e = 1.

    sizes (M,): numbers of runs, each the first of the next; means (M, T + 1): their sample means; groups (G, T + 1):
    those of separate groups; median (T + 1,) and paths (S, T + 1): of single runs, as log10 e; resampled: the growth
    of as many runs as a group has, copied by how much they grow.
    """

    config: Samples
    sizes: tuple[int, ...]
    means: Array
    groups: Array
    median: Array
    paths: Array
    resampled: Growth
    seconds: float

    @property
    def theory(self) -> Array:
        """The exact mean error, (T + 1,)."""
        return np.asarray(np.exp(2 * self.config.exact * np.arange(self.config.steps + 1)))


def run(config: Samples) -> SamplesResult:
    """Let all runs go, and resample a group of them."""
    clock = time.perf_counter()
    sizes = tuple(config.runs // 10**power for power in range(4, -1, -1))
    parts = [_part(config, sizes, begin) for begin in range(0, config.runs, GROUPS * config.group)]
    shares, groups, (median, *_), (paths, *_) = zip(*parts, strict=True)
    means, every = np.sum(shares, axis=0), np.concatenate(groups)
    return SamplesResult(config, sizes, means, every, median, paths, _resample(config), time.perf_counter() - clock)


def _part(config: Samples, sizes: tuple[int, ...], begin: int) -> tuple[Array, ...]:
    """Return what a part of the runs adds: to the sample means (M, T + 1), groups, median and single runs."""
    return tuple(np.stack(column, axis=-1) for column in zip(*_walk(config, sizes, begin), strict=True))


def _walk(config: Samples, sizes: tuple[int, ...], begin: int) -> Iterator[tuple[Array, ...]]:
    """Look at every point of time: sample means (M,), groups (G',), median () and single runs (S,) of log10 e.

    Not `train`: a run is the sum of its log growths, and nothing else of it is needed.
    """
    count = min(GROUPS * config.group, config.runs - begin)
    streams, page = Streams(replica_seeds(config.seed, count, config.device)), begin // (GROUPS * config.group) * PAGE
    logs = torch.zeros(count, device=config.device)
    weights = torch.empty(count, 0, device=config.device)
    for step in range(config.steps + 1):
        errors = logs.mul(2).double().exp_()
        groups = errors.view(-1, config.group).mean(1)
        means = torch.stack([_share(errors, size, begin) for size in sizes])
        tens = logs[: config.group] * (2 / math.log(10))
        yield tuple(part.cpu().numpy() for part in (means, groups, tens.median(), tens[: config.shown].double()))
        if step % LANES == 0:
            weights = config.law.batch_mean(streams, page + step // LANES, 1, (LANES,))
        logs += weights[:, step % LANES].mul(-config.lr).add_(1).abs_().log_()


def _share(errors: Tensor, size: int, begin: int) -> Tensor:
    """Return what the runs from `begin` on add to the mean over the first `size` of all runs."""
    some = errors[: max(0, size - begin)]
    return some.mean() * (len(some) / size) if len(some) else errors.new_zeros(())


def _resample(config: Samples) -> Growth:
    streams = Streams(replica_seeds(config.seed, config.group, config.device), torch.float64)
    step = Descent(RandomWeights(config.law), repeat(sgd(config.lr), config.group).to(config.device), streams)
    start = torch.ones(config.group, 1, dtype=torch.float64, device=config.device)
    (found,) = resampled_growth(step, step.state(start), config.watched, streams, burn=0)
    return found


def missing(result: SamplesResult) -> Estimate:
    """Return log10 of the exact mean error over the sample mean of a group, at the horizon."""
    at = result.config.horizon
    return mean(np.log10(result.theory[at] / result.groups[:, at]))


def estimates(result: SamplesResult) -> Estimates:
    """Return what samples and resampled runs say about P2-X2 and P2-X9."""
    return {
        "P2-X2.mean_grows": result.resampled.mean_square,
        "P2-X2.runs_shrink": result.resampled.lyapunov,
        "P2-X9.mean_blind": missing(result),
        "P2-X9.resampled": mean(result.resampled.blocks / result.config.exact),
    }


def tables(result: SamplesResult) -> dict[str, DataFrame]:
    """Return log10 of the mean error, exact and as samples and resampling see it, one row per step."""
    steps = np.arange(result.config.steps + 1)
    frame = {"step": steps, "exact": np.log10(result.theory), "resampled": resampled_path(result)}
    frame |= {f"mean_of_{size}": np.log10(row) for size, row in zip(result.sizes, result.means, strict=True)}
    return {"sample_means": DataFrame(frame | {"median": result.median})}


def resampled_path(result: SamplesResult) -> Array:
    """Return log10 of the mean error by resampling, (T + 1,)."""
    grown = 2 / math.log(10) * result.resampled.series[: result.config.steps].cumsum()
    return np.concatenate([[0.0], grown])


SAMPLES = Experiment(
    "samples", ("P2-X2", "P2-X9"), lambda settings: run(configure(Samples, settings)), estimates, tables
)
