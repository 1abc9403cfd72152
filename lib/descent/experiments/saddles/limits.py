"""The flow behind the noise: how fast paths of streaming PCA approach the gradient flow as the step shrinks."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.engine.probes import Params, every
from descent.engine.train import train
from descent.experiments.arms import Arms, Array, arms_at, configure, rows_of
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.pca import StreamingPCA, error, overlap
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, exact, mean, slope


@dataclass(frozen=True)
class Flow:
    """Paths from a generic start over a fixed effective time, at several effective steps lr/(1 − momentum)."""

    problem: StreamingPCA
    effective: tuple[float, ...]  # falling; exponents are fitted to the last `fitted` of them
    momentum: float
    replicas: int
    seed: int
    device: str
    start: tuple[float, ...] = (0.3, 0.9, 0.2, 0.2)  # far enough from the saddle that no path crosses to the other side
    horizon: float = 3.0  # of effective time lr·k/(1 − momentum)
    frames: int = 60  # points of time at which paths are compared with the flow
    fitted: int = 3
    patience: float = 10.0  # effective time given to the noise-free paths to arrive, or to stay

    @classmethod
    def cpu(cls, settings: Settings) -> Flow:
        """Take three steps in the asymptotic range and one outside it, and four times the replicas."""
        return cls._of(settings, 4 * settings.replicas, 3.2e-2, 8e-3, 2e-3, 5e-4)

    @classmethod
    def paper(cls, settings: Settings) -> Flow:
        """Take a hundred times the replicas and one smaller step."""
        return cls._of(settings, 100 * settings.replicas, 3.2e-2, 8e-3, 2e-3, 5e-4, 1.25e-4)

    @classmethod
    def _of(cls, settings: Settings, replicas: int, *effective: float) -> Flow:
        return cls(StreamingPCA(), effective, settings.momentum, replicas, settings.seed, settings.device)

    @property
    def origin(self) -> Array:
        """The start on the unit sphere, (d,)."""
        return np.asarray(np.asarray(self.start) / np.linalg.norm(self.start))


@dataclass(frozen=True, eq=False)
class FlowResult:
    """Largest distances to the flow per effective step (S,), over the frames of a path.

    quiet (2, S): noise-free recursion, momentum 0 and headline; spread (N, S): each noisy path; norm (N, S): largest
    | ‖v‖ − 1 | of each; deviation: per step (N, K·d), path minus flow at K frames. arrival: final error of the
    noise-free path from the generic start; departure: final squared overlap of the one from exactly the saddle.
    """

    config: Flow
    quiet: Array
    spread: Array
    norm: Array
    deviation: tuple[Array, ...]
    arrival: float
    departure: float
    seconds: float

    @property
    def mean_path(self) -> Array:
        """Largest distance of the mean path to the flow, (S,)."""
        return np.array([_largest(part.mean(axis=0), self.config) for part in self.deviation])


def run(config: Flow) -> FlowResult:
    """Compare paths with the flow at every effective step."""
    clock = time.perf_counter()
    noisy = [_deviation(config, config.problem, e, (config.momentum,), config.replicas) for e in config.effective]
    still = replace(config.problem, samples="mean")
    quiet = [_deviation(config, still, e, (0.0, config.momentum), 1, torch.float64)[0] for e in config.effective]
    arrival, departure = _patient(config, still)
    return FlowResult(
        config=config,
        quiet=np.stack([_largest(part[:, 0], config) for part in quiet], axis=1),
        spread=np.stack([_largest(part[0], config) for part, _ in noisy], axis=1),
        norm=np.stack([norm[0] for _, norm in noisy], axis=1),
        deviation=tuple(part[0] for part, _ in noisy),
        arrival=arrival,
        departure=departure,
        seconds=time.perf_counter() - clock,
    )


def _deviation(
    config: Flow,
    problem: StreamingPCA,
    effective: float,
    momentum: tuple[float, ...],
    replicas: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[Array, Array]:
    """Return path minus flow (A, N, K·d) at the frames, and the largest | ‖v‖ − 1 | (A, N)."""
    rates = tuple(effective * (1 - m) for m in momentum)
    arms = Arms(rates, momentum, replicas, config.seed, config.device)
    steps = round(config.horizon / effective)
    start = torch.as_tensor(config.origin, dtype=dtype, device=config.device).expand(arms.rows, -1)
    probe = {"v": every(max(1, steps // config.frames), _whole)}
    series = train(problem, start, arms.hyper, steps, arms.streams(dtype), probes=probe).records["v"]
    paths = arms.split_series(series)
    flow = problem.flow(config.origin, effective * series.steps.numpy())
    norm = np.abs(np.linalg.norm(paths, axis=-1) - 1).max(axis=-1)
    return (paths - flow).reshape(len(rates), replicas, -1), norm


def _whole(params: Params) -> Tensor:
    return cast(Tensor, params)


def _largest(deviation: Array, config: Flow) -> Array:
    """Return the largest distance over the frames, (…, K·d) → (…)."""
    shape = (*deviation.shape[:-1], -1, len(config.start))
    return np.asarray(np.linalg.norm(deviation.reshape(shape), axis=-1).max(axis=-1))


def _patient(config: Flow, still: StreamingPCA) -> tuple[float, float]:
    """Return the final error from the generic start, and the final squared overlap from exactly the saddle."""
    arms = arms_at(config.effective[1] * (1 - config.momentum), (config.momentum,), 2, config.seed, config.device)
    start = torch.stack([torch.as_tensor(config.origin), still.at(1, 1, torch.float64)[0]]).to(config.device)
    steps = round(config.patience / config.effective[1])
    final = train(still, start, arms.hyper, steps, arms.streams(torch.float64)).params
    return float(error(final)[0]), float(overlap(final)[1])


def estimates(result: FlowResult) -> Estimates:
    """Return what the flow says about P3-C5, P3-C14 and P3-C15."""
    config, seed = result.config, result.config.seed
    small = slice(len(config.effective) - config.fitted, None)
    steps = np.array(config.effective[small])
    return {
        "P3-C5.bias": exact(float(np.polyfit(np.log(steps), np.log(result.quiet[1, small]), 1)[0])),
        "P3-C5.spread": slope(steps, result.spread[:, small], seed),
        "P3-C5.mean_path": _mean_slope(result, steps, small),
        "P3-C14.exponent": slope(steps, result.norm[:, small], seed),
        "P3-C15.reaches": exact(result.arrival),
        "P3-C15.stays": exact(result.departure),
    }


def _mean_slope(result: FlowResult, steps: Array, small: slice) -> Estimate:
    """Return the exponent of the mean path's distance; resamples replicas as weights, which is one matrix product."""
    logs = np.log(steps) - np.log(steps).mean()

    def exponent(drawn: Array) -> Array:
        size = result.config.replicas
        weights = np.stack([np.bincount(row.astype(np.int64), minlength=size) for row in drawn]) / size
        distances = [_largest(weights @ part, result.config) for part in result.deviation[small]]
        return np.asarray(np.log(np.stack(distances, axis=1)) @ logs / (logs @ logs))

    return bootstrap(exponent, np.arange(result.config.replicas), seed=result.config.seed)


def tables(result: FlowResult) -> dict[str, DataFrame]:
    """Return the distances, one row per effective step."""
    frame = {
        "effective_step": result.config.effective,
        "noise_free_plain": result.quiet[0],
        "noise_free_momentum": result.quiet[1],
        "mean_path": result.mean_path,
    }
    for name, values in (("path", result.spread), ("norm", result.norm)):
        found = [mean(column) for column in values.T]
        frame |= {f"{name}_{end}": part for end, part in rows_of(found).items()}
    return {"flow": DataFrame(frame)}


FLOW = Experiment(
    "flow", ("P3-C5", "P3-C14", "P3-C15"), lambda settings: run(configure(Flow, settings)), estimates, tables
)
