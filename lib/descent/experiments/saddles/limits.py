"""The flow behind the noise: how fast paths of streaming PCA approach the gradient flow as the step shrinks.

Paths of one effective time are compared with the flow at several effective steps: without noise, one by one, and in
the mean. The exponents of the distances are what a limit theorem promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import Every, every, heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.problems.pca import StreamingPCA, error, overlap
from descent.stats import bootstrap, exact, mean, slope

DOUBLE = torch.float64  # for what has no noise


@dataclass(frozen=True)
class Flow:
    """Paths from a generic start over a fixed effective time, at several effective steps lr/(1 − momentum)."""

    problem: StreamingPCA = StreamingPCA()
    effective: tuple[float, ...] = (3.2e-2, 8e-3, 2e-3, 5e-4)  # falling; exponents are those of the last `fitted`
    replicas: Share = Share(times=4)
    start: tuple[float, ...] = (0.3, 0.9, 0.2, 0.2)  # far enough from the saddle that no path crosses to the other side
    horizon: float = 3.0  # of effective time lr·k/(1 − momentum)
    frames: int = 60  # points of time at which paths are compared with the flow
    fitted: int = 3
    patience: float = 10.0  # effective time given to the noise-free paths to arrive, or to stay

    @property
    def still(self) -> StreamingPCA:
        """The problem without noise."""
        return replace(self.problem, samples="mean")

    @property
    def origin(self) -> Array:
        """The start on the unit sphere, (1, d)."""
        return np.asarray(np.asarray(self.start)[None] / np.linalg.norm(self.start))


@dataclass(frozen=True, eq=False)
class FlowResult:
    """Largest distances to the flow per effective step (S,), over the frames of a path.

    quiet (2, S): noise-free recursion, momentum 0 and headline; spread (N, S): each noisy path; norm (N, S): largest
    | ‖v‖ − 1 | of each; deviation: per step (N, K·d), path minus flow at K frames. arrival: final error of the
    noise-free path from the generic start; departure: final squared overlap of the one from exactly the saddle.
    """

    config: Flow
    lab: Lab
    quiet: Array
    spread: Array
    norm: Array
    deviation: tuple[Array, ...]
    arrival: float
    departure: float

    @property
    def mean_path(self) -> Array:
        """Largest distance of the mean path to the flow, (S,)."""
        return np.array([_largest(part.mean(axis=0), self.config) for part in self.deviation])


def run(config: Flow, lab: Lab) -> FlowResult:
    """Compare paths with the flow at every effective step; without noise, wait until they have arrived."""
    head, pair = (lab.momentum,), (0.0, lab.momentum)
    noisy = [_deviation(config, lab, config.problem, e, head, config.replicas) for e in config.effective]
    quiet = [_deviation(config, lab, config.still, e, pair, 1, DOUBLE)[0] for e in config.effective]
    patient = lab.arms(heavy_ball(config.effective[1] * (1 - lab.momentum), lab.momentum), 2, DOUBLE)
    start = torch.cat([torch.as_tensor(config.origin), config.still.at(1, 1, DOUBLE)])
    final = patient.run(config.still, start, round(config.patience / config.effective[1]))
    return FlowResult(
        config, lab,
        quiet=np.stack([_largest(part[:, 0], config) for part in quiet], axis=1),
        spread=np.stack([_largest(part[0], config) for part, _ in noisy], axis=1),
        norm=np.stack([norm[0] for _, norm in noisy], axis=1),
        deviation=tuple(part[0] for part, _ in noisy),
        arrival=float(final.end(error)[0, 0]), departure=float(final.end(overlap)[0, 1]),
    )  # fmt: skip


def _deviation(
    config: Flow, lab: Lab, problem: StreamingPCA, effective: float, momentum: Sequence[float], n: Share | int,
    dtype: torch.dtype = torch.float32,
) -> tuple[Array, Array]:  # fmt: skip
    """Return path minus flow (A, N, K·d) at the frames, and the largest | ‖v‖ − 1 | (A, N)."""
    arms = lab.arms(heavy_ball([effective * (1 - m) for m in momentum], momentum), n, dtype)
    steps = round(config.horizon / effective)
    probe: Every[torch.Tensor] = every(max(1, steps // config.frames), lambda params: params)
    done = arms.run(problem, torch.as_tensor(config.origin, dtype=dtype), steps, probes={"v": probe})
    paths, flow = done["v"], problem.flow(config.origin[0], effective * done.at("v"))
    norm = np.abs(np.linalg.norm(paths, axis=-1) - 1).max(axis=-1)
    return (paths - flow).reshape(*norm.shape, -1), norm


def _largest(deviation: Array, config: Flow) -> Array:
    """Return the largest distance over the frames, (…, K·d) → (…)."""
    shape = (*deviation.shape[:-1], -1, len(config.start))
    return np.asarray(np.linalg.norm(deviation.reshape(shape), axis=-1).max(axis=-1))


def estimates(result: FlowResult) -> Estimates:
    """Return what the flow says about P3-C5, P3-C14 and P3-C15."""
    config, seed, size = result.config, result.lab.seed, len(result.spread)
    small = slice(len(config.effective) - config.fitted, None)
    steps = np.array(config.effective[small])
    logs = np.log(steps) - np.log(steps).mean()

    def exponent(drawn: Array) -> Array:
        """Return the exponent of the mean path; replicas are drawn as weights, which is one matrix product."""
        weights = np.stack([np.bincount(row.astype(np.int64), minlength=size) for row in drawn]) / size
        distances = [_largest(weights @ part, config) for part in result.deviation[small]]
        return np.asarray(np.log(np.stack(distances, axis=1)) @ logs / (logs @ logs))

    return {
        "P3-C5.bias": exact(float(np.polyfit(np.log(steps), np.log(result.quiet[1, small]), 1)[0])),
        "P3-C5.spread": slope(steps, result.spread[:, small], seed),
        "P3-C5.mean_path": bootstrap(exponent, np.arange(size), seed=seed),
        "P3-C14.exponent": slope(steps, result.norm[:, small], seed),
        "P3-C15.reaches": exact(result.arrival),
        "P3-C15.stays": exact(result.departure),
    }


def tables(result: FlowResult) -> Tables:
    """Return the distances, one row per effective step."""
    plain, momentum = result.quiet
    frame = tidy(
        {"effective_step": result.config.effective}, noise_free_plain=plain, noise_free_momentum=momentum,
        mean_path=result.mean_path, path=each(mean, result.spread.T), norm=each(mean, result.norm.T),
    )  # fmt: skip
    return {"flow": frame.rename(columns={"path": "path_value", "norm": "norm_value"})}


LARGE = Flow(effective=(3.2e-2, 8e-3, 2e-3, 5e-4, 1.25e-4), replicas=Share(times=100))
FLOW = Experiment("flow", small=Flow(), large=LARGE, run=run, estimates=estimates, tables=tables)
