"""What averaging before a sign or a polar factor does to the mean update: the batch is larger by N_s.

A constant gradient under normal noise, the rule warmed up, the mean of what it returns, beside the error function and
the overlap of a large matrix. Every draw of the noise is taken with both signs, which have the same law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import Purpose
from descent.engine.muon import polar_factor
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, each, tidy
from descent.stats import mean
from descent.theory.polar import overlap
from descent.theory.signs import ema, sign_mean

MOMENTA = (0.0, 0.9)


@dataclass(frozen=True)
class Means:
    """Gradients in units of their noise, for signs, and signals in units of the noise's edge, for polar factors."""

    gradients: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    signals: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0)  # θ: 1 is where a direction leaves the noise's spectrum
    momenta: tuple[float, ...] = MOMENTA
    replicas: Share = Share(over=10, least=32)
    coordinates: int = 64  # of every replica, each with noise of its own
    steps: int = 400
    burn: int = 100
    size: int = 100  # of the matrices: the law is that of large ones
    matrices: Share = Share(over=10, least=32)
    memory: int = 80  # steps that a matrix is averaged over


@dataclass(frozen=True, eq=False)
class MeansResult(Result[Means]):
    """Mean signs (M, G, N) by momentum and gradient, and overlaps (M, S, N') by momentum and signal."""

    signs: Array
    overlaps: Array

    @property
    def sign_law(self) -> Array:
        """The error function, (M, G)."""
        config = self.config
        return np.stack([sign_mean(config.gradients, 1.0, ema(m).for_mean) for m in config.momenta])

    @property
    def overlap_law(self) -> Array:
        """The overlap of large matrices, (M, S)."""
        config = self.config
        return np.stack([overlap(np.sqrt(ema(m).for_mean) * np.array(config.signals)) for m in config.momenta])


def run(config: Means, lab: Lab) -> MeansResult:
    """Average noise step by step, add the gradient, and look at what comes out."""
    return MeansResult(config, lab, _signs(config, lab), _overlaps(config, lab))


def _signs(config: Means, lab: Lab) -> Array:
    streams = lab.streams(config.replicas)
    momenta = torch.tensor(config.momenta, device=lab.device).view(-1, 1, 1)
    gradients = torch.tensor(config.gradients, device=lab.device).view(-1, 1, 1)
    noise = torch.zeros(len(momenta), streams.replicas, config.coordinates, device=lab.device)
    total = torch.zeros(len(momenta), len(gradients), streams.replicas, device=lab.device)
    for step in range(config.burn + config.steps):
        fresh = streams.normal(Purpose.NOISE, step, (config.coordinates,))
        noise = torch.lerp(fresh.expand_as(noise), noise, momenta)
        if step >= config.burn:
            here = noise.unsqueeze(1)
            total += (torch.sign(here + gradients) + torch.sign(gradients - here)).mean(-1) / 2
    return _host(total / config.steps)


def _overlaps(config: Means, lab: Lab) -> Array:
    """Return uᵀ polar(M) v for the average M of a signal s·uvᵀ under noise; u and v are the first unit vectors."""
    n, streams = config.size, lab.streams(config.matrices, apart=1)
    momenta = torch.tensor(config.momenta, device=lab.device).view(-1, 1, 1, 1)
    noise = torch.zeros(len(momenta), streams.replicas, n, n, device=lab.device)
    for step in range(config.memory):
        noise = torch.lerp(streams.normal(Purpose.NOISE, step, (n, n)).expand_as(noise), noise, momenta)
    warm = 1 - momenta ** (2 * config.memory)  # of the noise's variance that has come by then
    noise = noise / warm.sqrt()
    found = []
    for signal in config.signals:
        both = torch.stack([noise, -noise])
        both[..., 0, 0] += signal * math.sqrt(n)
        found.append(polar_factor(both.flatten(0, 2)).view_as(both)[..., 0, 0].mean(0))
    return _host(torch.stack(found, dim=1))


def _host(values: Tensor) -> Array:
    return np.asarray(values.double().cpu())


def estimates(result: MeansResult) -> Estimates:
    """Return what the means say about N-1, each over its law."""
    signs, overlaps = (each(mean, x / law[..., None]) for x, law in _beside(result))
    return {"N-1.sign": list(signs.flat), "N-1.polar": list(overlaps.flat)}


def _beside(result: MeansResult) -> tuple[tuple[Array, Array], ...]:
    return (result.signs, result.sign_law), (result.overlaps, result.overlap_law)


def tables(result: MeansResult) -> Tables:
    """Return measured means and laws."""
    config = result.config
    (signs, sign_law), (overlaps, overlap_law) = _beside(result)
    return {
        "mean_sign": tidy(
            {"momentum": config.momenta, "gradient": config.gradients}, mean=each(mean, signs), law=sign_law
        ),
        "mean_overlap": tidy(
            {"momentum": config.momenta, "signal": config.signals}, overlap=each(mean, overlaps), law=overlap_law
        ),
    }


MEANS = Experiment(
    "means", small=Means(), run=run, estimates=estimates, tables=tables,
    large=Means(replicas=Share(), matrices=Share(over=2), size=400),
)  # fmt: skip
