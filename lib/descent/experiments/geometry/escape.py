"""Escape from an interpolating minimum of linear regression: which directions carry it, for SGD and for descent."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.experiments.arms import configure, in_parts, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.stability import threshold
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, mean
from descent.theory.noise_escape import closure_escape, eigen_rows, outside, outside_bound, second_moment_step

KEPT = (1, 5, 20)
"""The k of D_k."""


@dataclass(frozen=True)
class Escape:
    """Gaussian inputs of covariance diag(i^−decay), more dimensions than examples; every data set has its own edge.

    multiples: learning rates over the exact mean-square edge. Runs start from an isotropic displacement.
    """

    draws: int  # data sets
    walkers: int  # runs on the first data set, to check the exact moments
    seed: int
    device: str
    examples: int = 80
    dimension: int = 160
    decay: float = 0.5
    batch_sizes: tuple[int, ...] = (1, 8)
    multiples: tuple[float, ...] = (1.05, 1.2, 1.5, 2.0, 4.0)
    steps: int = 20
    descent: float = 2.2  # learning rate of gradient descent over the largest curvature
    watched: tuple[int, float, int] = (8, 1.2, 5)  # batch size, multiple and step of the simulated check

    @classmethod
    def cpu(cls, settings: Settings) -> Escape:
        """Take a few dozen data sets and some ten thousand walkers."""
        return cls(max(32, min(settings.replicas // 30, 64)), 40 * settings.replicas, settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Escape:
        """Take a thousand dimensions and a hundred thousand walkers."""
        return cls(
            max(32, settings.replicas // 20),
            100 * settings.replicas,
            settings.seed,
            settings.device,
            examples=500,
            dimension=1000,
        )


@dataclass(frozen=True, eq=False)
class EscapeResult:
    """Exact loss per eigendirection, sharpest first, (B, M, T + 1, N, q), and its descent (T + 1, N, q).

    curvature (N, q); edge (B, N); bound (B, M, K, N) on D_k; walked: loss of the walkers along the sharpest
    direction and along all others, (W, 2), at the watched step.
    """

    config: Escape
    curvature: Array
    edge: Array
    losses: Array
    descent: Array
    bound: Array
    walked: Array
    seconds: float

    def ratio(self, batch: int, multiple: int, k: int, step: int) -> Array:
        """Return the exact D_k of every data set, (N,)."""
        return outside(self.losses[batch, multiple, step], k)

    def displacement_slope(self, batch: int, multiple: int) -> Array:
        """Return the exponent of E w_i² in the curvature at the last step, (N,)."""
        logs = np.log(self.curvature) - np.log(self.curvature).mean(axis=1, keepdims=True)
        squares = np.log(self.losses[batch, multiple, -1] / self.curvature)
        return np.asarray((logs * squares).sum(axis=1) / (logs**2).sum(axis=1))


def run(config: Escape) -> EscapeResult:
    """Iterate exact moments on every data set, and walk on the first."""
    clock = time.perf_counter()
    streams = Streams(replica_seeds(config.seed, config.draws, config.device), torch.float64)
    scale = torch.arange(1, config.dimension + 1, dtype=torch.float64, device=config.device).pow(-config.decay / 2)
    curvature, rows = eigen_rows(streams.normal(Purpose.DATA, 0, (config.examples, config.dimension)) * scale)
    edge = np.array([to_numpy(threshold(rows @ rows.mT, b)) for b in config.batch_sizes])
    losses = np.array(
        [
            [_moments(config, curvature, rows, edge[i] * m, 1 / b) for m in config.multiples]
            for i, b in enumerate(config.batch_sizes)
        ]
    )
    values = to_numpy(curvature)
    bound = [
        [
            [[outside_bound(h, k, e * m, 1 / b) for h, e in zip(values, edge[i], strict=True)] for k in KEPT]
            for m in config.multiples
        ]
        for i, b in enumerate(config.batch_sizes)
    ]
    return EscapeResult(
        config,
        values,
        edge,
        losses,
        _descent(config, values),
        np.array(bound),
        _walk(config, rows[0], edge[config.batch_sizes.index(config.watched[0]), 0]),
        time.perf_counter() - clock,
    )


def _moments(config: Escape, curvature: Tensor, rows: Tensor, lr: Array, share: float) -> Array:
    """Return the loss per direction at every step, (T + 1, N, q), normalised to a total of one."""
    rates = torch.as_tensor(lr, device=config.device)
    moment = torch.diag_embed(torch.ones_like(curvature))
    found = []
    for step in range(config.steps + 1):
        if step:
            moment = second_moment_step(rows, moment, rates, share)
        parts = curvature * moment.diagonal(dim1=-2, dim2=-1)
        total = parts.sum(dim=-1, keepdim=True)
        found.append(to_numpy(parts / total))
        moment = moment / total[..., None]
    return np.array(found)


def _descent(config: Escape, curvature: Array) -> Array:
    """Return the same for gradient descent, in closed form."""
    steps = np.arange(config.steps + 1)[:, None, None]
    factor = 1 - config.descent * curvature / curvature.max(axis=1, keepdims=True)
    parts = curvature * np.abs(factor) ** (2 * steps)
    return np.asarray(parts / parts.sum(axis=-1, keepdims=True))


def _walk(config: Escape, rows: Tensor, edge: float) -> Array:
    """Return the loss of single runs along the sharpest direction and outside it at the watched step, (W, 2)."""
    batch, multiple, steps = config.watched
    everyone = Streams(replica_seeds(config.seed + 1, config.walkers, config.device), torch.float64)

    def measure(some: slice) -> Tensor:
        streams = everyone.subset(some)
        w = streams.normal(Purpose.INIT, 0, (rows.shape[1],))
        for step in range(steps):
            picked = streams.integers(Purpose.BATCH, step, len(rows), (batch,))
            counts = torch.zeros(len(w), len(rows), dtype=w.dtype, device=w.device)
            counts.scatter_add_(1, picked, torch.ones_like(picked, dtype=w.dtype))
            w = w - multiple * edge / batch * ((w @ rows.mT) * counts) @ rows
        loss = to_numpy(rows.square().mean(0) * w.square())
        return torch.from_numpy(np.stack([loss[:, 0], loss[:, 1:].sum(axis=1)], axis=1))

    return to_numpy(in_parts(measure, config.walkers, 10 * 8 * rows.shape[1]))


def estimates(result: EscapeResult) -> Estimates:
    """Return what the moments say about P5-C11, P5-C12 and P5-C13."""
    config = result.config
    near = config.multiples.index(1.2)
    after = 12
    against = np.log10(result.ratio(0, near, 1, after) / outside(result.descent[after], 1))
    return {
        "P5-C11.bound": _smallest_margin(result),
        "P5-C11.simulated": _simulated(result),
        "P5-C12.descent": mean(np.log10(outside(result.descent[-1], 1))),
        "P5-C12.sgd": mean(result.ratio(0, near, 1, -1)),
        "P5-C13.relative": mean(against),
        "P5-C13.absolute": mean(result.displacement_slope(0, config.multiples.index(4.0))),
    }


def _smallest_margin(result: EscapeResult) -> Estimate:
    """Return the least D_k over its bound, over steps and settings; mean over data sets."""
    config = result.config
    ratios = [
        outside(result.losses[i, j, 1:], k).min(axis=0) / result.bound[i, j, c]
        for i in range(len(config.batch_sizes))
        for j in range(len(config.multiples))
        for c, k in enumerate(KEPT)
    ]
    return mean(np.min(ratios, axis=0))


def _simulated(result: EscapeResult) -> Estimate:
    """Return D_1 of the walkers over its exact value."""
    batch, multiple, step = result.config.watched
    places = result.config.batch_sizes.index(batch), result.config.multiples.index(multiple)
    exact = float(result.ratio(*places, 1, step)[0])

    def ratio(drawn: Array) -> Array:
        means = drawn.mean(axis=1)
        return np.asarray(means[:, 1] / means[:, 0] / exact)

    return bootstrap(ratio, result.walked, seed=result.config.seed)


def tables(result: EscapeResult) -> dict[str, DataFrame]:
    """Return escape profiles of the first data set, and D_k with its slope over data sets."""
    config, first = result.config, result.curvature[0]
    rows = []
    for i, batch in enumerate(config.batch_sizes):
        for j, multiple in enumerate(config.multiples):
            closure = closure_escape(first, result.edge[i, 0] * multiple, 1 / batch)
            slope = result.displacement_slope(i, j)
            rows.append(
                {
                    "batch_size": batch,
                    "multiple": multiple,
                    "slope": slope.mean(),
                    "slope_sd": slope.std(),
                    "closure_D1": float(outside(closure.profile, 1)),
                }
                | {f"D{k}": result.ratio(i, j, k, -1).mean() for k in KEPT}
            )
    profile = {"curvature": first, "descent": result.descent[-1, 0]}
    profile |= {f"sgd_{m:g}": result.losses[0, j, -1, 0] for j, m in enumerate(config.multiples)}
    return {"escape": DataFrame(rows), "escape_profile": DataFrame(profile)}


ESCAPE = Experiment(
    "escape", ("P5-C11", "P5-C12", "P5-C13"), lambda settings: run(configure(Escape, settings)), estimates, tables
)
