"""Between the thresholds the mean grows while almost every run shrinks: what samples show of it, and resampling.

One direction, exponential weights, one example per step: E v² grows by (1 − lr)² + lr² per step, carried by runs so
rare that no affordable sample holds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine import sgd
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables
from descent.measure.growth import Descent, Growth, resampled_growth
from descent.problems.quadratics import RandomWeights, Weighted, growth_rate
from descent.stats import mean
from descent.theory.weights import Gamma, lyapunov

WEIGHTS = Gamma(1.0)
LANES = 4  # draws that one word of the generator gives: taken together they cost as much as one
GROUPS = 100  # that run at a time, for memory
PAGE = 1 << 20  # steps of the random numbers between those of two such parts


@dataclass(frozen=True)
class Samples:
    """Runs at one step between the thresholds 1 and 2.68; `group` of them make one sample mean that is judged."""

    runs: Share | int = Share(times=1000)
    group: Share | int = Share(times=10)
    lr: float = 1.5
    steps: int = 24
    horizon: int = 20  # at which sample means are judged
    watched: int = 300  # steps of the resampled runs, of which as many as a group
    shown: int = 60  # single runs kept whole

    @property
    def exact(self) -> float:
        """The exact growth ½ log((1 − lr)² + lr²) of the mean square per step."""
        return growth_rate(Weighted(), self.lr, 1)

    @property
    def exact_single(self) -> float:
        """The exact growth of single runs, −e^{−1/lr} Ei(1/lr)."""
        return lyapunov(WEIGHTS, self.lr, 1)


@dataclass(frozen=True, eq=False)
class SamplesResult(Result[Samples]):
    """Errors e = v² at T + 1 points of time, all from e = 1."""

    sizes: tuple[int, ...]  # (M,): numbers of runs, each the first of the next
    means: Array  # (M, T + 1): their sample means
    groups: Array  # (G, T + 1): those of separate groups
    median: Array  # (T + 1,): of single runs, as log10 e
    paths: Array  # (S, T + 1): single runs, as log10 e
    resampled: Growth  # of as many runs as a group has, copied by how much they grow

    @property
    def theory(self) -> Array:
        """The exact mean error, (T + 1,)."""
        return np.asarray(np.exp(2 * self.config.exact * np.arange(self.config.steps + 1)))

    @property
    def resampled_path(self) -> Array:
        """The mean error by resampling, as log10, (T + 1,)."""
        grown = 2 / math.log(10) * self.resampled.series[: self.config.steps].cumsum()
        return np.concatenate([[0.0], grown])


def run(config: Samples, lab: Lab) -> SamplesResult:
    """Let all runs go, and resample a group of them."""
    runs, group = lab.count(config.runs), lab.count(config.group)
    sizes = tuple(runs // 10**power for power in range(4, -1, -1))
    walks = [_walk(config, lab, sizes, group, begin) for begin in range(0, runs, GROUPS * group)]
    parts = [[np.stack(column, axis=-1) for column in zip(*walk, strict=True)] for walk in walks]
    means, groups, (median, *_), (paths, *_) = zip(*parts, strict=True)
    arms = lab.arms(sgd(config.lr), config.group, torch.float64)
    step = Descent(RandomWeights(WEIGHTS), arms.hyper, arms.streams)
    start = step.state(arms.stack(torch.ones(1, 1, dtype=torch.float64)))
    (grown,) = resampled_growth(step, start, config.watched, arms.streams, burn=0)
    return SamplesResult(config, lab, sizes, np.sum(means, axis=0), np.concatenate(groups), median, paths, grown)


def _walk(config: Samples, lab: Lab, sizes: tuple[int, ...], group: int, begin: int) -> Iterator[tuple[Array, ...]]:
    """Look at a part of the runs, from `begin` on, at every point of time.

    What they add to the sample means (M,), their groups (G',), median () and single runs (S,) of log10 e. Not `train`,
    since a run is no more than the sum of its log growths.
    """
    streams = lab.streams(min(GROUPS * group, sizes[-1] - begin))
    page = begin // (GROUPS * group) * PAGE
    logs = torch.zeros(streams.replicas, device=streams.device)
    weights = logs[:, None]
    for step in range(config.steps + 1):
        errors = logs.mul(2).double().exp_()
        means = torch.stack([_share(errors, size, begin) for size in sizes])
        tens = logs[:group] * (2 / math.log(10))
        found = (means, errors.view(-1, group).mean(1), tens.median(), tens[: config.shown].double())
        yield tuple(part.cpu().numpy() for part in found)
        if step % LANES == 0:
            weights = WEIGHTS.batch_mean(streams, page + step // LANES, 1, (LANES,))
        logs += weights[:, step % LANES].mul(-config.lr).add_(1).abs_().log_()


def _share(errors: Tensor, size: int, begin: int) -> Tensor:
    """Return what the runs from `begin` on add to the mean over the first `size` of all runs."""
    some = errors[: max(0, size - begin)]
    return some.mean() * (len(some) / size) if len(some) else errors.new_zeros(())


def estimates(result: SamplesResult) -> Estimates:
    """Return what samples and resampled runs say about P2-X2 and P2-X9."""
    at = result.config.horizon
    return {
        "P2-X2.mean_grows": result.resampled.mean_square,
        "P2-X2.runs_shrink": result.resampled.lyapunov,
        "P2-X9.mean_blind": mean(np.log10(result.theory[at] / result.groups[:, at])),
        "P2-X9.resampled": mean(result.resampled.blocks / result.config.exact),
    }


def tables(result: SamplesResult) -> Tables:
    """Return log10 of the mean error, exact and as samples and resampling see it, one row per step."""
    steps = np.arange(result.config.steps + 1)
    frame = {"step": steps, "exact": np.log10(result.theory), "resampled": result.resampled_path}
    frame |= {f"mean_of_{size}": np.log10(row) for size, row in zip(result.sizes, result.means, strict=True)}
    return {"sample_means": DataFrame(frame | {"median": result.median})}


SAMPLES = Experiment(
    "samples", small=Samples(), large=Samples(Share(times=100_000)), run=run, estimates=estimates, tables=tables
)
