"""Escape from an interpolating minimum of linear regression: which directions carry it, for SGD and for descent.

Second moments are iterated exactly on data sets that each have their own edge, and compared with the one-step bound,
with gradient descent, and, on the first data set, with walkers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine import Purpose
from descent.engine.arms import in_parts, to_numpy
from descent.experiments.geometry.samples import gaussian
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.stability import threshold
from descent.stats import Estimate, bootstrap, geometric_ratio, mean
from descent.theory.noise_escape import closure_escape, eigen_rows, outside, outside_bound, second_moment_step

KEPT = (1, 5, 20)  # the k of D_k
NEAR, FAR = 1.2, 4.0  # learning rates over the edge at which SGD is compared with descent, and is far beyond it
AFTER = 12  # steps after which the two are compared


@dataclass(frozen=True)
class Escape:
    """Gaussian inputs of covariance diag(i^−decay), every data set with its own edge; an isotropic displacement."""

    draws: Share = Share(over=30, least=32, most=64)  # data sets
    walkers: Share = Share(times=40)  # runs on the first data set, to check the exact moments
    examples: int = 80
    dimension: int = 160
    decay: float = 0.5
    batch_sizes: tuple[int, ...] = (1, 8)
    multiples: tuple[float, ...] = (1.05, 1.2, 1.5, 2.0, 4.0)  # learning rates over the exact mean-square edge
    steps: int = 20
    late: int = 40  # steps after which gradient descent, and SGD with batches of one, are looked at once more
    descent: float = 2.2  # learning rate of gradient descent over the largest curvature
    watched: tuple[int, float, int] = (8, 1.2, 5)  # batch size, multiple and step of the simulated check


@dataclass(frozen=True, eq=False)
class EscapeResult(Result[Escape]):
    """Exact losses per eigendirection, sharpest first."""

    curvature: Array  # (N, q)
    edge: Array  # (B, N)
    losses: Array  # (B, M, T + 1, N, q)
    descent: Array  # (L + 1, N, q): of gradient descent, until the late look
    late: Array  # (N, q): of SGD with the first batch size at 1.2 times its edge, at the late look
    bound: Array  # (B, M, K, N): on D_k
    walked: Array  # (W, 2): of walkers along the sharpest direction and along all others, at the watched step

    @property
    def slopes(self) -> Array:
        """The exponent of E w_i² in the curvature at the last step, (B, M, N)."""
        logs = np.log(self.curvature) - np.log(self.curvature).mean(axis=1, keepdims=True)
        squares = np.log(self.losses[:, :, -1] / self.curvature)
        return np.asarray((logs * squares).sum(axis=-1) / (logs**2).sum(axis=1))


def run(config: Escape, lab: Lab) -> EscapeResult:
    """Iterate exact moments on every data set, and walk on the first."""
    streams = lab.streams(config.draws, torch.float64)
    curvature, rows = eigen_rows(gaussian(streams, config.examples, config.dimension, config.decay, step=0))
    edge = np.array([to_numpy(threshold(rows @ rows.mT, b)) for b in config.batch_sizes])
    values, settings = to_numpy(curvature), list(zip(edge, config.batch_sizes, strict=True))

    def bounds(lr: Array, share: float) -> list[list[float]]:  # from below, on D_k of every data set, (K, N)
        return [[outside_bound(h, k, rate, share) for h, rate in zip(values, lr, strict=True)] for k in KEPT]

    losses = [[_moments(config, curvature, rows, e * m, 1 / b) for m in config.multiples] for e, b in settings]
    bound = [[bounds(e * m, 1 / b) for m in config.multiples] for e, b in settings]
    factor = 1 - config.descent * values / values.max(axis=1, keepdims=True)
    descent = values * np.abs(factor) ** (2 * np.arange(config.late + 1)[:, None, None])  # in closed form
    descent /= descent.sum(axis=-1, keepdims=True)
    late = _moments(replace(config, steps=config.late), curvature, rows, NEAR * edge[0], 1 / config.batch_sizes[0])
    walked = _walk(config, lab, rows[0], edge[config.batch_sizes.index(config.watched[0]), 0])
    return EscapeResult(config, lab, values, edge, np.array(losses), descent, late[-1], np.array(bound), walked)


def _moments(config: Escape, curvature: Tensor, rows: Tensor, lr: Array, share: float) -> Array:
    """Return the loss per direction at every step, (T + 1, N, q), normalised to a total of one; lr (N,)."""
    rates = torch.as_tensor(lr, device=rows.device)
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


def _walk(config: Escape, lab: Lab, rows: Tensor, edge: float) -> Array:
    """Return the loss of single runs along the sharpest direction and outside it at the watched step, (W, 2)."""
    batch, multiple, steps = config.watched
    everyone = lab.streams(config.walkers, torch.float64, apart=1)

    def measure(some: slice) -> Tensor:
        streams = everyone.subset(some)
        w = streams.normal(Purpose.INIT, 0, (rows.shape[1],))
        for step in range(steps):
            picked = streams.integers(Purpose.BATCH, step, len(rows), (batch,))
            counts = torch.zeros(len(w), len(rows), dtype=w.dtype, device=w.device)
            counts.scatter_add_(1, picked, torch.ones_like(picked, dtype=w.dtype))
            w = w - multiple * edge / batch * ((w @ rows.mT) * counts) @ rows
        return torch.from_numpy(parted(to_numpy(rows.square().mean(0) * w.square())))

    return to_numpy(in_parts(measure, everyone.replicas, 10 * 8 * rows.shape[1]))


def parted(losses: Array) -> Array:
    """Return the loss along the sharpest direction and along all others, (W, 2), of losses by direction (W, q)."""
    return np.stack([losses[:, 0], losses[:, 1:].sum(axis=1)], axis=1)


def walked_ratio(parts: Array, seed: int, over: float = 1.0) -> Estimate:
    """Return D_1 of walkers over a number, from their losses (W, 2) along the sharpest direction and outside it."""
    return bootstrap(lambda drawn: drawn.mean(1)[:, 1] / drawn.mean(1)[:, 0] / over, parts, seed=seed)


def estimates(result: EscapeResult) -> Estimates:
    """Return what the moments say about P5-C11, P5-C12, P5-C13 and P5-X7."""
    config, slopes = result.config, result.slopes
    near, far = config.multiples.index(NEAR), config.multiples.index(FAR)
    batch, multiple, step = config.watched
    watched = result.losses[config.batch_sizes.index(batch), config.multiples.index(multiple), step, 0]
    margins = [outside(result.losses[:, :, 1:], k).min(axis=2) / result.bound[:, :, c] for c, k in enumerate(KEPT)]
    descent = outside(result.descent[config.steps], 1)
    return {
        "P5-C11.bound": [mean(cell) for cell in np.reshape(margins, (-1, len(descent)))],
        "P5-C11.bound_first": mean(np.min(margins, axis=(0, 1, 2))),
        "P5-C11.simulated": walked_ratio(result.walked, result.lab.seed, float(outside(watched, 1))),
        "P5-C12.descent": geometric_ratio(descent, np.ones_like(descent)),
        "P5-C12.descent_first": mean(outside(result.descent[-1], 1)),
        "P5-C12.sgd": mean(outside(result.losses[0, near, -1], 1)),
        "P5-C12.sgd_first": mean(outside(result.late, 1)),
        "P5-C13.relative": _against(result),
        "P5-X7.far": [mean(cell) for cell in slopes[:, far]],
        "P5-X7.grows": [mean(cell) for cell in slopes[:, far] - slopes[:, 0]],
    }


def _against(result: EscapeResult) -> list[Estimate]:
    """Return D_k of SGD over that of descent, for every k, batch size and learning rate."""
    cells = result.losses[:, :, AFTER].reshape(-1, *result.curvature.shape)
    return [geometric_ratio(outside(cell, k), outside(result.descent[AFTER], k)) for k in KEPT for cell in cells]


def tables(result: EscapeResult) -> Tables:
    """Return escape profiles of the first data set, and D_k with its slope over data sets."""
    config, first, ends = result.config, result.curvature[0], result.losses[:, :, -1]
    settings, slope = list(zip(result.edge[:, 0], config.batch_sizes, strict=True)), result.slopes
    axes = {"batch_size": config.batch_sizes, "multiple": config.multiples}
    closure = [[outside(closure_escape(first, e * m, 1 / b).profile, 1) for m in config.multiples] for e, b in settings]
    sharp = {f"D{k}": outside(ends, k).mean(axis=-1) for k in KEPT}
    escape = tidy(axes, slope=slope.mean(axis=-1), slope_sd=slope.std(axis=-1), closure_D1=closure, **sharp)
    profile = {f"sgd_{m:g}": ends[0, j, 0] for j, m in enumerate(config.multiples)}
    about = {"curvature": first, "descent": result.descent[config.steps, 0]}
    return {"escape": escape, "escape_profile": DataFrame(about | profile)}


ESCAPE = Experiment(
    "escape", small=Escape(), large=Escape(Share(over=20, least=32), Share(times=100), examples=500, dimension=1000),
    run=run, estimates=estimates, tables=tables,
)  # fmt: skip
