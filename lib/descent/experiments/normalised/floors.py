"""How high sign descent hovers, and where: a bowl under noise of four shapes, with the response held equal.

The response is how steeply the mean update follows the gradient: for a sign twice the rate times the density of its
argument at the mean. At an equal response plain and averaged signs fall equally fast, so that what differs is noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import Purpose, Streams, every, sign
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, each, tidy
from descent.problems.noisy import Bowl
from descent.stats import Estimate, exact, mean, paired_ratio
from descent.theory.averages import Law, average_median, centre_density
from descent.theory.signs import ema, plain_floor, sign_floor, signum_floor

NOISES: tuple[Law, ...] = ("normal", "laplace", "student")
MOMENTA = (0.0, 0.5, 0.9)
ROUND = 1e-8  # relative change per step at which the chain has settled


@dataclass(frozen=True)
class Floors:
    """Bowls of curvature one and noise one; a rate is one over the noise of a batch in units of curvature times rate.

    Steps are counted from a start that is drawn as wide as the floor.
    """

    lr: float = 0.01
    momenta: tuple[float, ...] = MOMENTA
    replicas: Share = Share()
    coordinates: int = 16  # of every replica, each with noise of its own
    steps: int = 1000
    burn: int = 200
    look: int = 5
    chain_noise: tuple[float, ...] = (10.0, 30.0)  # of the exact chain, in units of curvature times rate
    skewed_lr: float = 0.003  # slow: the median is where descent stops in the limit
    skewed_steps: int = 4000
    skewed_burn: int = 500


@dataclass(frozen=True, eq=False)
class FloorsResult(Result[Floors]):
    """Mean squares at matched response (noises, M, N), at equal rate and at a larger batch (M, N).

    offsets (M, N) under skewed noise, and where the exact medians are, medians (M,).
    chain (M − 1, r): exact floors with momentum over those of plain sign descent at a batch N_s times as large.
    """

    matched: Array
    equal: Array
    larger: Array
    offsets: Array
    medians: Array
    chain: Array

    @property
    def diffusion(self) -> Array:
        """D of every momentum, (M,)."""
        return np.array([ema(m).diffusion for m in self.config.momenta])


def run(config: Floors, lab: Lab) -> FloorsResult:
    """Let every arm hover, and compute the chains."""
    kernels = [ema(m) for m in config.momenta]
    matched = []
    for law in NOISES:
        slopes = np.array([centre_density(law, kernel) for kernel in kernels])
        matched.append(_hover(config, lab, Bowl(law), config.lr * slopes[0] / slopes, config.momenta))
    same = np.full(len(kernels), config.lr)
    equal = _hover(config, lab, Bowl(), same, config.momenta)
    larger = [_hover(config, lab, Bowl(size=1 / math.sqrt(kernel.for_mean)), same[:1], (0.0,))[0] for kernel in kernels]
    chain = [
        [signum_floor(r, m, tolerance=ROUND) / plain_floor(r / math.sqrt(ema(m).for_mean)) for r in config.chain_noise]
        for m in config.momenta[1:]
    ]
    medians = np.array([-average_median("exponential", kernel) for kernel in kernels])
    offsets = _offsets(config, lab, medians)
    return FloorsResult(config, lab, np.stack(matched), equal, np.stack(larger), offsets, medians, np.array(chain))


def _hover(config: Floors, lab: Lab, bowl: Bowl, lr: Array, momenta: tuple[float, ...]) -> Array:
    """Return the mean square of every arm and replica, (A, N)."""
    arms = lab.arms(sign(lr.tolist(), momenta), config.replicas)
    width = arms.spread([sign_floor(rate, bowl.size, 1.0, ema(m)) for rate, m in zip(lr, momenta, strict=True)]).sqrt()
    start = _drawn(config, width)
    done = arms.run(bowl, start, config.burn + config.steps, probes={"square": every(config.look, _square)}, check=100)
    return done.average("square", config.burn)


def _square(x: Tensor) -> Tensor:
    return x.square().mean(1)


def _place(x: Tensor) -> Tensor:
    return x.mean(1)


def _drawn(config: Floors, width: Tensor) -> Callable[[Streams], Tensor]:
    """Return a start that is drawn with a standard deviation for every row."""

    def start(streams: Streams) -> Tensor:
        return streams.normal(Purpose.INIT, 0, (config.coordinates,)) * width.to(streams.dtype).unsqueeze(1)

    return start


def _offsets(config: Floors, lab: Lab, medians: Array) -> Array:
    """Return where arms hover under skewed noise, on average over time, (M, N); they start at the medians."""
    arms = lab.arms(sign(config.skewed_lr, config.momenta), config.replicas)
    at = arms.spread(medians, torch.float32)
    steps = config.skewed_burn + config.skewed_steps
    start = at.unsqueeze(1).expand(-1, config.coordinates)
    done = arms.run(Bowl("exponential"), start, steps, probes={"x": every(config.look, _place)}, check=100)
    return done.average("x", config.skewed_burn)


def estimates(result: FloorsResult) -> Estimates:
    """Return what floors and offsets say about N-3, N-4 and N-6."""
    seed, strong = result.lab.seed, -1
    normal, laplace, student = (each(paired_ratio, x[1:], x[:1], seed=seed) for x in result.matched)
    larger = each(paired_ratio, result.equal[1:], result.larger[1:], seed=seed)
    kernels = [ema(m) for m in result.config.momenta[1:]]
    shares = [scaled(found, 1 / kernel.floor_ratio) for found, kernel in zip(normal, kernels, strict=True)]
    return {
        "N-3.chain": [exact(value) for value in (result.chain / result.diffusion[1:, None]).flat],
        "N-3.larger": larger[strong],
        "N-4.normal": shares,
        "N-4.laplace": laplace[strong],
        "N-4.student": student[strong],
        "N-6.offset": [mean(x / median) for x, median in zip(result.offsets, result.medians, strict=True)],
    }


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """Return an estimate in other units, for a positive factor."""
    return replace(estimate, value=estimate.value * factor, low=estimate.low * factor, high=estimate.high * factor)


def tables(result: FloorsResult) -> Tables:
    """Return ratios of floors by noise and control, and offsets."""
    config, seed = result.config, result.lab.seed
    kernels = [ema(m) for m in config.momenta]
    plain = np.stack([result.equal[:1].repeat(len(kernels), 0), result.larger])
    return {
        "floors_matched": tidy(
            {"noise": NOISES, "momentum": config.momenta},
            ratio=each(paired_ratio, result.matched, result.matched[:, :1], seed=seed),
            normal_law=[kernel.floor_ratio for kernel in kernels],
        ),
        "floors_controls": tidy(
            {"control": ("equal rate", "larger batch"), "momentum": config.momenta},
            ratio=each(paired_ratio, result.equal[None], plain, seed=seed),
            law=[[k.diffusion / math.sqrt(k.for_mean) for k in kernels], [k.diffusion for k in kernels]],
        ),
        "offsets": tidy(
            {"momentum": config.momenta}, offset=each(mean, result.offsets),
            median=result.medians,
        ),
    }  # fmt: skip


FLOORS = Experiment(
    "floors", small=Floors(), run=run, estimates=estimates, tables=tables,
    large=Floors(replicas=Share(times=10), steps=4000, skewed_steps=10_000),
)  # fmt: skip
