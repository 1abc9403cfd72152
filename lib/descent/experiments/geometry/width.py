"""Does alignment depend on the number of parameters? Architectures of every width, and a net built to fail.

Random networks are measured against the residuals to other networks of their kind, which is the typical case, and at
the least score, which is the floor under all residuals. One ReLU neuron shows that the floor can be zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from pandas import concat
from torch import Tensor

from descent.arrays import Array
from descent.engine import Purpose, Streams
from descent.engine.arms import in_parts, to_numpy
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.alignment import loss_alignment
from descent.stats import Estimate, exact, furthest, mean, proportion
from descent.theory.features import ACTIVATIONS, alignment_floor, deep_linear, two_layer

DEEP, FEATURES = "deep linear", "random features"
ROUND_OFF = 1e-9  # what a number may pass its bound by


@dataclass(frozen=True)
class Width:
    """Random networks of growing width on Gaussian inputs; residuals against other networks of the same kind."""

    replicas: Share = Share(over=20, least=32, most=128)
    # data sets whose leaky nets are held against the floor: if none of n is below it, at most a share of
    # 1 − (0.05/140)^(1/n) is, in a family of 70 tests: a twentieth from n = 155 on
    floors: Share = Share(over=6, least=32, most=400)
    examples: int = 100
    inputs: int = 50
    activations: tuple[str, ...] = ("linear", "leaky", "relu", "tanh", "softplus")
    widths: tuple[int, ...] = (2, 8, 32, 128, 512, 2048)
    deep: tuple[int, ...] = (32, 128, 512)  # widths of the deep linear net
    depth: int = 4
    probes: int = 8  # residuals per network
    wide: int = 128  # slopes are fitted from this width on: below, the finite net's own fluctuation shows
    wide_first: int = 32  # and were meant to be from this one on

    @property
    def grid(self) -> dict[str, tuple[int, ...]]:
        """The widths by architecture."""
        return {**dict.fromkeys(self.activations, self.widths), DEEP: self.deep, FEATURES: self.widths}

    def layers(self, width: int) -> list[tuple[int, int]]:
        """Return the shapes of the layers of a deep linear net."""
        return [(width, self.inputs), *[(width, width)] * (self.depth - 2), (1, width)]

    def trained(self, name: str, width: int) -> int:
        """Return the number of parameters trained."""
        if name == DEEP:
            return sum(a * b for a, b in self.layers(width))
        return width if name == FEATURES else width * self.inputs

    def bytes_each(self, name: str, width: int) -> int:
        """Return about what a network takes in float64: n × n matrices, one per residual too, activations, weights."""
        n, weights = self.examples, self.trained(name, width) if name == DEEP else width * self.inputs
        return 8 * ((6 + self.probes) * n**2 + 8 * n * width + 8 * weights)


@dataclass(frozen=True, eq=False)
class WidthResult(Result[Width]):
    """Uncentred loss alignment and least score over mean score, (W, N), per architecture."""

    parameters: dict[str, Array]  # (W,)
    typical: dict[str, Array]
    worst: dict[str, Array]
    floor_ratio: Array  # (W, F): least score ratio over its derived floor, leaky activation
    dead: Array  # (N,): alignment when the one residual sits on an example that no neuron sees

    def wide(self, name: str, least: int = 0) -> Array:
        """Return the alignments of an architecture (W', N) at widths from `least` on, by default those of slopes."""
        return self.typical[name][np.array(self.config.grid[name]) >= (least or self.config.wide)]

    def per_decade(self, name: str, least: int = 0) -> Estimate:
        """Return the slope of alignment per decade of parameters, over widths from `least` on as in `wide`."""
        found = self.wide(name, least)
        logs = np.log10(self.parameters[name][-len(found) :])
        logs = logs - logs.mean()
        return mean(logs @ found / (logs @ logs))


def run(config: Width, lab: Lab) -> WidthResult:
    """Measure every architecture at every width."""
    streams = lab.streams(config.replicas, torch.float64)
    inputs = streams.normal(Purpose.DATA, 0, (config.examples, config.inputs))
    parameters, typical, worst = {}, {}, {}
    for name, widths in config.grid.items():
        parameters[name] = np.array([config.trained(name, width) for width in widths], dtype=np.float64)
        found = np.stack([_aligned(config, streams, inputs, name, width) for width in widths])
        typical[name], worst[name] = np.moveaxis(found, -1, 0)
    inner = streams.normal(Purpose.INIT, 999_999, (1, config.inputs))  # one neuron, and an example on its dark side
    neuron = two_layer(ACTIVATIONS["relu"], inputs, inner, torch.ones_like(inner[..., 0]))[1]
    unseen = torch.nn.functional.one_hot((inputs @ inner.mT).squeeze(-1).argmin(dim=-1), config.examples).to(inputs)
    dead = to_numpy(loss_alignment(neuron, unseen).uncentred)
    return WidthResult(config, lab, parameters, typical, worst, _floor_ratio(config, lab), dead)


def _floor_ratio(config: Width, lab: Lab) -> Array:
    """Return the least over the mean score of leaky nets over the floor that their data set sets it, (W, F)."""
    streams = lab.streams(config.floors, torch.float64)
    inputs = streams.normal(Purpose.DATA, 0, (config.examples, config.inputs))
    leaky = ACTIVATIONS["leaky"]

    def measure(width: int, rows: slice) -> Tensor:
        inner = _weights(streams.subset(rows), 7 * width + 100_000, (width, config.inputs))
        outer = torch.full_like(inner[..., 0], width**-0.5)  # its signs are squared away
        scores = two_layer(leaky, inputs[rows], inner, outer)[1].square().mean(-1)
        return scores.amin(-1) / scores.mean(-1)

    least = [
        in_parts(partial(measure, width), streams.replicas, config.bytes_each("leaky", width))
        for width in config.widths
    ]
    return np.stack([to_numpy(one) for one in least]) / to_numpy(alignment_floor(leaky, inputs))


def _aligned(config: Width, streams: Streams, inputs: Tensor, name: str, width: int) -> Array:
    """Return alignment and least score over mean score of every network, (N, 2), some networks at a time."""
    network = {DEEP: _deep, FEATURES: _features}.get(name, _two_layer)

    def measure(rows: slice) -> Tensor:
        gram, residuals = network(config, streams.subset(rows), inputs[rows], name, width)
        found = loss_alignment(gram.unsqueeze(-3), residuals)
        return torch.stack([found.uncentred.mean(-1), (found.scores.amin(-1) / found.scores.mean(-1))[:, 0]], dim=-1)

    return to_numpy(in_parts(measure, streams.replicas, config.bytes_each(name, width)))


# Each returns the Gram matrix (N, n, n) and residuals against a few other nets (N, P, n), which share their lower
# layers: it is the outer one that makes them differ.


def _deep(config: Width, streams: Streams, inputs: Tensor, name: str, width: int) -> tuple[Tensor, Tensor]:
    first, second = (
        [_weights(streams, 20 * width + 10 * draw + i, shape) for i, shape in enumerate(config.layers(width))]
        for draw in range(2)
    )
    outputs, gram = deep_linear(inputs, first)
    outer = torch.cat([second[-1], _weights(streams, 20 * width + 19, (config.probes - 1, width))], dim=1)
    hidden = inputs
    for weight in second[:-1]:
        hidden = hidden @ weight.mT
    return gram, outputs.unsqueeze(-2) - (hidden @ outer.mT).mT


def _features(config: Width, streams: Streams, inputs: Tensor, name: str, width: int) -> tuple[Tensor, Tensor]:
    features = torch.tanh(inputs @ _weights(streams, 7 * width + 100_000, (width, config.inputs)).mT)
    change = streams.normal(Purpose.INIT, 7 * width + 300_000, (config.probes, width))
    return features @ features.mT, (features @ change.mT).mT


def _two_layer(config: Width, streams: Streams, inputs: Tensor, name: str, width: int) -> tuple[Tensor, Tensor]:
    step, shape = 7 * width + 100_000, (width, config.inputs)
    inner, other = _weights(streams, step, shape), _weights(streams, step + 100_000, shape)
    signs = streams.signs(Purpose.INIT, step, (config.probes + 1, width)) / width**0.5
    outputs, gram = two_layer(ACTIVATIONS[name], inputs, inner, signs[:, 0])
    others = (ACTIVATIONS[name].value(inputs @ other.mT) @ signs[:, 1:].mT).mT
    return gram, outputs.unsqueeze(-2) - others


def _weights(streams: Streams, step: int, shape: tuple[int, int]) -> Tensor:
    """Draw a layer of variance 1/fan-in."""
    root: float = shape[1] ** 0.5
    return streams.normal(Purpose.INIT, step, shape) / root


def estimates(result: WidthResult) -> Estimates:
    """Return what the widths say about P5-C4, P5-C5, P5-C6 and P5-W4."""
    names, first = list(result.typical), result.config.wide_first
    levels = {name: [mean(row) for row in found] for name, found in result.typical.items()}
    broken = np.asarray((result.floor_ratio < 1 - ROUND_OFF).any(axis=0))
    return {
        "P5-C4.slope": [result.per_decade(name) for name in names],
        "P5-C4.slope_first": furthest([result.per_decade(name, first) for name in names], 0.0),
        "P5-C4.level": [level for name in names for level in levels[name]],
        "P5-C5.bound": proportion(int(broken.sum()), len(broken)),
        "P5-C5.typical": levels["leaky"],
        "P5-C6.constructed": exact(float(np.abs(result.dead).max())),
        "P5-C6.typical": [mean(row) for row in result.wide("relu")],
        "P5-C6.typical_first": furthest([mean(row) for row in result.wide("relu", first)]),
        "P5-W4.linear": levels[DEEP],
        "P5-W4.features": levels[FEATURES],
    }


def tables(result: WidthResult) -> Tables:
    """Return mean alignments, one row per architecture and width."""
    parts = [
        tidy({"architecture": [name], "parameters": result.parameters[name]},
             typical=found.mean(axis=1), worst=result.worst[name].mean(axis=1))
        for name, found in result.typical.items()
    ]  # fmt: skip
    return {"width": concat(parts, ignore_index=True)}


WIDTH = Experiment(
    "width", small=Width(), run=run, estimates=estimates, tables=tables,
    large=Width(
        Share(over=10, least=64), examples=1000, widths=(2, 8, 32, 128, 512, 2048, 8192), deep=(32, 128, 512, 1600)
    ),
)  # fmt: skip
