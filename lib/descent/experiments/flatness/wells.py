"""Both wells of a Styblinski–Tang sum in one dimension: leaving a minimiser is not leaving its basin."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Every, Params, Probe, every
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.styblinski import FLAT, SHARP, TOP, StyblinskiTang, crisis, cycle
from descent.stats.estimate import Estimate
from descent.stats.intervals import exact, proportion
from descent.theory.weights import TwoPoint, WeightLaw

Batch = int | None  # examples per step, None for all

SETTLED_SHARP, SETTLED_FLAT, LEFT, RIGHT, INFINITE = range(5)
OUTCOMES = ("settled sharp", "settled flat", "unsettled, sharp basin", "unsettled, flat basin", "infinite")
CHECK = 20  # steps between two looks for runs that went to infinity
HEAD, ABOVE, INSIDE = 4, 1.25, 1.1  # the batch size and the multiples of its own threshold that claims are stated at


@dataclass(frozen=True)
class Wells:
    """Runs released close to either minimiser, the step at multiples of the sharp one's mean-square threshold."""

    weights: WeightLaw
    multiples: tuple[float, ...]
    replicas: int
    seed: int
    device: str
    batch_sizes: tuple[Batch, ...] = (1, 2, HEAD, 16, None)
    near: float = 1e-3  # standard deviation of the starts around the minimiser
    steps: int = 4000
    window: int = 100  # last steps, over which a settled run stays within `radius` of a minimiser
    radius: float = 0.1

    @classmethod
    def cpu(cls, settings: Settings) -> Wells:
        """Take half the replicas and six steps."""
        return cls._of(settings, max(32, settings.replicas // 2), 0.8, 0.9, INSIDE, ABOVE, 1.4, 1.6)

    @classmethod
    def paper(cls, settings: Settings) -> Wells:
        """Take twenty times the replicas and steps between."""
        multiples = (0.8, 0.9, 1.0, 1.05, INSIDE, 1.15, 1.2, ABOVE, 1.3, 1.4, 1.5, 1.6)
        return cls._of(settings, 20 * settings.replicas, *multiples)

    @classmethod
    def _of(cls, settings: Settings, replicas: int, *multiples: float) -> Wells:
        return cls(TwoPoint(0.5), multiples, replicas, settings.seed, settings.device)

    @property
    def problem(self) -> StyblinskiTang:
        """The sum, seen through every batch size."""
        return StyblinskiTang(self.weights, self.batch_sizes)

    @property
    def lr(self) -> Array:
        """Steps (K, M)."""
        edges = [self.problem.thresholds(k).sharp for k in self.batch_sizes]
        return np.outer(edges, self.multiples)

    def cell(self, batch_size: Batch, multiple: float) -> tuple[int, int]:
        """Return the place of a batch size and a multiple."""
        return self.batch_sizes.index(batch_size), self.multiples.index(multiple)


@dataclass(frozen=True, eq=False)
class WellsResult:
    """K batch sizes, M multiples, two wells to start from (sharp, flat), N replicas.

    outcome (K, M, 2, N): index into OUTCOMES. returns (K, M, 2, N): largest distance between iterates two steps apart
    over the window. band (M, 2): lowest and highest point of full-batch runs from the sharp well over the window.
    """

    config: Wells
    outcome: NDArray[np.int64]
    returns: Array
    band: Array
    seconds: float

    def share(self, batch_size: Batch, multiple: float, *outcomes: int) -> Estimate:
        """Return the share of runs from the sharp well that ended in one of the outcomes."""
        found = self.outcome[(*self.config.cell(batch_size, multiple), 0)]
        return proportion(int(np.isin(found, outcomes).sum()), len(found))


class Released(NamedTuple):
    """Runs with K batch sizes at A steps each from N starts.

    tail (K, A, N, window + 1, …): what was watched over the last steps; lost (K, A, N): who went to infinity; records:
    of the probes, over the steps before the last ones, (T, K, A, N).
    """

    tail: Array
    lost: NDArray[np.bool_]
    records: dict[str, Array]


def release(
    problem: StyblinskiTang,
    lr: Array,
    start: Tensor,
    seeds: Tensor,
    steps: int,
    last: Every,
    probes: Mapping[str, Probe] | None = None,
) -> Released:
    """Descend from the same starts (N, d) on the same luck at every lr (K, A); `last.every` counts the last steps."""
    hyper = repeat(sgd(torch.as_tensor(lr.ravel())), len(start)).to(start.device)
    streams, begin = Streams(seeds.repeat(lr.size), start.dtype), steps - last.every
    early = train(problem, start.repeat(lr.size, 1), hyper, begin, streams, probes=probes, check=CHECK)
    end = {"tail": every(1, last.function)}
    late = train(
        problem, early.params, hyper, steps, streams, velocity=early.velocity, begin=begin, probes=end, check=CHECK
    )
    shape = (*lr.shape, len(start))
    records = {name: series.values.view(-1, *shape).cpu().numpy() for name, series in early.records.items()}
    tail = late.records["tail"].values
    lost = ((early.diverged_at >= 0) | (late.diverged_at >= 0)).view(shape).cpu().numpy()
    return Released(np.moveaxis(tail.view(-1, *shape, *tail.shape[2:]).cpu().numpy(), 0, 3), lost, records)


def classify(tail: Array, lost: NDArray[np.bool_], radius: float) -> NDArray[np.int64]:
    """Return the outcome of runs of one coordinate from their last steps, (…, T) and (…) → (…)."""
    outcome = np.where(tail[..., -1] > TOP.x, RIGHT, LEFT)
    for well, settled in ((SHARP, SETTLED_SHARP), (FLAT, SETTLED_FLAT)):
        outcome = np.where((np.abs(tail - well.x) < radius).all(axis=-1), settled, outcome)
    return np.where(lost, INFINITE, outcome)


def run(config: Wells) -> WellsResult:
    """Release runs at both wells for every batch size and step."""
    clock = time.perf_counter()
    seeds = replica_seeds(config.seed, config.replicas, config.device)
    offset = config.near * Streams(seeds, torch.float64).normal(Purpose.INIT, 0, (1,))
    start = torch.cat([well.x + offset for well in (SHARP, FLAT)])
    watch = every(config.window, _coordinate)
    done = release(config.problem, config.lr, start, seeds.repeat(2), config.steps, watch)
    found = [_judge(config, *each) for each in zip(done.tail, done.lost, strict=True)]
    full = _by_well(config, done.tail[config.batch_sizes.index(None)])[:, 0]
    return WellsResult(
        config=config,
        outcome=np.stack([outcome for outcome, _ in found]),
        returns=np.stack([apart for _, apart in found]),
        band=np.stack([full.min(axis=(1, 2)), full.max(axis=(1, 2))], axis=1),
        seconds=time.perf_counter() - clock,
    )


def _judge(config: Wells, tail: Array, lost: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Array]:
    """Return outcomes and returns (M, 2, N) of one batch size from its last steps; all at once take too much memory."""
    last, gone = _by_well(config, tail), _by_well(config, lost)
    with np.errstate(invalid="ignore"):  # infinite runs, set right below
        apart = np.abs(last[..., 2:] - last[..., :-2]).max(axis=-1)
    return classify(last, gone, config.radius), np.where(gone, math.inf, apart)


def _by_well(config: Wells, values: NDArray[Any]) -> NDArray[Any]:
    """Tell apart the starts from the two wells, (M, 2N, …) → (M, 2, N, …)."""
    return values.reshape(len(values), 2, config.replicas, *values.shape[2:])


def _coordinate(params: Params) -> Tensor:
    return cast(Tensor, params)[:, 0]


def estimates(result: WellsResult) -> Estimates:
    """Return what one coordinate says about P2-C13 and P2-X7."""
    full, inside = result.config.cell(None, INSIDE)
    return {
        "P2-C13.rejected": result.share(HEAD, ABOVE, SETTLED_SHARP),
        "P2-C13.sgd": result.share(HEAD, ABOVE, SETTLED_FLAT),
        "P2-C13.descent": result.share(None, INSIDE, SETTLED_FLAT),
        "P2-X7.left_minimiser": result.share(None, ABOVE, SETTLED_FLAT, LEFT, RIGHT, INFINITE),
        "P2-X7.kept_basin": result.share(None, ABOVE, SETTLED_SHARP, LEFT),
        "P2-X7.cycle": exact(float(result.returns[full, inside, 0].max())),
    }


def tables(result: WellsResult) -> dict[str, DataFrame]:
    """Return the share of every outcome, one row per batch size, step and start, and the cycles of full descent."""
    config = result.config
    cells = [(k, m, w) for k in range(len(config.batch_sizes)) for m in range(len(config.multiples)) for w in range(2)]
    cycles = [_cycle_row(config, m, result.band[m]) for m in range(len(config.multiples)) if config.multiples[m] > 1]
    return {
        "styblinski_outcomes": DataFrame([_row(result, *cell) for cell in cells]),
        "styblinski_cycles": DataFrame(cycles),
    }


def _row(result: WellsResult, k: int, m: int, well: int) -> dict[str, float | str]:
    config = result.config
    batch_size, lr = config.batch_sizes[k], float(config.lr[k, m])
    growth, flat = config.problem.lyapunov(lr, batch_size), config.problem.thresholds(batch_size).flat
    counts = np.bincount(result.outcome[k, m, well], minlength=len(OUTCOMES))
    return {
        "batch_size": batch_name(batch_size),
        "multiple": config.multiples[m],
        "lr": lr,
        "start": ("sharp", "flat")[well],
        "replicas": config.replicas,
        "of_flat_threshold": lr / flat,
        "lyapunov_sharp": growth.sharp,
        "lyapunov_flat": growth.flat,
        **{name: count / config.replicas for name, count in zip(OUTCOMES, counts, strict=True)},
    }


def _cycle_row(config: Wells, m: int, band: Array) -> dict[str, float]:
    lr = float(config.lr[config.batch_sizes.index(None), m])
    found = cycle(lr)
    return {
        "multiple": config.multiples[m],
        "lr": lr,
        "cycle_low": found.low,
        "cycle_high": found.high,
        "multiplier": found.multiplier,
        "band_low": float(band[0]),
        "band_high": float(band[1]),
        "of_crisis": lr / crisis(),
    }


def batch_name(batch_size: Batch) -> str:
    """Return a batch size as a table and a figure name it."""
    return "all" if batch_size is None else str(batch_size)


WELLS = Experiment("wells", ("P2-C13", "P2-X7"), lambda settings: run(configure(Wells, settings)), estimates, tables)
